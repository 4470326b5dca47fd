//! Tests of reading: shapes, places, and that no bytes can do harm.

use proptest::prelude::*;
use serde_json::json;

use super::*;
use crate::definition::validate::tests::PANEL;

mod hostile;

/// The codes and pointers of what is wrong.
fn problems(source: &str) -> Vec<(ProblemCode, String)> {
    match read(source.as_bytes()) {
        Ok(_) => Vec::new(),
        Err(problems) => problems.into_iter().map(|p| (p.code, p.pointer)).collect(),
    }
}

fn check(source: &str, expected: &[(ProblemCode, &str)]) {
    let expected: Vec<_> = expected.iter().map(|(code, at)| (*code, (*at).to_owned())).collect();
    assert_eq!(problems(source), expected, "{source}");
}

#[test]
fn yaml_and_json_read_alike() {
    let yaml = read(PANEL.as_bytes()).expect("the example is valid");
    let json = serde_json::to_string(&yaml).expect("definitions are JSON");
    assert_eq!(read(json.as_bytes()), Ok(yaml.clone()));
    let value = serde_json::from_str(&json).expect("it was just written");
    assert_eq!(parse_value(&value), Ok(yaml));
}

#[test]
fn all_problems_are_told_at_once_with_place_line_and_remedy() {
    let source = "nmae: x\nstart: a\nnodes:\n  a:\n    compute: {state.x: 1}\n    retri: {}\n    \
                  timeout: soon\ntransitions:\n  - {from: a, when: 5}\n";
    check(
        source,
        &[
            (ProblemCode::UnknownKey, "/nmae"),
            (ProblemCode::MissingKey, ""),
            (ProblemCode::UnknownKey, "/nodes/a/retri"),
            (ProblemCode::InvalidValue, "/nodes/a/timeout"),
            (ProblemCode::InvalidValue, "/transitions/0/when"),
            (ProblemCode::MissingKey, "/transitions/0"),
        ],
    );
}

#[test]
fn a_wrong_shape_hides_nothing_else() {
    let source = "name: x
start: a
timeout: soon
nodes:
  a: {compute: {state.x: '${1 +}'}, retri: {}}
  b: {action: {kind: mock, with: {result: '${nobody}'}}, summary: 5}
  c: {action: 7}
transitions:
  - {from: a, to: b, foreach: '${input.list}', group: gang}
  - {from: b, to: c, join: {group: gnag}}
  - {from: b, to: d, on: success}
  - {from: c, to: a, max_iterations: many}
";
    let mut found = problems(source);
    found.sort_by(|left, right| left.1.cmp(&right.1));
    let expected = [
        (ProblemCode::InvalidExpression, "/nodes/a/compute/state.x"),
        (ProblemCode::UnknownKey, "/nodes/a/retri"),
        (ProblemCode::UndeclaredName, "/nodes/b/action/with/result"),
        (ProblemCode::InvalidValue, "/nodes/b/summary"),
        (ProblemCode::InvalidValue, "/nodes/c/action"),
        (ProblemCode::InvalidValue, "/timeout"),
        (ProblemCode::MissingJoin, "/transitions/0/group"),
        (ProblemCode::UnknownGroup, "/transitions/1/join/group"),
        (ProblemCode::UnknownNode, "/transitions/2/to"),
        (ProblemCode::InvalidValue, "/transitions/3/max_iterations"),
    ];
    let expected: Vec<_> = expected.iter().map(|(code, at)| (*code, (*at).to_owned())).collect();
    assert_eq!(found, expected);
}

