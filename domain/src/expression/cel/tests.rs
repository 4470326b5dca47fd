//! Tests of expressions: values, errors, limits, and that no source can do harm.

use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;
use crate::expression::Roots;

fn context() -> Value {
    json!({
        "draft": "hello", "n": 3, "half": 0.5, "gone": null, "big": 18_446_744_073_709_551_615_u64,
        "list": [{"name": "a", "v": 1}, {"name": "b", "v": 3}, {"name": "c", "v": 3.0}],
        "numbers": [4, 1, 3], "votes": [{"score": 1, "text": "x"}, {"score": 9, "text": "y"}],
        "empty": [], "odd-key": {"x": 1}, "map": {"b": 2, "a": 1}
    })
}

fn evaluated(source: &str) -> Result<Value, EvalError> {
    let state = context();
    let item = json!(5);
    let expression = Expression::compile(source).unwrap_or_else(|e| panic!("{source}: {e}"));
    expression.eval(&Roots::new().with("state", &state).with("item", &item))
}

fn check(source: &str, expected: Value) {
    assert_eq!(evaluated(source), Ok(expected), "{source}");
}

fn fails(source: &str, code: &str) {
    let error = evaluated(source).expect_err(source);
    assert_eq!(error.code, code, "{source}: {error}");
}

#[test]
fn paths_and_literals() {
    check("state.draft", json!("hello"));
    check("state['odd-key'].x", json!(1));
    check("state.`odd-key`.x", json!(1));
    check("state.list[1].name", json!("b"));
    check("item", json!(5));
    check("state.gone", json!(null));
    check("state.big", json!(18_446_744_073_709_551_615_u64));
    check("42", json!(42));
    check("-1.5", json!(-1.5));
    check("'a' + \"b\"", json!("ab"));
    check("${ state.n }", json!(3));
}

#[test]
fn operators() {
    check("state.n * 2 + 1", json!(7));
    check("7 / 2", json!(3));
    check("7 % 4", json!(3));
    check("state.n + state.half", json!(3.5));
    check("state.n == 3.0 && state.n != 4", json!(true));
    check("9223372036854775807 < 9223372036854775807.0", json!(true));
    check("state.big > 1", json!(true));
    check("[1, 2] == [1, 2.0]", json!(true));
    check("{'a': 1} == {'a': 1}", json!(true));
    check("1 == '1'", json!(false));
    check("2 in [1, 2]", json!(true));
    check("'a' in state.map", json!(true));
    check("state.n > 2 ? 'many' : 'few'", json!("many"));
    check("!(state.n > 2)", json!(false));
    check("state.missing == 1 || true", json!(true));
    check("false && state.missing == 1", json!(false));
    check("state.gone == null", json!(true));
    check("[1] + [2]", json!([1, 2]));
}

#[test]
fn has_tells_what_is_there() {
    check("has(state.draft)", json!(true));
    check("has(state.gone)", json!(true));
    check("has(state.missing)", json!(false));
    check("has(state.map.a) && !has(state.map.z)", json!(true));
    check("state.list.filter(x, has(x.v)).size()", json!(3));
    fails("has(state.missing.deeper)", "no_such_member");
    fails("has(nobody.x)", "undeclared_name");
}

#[test]
fn macros() {
    check("state.votes.max(v, v.score)", json!({"score": 9, "text": "y"}));
    check("state.list.max(v, v.v).name", json!("b"));
    check("state.list.min(v, v.v).name", json!("a"));
    check("state.list.sum(v, v.v)", json!(7.0));
    check("state.numbers.sort_by(n, -n)", json!([4, 3, 1]));
    check("state.list.map(x, x.name)", json!(["a", "b", "c"]));
    check("state.list.map(x, x.v > 1, x.name)", json!(["b", "c"]));
    check("state.map.map(k, k)", json!(["a", "b"]));
    check("state.numbers.filter(n, n > 1).size()", json!(2));
    check("state.numbers.all(n, n > 0)", json!(true));
    check("state.numbers.exists(n, n == 3)", json!(true));
    check("state.numbers.exists_one(n, n > 3)", json!(true));
    check("[1, 2].map(x, [3].map(y, x * y + state.n))", json!([[6], [9]]));
    check("[1].map(state, state + 1)", json!([2]));
    fails("state.empty.max(v, v.score)", "empty_list");
    fails("state.empty.first()", "empty_list");
    fails("last(state.empty)", "empty_list");
    fails("state.numbers.slice(4)", "index_out_of_range");
    fails("state.draft.first()", "type_mismatch");
    fails("state.list.max(v, v)", "type_mismatch");
}

