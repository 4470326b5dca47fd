//! Checking `cancel` and `complete`, and `mutex`.

use super::{P, node, transitions};

const SPLIT: &str = "{from: a, to: b, group: g}, {from: b, to: c, join: {group: g}}";

fn beside(effect: &str, expected: &[(P, &str)]) {
    transitions(&format!("{SPLIT}, {{from: c, to: b, max_iterations: 1, {effect}}}"), expected);
}

#[test]
fn effects_name_what_is_there() {
    beside("cancel: {nodes: [a, b]}", &[]);
    beside("cancel: {nodes: all}", &[]);
    beside("cancel: {group: g}, complete: g", &[]);
    beside("cancel: {nodes: [a, bb]}", &[(P::UnknownNode, "/transitions/2/cancel/nodes/1")]);
    beside("cancel: {nodes: some}", &[(P::InvalidValue, "/transitions/2/cancel/nodes")]);
    beside("cancel: {group: gg}", &[(P::UnknownGroup, "/transitions/2/cancel/group")]);
    beside("complete: gg", &[(P::UnknownGroup, "/transitions/2/complete")]);
    beside("cancel: {}", &[(P::InvalidValue, "/transitions/2/cancel")]);
    beside("cancel: {nodes: [a], group: g}", &[(P::InvalidValue, "/transitions/2/cancel")]);
    let (unknown, place) = (P::UnknownKey, "/transitions/2/cancel");
    let expected = [(unknown, "/transitions/2/cancel/node"), (P::InvalidValue, place)];
    beside("cancel: {node: [a]}", &expected);
}

#[test]
fn a_group_is_not_ended_from_inside() {
    let inside = |effect: &str, place: &str| {
        let source = format!(
            "{{from: a, to: b, group: g}}, {{from: b, to: c, join: {{group: g}}, {effect}}}"
        );
        transitions(&source, &[(P::InvalidValue, place)]);
    };
    inside("cancel: {group: g}", "/transitions/1/cancel/group");
    inside("complete: g", "/transitions/1/complete");
}

#[test]
fn only_an_open_group_is_extended() {
    let with = |more: &str, expected: &[(P, &str)]| {
        let source =
            format!("{{from: a, to: b, group: g}}, {{from: b, to: c, join: {{group: g}}}}, {more}");
        transitions(&source, expected);
    };
    with("{from: b, to: b, extend: g, max_iterations: 1}", &[]);
    let unknown = [(P::UnknownGroup, "/transitions/2/extend")];
    with("{from: b, to: b, extend: gg, max_iterations: 1}", &unknown);
    with("{from: c, to: b, extend: g, max_iterations: 1}", &unknown);
    let twice = [(P::InvalidValue, "/transitions/2/extend")];
    with("{from: b, to: b, extend: g, group: g, max_iterations: 1}", &twice);
}

#[test]
fn a_mutex_is_a_name_and_any_node_may_have_one() {
    node("{mutex: printer, compute: {state.x: 1}}", &[]);
    node("{mutex: printer, wait: {for: 1s}}", &[]);
    node("{mutex: a b, compute: {state.x: 1}}", &[(P::InvalidName, "/nodes/a/mutex")]);
}
