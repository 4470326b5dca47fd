//! Tests of checking: one row per rule, problems by code and place.

use crate::definition::{ProblemCode as P, parse};

mod admission;
mod effects;
mod limits;
mod undo;
mod waits;

/// The example of a fan-out with a join, in every part valid.
pub(in crate::definition) const PANEL: &str = r#"
name: judge-panel
input_schema:  {type: object, required: [question, judges], properties: {question: {type: string}, judges: {type: array}}}
output_schema: {type: object, required: [answer]}
start: draft
timeout: 10m
nodes:
  draft:
    action: {kind: llm, with: {model: fast, prompt: "Answer: {{ question }}"}}
    input:  {question: "${input.question}"}
    output: {state.draft: "${result.text}"}
    retry:  {max_attempts: 3, backoff: exponential, initial: 1s, max: 1m}
  judge:
    action: {use: score-draft@2}
    input:  {draft: "${state.draft}", persona: "${item}"}
  pick:
    compute: {state.best: "${state.votes.max(v, v.score)}"}
transitions:
  - {from: draft, to: judge, foreach: "${input.judges}", group: judges}
  - {from: judge, to: pick, join: {group: judges, wait: all, merge: {strategy: append, into: state.votes}}}
output: {answer: "${state.best.text}"}
"#;

const NODES: &str = "name: x\nstart: a\nnodes:\n  a: {compute: {state.x: 1}}\n  \
                     b: {compute: {state.y: 1}}\n  c: {compute: {state.z: 1}}\n";

fn found(source: &str) -> Vec<(P, String)> {
    match parse::read(source.as_bytes()) {
        Ok(_) => Vec::new(),
        Err(problems) => problems.into_iter().map(|p| (p.code, p.pointer)).collect(),
    }
}

fn check(source: &str, expected: &[(P, &str)]) {
    let mut found = found(source);
    found.sort_by(|left, right| left.1.cmp(&right.1));
    let mut expected: Vec<_> =
        expected.iter().map(|(code, at)| (*code, (*at).to_owned())).collect();
    expected.sort_by(|left, right| left.1.cmp(&right.1));
    assert_eq!(found, expected, "{source}");
}

fn transitions(transitions: &str, expected: &[(P, &str)]) {
    check(&format!("{NODES}transitions: [{transitions}]\n"), expected);
}

fn node(node: &str, expected: &[(P, &str)]) {
    check(&format!("name: x\nstart: a\nnodes:\n  a: {node}\n"), expected);
}

#[test]
fn valid_definitions_have_no_problems() {
    check(PANEL, &[]);
    transitions("{from: a, to: b}, {from: a, to: c}", &[]);
    transitions("{from: a, to: b}, {from: b, to: c}, {from: c, to: a, max_iterations: 3}", &[]);
    transitions(
        "{from: a, to: b, foreach: '${input.list}', as: row, group: g}, \
         {from: b, to: c, when: row.x > 1, join: {group: g}}",
        &[],
    );
    node(
        "{steps: [{name: s, action: {kind: mock}}, {name: t, if: steps.s.ok, else: fail, \
          action: {kind: transform, with: {value: '${steps.s}'}}}]}",
        &[],
    );
}

#[test]
fn nodes_do_exactly_one_thing() {
    node("{summary: nothing}", &[(P::MissingKey, "/nodes/a")]);
    node("{compute: {state.x: 1}, action: {kind: mock}}", &[(P::InvalidValue, "/nodes/a")]);
    node("{workflow: {}}", &[(P::MissingKey, "/nodes/a/workflow")]);
    node("{action: {kind: mcp}}", &[(P::UnsupportedAction, "/nodes/a/action/kind")]);
    node("{action: {}}", &[(P::MissingKey, "/nodes/a/action")]);
    node("{action: {use: x, kind: mock}}", &[(P::InvalidValue, "/nodes/a/action")]);
    node("{action: {use: 'x@0'}}", &[(P::InvalidValue, "/nodes/a/action/use")]);
    check(
        "name: x\nstart: 'a b'\nnodes: {'a b': {compute: {state.x: 1}}}\n",
        &[(P::InvalidName, "/nodes/a b")],
    );
}

#[test]
fn actions_have_the_keys_of_their_kind() {
    node("{action: {kind: llm, with: {model: m}}}", &[(P::MissingKey, "/nodes/a/action/with")]);
    node("{action: {kind: http}}", &[(P::MissingKey, "/nodes/a/action/with")]);
    node(
        "{action: {kind: http, with: {url: 'http://x', boddy: 1}}}",
        &[(P::UnknownKey, "/nodes/a/action/with/boddy")],
    );
    node(
        "{action: {kind: llm, with: {prompt: '{{ x'}}}",
        &[(P::InvalidTemplate, "/nodes/a/action/with/prompt")],
    );
    node(
        "{action: {kind: mock, with: {delay: soon, fail: {time: 1}}}}",
        &[
            (P::InvalidValue, "/nodes/a/action/with/delay"),
            (P::UnknownKey, "/nodes/a/action/with/fail/time"),
        ],
    );
    node(
        "{action: {kind: llm, with: {prompt: x, schema: {type: 7}}}}",
        &[(P::InvalidSchema, "/nodes/a/action/with/schema/type")],
    );
}