#[test]
fn functions() {
    check("size('häß')", json!(3));
    check("state.numbers.sum() + state.numbers.max() + min(state.numbers)", json!(13));
    check("[[1], 2, [[3]]].flatten()", json!([1, 2, [3]]));
    check("range(3)", json!([0, 1, 2]));
    check("state.numbers.slice(1) + state.numbers.slice(3)", json!([1, 3]));
    check("state.numbers.slice(0, 2)", json!([4, 1]));
    check("[state.numbers.first(), last(state.list).name]", json!([4, "c"]));
    check("'a,b'.split(',').join('-')", json!("a-b"));
    check("' A '.trim().lower() + 'b'.upper()", json!("aB"));
    check("'aXbX'.replace('X', '')", json!("ab"));
    check("'häßlich'.substring(1, 3)", json!("äß"));
    check("'abc'.matches('^a.c$') && 'abc'.contains('b')", json!(true));
    check("json({'a': [1, null]})", json!("{\"a\":[1,null]}"));
    check("parse_json('{\"a\": [1]}').a[0]", json!(1));
    check("int('7') + int(1.9) + int(true ? 1 : 0)", json!(9));
    check("string(1) + string(true)", json!("1true"));
    check("type(state.half)", json!("double"));
    check("timestamp('2026-01-31T12:00:00Z') + duration('1h30m')", json!("2026-01-31T13:30:00Z"));
    check("duration('90s')", json!("90s"));
    check("timestamp('2026-03-04T00:00:00Z').getMonth()", json!(2));
    check("[3, 1, 3].distinct().sort()", json!([1, 3]));
    fails("range(10001)", "invalid_argument");
    fails("'a'.substring(2)", "index_out_of_range");
    fails("parse_json('{')", "invalid_argument");
}

#[test]
fn errors_have_their_codes() {
    fails("state.missing", "no_such_member");
    fails("state.draft.x", "no_such_member");
    fails("state.numbers[3]", "no_such_member");
    fails("nobody.x", "undeclared_name");
    fails("1 / 0", "division_by_zero");
    fails("state.n % 0", "division_by_zero");
    fails("9223372036854775807 + 1", "overflow");
    fails("1.0 / 0.0", "not_a_number");
    fails("1 + 'a'", "type_mismatch");
    let state = context();
    let scope = Roots::new().with("state", &state);
    let condition = Expression::compile("state.n").expect("an expression");
    assert_eq!(condition.holds(&scope).expect_err("no bool").code, "not_a_bool");
}

#[test]
fn sources_that_are_no_expressions_are_refused() {
    for bad in ["", "1 +", "a b", "f(", "'x", "b'x'", "a.{", "[1, 2", "x.map(1, 2)", "@", "has(x)"]
    {
        assert!(Expression::compile(bad).is_err(), "{bad}");
    }
    let invalid = Expression::compile("state.list.sizee() > 0").expect_err("no function");
    assert_eq!(invalid.undeclared.as_deref(), Some("sizee"));
    assert!(invalid.message.contains("column") && invalid.message.contains("`size`"));
    assert!(Expression::compile(&"1+".repeat(5_000)).is_err());
    for deep in ["(", "[", "-", "!", "a.map(x, ", "{'a': ", "true ? 1 : "] {
        assert!(Expression::compile(&deep.repeat(800)).is_err(), "{deep}");
    }
    for long in ["+1", ".a", "[0]", " ? 1 : 1", " && a", ".size()", " == 1"] {
        let _ = Expression::compile(&format!("a{}", long.repeat(8_000 / long.len())));
    }
}

/// A small stack must do for whatever is let through: workers have 2 MiB, used in part.
#[test]
fn deep_sources_need_little_stack() {
    let deep = || {
        for (open, core, close) in [
            ("[", "1", "]"),
            ("(", "1", ")"),
            ("{'a': ", "1", "}"),
            ("!", "true", ""),
            ("size(", "[]", ")"),
            ("[1].map(x, ", "1", ")"),
            ("1 + ", "1", ""),
            ("true ? 1 : ", "1", ""),
            ("true || (false && ", "true", ")"),
            ("", "state", ".a"),
            ("", "state", "[0]"),
            ("", "[1]", ".map(x, [x])"),
        ] {
            for levels in [1, 3, 30, 62, 99, 199] {
                let source = format!("{}{core}{}", open.repeat(levels), close.repeat(levels));
                if let Ok(expression) = Expression::compile(&source) {
                    let _ = expression.eval(&Roots::new());
                }
                if let Ok(expression) = Expression::compile(&format!("{source} == {source}")) {
                    let _ = expression.eval(&Roots::new());
                }
            }
        }
    };
    let thread = std::thread::Builder::new().stack_size(1024 * 1024).spawn(deep);
    assert!(thread.expect("a thread").join().is_ok());
}

