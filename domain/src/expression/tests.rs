//! Hostile expressions, bindings and templates: whatever comes is compiled or refused, and what was
//! compiled is evaluated within its limits.

use graphs::{holds, hostile, hostile_text};
use serde_json::{Value, json};

use super::cel::value_fits;
use super::*;
use crate::limits;

const EXPRESSIONS: [&str; 12] = [
    "state.votes.filter(v, v.score > 2.5).map(v, v.who + '!')",
    "${input.list.map(a, input.list.map(b, a * b))}",
    "has(state.a.b) ? state.a.b[0] : {'k': [1, 2u, 3.0, null, true]}",
    "state.votes.max(v, v.score).who in ['ann', \"bob\"] && !(1 < 2 || false)",
    "timestamp('2024-02-29T12:00:00Z') + duration('1h30m') > timestamp(input.at)",
    "input.text.matches('^a+b?$') && input.text.replace('a', 'bb').split(',').size() == 3",
    "state['odd key'].exists(x, x % 3 == -1) || size(input.list) / 0 == 1",
    "'\\u00e9\\n\\x41' + r'raw\\n' + '''three''' + string(9223372036854775807)",
    "-(-9223372036854775808) - 1",
    "1e308 * 10.0 + double('1.5')",
    "input.list.sort().join(', ').upperAscii()",
    "state.a.b.c.d.e[input.list[0]]",
];

const BINDINGS: [&str; 4] = [
    r#"{"a": "${state.votes}", "b": ["x ${input.text} y", "$${no}", {"c": "${1 + 1}"}], "d": 1.50}"#,
    r#""${'}' + \"${\" + input.text}""#,
    r#"["${[1,2,3].map(x, {'v': x})}", "${input.list}${input.list}"]"#,
    r#"{"~/": "${state['odd key'][0]}", "": "${null}"}"#,
];

const TEMPLATES: [&str; 8] = [
    "hi {{ name }}, {{ input['odd key'] }} {{ list | join(', ') }}\n{# no #}",
    "{% for x in list %}{{ loop.index }}{{ x }} {% else %}none{% endfor %}",
    "{% if n > 2 and name %}many{% elif n is none %}few{% else %}{{ map | tojson }}{% endif %}",
    "{% set a = name %}{{ a | upper }}{{ '!' ~ n }}{% raw %}{{ x }}{% endraw %}",
    "{% with b = {'k': [1]} %}{{ b.k[0] }}{% endwith %}{{ missing | default('none') }}",
    "{{ name | replace('a', 'b') | urlencode | length }}{{ range(3) | list }}",
    "{%- for i in range(9) -%}{%- for j in range(9) -%}{{ i * j }}{%- endfor -%}{%- endfor -%}",
    "{{ 'a' if gone is none else map.k[1:2] }}{{ -n // 2 % 3 ** 2 }}",
];

fn context() -> Value {
    json!({
        "votes": [{"who": "ann", "score": 3}, {"who": "bob", "score": 2.5}],
        "list": [3, 1, 2], "text": "aab,ä,💥", "at": "2024-01-01T00:00:00Z", "name": "Ada", "n": 3,
        "a": {"b": [1, {"c": null}]}, "odd key": [-1, 4], "map": {"k": [1, "x"]}, "gone": null,
    })
}

/// The codes of [`EvalError`].
const CODES: [&str; 15] = [
    "no_such_member",
    "undeclared_name",
    "type_mismatch",
    "not_a_bool",
    "division_by_zero",
    "overflow",
    "not_a_number",
    "invalid_argument",
    "empty_list",
    "index_out_of_range",
    "fuel_exhausted",
    "too_large",
    "too_deep",
    "undefined_value",
    "template_failed",
];

fn check_value(value: Result<Value, EvalError>) {
    match value {
        Ok(value) => {
            let fits = value_fits(&value, limits::EVALUATION_BYTES, limits::JSON_DEPTH);
            assert!(fits.is_ok(), "it is within its limits");
        }
        Err(error) => assert!(CODES.contains(&error.code), "{error:?}"),
    }
}

#[test]
fn a_hostile_expression_is_compiled_or_refused_and_evaluated_within_its_limits() {
    let context = context();
    let scope = Roots::new().with("state", &context).with("input", &context);
    let accepted = std::cell::Cell::new(0);
    holds(600, hostile_text(&EXPRESSIONS), |source| match Expression::compile(&source) {
        Err(invalid) => assert!(!invalid.message.is_empty()),
        Ok(expression) => {
            accepted.set(accepted.get() + 1);
            assert!(expression.source().len() <= limits::EXPRESSION_BYTES);
            let value = expression.eval(&scope);
            let again = Expression::compile(expression.source()).expect("it is one still");
            assert_eq!(again.source(), expression.source());
            assert_eq!(again.roots(), expression.roots());
            assert_eq!(again.eval(&scope), value, "the same source gives the same");
            check_value(value);
            let _ = expression.reads(&scope);
        }
    });
    assert!(accepted.get() > 0, "some mutations leave an expression valid");
}

#[test]
fn a_hostile_binding_is_compiled_or_refused_with_its_place() {
    let context = context();
    let scope = Roots::new().with("state", &context).with("input", &context);
    holds(600, hostile(&BINDINGS), |source| {
        let Ok(value) = serde_json::from_slice::<Value>(&source) else { return };
        let is_text = |pointer: &str| value.pointer(pointer).is_some_and(Value::is_string);
        match Binding::compile(&value) {
            Err((pointer, invalid)) => {
                assert!(!invalid.message.is_empty());
                assert!(value.pointer(&pointer).is_some(), "{pointer} in {value}");
            }
            Ok(binding) => {
                assert!(binding.expressions().all(|(pointer, _)| is_text(pointer)), "{value}");
                check_value(binding.eval(&scope));
            }
        }
    });
}

#[test]
fn a_hostile_template_is_compiled_or_refused_and_rendered_within_its_limits() {
    let context = context();
    let accepted = std::cell::Cell::new(0);
    holds(600, hostile_text(&TEMPLATES), |source| match Template::compile(&source) {
        Err(invalid) => {
            let lines = source.lines().count() + 1;
            assert!(!invalid.message.is_empty());
            assert!(invalid.line.is_none_or(|line| (1..=lines).contains(&line)), "{invalid:?}");
        }
        Ok(template) => {
            accepted.set(accepted.get() + 1);
            let names = template.variables();
            assert!(names.is_sorted() && !names.iter().any(String::is_empty), "{names:?}");
            match template.render(&context) {
                Ok(text) => assert!(text.len() <= limits::EVALUATION_BYTES),
                Err(error) => assert!(CODES.contains(&error.code), "{error:?}"),
            }
        }
    });
    assert!(accepted.get() > 0, "some mutations leave a template valid");
}