#[test]
fn inline_models_are_checked_like_profiles() {
    let place = "/nodes/a/action/with/model";
    let model = |model: &str, expected: &[(P, &str)]| {
        let expected: Vec<_> =
            expected.iter().map(|(code, at)| (*code, format!("{place}{at}"))).collect();
        let expected: Vec<_> = expected.iter().map(|(code, at)| (*code, at.as_str())).collect();
        node(&format!("{{action: {{kind: llm, with: {{prompt: x, model: {model}}}}}}}"), &expected);
    };
    model("{provider: mock, model: m, temperature: 0, max_tokens: 5, fallback: [big]}", &[]);
    model("{provider: openai, model: m, prices: {input_micros: 1, output_micros: 2}}", &[]);
    model("fast", &[]);
    model("'${input.model}'", &[]);
    model("{providr: mock, model: m}", &[(P::MissingKey, ""), (P::UnknownKey, "/providr")]);
    model("{provider: anthropc, model: m}", &[(P::InvalidValue, "/provider")]);
    model("{provider: mock}", &[(P::MissingKey, "")]);
    model("{provider: mock, model: m, name: x}", &[(P::UnknownKey, "/name")]);
    model(
        "{provider: mock, model: '', temperature: 3, max_tokens: 0, base_url: ftp, \
          api_key_env: a-b, fallback: x, prices: {input: 1, output_micros: -1}}",
        &[
            (P::InvalidValue, "/model"),
            (P::InvalidValue, "/temperature"),
            (P::InvalidValue, "/max_tokens"),
            (P::InvalidValue, "/base_url"),
            (P::InvalidValue, "/api_key_env"),
            (P::InvalidValue, "/fallback"),
            (P::UnknownKey, "/prices/input"),
            (P::InvalidValue, "/prices/output_micros"),
        ],
    );
    model("[x]", &[(P::InvalidValue, "")]);
    model("a b", &[(P::InvalidName, "")]);
    let source = "name: x\nstart: a\nnodes: {a: {action: {kind: llm, with: {prompt: x, model: \
                  {provider: anthropc, model: m}}}}}\n";
    let problems = parse::read(source.as_bytes()).expect_err("the provider is unknown");
    assert_eq!(problems[0].suggestion.as_deref(), Some("anthropic"));
}

#[test]
fn templates_use_what_the_input_maps() {
    node(
        "{action: {kind: llm, with: {prompt: '{{ question }} {{ run.id }} {{ input.x }}'}}, \
          input: {question: 1}}",
        &[],
    );
    node(
        "{action: {kind: llm, with: {prompt: '{{ queston }}', system: '{{ x }}'}}, \
          input: {question: 1}}",
        &[
            (P::UndeclaredName, "/nodes/a/action/with/prompt"),
            (P::UndeclaredName, "/nodes/a/action/with/system"),
        ],
    );
    node(
        "{action: {kind: http, with: {url: 'http://h/{{ id }}'}}}",
        &[(P::UndeclaredName, "/nodes/a/action/with/url")],
    );
    node(
        "{action: {kind: llm, with: {messages: [{role: user, content: '{{ x }}'}]}}}",
        &[(P::UndeclaredName, "/nodes/a/action/with/messages/0/content")],
    );
    node("{action: {kind: llm, with: {prompt: \"{{ tone | default('dry') }}\"}}}", &[]);
    node(
        "{input: {x: 1}, steps: [{name: s, action: {kind: llm, with: {prompt: '{{ x }}'}}}, \
          {name: t, input: {y: 1}, action: {kind: llm, with: {prompt: '{{ x }}{{ steps.s }}'}}}]}",
        &[(P::UndeclaredName, "/nodes/a/steps/1/action/with/prompt")],
    );
    let source = "name: x\nstart: a\nnodes: {a: {input: {question: 1}, action: {kind: llm, with: \
                  {prompt: '{{ queston }}'}}}}\n";
    let problems = parse::read(source.as_bytes()).expect_err("a letter is missing");
    assert_eq!(problems[0].suggestion.as_deref(), Some("question"));
}

