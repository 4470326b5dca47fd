//! Tests of bindings.

use serde_json::{Value, json};

use super::*;
use crate::expression::Roots;

fn check(value: Value, expected: Value) {
    let state = json!({"name": "Ada", "n": 3, "half": 0.5, "on": true, "gone": null,
        "list": [1, "b"], "map": {"k": [1]}});
    let binding = Binding::compile(&value).expect("a binding");
    let scope = Roots::new().with("state", &state);
    assert_eq!(binding.eval(&scope), Ok(expected), "{value}");
}

#[test]
fn an_expression_alone_yields_its_value() {
    check(json!("${state.list}"), json!([1, "b"]));
    check(json!("${state.n + 1}"), json!(4));
    check(json!({"a": ["${state.map}"], "b": 7}), json!({"a": [{"k": [1]}], "b": 7}));
}

#[test]
fn inside_text_values_are_interpolated() {
    check(json!("hi ${state.name}!"), json!("hi Ada!"));
    check(json!("${state.n}${state.on}"), json!("3true"));
    check(json!("<${state.gone}> ${state.half}"), json!("<null> 0.5"));
    check(json!("${state.list} ${state.map}"), json!("[1,\"b\"] {\"k\":[1]}"));
    check(json!(" ${state.n}"), json!(" 3"));
}

#[test]
fn dollars_and_braces_are_told_apart() {
    check(json!("$${state.n}"), json!("${state.n}"));
    check(json!("costs $5 {x}"), json!("costs $5 {x}"));
    check(json!("${'}' + \"{\"}"), json!("}{"));
    check(json!("${{'a': {'b': '}'}}}"), json!({"a": {"b": "}"}}));
    check(json!("${{'a': 1}.a} and ${'it\\'s }'}"), json!("1 and it's }"));
    check(json!("${r'\\'}"), json!("\\"));
}

#[test]
fn errors_name_the_place_inside_the_value() {
    let bad = |value: Value| Binding::compile(&value).expect_err("no binding");
    let (pointer, _) = bad(json!({"a/b": ["fine", "${state.}"]}));
    assert_eq!(pointer, "/a~1b/1");
    assert_eq!(bad(json!("${state.n")).0, "");
    assert_eq!(bad(json!("${}")).0, "");
    let (_, invalid) = bad(json!(["${sizze(state.n)}"]));
    assert_eq!(invalid.undeclared.as_deref(), Some("sizze"));
    assert!(invalid.message.contains("`size`"), "{invalid}");
}

#[test]
fn expressions_are_listed_with_their_pointers() {
    let binding = Binding::compile(&json!({"a": "x ${state.n} ${input.q}", "b": ["${item}"]}))
        .expect("a binding");
    let listed: Vec<_> = binding.expressions().map(|(pointer, e)| (pointer, e.source())).collect();
    assert_eq!(listed, [("/a", "state.n"), ("/a", "input.q"), ("/b/0", "item")]);
    assert!(Binding::compile(&json!({"a": [1]})).expect("constant").constant().is_some());
}

#[test]
fn the_sum_of_the_parts_is_bounded() {
    let large = json!({"t": "x".repeat(3 * 1024 * 1024)});
    let scope = Roots::new().with("state", &large);
    let twice = Binding::compile(&json!(["${state.t}", "${state.t}"])).expect("a binding");
    assert_eq!(twice.eval(&scope).expect_err("too large").code, "too_large");
    let text = Binding::compile(&json!("${state.t}${state.t}")).expect("a binding");
    assert_eq!(text.eval(&scope).expect_err("too large").code, "too_large");
}
