//! Rules of nodes that need no worker.

use super::{P, check, node};

/// Checks the `wait` of a node; pointers are below it.
fn wait(wait: &str, expected: &[(P, &str)]) {
    below("wait", wait, expected);
}

fn gate(gate: &str, expected: &[(P, &str)]) {
    below("gate", gate, expected);
}

fn below(kind: &str, spec: &str, expected: &[(P, &str)]) {
    let expected: Vec<_> =
        expected.iter().map(|(code, at)| (*code, format!("/nodes/a/{kind}{at}"))).collect();
    let expected: Vec<_> = expected.iter().map(|(code, at)| (*code, at.as_str())).collect();
    node(&format!("{{{kind}: {spec}}}"), &expected);
}

fn workflow(workflow: &str, expected: &[(P, &str)]) {
    below("workflow", workflow, expected);
}

#[test]
fn a_child_names_a_definition_and_maps_its_input() {
    workflow("{definition: helper}", &[]);
    workflow("{definition: helper@2, input: {n: '${item}'}, on_failure: catch}", &[]);
    workflow("{definition: '${input.which}@2'}", &[]);
    for (on_failure, problems) in
        [("propagate", vec![]), ("catch", vec![(P::InvalidValue, "/transitions/0/on")])]
    {
        let child = format!("{{definition: helper, on_failure: {on_failure}}}");
        let nodes =
            format!("a: {{workflow: {child}, timeout: 1h}}, b: {{compute: {{state.x: 1}}}}");
        let late = "{from: a, to: b, on: timeout}";
        check(
            &format!("name: x\nstart: a\nnodes: {{{nodes}}}\ntransitions: [{late}]\n"),
            &problems,
        );
    }
    workflow("{}", &[(P::MissingKey, "")]);
    workflow("{definition: 'a b'}", &[(P::InvalidValue, "/definition")]);
    workflow("{definition: helper@0}", &[(P::InvalidValue, "/definition")]);
    workflow("{definition: '${inptu.which}'}", &[(P::UndeclaredName, "/definition")]);
    workflow("{definition: helper, input: {n: '${result}'}}", &[(P::UndeclaredName, "/input/n")]);
    workflow("{definition: helper, on_failure: ignore}", &[(P::InvalidValue, "/on_failure")]);
    workflow("{definition: helper, labels: {a/b: x, c: '${item.id}', d: null}}", &[]);
    workflow("{definition: helper, labels: {'a b': x}}", &[(P::InvalidName, "/labels/a b")]);
    workflow("{definition: helper, labels: {a: 7}}", &[(P::InvalidValue, "/labels/a")]);
    workflow("{definition: helper, labels: {a: '${reslt}'}}", &[(P::UndeclaredName, "/labels/a")]);
    workflow("{definition: helper, version: 2}", &[(P::UnknownKey, "/version")]);
    node("{workflow: {definition: helper}, timeout: 1h, output: {state.x: '${result}'}}", &[]);
    for (key, value) in [("input", "{n: 1}"), ("retry", "{}"), ("repeatable", "false")] {
        let place = format!("/nodes/a/{key}");
        node(
            &format!("{{workflow: {{definition: helper}}, {key}: {value}}}"),
            &[(P::InvalidValue, place.as_str())],
        );
    }
}

#[test]
fn a_wait_has_exactly_one_thing_to_wait_for() {
    wait("{for: 10m}", &[]);
    wait("{for: '${input.span}'}", &[]);
    wait("{until: '2026-01-31T12:00:00+01:00'}", &[]);
    wait("{signal: paid, when: 'signal.payload.id == input.id', timeout: 1h}", &[]);
    wait("{}", &[(P::MissingKey, "")]);
    wait("{for: 10m, signal: x}", &[(P::InvalidValue, "/signal")]);
    wait("{for: soon}", &[(P::InvalidValue, "/for")]);
    wait("{until: tomorrow}", &[(P::InvalidValue, "/until")]);
    wait("{until: '${inptu.at}'}", &[(P::UndeclaredName, "/until")]);
    wait("{signal: 'a b'}", &[(P::InvalidName, "/signal")]);
    wait("{signal: x, timeout: long}", &[(P::InvalidValue, "/timeout")]);
    wait("{signal: x, when: 'result.ok'}", &[(P::UndeclaredName, "/when")]);
    wait("{signal: x, when: '('}", &[(P::InvalidExpression, "/when")]);
    wait("{signal: x, wen: 'signal.ok'}", &[(P::UnknownKey, "/wen")]);
    wait(
        "{for: 10m, when: 'signal.ok', timeout: 1h}",
        &[(P::InvalidValue, "/when"), (P::InvalidValue, "/timeout")],
    );
}

