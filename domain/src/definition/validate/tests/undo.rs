//! Rules of what undoes a node.

use super::{P, check};

/// Checks a node of a definition that says at its top whether it compensates; pointers are below
/// the node.
fn node(node: &str, expected: &[(P, &str)]) {
    let expected: Vec<_> =
        expected.iter().map(|(code, at)| (*code, format!("/nodes/a{at}"))).collect();
    let expected: Vec<_> = expected.iter().map(|(code, at)| (*code, at.as_str())).collect();
    check(&format!("name: x\nstart: a\ncompensate: true\nnodes:\n  a: {node}\n"), &expected);
}

fn undo(undo: &str, expected: &[(P, &str)]) {
    let expected: Vec<_> =
        expected.iter().map(|(code, at)| (*code, format!("/undo{at}"))).collect();
    let expected: Vec<_> = expected.iter().map(|(code, at)| (*code, at.as_str())).collect();
    node(&format!("{{action: {{kind: mock}}, undo: {undo}}}"), &expected);
}

#[test]
fn an_undo_is_an_action_with_an_input_over_the_nodes_result() {
    undo("{action: {kind: mock}}", &[]);
    undo("{action: {use: refund@2, with: {delay: 1s}}, input: {id: '${result.id + item}'}}", &[]);
    undo("{action: {kind: mock}, retry: {max_attempts: 3}, timeout: 1m, repeatable: false}", &[]);
    undo("{}", &[(P::MissingKey, "")]);
    undo("{action: {}}", &[(P::MissingKey, "/action")]);
    undo("{action: {kind: http, with: {}}}", &[(P::MissingKey, "/action/with")]);
    undo("{action: {kind: mock}, input: {id: '${reslt.id}'}}", &[(P::UndeclaredName, "/input/id")]);
    undo("{action: {kind: mock}, output: {state.x: 1}}", &[(P::UnknownKey, "/output")]);
    undo(
        "{action: {kind: mock}, retry: {max_attempts: 101}}",
        &[(P::InvalidValue, "/retry/max_attempts")],
    );
    // The action itself sees its input only.
    undo(
        "{action: {kind: transform, with: {value: '${result.id}'}}}",
        &[(P::UndeclaredName, "/action/with/value")],
    );
    undo(
        "{action: {kind: http, with: {url: 'https://x/{{ id }}'}}, input: {id: '${result.id}'}}",
        &[],
    );
}

#[test]
fn only_what_was_done_outside_can_be_undone() {
    let undo = "undo: {action: {kind: mock}}";
    let steps = "steps: [{name: one, action: {kind: mock}}]";
    node(&format!("{{{steps}, {undo}}}"), &[]);
    node(&format!("{{workflow: {{definition: helper}}, {undo}}}"), &[]);
    for kind in ["compute: {state.x: 1}", "wait: {for: 1s}", "emit: {event: x}"] {
        node(&format!("{{{kind}, {undo}}}"), &[(P::InvalidValue, "/undo")]);
    }
}

#[test]
fn it_has_to_be_said_whether_the_run_compensates() {
    let node = "{action: {kind: mock}, undo: {action: {kind: mock}}}";
    let source = |top: &str| format!("name: x\nstart: a\n{top}nodes:\n  a: {node}\n");
    check(&source(""), &[(P::MissingKey, "/nodes/a/undo")]);
    check(&source("compensate: false\n"), &[]);
    check(&source("compensate: maybe\n"), &[(P::InvalidValue, "/compensate")]);
}
