//! Rules of what bounds the runs of a definition.

use super::{P, check};

/// Checks members at the top of a definition.
fn top(members: &str, expected: &[(P, &str)]) {
    check(
        &format!("name: x\nstart: a\n{members}\nnodes: {{a: {{action: {{kind: mock}}}}}}\n"),
        expected,
    );
}

fn rate(rate: &str, expected: &[(P, &str)]) {
    let expected: Vec<_> =
        expected.iter().map(|(code, at)| (*code, format!("/rate_limit{at}"))).collect();
    let expected: Vec<_> = expected.iter().map(|(code, at)| (*code, at.as_str())).collect();
    top(&format!("rate_limit: {rate}"), &expected);
}

#[test]
fn a_rate_is_a_limit_in_a_period() {
    rate("{limit: 100, period: 1m}", &[]);
    rate("{key: '${input.user}', limit: 1, period: 30d, then: drop}", &[]);
    rate("{key: 'of ${input.user}', limit: 100000, period: 1s, burst: 100000, then: queue}", &[]);
    rate("{period: 1m}", &[(P::MissingKey, "")]);
    rate("{limit: 1}", &[(P::MissingKey, "")]);
    rate("{limit: 0, period: 1m}", &[(P::InvalidValue, "/limit")]);
    rate("{limit: 100001, period: 1m}", &[(P::InvalidValue, "/limit")]);
    rate("{limit: 1, period: 999ms}", &[(P::InvalidValue, "/period")]);
    rate("{limit: 1, period: 31d}", &[(P::InvalidValue, "/period")]);
    rate("{limit: 4, period: 1m, burst: 5}", &[(P::InvalidValue, "/burst")]);
    rate("{limit: 4, period: 1m, burst: 0}", &[(P::InvalidValue, "/burst")]);
    rate("{limit: 4, period: 1m, then: cancel_oldest}", &[(P::InvalidValue, "/then")]);
    rate("{limit: 4, period: 1m, per: 1m}", &[(P::UnknownKey, "/per")]);
    rate("{key: user, limit: 4, period: 1m}", &[(P::InvalidValue, "/key")]);
    rate("{key: '${state.user}', limit: 4, period: 1m}", &[(P::UndeclaredName, "/key")]);
}

#[test]
fn a_rate_and_a_concurrency_have_one_key() {
    let both = |concurrency: &str, rate: &str| {
        format!(
            "concurrency: {{{concurrency}limit: 2}}\nrate_limit: {{{rate}limit: 9, period: 1h}}"
        )
    };
    let (user, team) = ("key: '${input.user}', ", "key: '${input.team}', ");
    top(&both(user, user), &[]);
    top(&both("", ""), &[]);
    for (one, other) in [(user, team), (user, ""), ("", team)] {
        top(&both(one, other), &[(P::InvalidValue, "/rate_limit/key")]);
    }
}

#[test]
fn a_priority_orders_the_queue_of_either() {
    top("priority: 3\nconcurrency: {limit: 2}", &[]);
    top("priority: '${input.n}'\nrate_limit: {limit: 2, period: 1m}", &[]);
    top("priority: 3", &[(P::InvalidValue, "/priority")]);
    top("priority: soon\nrate_limit: {limit: 2, period: 1m}", &[(P::InvalidValue, "/priority")]);
}
