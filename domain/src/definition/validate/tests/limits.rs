//! A definition at its limits and one beyond them.

use chrono::DateTime;
use serde_json::{Value, json};

use crate::codec;
use crate::definition::{Plan, Problem, ProblemCode as P, Resolved, parse};
use crate::ids::{ProjectId, WorkspaceId};
use crate::limits;
use crate::resource::{Change, Command, Event, Resource, Spec, decide};

const BASE: &str = "name: x\nstart: a\nnodes: {a: {compute: {state.x: 1}}}\n";

fn places(read: Result<crate::definition::Definition, Vec<Problem>>) -> Vec<(P, String)> {
    let problems = read.err().unwrap_or_default();
    problems.into_iter().map(|problem| (problem.code, problem.pointer)).collect()
}

#[track_caller]
fn taken(source: &str) {
    let problems = parse::read(source.as_bytes()).err().unwrap_or_default();
    assert!(problems.is_empty(), "{:?}", &problems[..problems.len().min(3)]);
}

#[track_caller]
fn refused(source: &str, code: P, pointer: &str) {
    let found = places(parse::read(source.as_bytes()));
    assert!(found.contains(&(code, pointer.to_owned())), "{:?}", &found[..found.len().min(3)]);
}

#[test]
fn a_source_has_at_most_1_mib() {
    let source = |bytes: usize| format!("{BASE}{}", "#".repeat(bytes - BASE.len()));
    taken(&source(limits::DEFINITION_BYTES));
    refused(&source(limits::DEFINITION_BYTES + 1), P::LimitExceeded, "");
}

#[test]
fn the_same_holds_of_a_definition_that_is_json_already() {
    let of = |bytes: usize| {
        let mut value: Value = json!({"name": "x", "start": "a", "description": "",
            "nodes": {"a": {"compute": {"state.x": 1}}}});
        let around = value.to_string().len();
        value["description"] = json!("x".repeat(bytes - around));
        places(parse::parse_value(&value))
    };
    assert_eq!(of(limits::DEFINITION_BYTES), []);
    assert_eq!(of(limits::DEFINITION_BYTES + 1), [(P::LimitExceeded, String::new())]);
}

#[test]
fn a_definition_has_at_most_2000_nodes() {
    let source = |nodes: usize| {
        let names: String =
            (0..nodes).map(|n| format!("  n{n}: {{compute: {{state.x: 1}}}}\n")).collect();
        let steps: Vec<_> = (1..nodes).map(|n| format!("{{from: n{}, to: n{n}}}", n - 1)).collect();
        format!("name: x\nstart: n0\nnodes:\n{names}transitions: [{}]\n", steps.join(", "))
    };
    taken(&source(limits::NODES));
    refused(&source(limits::NODES + 1), P::LimitExceeded, "/nodes");
}

#[test]
fn a_definition_has_at_most_10000_transitions() {
    let source = |transitions: usize| {
        let steps = vec!["{from: a, to: b}"; transitions];
        format!(
            "name: x\nstart: a\nnodes:\n  a: {{compute: {{state.x: 1}}}}\n  \
             b: {{compute: {{state.y: 1}}}}\ntransitions: [{}]\n",
            steps.join(", ")
        )
    };
    taken(&source(limits::TRANSITIONS));
    refused(&source(limits::TRANSITIONS + 1), P::LimitExceeded, "/transitions");
}

/// Four mappings are around the value.
fn nested(depth: usize) -> String {
    let (open, close) = ("[".repeat(depth - 4), "]".repeat(depth - 4));
    format!("name: x\nstart: a\nnodes: {{a: {{compute: {{state.x: {open}1{close}}}}}}}\n")
}

#[test]
fn a_definition_nests_at_most_64_deep_and_is_a_spec_then() {
    let definition = parse::read(nested(limits::JSON_DEPTH).as_bytes()).expect("it is valid");
    let spec: Spec = serde_json::from_value(json!({
        "kind": "workflow_definition",
        "spec": {
            "project_id": ProjectId::derived("ws", "default"),
            "hash": "0".repeat(64),
            "definition": definition,
        },
    }))
    .expect("a spec");
    let create = Command {
        change: Change::Create(Box::new(spec)),
        expected_version: None,
        at: DateTime::UNIX_EPOCH,
    };
    let decision = decide(&Resource::default(), &create).expect("it is published");
    for event in decision.events {
        let encoded = codec::encode(&event, WorkspaceId::derived("", "w")).expect("it is stored");
        let again = codec::decode::<Event>(event.event_type(), 1, &encoded.payload, &|_| None);
        assert_eq!(again, Ok(event), "it is read back");
    }
    refused(&nested(limits::JSON_DEPTH + 1), P::LimitExceeded, "");
}