#[test]
fn a_gate_has_a_title_and_can_be_approved() {
    gate("{title: 'Pay ${input.sum}?'}", &[]);
    gate(
        "{title: x, form: {type: object}, assignees: [a, '${input.b}'], approvals: 2, \
          self_approval: false, timeout: 1d, on_timeout: reject}",
        &[],
    );
    gate("{title: x, assignees: '${state.who}', roles: [admin], approvals: 3}", &[]);
    gate("{title: ' '}", &[(P::InvalidValue, "/title")]);
    gate("{title: '${rsult}'}", &[(P::UndeclaredName, "/title")]);
    gate("{title: x, form: {type: strin}}", &[(P::InvalidSchema, "/form/type")]);
    gate("{title: x, assignees: me}", &[(P::InvalidValue, "/assignees")]);
    gate("{title: x, roles: [1]}", &[(P::InvalidValue, "/roles/0")]);
    gate("{title: x, assignees: [a], approvals: 2}", &[(P::InvalidValue, "/approvals")]);
    gate("{title: x, approvals: 101}", &[(P::InvalidValue, "/approvals")]);
    gate("{title: x, on_timeout: proceed}", &[(P::InvalidValue, "/on_timeout")]);
    gate("{title: x, timeout: 1h, on_timeout: wait}", &[(P::InvalidValue, "/on_timeout")]);
    let many = vec!["a"; 101].join(", ");
    gate(&format!("{{title: x, assignees: [{many}]}}"), &[(P::LimitExceeded, "/assignees")]);
    node("{gate: {}}", &[(P::MissingKey, "/nodes/a/gate")]);
}

#[test]
fn an_event_has_a_name() {
    node("{emit: {event: seen, data: {n: '${input.n}'}}}", &[]);
    node("{emit: {}}", &[(P::MissingKey, "/nodes/a/emit")]);
    node("{emit: {event: seen, data: '${x}'}}", &[(P::UndeclaredName, "/nodes/a/emit/data")]);
    node("{emit: {event: seen}, output: {state.x: 1}}", &[(P::InvalidValue, "/nodes/a/output")]);
}

#[test]
fn what_is_for_actions_is_refused_at_them() {
    node(
        "{wait: {for: 1s}, input: {x: 1}, retry: {}, timeout: 1s, repeatable: false}",
        &[
            (P::InvalidValue, "/nodes/a/input"),
            (P::InvalidValue, "/nodes/a/retry"),
            (P::InvalidValue, "/nodes/a/timeout"),
            (P::InvalidValue, "/nodes/a/repeatable"),
        ],
    );
}

#[test]
fn transitions_fit_the_ways_out_of_the_node() {
    let out = |node: &str, on: &str, expected: &[(P, &str)]| {
        check(
            &format!(
                "name: x\nstart: a\nnodes:\n  a: {node}\n  b: {{compute: {{state.x: 1}}}}\n\
                 transitions: [{{from: a, to: b, on: {on}}}]\n"
            ),
            expected,
        );
    };
    let wrong: &[(P, &str)] = &[(P::InvalidValue, "/transitions/0/on")];
    out("{gate: {title: x}}", "rejected", &[]);
    out("{gate: {title: x}}", "timeout", wrong);
    out("{gate: {title: x, timeout: 1h}}", "timeout", &[]);
    out("{gate: {title: x, timeout: 1h, on_timeout: reject}}", "timeout", wrong);
    out("{wait: {for: 1h}}", "timeout", wrong);
    out("{wait: {signal: x, timeout: 1h}}", "timeout", &[]);
    out("{wait: {signal: x, timeout: 1h}}", "rejected", wrong);
    out("{emit: {event: x}}", "timeout", wrong);
    out("{compute: {state.y: 1}}", "rejected", wrong);
}

#[test]
fn a_metric_has_a_value_and_a_few_dimensions() {
    let emit = |spec: &str, expected: &[(P, &str)]| below("emit", spec, expected);
    emit("{metric: value, value: 1.5}", &[]);
    emit("{metric: value, value: '${input.n}', dimensions: {region: '${input.r}', n: 7}}", &[]);
    emit("{metric: value}", &[(P::MissingKey, "")]);
    emit("{metric: 'a.b', value: 1}", &[(P::InvalidName, "/metric")]);
    emit("{metric: value, value: many}", &[(P::InvalidValue, "/value")]);
    emit("{metric: value, value: 2000000000000}", &[(P::InvalidValue, "/value")]);
    emit("{metric: value, value: '${x}'}", &[(P::UndeclaredName, "/value")]);
    emit("{metric: value, value: 1, data: {n: 1}}", &[(P::InvalidValue, "/data")]);
    emit("{event: seen, value: 1}", &[(P::InvalidValue, "/value")]);
    emit("{event: seen, dimensions: {a: b}}", &[(P::InvalidValue, "/dimensions")]);
    emit("{event: seen, metric: value, value: 1}", &[(P::InvalidValue, "/metric")]);
    let dimensions = |given: &str, expected: &[(P, &str)]| {
        emit(&format!("{{metric: value, value: 1, dimensions: {given}}}"), expected);
    };
    dimensions("{'a b': x}", &[(P::InvalidName, "/dimensions/a b")]);
    dimensions("{a: [1]}", &[(P::InvalidValue, "/dimensions/a")]);
    dimensions("{a: '${reslt}'}", &[(P::UndeclaredName, "/dimensions/a")]);
    dimensions(&format!("{{a: {}}}", "x".repeat(129)), &[(P::InvalidValue, "/dimensions/a")]);
    let nine: Vec<_> = (0..9).map(|n| format!("d{n}: x")).collect();
    dimensions(&format!("{{{}}}", nine.join(", ")), &[(P::LimitExceeded, "/dimensions")]);
}