#[test]
fn mending_makes_no_problems_of_its_own() {
    let rest = "name: x\nstart: a\nnodes:\n  a: {compute: {state.x: 1}}\n  \
                b: {action: {kind: llm, with: {prompt: '{{ x }}'}}, input: {x: 1}}\n";
    for (source, expected) in [
        (rest.replace("start: a\n", ""), (ProblemCode::MissingKey, "")),
        (rest.replace("{compute", "{comput"), (ProblemCode::UnknownKey, "/nodes/a/comput")),
        (rest.replace("input: {x: 1}", "input: 5"), (ProblemCode::InvalidValue, "/nodes/b/input")),
        (rest.replace("input:", "inptu:"), (ProblemCode::UnknownKey, "/nodes/b/inptu")),
        (
            rest.replace("  a: {compute: {state.x: 1}}", "  a: []"),
            (ProblemCode::InvalidValue, "/nodes/a"),
        ),
    ] {
        let step = if source.contains("start") { "transitions: [{from: a, to: b}]\n" } else { "" };
        check(&format!("{source}{step}"), &[expected]);
    }
    for (transitions, expected) in [
        ("{from: a}, {from: a, to: b}", (ProblemCode::MissingKey, "/transitions/0")),
        ("{form: a, to: b}", (ProblemCode::UnknownKey, "/transitions/0/form")),
        ("{from: a, to: b, group: 'a b'}", (ProblemCode::InvalidName, "/transitions/0/group")),
        (
            "{from: a, to: b, foreach: 5, as: x}",
            (ProblemCode::InvalidValue, "/transitions/0/foreach"),
        ),
        (
            "{from: a, to: b, on: filure, when: error.x}",
            (ProblemCode::InvalidValue, "/transitions/0/on"),
        ),
        ("{from: a, to: b}, 5", (ProblemCode::InvalidValue, "/transitions/1")),
    ] {
        let found = problems(&format!("{rest}transitions: [{transitions}]\n"));
        let (code, at) = (expected.0, expected.1.to_owned());
        let missing = (ProblemCode::MissingKey, "/transitions/0".to_owned());
        assert!(found.contains(&(code, at.clone())), "{transitions}: {found:?}");
        let own = |one: &&(ProblemCode, String)| **one != (code, at.clone()) && **one != missing;
        assert_eq!(found.iter().find(own), None, "{transitions}");
    }
}

#[test]
fn unknown_keys_come_with_the_rest_and_a_suggestion() {
    let source = "name: x\nstart: b\nnodes:\n  a:\n    comput: {state.x: 1}\n";
    let problems = read(source.as_bytes()).expect_err("several problems");
    let codes: Vec<_> = problems.iter().map(|p| p.code).collect();
    assert!(codes.contains(&ProblemCode::UnknownKey), "{codes:?}");
    assert!(codes.contains(&ProblemCode::UnknownNode), "{codes:?}");
    let unknown = problems.iter().find(|p| p.code == ProblemCode::UnknownKey).expect("one");
    assert_eq!(unknown.suggestion.as_deref(), Some("compute"));
    assert_eq!((unknown.pointer.as_str(), unknown.line), ("/nodes/a/comput", Some(5)));
}

#[test]
fn what_yaml_can_do_to_a_document_is_refused() {
    let base = "name: x\nstart: a\nnodes: {a: {compute: {state.x: 1}}}\n";
    check(&format!("{base}name: y\n"), &[(ProblemCode::DuplicateKey, "")]);
    check("{\"name\": \"x\", \"name\": \"y\"}", &[(ProblemCode::DuplicateKey, "")]);
    check("a: [1", &[(ProblemCode::Syntax, "")]);
    check("{\"a\": ", &[(ProblemCode::Syntax, "")]);
    check(&format!("{base}---\n{base}"), &[(ProblemCode::Syntax, "")]);
    check(&format!("{base}output: &a {{x: 1}}\nb: {{<<: *a}}\n"), &[(ProblemCode::Syntax, "")]);
    let mut bomb = "a0: &a0 [x, x]\n".to_owned();
    for level in 1..40 {
        bomb.push_str(&format!("a{level}: &a{level} [*a{0}, *a{0}]\n", level - 1));
    }
    check(&bomb, &[(ProblemCode::Syntax, "")]);
    assert!(!problems(&"[".repeat(100_000)).is_empty());
    assert!(!problems(&"- ".repeat(100_000)).is_empty());
    assert!(!problems(&"{\"a\":".repeat(100_000)).is_empty());
    check(&" ".repeat(limits::DEFINITION_BYTES + 1), &[(ProblemCode::LimitExceeded, "")]);
    let deep = |levels: usize| format!("{}{}", "[".repeat(levels), "]".repeat(levels));
    check(&deep(60), &[(ProblemCode::InvalidValue, "")]);
    assert!(matches!(
        problems(&deep(66))[..],
        [(ProblemCode::LimitExceeded | ProblemCode::Syntax, _)]
    ));
    assert!(!problems("").is_empty());
}