#[test]
fn bombs_end_in_errors() {
    fails("range(10000).map(x, range(10000).map(y, x * y)).size()", "fuel_exhausted");
    fails("range(1000).all(x, range(1000).all(y, x + y >= 0))", "fuel_exhausted");
    let doubled = format!("['xxxxxxxxxxxxxxxx']{}", ".map(x, x + x)".repeat(40));
    assert!(evaluated(&doubled).is_err_and(|error| error.is_limit()));
    let tree = format!("[[1]]{}", ".map(x, [x, x])".repeat(40));
    assert!(evaluated(&tree).is_err_and(|error| error.is_limit()));
    let same = format!("{tree} == {tree}");
    assert!(evaluated(&same).is_err_and(|error| error.is_limit()));
    let joined = "range(1000).map(x, 'x'.replace('x', 'yyyyyyyyyyyyyyyy')).map(x, x.replace('y', \
                  'zzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzz')).map(x, x.replace('z', \
                  'zzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzz'))";
    assert!(evaluated(joined).is_err_and(|error| error.is_limit()));
}

#[test]
fn roots_and_reads() {
    let expression = Expression::compile(
        "state.votes.max(v, v.score).text == input.q && has(state.z) && item > 1",
    )
    .expect("an expression");
    assert_eq!(expression.roots(), ["state", "input", "item"]);
    let state = json!({"votes": vec![json!({"score": 1}); 100]});
    let input = json!({"q": "why"});
    let reads = expression.reads(&Roots::new().with("state", &state).with("input", &input));
    assert_eq!(
        Value::Object(reads),
        json!({"state.votes": {"$size": 100}, "input.q": "why", "state.z": null, "item": null})
    );
}

fn any_json() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<u64>().prop_map(Value::from),
        (-1e300..1e300).prop_map(Value::from),
        ".{0,8}".prop_map(Value::from),
    ];
    leaf.prop_recursive(4, 32, 4, |inner| {
        prop_oneof![
            proptest::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            proptest::collection::vec(("[a-c]", inner), 0..4)
                .prop_map(|members| Value::Object(members.into_iter().collect())),
        ]
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, failure_persistence: None, ..Default::default() })]

    #[test]
    fn any_source_is_compiled_or_refused(source in "\\PC{0,60}") {
        if let Ok(expression) = Expression::compile(&source) {
            let state = context();
            let _ = expression.eval(&Roots::new().with("state", &state));
        }
    }

    #[test]
    fn what_looks_like_cel_is_evaluated_or_refused(
        parts in proptest::collection::vec(prop_oneof![
            Just("state"), Just(".list"), Just(".n"), Just("("), Just(")"), Just("["), Just("]"),
            Just("1"), Just("'a'"), Just(" + "), Just(" && "), Just("!"), Just(".map(x, "),
            Just("x"), Just(".max(v, v"), Just(" ? "), Just(" : "), Just("{"), Just("}"),
            Just(", "), Just("-"), Just(".size()"), Just(" in "), Just("has("), Just(".a"),
        ], 1..20)
    ) {
        if let Ok(expression) = Expression::compile(&parts.concat()) {
            let state = context();
            let _ = expression.eval(&Roots::new().with("state", &state));
        }
    }

    #[test]
    fn a_path_gives_what_the_general_walk_gives(value in any_json()) {
        let scope = Roots::new().with("state", &value);
        for (path, general) in [
            ("state", "[state][0]"),
            ("state.a", "[state][0].a"),
            ("state.a.b", "[state][0].a.b"),
            ("state.a[0]", "[state][0].a[0]"),
            ("state[1]", "[state][0][1]"),
            ("has(state.a)", "has([state][0].a)"),
        ] {
            let fast = Expression::compile(path).expect("a path").eval(&scope);
            let slow = Expression::compile(general).expect("an expression").eval(&scope);
            match (fast, slow) {
                (Ok(fast), Ok(slow)) => prop_assert_eq!(fast, slow),
                (Err(fast), Err(slow)) if fast.code == "type_mismatch"
                    || slow.code == "type_mismatch" => {}
                (fast, slow) => prop_assert_eq!(
                    fast.map_err(|e| e.code), slow.map_err(|e| e.code), "{}", path
                ),
            }
        }
    }
}
