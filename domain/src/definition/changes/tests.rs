//! Two definitions, and what they differ in.

use serde_json::{Value, json};

use super::{Change, changes};
use crate::definition::Definition;
use crate::limits;

fn base() -> Value {
    json!({
        "name": "review", "start": "draft",
        "nodes": {
            "draft": {"action": {"kind": "mock"}, "input": {"q": "${input.q}", "lang": "en"}},
            "check": {"action": {"kind": "mock"}, "output": {"state.ok": "${result.ok}"}},
            "done": {"compute": {"state.done": true}},
        },
        "transitions": [
            {"from": "draft", "to": "check", "foreach": "${result.items}", "group": "checks"},
            {"from": "check", "to": "done", "join": {"group": "checks"}},
            {"from": "draft", "to": "done", "on": "failure"},
        ],
        "output": {"done": "${state.done}"},
    })
}

fn definition(value: &Value) -> Definition {
    serde_json::from_value(value.clone()).expect("a definition")
}

/// Kind, place and, where it is another one, place before, with both values.
fn found(to: &Value) -> Vec<(String, Option<Value>, Option<Value>)> {
    let (found, left_out) = changes(&definition(&base()), &definition(to)).expect("definitions");
    assert_eq!(left_out, 0);
    let told = |change: Change| {
        let was = change.from_pointer.map(|from| format!(" was {from}")).unwrap_or_default();
        let told = format!("{} {}{was}", change.kind.as_str(), change.pointer);
        (told, change.before, change.after)
    };
    found.into_iter().map(told).collect()
}

fn changed(place: &str, before: Value, after: Value) -> (String, Option<Value>, Option<Value>) {
    (format!("changed {place}"), Some(before), Some(after))
}

#[test]
fn equal_definitions_differ_in_nothing_whatever_the_order_of_keys_and_what_is_spelled_out() {
    assert_eq!(found(&base()), []);
    let mut to = base();
    let nodes = to["nodes"].as_object().cloned().expect("nodes");
    to["nodes"] = Value::Object(nodes.into_iter().rev().collect());
    to["transitions"][0]["priority"] = json!(0);
    to["transitions"][1]["on"] = json!("success");
    to["transitions"][1]["join"] = json!({"wait": "all", "group": "checks"});
    // Those of different nodes.
    to["transitions"].as_array_mut().expect("transitions").swap(1, 2);
    assert_eq!(found(&to), []);
}

#[test]
fn a_change_is_named_by_its_innermost_place() {
    let mut to = base();
    to["nodes"]["draft"]["input"] = json!({"q": "${input.question}", "tone": "dry"});
    to["nodes"]["check"]["output"]["state.ok"] = json!("${result.fine}");
    to["start"] = json!("check");
    to["timeout"] = json!("1h");
    to["output"]["done"] = json!("yes");
    assert_eq!(
        found(&to),
        [
            changed("/start", json!("draft"), json!("check")),
            changed("/output/done", json!("${state.done}"), json!("yes")),
            ("added /timeout".to_owned(), None, Some(json!("1h"))),
            changed("/nodes/check/output/state.ok", json!("${result.ok}"), json!("${result.fine}")),
            changed("/nodes/draft/input/q", json!("${input.q}"), json!("${input.question}")),
            ("removed /nodes/draft/input/lang".to_owned(), Some(json!("en")), None),
            ("added /nodes/draft/input/tone".to_owned(), None, Some(json!("dry"))),
        ]
    );
}

#[test]
fn one_that_is_inserted_is_no_change_of_the_others() {
    let mut to = base();
    to["nodes"]["log"] = json!({"compute": {"state.logged": true}});
    let new = json!({"from": "draft", "to": "log", "when": "result.size() > 1"});
    to["transitions"].as_array_mut().expect("transitions").insert(0, new.clone());
    let log = serde_json::to_value(json!({"compute": {"state.logged": true}})).expect("json");
    assert_eq!(
        found(&to),
        [
            ("added /nodes/log".to_owned(), None, Some(log)),
            ("added /transitions/0".to_owned(), None, Some(new)),
        ]
    );
}

#[test]
fn a_changed_condition_and_a_renamed_group_are_named_with_both_places() {
    let mut to = base();
    to["transitions"][0]["group"] = json!("looks");
    to["transitions"][1]["join"]["group"] = json!("looks");
    to["transitions"][2]["when"] = json!("error.code == 'x'");
    to["transitions"].as_array_mut().expect("transitions").rotate_left(1);
    let (changes, _) = changes(&definition(&base()), &definition(&to)).expect("definitions");
    let told: Vec<_> = changes
        .iter()
        .map(|one| (one.pointer.as_str(), one.from_pointer.as_deref(), one.transition.as_deref()))
        .collect();
    assert_eq!(
        told,
        [
            ("/transitions/0/join/group", Some("/transitions/1/join/group"), Some("check -> done")),
            ("/transitions/2/group", Some("/transitions/0/group"), Some("draft -> check")),
            ("/transitions/1/when", None, Some("draft -> done (on failure)")),
            // It has no place before: it is new there. And those of `draft` have changed places.
            ("/transitions/2", Some("/transitions/0"), Some("draft -> check")),
            ("/transitions/1", Some("/transitions/2"), Some("draft -> done (on failure)")),
        ]
    );
}

#[test]
fn what_is_beyond_the_limit_is_counted() {
    let with = |value: u64| {
        let entries = (0..limits::CHANGES + 7).map(|at| (format!("state.n{at}"), json!(value)));
        let mut definition = base();
        definition["nodes"]["done"]["compute"] = Value::Object(entries.collect());
        definition
    };
    let (found, left_out) =
        changes(&definition(&with(1)), &definition(&with(2))).expect("definitions");
    assert_eq!((found.len(), left_out), (limits::CHANGES, 7));
}
