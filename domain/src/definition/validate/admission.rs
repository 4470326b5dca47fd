//! Checking what bounds the runs of a definition.

use serde_json::Value;

use super::super::ProblemCode;
use super::super::model::RateLimitSpec;
use super::Checker;
use super::scopes::Names;
use crate::limits;
use crate::span::Span;

pub(super) fn check(checker: &mut Checker<'_>) {
    let definition = checker.definition;
    let (concurrency, rate) = (&definition.concurrency, &definition.rate_limit);
    if let Some(concurrency) = concurrency {
        within(checker, "/concurrency/limit", concurrency.limit, limits::CONCURRENT_RUNS);
        check_key(checker, "/concurrency/key", concurrency.key.as_ref());
    }
    if let Some(rate) = rate {
        check_rate(checker, rate);
    }
    if let (Some(concurrency), Some(rate)) = (concurrency, rate)
        && concurrency.key != rate.key
    {
        let wanted = match &concurrency.key {
            Some(key) => format!("give {key}, as `concurrency` does"),
            None => "drop it, as `concurrency` has none".to_owned(),
        };
        let message = format!("`concurrency` and `rate_limit` count by one key: {wanted}");
        checker.problem(ProblemCode::InvalidValue, "/rate_limit/key", message);
    }
    let Some(priority) = definition.priority.as_deref() else { return };
    if concurrency.is_none() && rate.is_none() {
        let message = "a priority orders the queue of `concurrency` or `rate_limit`: give one of \
                       them too, or drop it";
        checker.problem(ProblemCode::InvalidValue, "/priority", message);
    }
    match priority {
        Value::String(text) if !text.contains("${") => {
            let message = "give a whole number, or an expression as ${…}";
            checker.problem(ProblemCode::InvalidValue, "/priority", message);
        }
        Value::String(_) => checker.value("/priority", priority, &Names::of_start()),
        _ => {}
    }
}

fn check_rate(checker: &mut Checker<'_>, rate: &RateLimitSpec) {
    within(checker, "/rate_limit/limit", rate.limit, limits::RATE);
    check_key(checker, "/rate_limit/key", rate.key.as_ref());
    let periods = limits::RATE_PERIOD_MS;
    if !periods.contains(&rate.period.as_millis()) {
        let [least, most] = [*periods.start(), *periods.end()].map(Span::from_millis);
        let message = format!("the period must be {least} to {most}");
        checker.problem(ProblemCode::InvalidValue, "/rate_limit/period", message);
    }
    if rate.burst.is_some_and(|burst| !(1..=rate.limit).contains(&burst)) {
        let message = format!("the burst must be 1 to the limit, {}", rate.limit);
        checker.problem(ProblemCode::InvalidValue, "/rate_limit/burst", message);
    }
}

fn within(checker: &mut Checker<'_>, pointer: &str, limit: u32, most: u32) {
    if !(1..=most).contains(&limit) {
        let message = format!("the limit must be 1 to {most}");
        checker.problem(ProblemCode::InvalidValue, pointer, message);
    }
}

fn check_key(checker: &mut Checker<'_>, pointer: &str, key: Option<&String>) {
    let Some(key) = key else { return };
    if key.contains("${") {
        checker.value(pointer, &Value::String(key.clone()), &Names::of_start());
    } else {
        let message = "give the key as an expression, as in ${input.user}; without a key all runs \
                       of the definition are counted together";
        checker.problem(ProblemCode::InvalidValue, pointer, message);
    }
}