#[test]
fn words_are_texts_unless_core_yaml_says_otherwise() {
    let source = "name: no\nstart: yes\nnodes: {yes: {compute: {state.x: on, state.y: 0o10, \
                  state.z: true, state.w: ~, state.v: 1.50}}}\n";
    let definition = read(source.as_bytes()).expect("valid");
    assert_eq!(definition.name.as_str(), "no");
    let compute = &definition.nodes["yes"]["compute"];
    assert_eq!(
        *compute,
        json!({"state.x": "on", "state.y": 8, "state.z": true, "state.w": null, "state.v": 1.5})
    );
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 150, failure_persistence: None, ..Default::default() })]

    #[test]
    fn any_bytes_are_read_or_refused(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
        let _ = read(&bytes);
    }

    #[test]
    fn a_changed_definition_is_read_or_refused(
        at in 0..PANEL.len(), length in 0_usize..40, with in "[ -~\n]{0,12}"
    ) {
        let mut source = PANEL.as_bytes().to_vec();
        let end = (at + length).min(source.len());
        source.splice(at..end, with.into_bytes());
        if let Err(problems) = read(&source) {
            prop_assert!(!problems.is_empty());
        }
    }
}

#[test]
fn values_that_no_store_gives_back_are_refused_where_they_stand() {
    let of = |value: &str| {
        format!("name: x\nstart: a\nnodes:\n  a:\n    compute:\n      state.x: {value}\n")
    };
    let at = "/nodes/a/compute/state.x";
    for value in
        ["9007199254740993", "18446744073709551616", "-123456789012345678901234567890", "\"a\\0b\""]
    {
        check(&of(value), &[(ProblemCode::InvalidValue, at)]);
        let inside = format!("{at}/1/k");
        check(&of(&format!("[1, {{k: {value}}}]")), &[(ProblemCode::InvalidValue, &inside)]);
    }
    let key = format!("{at}/$serde_json::private::RawValue");
    let reserved = "{\"$serde_json::private::RawValue\": \"1\"}";
    check(&of(reserved), &[(ProblemCode::InvalidValue, &key)]);
    for value in
        ["9007199254740992", "1e30", "36893488147419103232.0", "-1.5", "\"99999999999999999999\""]
    {
        check(&of(value), &[]);
    }
    let json = |value: &str| {
        format!(
            "{{\"name\": \"x\", \"description\": \"1 \\\" 2\", \"start\": \"a\", \"timeout\": \
             \"1s\", \"nodes\": {{\"a\": {{\"compute\": {{\"state.y\": -1, \"state.x\": {value}}}}}}}}}"
        )
    };
    check(&json("18446744073709551616"), &[(ProblemCode::InvalidValue, at)]);
    check(&json("\"a\\u0000\""), &[(ProblemCode::InvalidValue, at)]);
    check(&json("1.8446744073709551616e19"), &[]);
}

#[test]
fn the_readers_words_are_plain() {
    let base = "name: x\nstart: a\nnodes: {a: {compute: {state.x: 1}}}\n";
    let deep = format!("{}{}", "[".repeat(70), "]".repeat(70));
    for (source, words) in [
        (format!("{base}name: y\n"), "duplicate key \"name\""),
        (format!("{base}~: y\n"), "keys are texts"),
        (format!("{base}output: &o {{x: *o}}\n"), "inside of what it names"),
        (format!("{base}---\n{base}"), "several documents"),
        (format!("{base}x: &o {{x: 1}}\ny: {{<<: *o}}\n"), "merge keys"),
        (deep, "nests deeper than 64"),
    ] {
        let problems = read(source.as_bytes()).expect_err("it is refused");
        assert!(problems[0].message.contains(words), "{source}: {:?}", problems[0]);
        let insides = ["Policy", "Option", "budget", "weak", "configured"];
        assert!(!insides.iter().any(|word| problems[0].message.contains(word)), "{problems:?}");
    }
}

#[test]
fn on_that_became_true_is_recognised() {
    let source = "name: x\nstart: a\nnodes: {a: {action: {kind: mock}}, b: {compute: {state.x: 1}}}\n\
                  transitions: [{from: a, to: b, true: failure}]\n";
    let problems = read(source.as_bytes()).expect_err("it is refused");
    assert_eq!(problems[0].pointer, "/transitions/0/true");
    assert_eq!(problems[0].suggestion.as_deref(), Some("on"));
    assert!(problems[0].message.contains("YAML 1.1"), "{problems:?}");
}
