//! Each limit of what a client sends: what is at it and is taken, and what is one beyond it.

use domain::limits;
use serde_json::{Value, json};

/// What it is about, where it is sent, as what, the body at the limit and the one beyond it, and
/// the status and code of that one's refusal.
pub(super) struct Edge {
    pub(super) what: &'static str,
    pub(super) path: &'static str,
    pub(super) media: &'static str,
    pub(super) at: Vec<u8>,
    pub(super) beyond: Vec<u8>,
    pub(super) refusal: (u16, &'static str),
}

/// The definition whose runs are started.
pub(super) const DEFINITION: &str =
    "name: p14-edge\nstart: a\nnodes: {a: {compute: {state.x: 1}}}\noutput: {}\n";

fn start(what: &'static str, of: impl Fn(usize) -> Value, most: usize) -> Edge {
    Edge {
        what,
        path: "/runs",
        media: "application/json",
        at: of(most).to_string().into_bytes(),
        beyond: of(most + 1).to_string().into_bytes(),
        refusal: (0, ""),
    }
}

fn publish(what: &'static str, of: impl Fn(usize) -> String, most: usize) -> Edge {
    Edge {
        what,
        path: "/workflow-definitions",
        media: "application/yaml",
        at: of(most).into_bytes(),
        beyond: of(most + 1).into_bytes(),
        refusal: (422, "invalid_definition"),
    }
}

fn with_input(input: Value) -> Value {
    json!({"definition": "p14-edge", "input": input})
}

fn with_value(name: &str, value: &str) -> String {
    format!(
        "name: {name}\nstart: a\nnodes: {{a: {{compute: {{state.x: {value}}}}}}}\noutput: {{}}\n"
    )
}

pub(super) fn edges() -> Vec<Edge> {
    let labelled = |count: usize| {
        let labels: serde_json::Map<_, _> =
            (0..count).map(|n| (format!("l{n}"), json!("v"))).collect();
        json!({"definition": "p14-edge", "input": {}, "labels": labels})
    };
    let nodes = |count: usize| {
        let nodes: String =
            (0..count).map(|n| format!("  n{n}: {{compute: {{state.x: 1}}}}\n")).collect();
        let steps: Vec<_> = (1..count).map(|n| format!("{{from: n{}, to: n{n}}}", n - 1)).collect();
        format!("name: nodes\nstart: n0\nnodes:\n{nodes}transitions: [{}]\n", steps.join(", "))
    };
    let transitions = |count: usize| {
        format!(
            "name: transitions\nstart: a\nnodes: {{a: {{compute: {{state.x: 1}}}}, \
             b: {{compute: {{state.y: 1}}}}}}\ntransitions: [{}]\n",
            vec!["{from: a, to: b}"; count].join(", ")
        )
    };
    vec![
        Edge {
            refusal: (413, "body_too_large"),
            // As JSON, a text has two quotes.
            ..start("an input", |n| with_input("x".repeat(n - 2).into()), limits::INPUT_BYTES)
        },
        Edge {
            refusal: (400, "json_too_deep"),
            // The body around the input counts.
            ..start(
                "depth of an input",
                |n| with_input((1..n).fold(json!(1), |inner, _| json!([inner]))),
                limits::JSON_DEPTH,
            )
        },
        Edge { refusal: (422, "invalid_body"), ..start("labels", labelled, limits::LABELS) },
        Edge {
            refusal: (413, "body_too_large"),
            ..publish(
                "a source",
                |n| {
                    let source = with_value("source", "1");
                    let rest = n - source.len();
                    format!("{source}{}", "#".repeat(rest))
                },
                limits::DEFINITION_BYTES,
            )
        },
        publish("nodes", nodes, limits::NODES),
        publish("transitions", transitions, limits::TRANSITIONS),
    ]
}
