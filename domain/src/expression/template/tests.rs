//! Tests of templates.

use serde_json::{Value, json};

use super::*;

fn render(source: &str, context: &Value) -> Result<String, EvalError> {
    Template::compile(source).unwrap_or_else(|e| panic!("{source}: {e}")).render(context)
}

fn check(source: &str, expected: &str) {
    let context = json!({"name": "Ada", "n": 3, "half": 0.5, "gone": null, "on": true,
        "list": ["a", "b"], "map": {"k": [1, "x"]}, "odd key": "<&>"});
    assert_eq!(render(source, &context).as_deref(), Ok(expected), "{source}");
}

fn fails(source: &str, code: &str) {
    let context = json!({"t": "x".repeat(1024 * 1024), "list": [1, 2]});
    let error = render(source, &context).map(|text| text.len()).expect_err(source);
    assert_eq!(error.code, code, "{source}: {error}");
}

#[test]
fn values_are_written_plainly() {
    check("hi {{ name }}, {{ n }} {{ half }}", "hi Ada, 3 0.5");
    check("{{ input.name }} {{ input['odd key'] }}", "Ada <&>");
    check("{% for x in list %}{{ loop.index }}{{ x }} {% endfor %}", "1a 2b ");
    check("{% if n > 2 and on %}many{% else %}few{% endif %}", "many");
    check("{{ map | tojson }}", "{\"k\":[1,\"x\"]}");
    check("https://x.test/{{ 'a b/ü?' | urlencode }}", "https://x.test/a%20b/%C3%BC%3F");
    check("{{ missing | default('none') }} {{ list | join(', ') }}", "none a, b");
    check("{% set a = name %}{{ a | upper }}{{ '!' ~ n }}", "ADA!3");
    check("{% raw %}{{ x }}{% include %}{% endraw %}", "{{ x }}{% include %}");
    check("{% for i in range(3) %}{{ i }}{% endfor %}", "012");
    check("{{ 'a' if gone is none else 'b' }}", "a");
}

#[test]
fn what_is_missing_is_an_error() {
    fails("{{ nobody }}", "undefined_value");
    fails("{{ input.nobody.deeper }}", "undefined_value");
    fails("{% for x in nobody %}{% endfor %}", "undefined_value");
}

#[test]
fn what_is_missing_is_named() {
    for (source, name) in [
        ("hi\n{{ nobody }}", "`nobody`"),
        ("{{ input.nobody.deeper }}", "input.nobody"),
        ("{% for x in nobody %}{% endfor %}", "`nobody`"),
        ("{{ input.nobody | upper }}", "input.nobody"),
        ("{% if nobody %}x{% endif %}", "`nobody`"),
    ] {
        let error = render(source, &json!({})).expect_err(source);
        assert!(error.message.contains(name), "{source}: {error}");
    }
}

#[test]
fn the_variables_that_must_be_there_are_known() {
    for (source, expected) in [
        ("{{ b }}{{ a.x }}{{ input.c }}", &["a", "b", "input"][..]),
        ("{% for x in list %}{{ x }}{{ loop.index }}{% endfor %}{{ range(3) }}", &["list"]),
        ("{% set y = z %}{{ y }}{% with w = 1 %}{{ w }}{% endwith %}", &["z"]),
        ("{{ a | default('x') }}{% if b is defined %}{{ b }}{% endif %}{{ c | d(1) }}", &[]),
        ("no variables", &[]),
    ] {
        let template = Template::compile(source).unwrap_or_else(|e| panic!("{source}: {e}"));
        assert_eq!(template.variables(), expected, "{source}");
    }
}

#[test]
fn what_reaches_out_or_builds_on_the_side_is_refused() {
    for bad in [
        "{% include 'template' %}",
        "{% extends 'x' %}",
        "{% import 'x' as y %}",
        "{% macro m() %}x{% endmacro %}",
        "{% set x %}{{ name }}{% endset %}",
        "{% set x = x ~ x %}",
        "{%- set x = x * 100 -%}",
        "{% filter upper %}x{% endfilter %}",
        "{% for x in y recursive %}{{ loop(x) }}{% endfor %}",
        "{{ name",
        "{{ name | nofilter }}",
        "{% if %}",
    ] {
        let compiled = Template::compile(bad).map(|template| template.render(&json!({"name": 1})));
        assert!(!matches!(compiled, Ok(Ok(_))), "{bad}");
    }
    let invalid = Template::compile("line\n{% include 'x' %}").expect_err("refused");
    assert_eq!(invalid.line, Some(2));
}