#[test]
fn an_expression_has_at_most_8_kib() {
    let source = |bytes: usize| {
        let expression = format!("1{}", " ".repeat(bytes - 1));
        format!("name: x\nstart: a\nnodes: {{a: {{compute: {{state.x: '${{{expression}}}'}}}}}}\n")
    };
    taken(&source(limits::EXPRESSION_BYTES));
    let at = "/nodes/a/compute/state.x";
    refused(&source(limits::EXPRESSION_BYTES + 1), P::InvalidExpression, at);
}

#[test]
fn names_have_1_to_64_characters() {
    let named = |name: &str| BASE.replace("name: x", &format!("name: '{name}'"));
    taken(&named(&"x".repeat(64)));
    taken(&named("A-z_09"));
    for name in [&"x".repeat(65), "", "a b", "a.b", "\u{fc}", "a\u{301}"] {
        refused(&named(name), P::InvalidName, "/name");
    }
    let node =
        |name: &str| format!("name: x\nstart: {name}\nnodes: {{{name}: {{compute: {{}}}}}}\n");
    taken(&node(&"x".repeat(64)));
    refused(&node(&"x".repeat(65)), P::InvalidName, &format!("/nodes/{}", "x".repeat(65)));
}

#[test]
fn an_empty_text_is_not_absent() {
    let source = |rest: &str| format!("{BASE}{rest}\n");
    taken(&source("description: ''"));
    refused(&source("timeout: ''"), P::InvalidValue, "/timeout");
    let of = |group: &str| {
        format!(
            "name: x\nstart: a\nnodes:\n  a: {{compute: {{state.x: 1}}}}\n  \
             b: {{compute: {{state.y: 1}}}}\ntransitions: [{{from: a, to: b{group}}}]\n"
        )
    };
    taken(&of(""));
    refused(&of(", group: ''"), P::InvalidName, "/transitions/0/group");
}

#[test]
fn a_schema_that_leads_back_to_itself_does_not_hang() {
    for schema in [
        json!({"$ref": "#"}),
        json!({"allOf": [{"$ref": "#"}]}),
        json!({"anyOf": [{"$ref": "#/$defs/a"}],
               "$defs": {"a": {"$ref": "#/$defs/b"}, "b": {"not": {"$ref": "#/$defs/a"}}}}),
        json!({"$dynamicRef": "#"}),
    ] {
        let definition = json!({"name": "x", "start": "a", "input_schema": schema,
            "nodes": {"a": {"compute": {"state.x": 1}}}});
        let Ok(definition) = parse::read(definition.to_string().as_bytes()) else { continue };
        let plan = Plan::compile(&definition, &Resolved::default()).expect("it compiles");
        let _ = plan.input_problems(&json!({"a": [1]}));
    }
}

#[test]
fn of_a_key_at_most_100_000_runs_go_on() {
    let source = |limit: u32| format!("{BASE}concurrency: {{limit: {limit}}}\n");
    taken(&source(limits::CONCURRENT_RUNS));
    refused(&source(limits::CONCURRENT_RUNS + 1), P::InvalidValue, "/concurrency/limit");
}

#[test]
fn a_key_has_at_most_1024_bytes_and_priorities_go_from_minus_10_000_to_10_000() {
    let bounded = json!({"name": "x", "start": "a", "nodes": {"a": {"compute": {"state.x": 1}}},
        "concurrency": {"key": "${input.key}", "limit": 1}, "priority": "${input.priority}"});
    let definition = serde_json::from_value(bounded).expect("a definition");
    let plan = Plan::compile(&definition, &Resolved::default()).expect("it compiles");
    let admission = plan.admission().expect("it is bounded");
    let refused = |bytes: usize, priority: i32| {
        let input = json!({"key": "k".repeat(bytes), "priority": priority});
        admission.of_run(&input, DateTime::UNIX_EPOCH).err().map(|problem| problem.pointer)
    };
    let (bytes, most) = (limits::KEY_BYTES, limits::PRIORITY);
    assert_eq!((refused(bytes, most), refused(bytes, -most)), (None, None));
    assert_eq!(refused(bytes + 1, 0).as_deref(), Some("/concurrency/key"));
    for beyond in [most + 1, -most - 1] {
        assert_eq!(refused(bytes, beyond).as_deref(), Some("/priority"));
    }
}
