//! What must be refused, each with the code that it gets.

use domain::definition::ProblemCode;
use serde_json::{Value, json};

const JSON: &str = "application/json";
const YAML: &str = "application/yaml";
const MIB: usize = 1024 * 1024;

/// What it is, where it is sent, as what, the body, and the answer's status and code.
type Body = (&'static str, &'static str, &'static str, Vec<u8>, (u16, &'static str));

/// Bodies that are refused.
pub(super) fn bodies() -> Vec<Body> {
    let start = |input: &str| format!(r#"{{"definition":"p14","input":{input}}}"#).into_bytes();
    let nested = |depth: usize| format!("{}1{}", "[".repeat(depth), "]".repeat(depth));
    let long = |length: usize| format!(r#"{{"n":"{}"}}"#, "x".repeat(length));
    let labels: Value =
        (0..33).map(|n| (format!("l{n}"), json!("v"))).collect::<serde_json::Map<_, _>>().into();
    let labels = json!({"definition": "p14", "input": {"n": 1}, "labels": labels}).to_string();
    let definitions = "/workflow-definitions";
    vec![
        ("an input of 10 MiB", "/runs", JSON, start(&long(10 * MIB)), (413, "body_too_large")),
        ("an input over 4 MiB", "/runs", JSON, start(&long(4 * MIB)), (413, "body_too_large")),
        (
            "a definition of 10 MiB",
            definitions,
            YAML,
            vec![b' '; 10 * MIB],
            (413, "body_too_large"),
        ),
        ("a project of 10 MiB", "/projects", JSON, vec![b' '; 10 * MIB], (413, "body_too_large")),
        ("depth 10,000", "/runs", JSON, start(&nested(10_000)), (400, "json_too_deep")),
        ("depth 65", "/runs", JSON, start(&nested(65)), (400, "json_too_deep")),
        ("an open depth", "/runs", JSON, start(&"[".repeat(MIB)), (400, "json_too_deep")),
        ("a NUL", "/runs", JSON, start(r#"{"n":"a\u0000b"}"#), (400, "nul_character")),
        ("a NUL in a key", "/runs", JSON, start(r#"{"a\u0000":1}"#), (400, "nul_character")),
        ("half a pair", "/runs", JSON, start(r#"{"n":"\ud83d"}"#), (400, "lone_surrogate")),
        (
            "a pair reversed",
            "/runs",
            JSON,
            start(r#"{"n":"\ude00\ud83d"}"#),
            (400, "lone_surrogate"),
        ),
        ("a key twice", "/runs", JSON, start(r#"{"n":1,"n":2}"#), (400, "duplicate_key")),
        ("2^53", "/runs", JSON, start(r#"{"n":9007199254740992}"#), (400, "number_out_of_range")),
        ("1e999", "/runs", JSON, start(r#"{"n":1e999}"#), (400, "invalid_json")),
        ("33 labels", "/runs", JSON, labels.into_bytes(), (422, "invalid_body")),
        (
            "no UTF-8",
            "/runs",
            JSON,
            start("\"").into_iter().chain([0xff]).collect(),
            (400, "invalid_json"),
        ),
        (
            "half a document",
            "/runs",
            JSON,
            br#"{"definition":"p14""#.to_vec(),
            (400, "invalid_json"),
        ),
        ("nothing", "/runs", JSON, Vec::new(), (400, "invalid_json")),
        (
            "a form",
            "/runs",
            "application/x-www-form-urlencoded",
            b"a=b".to_vec(),
            (415, "unsupported_media_type"),
        ),
        ("a NUL in YAML", definitions, YAML, b"name: x\0".to_vec(), (400, "nul_character")),
        ("YAML without UTF-8", definitions, YAML, b"name: \xff".to_vec(), (400, "invalid_body")),
    ]
}

const BASE: &str = "name: x\nstart: a\nnodes: {a: {compute: {state.x: 1}}}\n";

fn graph(transitions: &str) -> String {
    format!(
        "name: x\nstart: a\nnodes:\n  a: {{compute: {{state.x: 1}}}}\n  \
         b: {{compute: {{state.y: 1}}}}\n  c: {{compute: {{state.z: 1}}}}\n\
         transitions: [{transitions}]\n"
    )
}

fn node(node: &str) -> String {
    format!("name: x\nstart: a\nnodes:\n  a: {node}\n")
}

/// A definition with the problem.
pub(super) fn definition(code: ProblemCode) -> String {
    use ProblemCode as P;
    let pair = "{from: a, to: b, group: g}, {from: b, to: c, join: {group: g}}";
    match code {
        P::Syntax => "name: [x".to_owned(),
        P::UnknownKey => format!("{BASE}nmae: y\n"),
        P::MissingKey => "name: x\nnodes: {a: {compute: {state.x: 1}}}\n".to_owned(),
        P::InvalidValue => graph("{from: a, to: b, spawn: 100001}, {from: b, to: c}"),
        P::InvalidName => "name: x\nstart: 'a b'\nnodes: {'a b': {compute: {state.x: 1}}}\n".into(),
        P::DuplicateKey => format!("{BASE}name: y\n"),
        P::UnknownNode => graph("{from: a, to: b}, {from: b, to: cc}"),
        P::UnreachableNode => graph("{from: a, to: b}"),
        P::UnboundedLoop => graph("{from: a, to: b}, {from: b, to: c}, {from: c, to: b}"),
        P::MissingJoin => graph("{from: a, to: b, spawn: 2, group: g}, {from: b, to: c}"),
        P::UnknownGroup => graph("{from: a, to: b}, {from: b, to: c, join: {group: g}}"),
        P::JoinDisagreement => {
            graph(&format!("{pair}, {{from: b, to: c, join: {{group: g, wait: any}}}}"))
        }
        P::InvalidExpression => node("{compute: {state.x: '${1 +}'}}"),
        P::UndeclaredName => node("{compute: {state.x: '${nothing}'}}"),
        P::InvalidTemplate => node("{action: {kind: llm, with: {prompt: '{{ x'}}}"),
        P::InvalidSchema => format!("{BASE}input_schema: {{$ref: 'http://127.0.0.1/s'}}\n"),
        P::UnsupportedAction => node("{action: {kind: mcp}}"),
        P::UnknownReference => node("{action: {use: no-such-action}}"),
        P::LimitExceeded => {
            let nodes: String =
                (0..2_001).map(|n| format!("  n{n}: {{compute: {{state.x: 1}}}}\n")).collect();
            format!("name: x\nstart: n0\nnodes:\n{nodes}")
        }
    }
}

/// Every problem that a definition can have in itself, each with a definition that has it.
/// References are looked up only where one is published.
pub(super) fn definitions() -> Vec<(ProblemCode, String)> {
    use ProblemCode as P;
    // `definition` doesn't compile without an arm for a new code; it belongs here as well.
    let all = [
        P::Syntax,
        P::UnknownKey,
        P::MissingKey,
        P::InvalidValue,
        P::InvalidName,
        P::DuplicateKey,
        P::UnknownNode,
        P::UnreachableNode,
        P::UnboundedLoop,
        P::MissingJoin,
        P::UnknownGroup,
        P::JoinDisagreement,
        P::InvalidExpression,
        P::UndeclaredName,
        P::InvalidTemplate,
        P::InvalidSchema,
        P::UnsupportedAction,
        P::LimitExceeded,
    ];
    all.into_iter().map(|code| (code, definition(code))).collect()
}

/// Runs that go over a limit on their way, with the codes that they may fail with.
pub(super) fn runs() -> Vec<(Value, Value, &'static [&'static str])> {
    let fan_out = |name: &str, transition: Value| {
        json!({
            "name": name, "start": "a",
            "nodes": {"a": {"compute": {"state.x": 1}}, "b": {"compute": {"state.y": 1}}},
            "transitions": [transition]
        })
    };
    let items: Vec<u8> = vec![1; 100_001];
    let numbers: Vec<u32> = (0..1_000).collect();
    let heavy = "${input.l.map(a, input.l.map(b, input.l.map(c, a + b + c)))}";
    let doubling = json!({
        "name": "p14-doubling", "start": "a",
        "nodes": {
            "a": {"compute": {"state.x": "xxxxxxxxxxxxxxxx"}},
            "b": {"compute": {"state.x": "${state.x + state.x}"}}
        },
        "transitions": [
            {"from": "a", "to": "b"}, {"from": "b", "to": "b", "max_iterations": 60}
        ]
    });
    vec![
        (
            fan_out("p14-foreach", json!({"from": "a", "to": "b", "foreach": "${input.items}"})),
            json!({"items": items}),
            &["token_limit"],
        ),
        (
            fan_out("p14-spawn", json!({"from": "a", "to": "b", "spawn": "${input.count}"})),
            json!({"count": 100_001}),
            &["token_limit"],
        ),
        (
            json!({
                "name": "p14-heavy", "start": "a", "nodes": {"a": {"compute": {"state.x": heavy}}}
            }),
            json!({"l": numbers}),
            &["fuel_exhausted", "expression_too_costly"],
        ),
        (doubling, json!({}), &["too_large"]),
    ]
}