#[test]
fn names_must_be_in_scope() {
    node(
        "{action: {kind: mock}, input: {x: '${result.y}'}}",
        &[(P::UndeclaredName, "/nodes/a/input/x")],
    );
    node(
        "{action: {kind: mock}, output: {state.x: '${stat.y}'}}",
        &[(P::UndeclaredName, "/nodes/a/output/state.x")],
    );
    node(
        "{action: {kind: transform, with: {value: '${state.y}'}}}",
        &[(P::UndeclaredName, "/nodes/a/action/with/value")],
    );
    node(
        "{compute: {state.x: '${[1].map(v, v + w)}'}}",
        &[(P::UndeclaredName, "/nodes/a/compute/state.x")],
    );
    node("{compute: {state.x: '${1 +}'}}", &[(P::InvalidExpression, "/nodes/a/compute/state.x")]);
    transitions(
        "{from: a, to: b, on: failure, when: result.x}, {from: a, to: c, when: error.x}",
        &[(P::UndeclaredName, "/transitions/0/when"), (P::UndeclaredName, "/transitions/1/when")],
    );
    node("{compute: {state.x: 1}}\noutput: {y: '${item}'}", &[(P::UndeclaredName, "/output/y")]);
}

#[test]
fn mappings_write_to_separate_places_of_the_state() {
    node("{compute: {x: 1}}", &[(P::InvalidValue, "/nodes/a/compute/x")]);
    node("{compute: {state: 1}}", &[(P::InvalidValue, "/nodes/a/compute/state")]);
    node(
        "{compute: {state.x: 1, state.x.y: 2}}",
        &[(P::InvalidValue, "/nodes/a/compute/state.x.y")],
    );
    node("{compute: {state.x.z: 1, state.x.y: 2}}", &[]);
}

#[test]
fn the_graph_is_connected_and_bounded() {
    transitions("{from: a, to: b}", &[(P::UnreachableNode, "/nodes/c")]);
    transitions(
        "{from: a, to: b}, {from: b, to: cc}",
        &[(P::UnknownNode, "/transitions/1/to"), (P::UnreachableNode, "/nodes/c")],
    );
    transitions(
        "{from: a, to: b}, {from: b, to: c}, {from: c, to: b}",
        &[(P::UnboundedLoop, "/transitions/2")],
    );
    transitions(
        "{from: a, to: a}, {from: a, to: b}, {from: b, to: c}",
        &[(P::UnboundedLoop, "/transitions/0")],
    );
    check(
        "name: x\nstart: z\nnodes: {a: {compute: {state.x: 1}}}\n",
        &[(P::UnknownNode, "/start")],
    );
}

#[test]
fn groups_are_opened_and_joined() {
    transitions(
        "{from: a, to: b, spawn: 2, group: g}, {from: b, to: c}",
        &[(P::MissingJoin, "/transitions/0/group")],
    );
    transitions(
        "{from: a, to: b, spawn: 2, group: g}, {from: b, to: c, join: {group: gg}}",
        &[(P::UnknownGroup, "/transitions/1/join/group"), (P::MissingJoin, "/transitions/0/group")],
    );
    transitions(
        "{from: a, to: b, group: g}, {from: b, to: c, join: {group: g}}, \
                 {from: b, to: c, join: {group: g, wait: any}}",
        &[(P::JoinDisagreement, "/transitions/2/join")],
    );
    transitions(
        "{from: a, to: b, group: g}, {from: a, to: c, group: g}, \
                 {from: b, to: c, join: {group: g}}, {from: c, to: b, join: {group: g}, max_iterations: 1}",
        &[(P::JoinDisagreement, "/transitions/3/to")],
    );
    transitions(
        "{from: a, to: b, group: g}, {from: b, to: c, spawn: 2, join: {group: g}}",
        &[(P::InvalidValue, "/transitions/1/spawn")],
    );
    transitions(
        "{from: a, to: b, group: g}, {from: b, to: c, join: {group: g, wait: 0}}",
        &[(P::InvalidValue, "/transitions/1/join/wait")],
    );
}

#[test]
fn fan_outs_are_well_formed() {
    transitions(
        "{from: a, to: b, spawn: 0}, {from: b, to: c}",
        &[(P::InvalidValue, "/transitions/0/spawn")],
    );
    transitions(
        "{from: a, to: b, spawn: 2, foreach: '${[1]}'}, {from: b, to: c}",
        &[(P::InvalidValue, "/transitions/0/spawn")],
    );
    transitions(
        "{from: a, to: b, as: row}, {from: b, to: c}",
        &[(P::InvalidValue, "/transitions/0/as")],
    );
    transitions(
        "{from: a, to: b, foreach: '${[1]}', as: state}, {from: b, to: c}",
        &[(P::InvalidName, "/transitions/0/as")],
    );
    transitions(
        "{from: a, to: b, on: rejected}, {from: b, to: c}",
        &[(P::InvalidValue, "/transitions/0/on")],
    );
}