#[test]
fn long_chains_need_little_stack() {
    let tag = |inner: &str| format!("{{{{ {inner} }}}}");
    for times in [200, 1_000, 100_000] {
        for (first, link) in [
            ("a", ".a"),
            ("a", "[0]"),
            ("a", "()"),
            ("a", "-a"),
            ("a", " and a"),
            ("a", "|upper"),
            ("a", " is none"),
            ("a", " if a else a"),
            ("a", " in a"),
            ("not a", " or not a"),
        ] {
            let _ = Template::compile(&tag(&format!("{first}{}", link.repeat(times))))
                .map(|template| (template.variables(), template.render(&json!({"a": 1})).is_ok()));
        }
        for prefix in ["not ", "-", "(", "[", "{'a': ", "a(", "a["] {
            let _ = Template::compile(&tag(&format!("{}a", prefix.repeat(times))));
        }
        let elifs = format!("{{% if a %}}{}{{% endif %}}", "{% elif a %}".repeat(times));
        let _ = Template::compile(&elifs).map(|template| template.variables());
    }
    // The worst that is let in.
    let most = tag(&format!("a{}", "()".repeat(249)));
    let within = format!("{{% if a %}}{}{most}{{% endif %}}", "{% elif a %}".repeat(100));
    assert!(Template::compile(&within).is_ok());
    let invalid = Template::compile(&tag(&format!("a{}", "()".repeat(250)))).expect_err("longer");
    assert!(invalid.message.contains("more than 500 words and signs"), "{invalid}");
    let invalid =
        Template::compile(&within.replacen("{% elif a %}", "{% elif a %}{% elif b %}", 1));
    assert!(invalid.expect_err("longer").message.contains("more than 100 `elif`"));
    // What is long but not deep is taken.
    let map: Vec<_> = (0..400).map(|n| format!("'k{n}': {n}")).collect();
    check(&format!("{{% set m = {{{}}} %}}{{{{ m.k399 }}}}", map.join(", ")), "399");
    check(&"{% if n == 3 %}x{% endif %}".repeat(200), &"x".repeat(200));
}

#[test]
fn nothing_hides_behind_a_comment_or_a_raw_part() {
    for hidden in [
        "{# {{ \" #}{% set x = name ~ name %}",
        "{% raw %} endraw {{ \" {% endraw %}{% set x = name ~ name %}",
        "{% raw %}{%{% endraw %}{% set x = name ~ name %}",
        "{#{%- raw -%}#}{% for x in list recursive %}{% endfor %}",
        "{%- raw +%} {% raw %} {{ ' {%-endraw-%}{% set x %}{% endset %}",
    ] {
        assert!(Template::compile(hidden).is_err(), "{hidden}");
    }
    check(
        "{# {{ name ~ \" #}{{ name }}{% raw %} endraw {{ \" {%- endraw +%}!",
        "Ada endraw {{ \"!",
    );
}

#[test]
fn bombs_end_in_errors() {
    fails("{% for i in range(10000) %}{{ t }}{% endfor %}", "too_large");
    fails(
        "{% for i in range(9999) %}{% for j in range(9999) %}{% endfor %}{% endfor %}",
        "fuel_exhausted",
    );
    fails("{{ range(100000) }}", "template_failed");
    fails("{{ t | replace('x', t) }}", "too_large");
    fails("{{ range(100) | join(t) }}", "too_large");
    let raw = format!("{{% for i in range(10000) %}}{}{{% endfor %}}", "y".repeat(10_000));
    fails(&raw, "too_large");
    assert!(Template::compile(&"x".repeat(300_000)).is_err());
    assert!(Template::compile(&"{{ a ~ a }}".repeat(100)).is_err());
    let _ = Template::compile(&format!("{{{{ {} }}}}", "(".repeat(100_000)));
    let _ = Template::compile(&"{% if a %}".repeat(20_000));
}