#[test]
fn schemas_are_schemas_and_stay_inside() {
    node(
        "{compute: {state.x: 1}}\ninput_schema: {type: nonsense}",
        &[(P::InvalidSchema, "/input_schema/type")],
    );
    node(
        "{compute: {state.x: 1}}\ninput_schema: {$ref: 'http://x.test/s'}",
        &[(P::InvalidSchema, "/input_schema/$ref")],
    );
}

#[test]
fn a_templates_text_has_no_expressions() {
    let prompt = |text: &str, expected: &[(P, &str)]| {
        node(
            &format!("{{action: {{kind: llm, with: {{prompt: '{text}'}}}}, input: {{x: 1}}}}"),
            expected,
        );
    };
    let at = "/nodes/a/action/with/prompt";
    prompt("{{ x }} and ${input.x}", &[(P::InvalidTemplate, at)]);
    prompt("{# note #}${input.x}", &[(P::InvalidTemplate, at)]);
    for well in ["${input.x}", "it costs ${{ x }}", "{% raw %}${input.x}{% endraw %} {{ x }}"] {
        prompt(well, &[]);
    }
}

#[test]
fn words_of_the_engine_are_told_from_names() {
    node(
        "{steps: [{name: last, action: {kind: mock}}]}",
        &[(P::InvalidName, "/nodes/a/steps/0/name")],
    );
    let method = |method: &str, expected: &[(P, &str)]| {
        node(&format!("{{action: {{kind: http, with: {{url: x, method: {method}}}}}}}"), expected);
    };
    method("GETT", &[(P::InvalidValue, "/nodes/a/action/with/method")]);
    method("5", &[(P::InvalidValue, "/nodes/a/action/with/method")]);
    method("post", &[]);
    method("'${input.method}'", &[]);
}

#[test]
fn a_schemas_type_is_named_plainly() {
    let source = format!("{NODES}input_schema: {{properties: {{n: {{type: strin}}}}}}\n");
    let problems = parse::read(source.as_bytes()).expect_err("it is refused");
    let problem = problems.iter().find(|p| p.code == P::InvalidSchema).expect("there is one");
    assert_eq!(problem.pointer, "/input_schema/properties/n/type");
    assert_eq!(problem.suggestion.as_deref(), Some("string"));
    assert!(!problem.message.contains("anyOf"), "{problem:?}");
}

#[test]
fn joins_of_one_group_have_one_bound() {
    let joins = |left: &str, right: &str, expected: &[(P, &str)]| {
        transitions(
            &format!(
                "{{from: a, to: b, group: g}}, {{from: b, to: c, join: {{group: g}}, \
                 on: success{left}}}, {{from: b, to: c, join: {{group: g}}, on: failure{right}}}"
            ),
            expected,
        );
    };
    joins(", max_iterations: 2", ", max_iterations: 2", &[]);
    let at = "/transitions/2/max_iterations";
    joins(", max_iterations: 2", ", max_iterations: 3", &[(P::JoinDisagreement, at)]);
    joins(", max_iterations: 2", "", &[(P::JoinDisagreement, at)]);
}

#[test]
fn only_a_groups_own_branches_join_it() {
    let at = |index: usize| format!("/transitions/{index}/join/group");
    let open = "{from: a, to: b, foreach: '${input.l}', group: g}";
    let join = "join: {group: g}";
    let nodes = NODES.replace("  c:", "  d: {compute: {state.w: 1}}\n  c:");
    let graph = |transitions: &str, expected: &[(P, &str)]| {
        check(&format!("{nodes}transitions: [{transitions}]\n"), expected);
    };
    // Inside of another fan-out, and outside of all.
    graph(
        &format!("{open}, {{from: b, to: c, spawn: 2}}, {{from: c, to: d, {join}}}"),
        &[(P::UnknownGroup, &at(2))],
    );
    graph(
        &format!(
            "{{from: a, to: c, priority: 1}}, {open}, {{from: c, to: d, {join}}}, \
             {{from: b, to: d, {join}}}"
        ),
        &[(P::UnknownGroup, &at(2))],
    );
    // A split of two may come alone, and a node may stand inside and outside.
    graph(
        &format!(
            "{open}, {{from: b, to: c, when: state.x == 1}}, {{from: b, to: d, when: state.x == 2}}, \
             {{from: c, to: a, max_iterations: 2, {join}}}, \
             {{from: d, to: a, max_iterations: 2, {join}}}"
        ),
        &[],
    );
    graph(
        &format!(
            "{{from: a, to: b, group: h}}, {{from: b, to: c, group: g}}, \
             {{from: c, to: d, {join}}}, {{from: d, to: d, when: 'false', max_iterations: 2}}, \
             {{from: d, to: a, max_iterations: 2, join: {{group: h}}}}"
        ),
        &[],
    );
}
