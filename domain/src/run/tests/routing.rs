//! Sequences, conditions, tiers, loops, retries, failures, limits, ends.

use serde_json::json;

use super::fixture::{Fixture, error, task, task_into};
use crate::run::event::{FailureKind, Usage};
use crate::run::{Command, Event, Refusal, RunStatus};

#[test]
fn a_sequence_takes_two_events_a_step() {
    let mut run = Fixture::started(
        json!({
            "name": "two", "start": "a",
            "nodes": {"a": task_into("state.x"), "b": {
                "action": {"kind": "mock"}, "input": {"seen": "${state.x.n}"},
                "output": {"state.y": "${result}"}}},
            "transitions": [{"from": "a", "to": "b"}],
            "output": {"y": "${state.y}", "n": "${state.x.n + input.add}"}
        }),
        json!({"add": 10}),
    );
    run.succeed("a", json!({"n": 1}));
    assert_eq!(run.types(), ["run_started", "task_succeeded", "token_routed"]);
    assert_eq!(run.input_at("b"), json!({"seen": 1}));
    run.succeed("b", json!("done"));
    assert_eq!(run.types().len(), 6, "two a step, the start and the end");
    assert_eq!(run.output(), json!({"y": "done", "n": 11}));
    assert_eq!(run.closed().usage, Usage { input_tokens: 2, output_tokens: 4, cost_micros: 6 });
}

#[test]
fn the_lowest_tier_that_holds_wins_and_all_of_it_fires() {
    let definition = json!({
        "name": "tiers", "start": "a",
        "nodes": {"a": task(), "x": task_into("state.x"), "y": task_into("state.y"),
                  "z": task_into("state.z")},
        "transitions": [
            {"from": "a", "to": "x", "when": "result.n > 5", "priority": 1},
            {"from": "a", "to": "y", "when": "result.n > 1", "priority": 2},
            {"from": "a", "to": "z", "when": "result.n > 1", "priority": 2},
            {"from": "a", "to": "x", "priority": 9}
        ]
    });
    let mut high = Fixture::started(definition.clone(), json!({}));
    high.succeed("a", json!({"n": 9}));
    assert_eq!(high.owed.len(), 1);
    assert_eq!(high.node_of(high.owed[0].0), "x");
    let mut middle = Fixture::started(definition.clone(), json!({}));
    middle.succeed("a", json!({"n": 3}));
    let mut nodes: Vec<_> = middle.owed.iter().map(|(token, _)| middle.node_of(*token)).collect();
    nodes.sort();
    assert_eq!(nodes, ["y", "z"]);
    let considered = middle.events.iter().find_map(|(event, _)| match event {
        Event::TokenRouted { considered, .. } => Some(considered.clone()),
        _ => None,
    });
    let considered = considered.expect("it was routed");
    assert_eq!(considered.iter().map(|one| one.held).collect::<Vec<_>>(), [false, true, true]);
    assert_eq!(considered[0].read.get("result.n"), Some(&json!(3)));
    let mut low = Fixture::started(definition, json!({}));
    low.succeed("a", json!({"n": 0}));
    assert_eq!(low.node_of(low.owed[0].0), "x");
}

#[test]
fn compute_nodes_need_no_worker_and_bounded_loops_end() {
    let run = Fixture::started(
        json!({
            "name": "count", "start": "init",
            "nodes": {"init": {"compute": {"state.n": 0}},
                      "add": {"compute": {"state.n": "${state.n + 1}"}}},
            "transitions": [
                {"from": "init", "to": "add"},
                {"from": "add", "to": "add", "when": "state.n < input.limit",
                 "max_iterations": 5000}
            ],
            "output": {"n": "${state.n}"}
        }),
        json!({"limit": 4000}),
    );
    assert_eq!(run.output(), json!({"n": 4000}));
}

#[test]
fn a_loop_beyond_its_limit_fails_and_may_be_caught() {
    let definition = |caught: bool| {
        let mut transitions = vec![json!({"from": "a", "to": "a", "max_iterations": 3})];
        if caught {
            transitions.push(json!({"from": "a", "to": "rescue", "on": "failure"}));
        } else {
            transitions.push(json!({"from": "a", "to": "rescue", "when": "false"}));
        }
        json!({
            "name": "loop", "start": "a",
            "nodes": {"a": {"compute": {"state.x": 1}},
                      "rescue": {"compute": {"state.rescued": true}}},
            "transitions": transitions
        })
    };
    assert_eq!(Fixture::started(definition(false), json!({})).failure(), "loop_limit");
    let caught = Fixture::started(definition(true), json!({}));
    assert_eq!(caught.output(), json!({"x": 1, "rescued": true}));
}

#[test]
fn a_transient_failure_is_retried_and_a_permanent_one_is_not() {
    let definition = json!({
        "name": "retry", "start": "a",
        "nodes": {"a": {"action": {"kind": "mock"}, "output": {"state.x": "${result}"},
            "retry": {"max_attempts": 3, "backoff": "constant", "initial": "1s", "jitter": false}}}
    });
    let mut run = Fixture::started(definition.clone(), json!({}));
    run.fail("a", FailureKind::Transient);
    assert_eq!(run.run.status(), Some(RunStatus::Waiting));
    assert!(run.owed.is_empty());
    assert!(run.advance_clock(999).events.is_empty(), "never early");
    assert_eq!(run.advance_clock(1).events.len(), 1);
    assert_eq!(run.owed, [(1, 2)]);
    run.fail("a", FailureKind::Timeout);
    run.advance_clock(1_000);
    assert_eq!(run.at("a"), (1, 3));
    run.fail("a", FailureKind::Transient);
    assert_eq!((run.failure(), run.closed().status), ("broken", RunStatus::Failed));
    let mut run = Fixture::started(definition, json!({}));
    run.fail("a", FailureKind::Permanent);
    assert_eq!(run.failure(), "broken");
}

#[test]
fn retry_after_is_respected() {
    let mut run = Fixture::started(
        json!({"name": "r", "start": "a", "nodes": {"a": {"action": {"kind": "mock"},
            "retry": {"max_attempts": 2, "initial": "1ms", "jitter": false}}}}),
        json!({}),
    );
    let mut failure = error(FailureKind::Transient);
    failure.retry_after = Some("5s".parse().expect("a span"));
    run.report(1, 1, Err(failure)).expect("owed");
    assert!(run.advance_clock(4_999).events.is_empty());
    assert_eq!(run.advance_clock(1).events.len(), 1);
}

#[test]
fn failures_and_time_outs_have_transitions_of_their_own() {
    let definition = json!({
        "name": "f", "start": "a",
        "nodes": {"a": task(), "late": task(), "broken": {"action": {"kind": "mock"},
            "input": {"code": "${item}"}}, "note": {"compute": {"state.seen": "${1}"}}},
        "transitions": [
            {"from": "a", "to": "late", "on": "timeout", "priority": 0},
            {"from": "a", "to": "note", "on": "failure", "priority": 1,
             "when": "error.code == 'broken' && error.node == 'a'"}
        ]
    });
    let mut definition = definition;
    definition["nodes"].as_object_mut().expect("object").remove("broken");
    let mut run = Fixture::started(definition.clone(), json!({}));
    run.fail("a", FailureKind::Timeout);
    assert_eq!(run.at("late"), (2, 1));
    let mut run = Fixture::started(definition, json!({}));
    run.fail("a", FailureKind::Permanent);
    assert_eq!(run.output(), json!({"seen": 1}));
}

#[test]
fn an_outcome_is_applied_once() {
    let mut run = Fixture::started(
        json!({"name": "once", "start": "a", "nodes": {"a": task(), "b": task()},
               "transitions": [{"from": "a", "to": "b"}]}),
        json!({}),
    );
    run.report(1, 1, Ok(json!(1))).expect("owed");
    let before = run.run.clone();
    let stale = |token, attempt| Err(Refusal::StaleOutcome { token, attempt });
    assert_eq!(run.report(1, 1, Ok(json!(2))), stale(1, 1));
    assert_eq!(run.report(2, 2, Ok(json!(2))), stale(2, 2));
    assert_eq!(run.report(99, 1, Ok(json!(2))), stale(99, 1));
    assert_eq!(run.run, before, "a refusal changes nothing");
}

#[test]
fn a_wrong_input_is_refused_with_a_pointer_and_changes_nothing() {
    let mut run = Fixture::new(json!({
        "name": "in", "start": "a", "nodes": {"a": task()},
        "input_schema": {"type": "object", "required": ["q"],
                         "properties": {"q": {"type": "string"}}}
    }));
    let Err(Refusal::InvalidInput { problems }) = run.start(json!({"q": 1})) else {
        panic!("it was accepted");
    };
    assert_eq!(problems[0].pointer, "/q");
    assert_eq!(run.run.status(), None);
    let deep = (0..65).fold(json!(1), |inner, _| json!([inner]));
    assert!(matches!(run.start(deep), Err(Refusal::InputTooDeep { .. })));
    let large = json!("x".repeat(crate::limits::INPUT_BYTES));
    assert!(matches!(run.start(large), Err(Refusal::InputTooLarge { .. })));
    run.start(json!({"q": "why"})).expect("it fits");
    assert_eq!(run.start(json!({"q": "why"})), Err(Refusal::AlreadyStarted));
}

#[test]
fn an_output_that_does_not_fit_fails_the_run() {
    let mut run = Fixture::started(
        json!({"name": "out", "start": "a", "nodes": {"a": task_into("state.x")},
               "output": {"x": "${state.x}"},
               "output_schema": {"type": "object", "properties": {"x": {"type": "integer"}}}}),
        json!({}),
    );
    run.succeed("a", json!("text"));
    assert_eq!(run.failure(), "invalid_output");
}

#[test]
fn an_output_mapping_that_fails_is_a_failure_of_the_node() {
    let mut run = Fixture::started(
        json!({"name": "map", "start": "a", "nodes": {
            "a": {"action": {"kind": "mock"}, "output": {"state.x": "${result.missing}"}}}}),
        json!({}),
    );
    run.succeed("a", json!({}));
    assert_eq!(run.closed().status, RunStatus::Failed);
    assert_eq!(run.types().last(), Some(&"run_failed"));
}

#[test]
fn cancel_is_one_event_and_nothing_is_taken_afterwards() {
    let mut run = Fixture::started(
        json!({"name": "c", "start": "a", "nodes": {"a": task(), "b": task()},
               "transitions": [{"from": "a", "to": "b", "spawn": 50}]}),
        json!({}),
    );
    run.succeed("a", json!(null));
    assert_eq!(run.owed.len(), 50);
    let decision = run
        .when(&Command::Cancel { reason: Some("enough".to_owned()), compensate: true })
        .expect("live");
    assert_eq!(decision.events.len(), 1);
    assert_eq!(run.closed().status, RunStatus::Cancelled);
    assert!(run.owed.is_empty());
    let refused = run.report(2, 1, Ok(json!(1)));
    assert_eq!(refused, Err(Refusal::Ended { status: RunStatus::Cancelled }));
}

#[test]
fn a_run_times_out_at_its_deadline_and_not_before() {
    let mut run = Fixture::started(
        json!({"name": "t", "start": "a", "timeout": "10m", "nodes": {"a": task()}}),
        json!({}),
    );
    assert!(run.advance_clock(599_999).events.is_empty());
    run.advance_clock(1);
    assert_eq!(run.closed().status, RunStatus::TimedOut);
    assert_eq!(run.failure(), "run_timeout");
}

#[test]
fn state_paths_are_written_together_after_the_mapping_was_evaluated_whole() {
    let run = Fixture::started(
        json!({"name": "swap", "start": "a", "nodes": {
            "a": {"compute": {"state.x": 1, "state.y": {"z": 2}}},
            "b": {"compute": {"state.x": "${state.y.z}", "state.y.z": "${state.x}"}}},
            "transitions": [{"from": "a", "to": "b"}]}),
        json!({}),
    );
    assert_eq!(run.output(), json!({"x": 2, "y": {"z": 1}}));
}

#[test]
fn a_node_that_a_failure_leads_to_sees_the_error() {
    let definition = json!({
        "name": "fallback", "start": "a",
        "nodes": {"a": task(),
            "note": {"compute": {"state.why": "${has(error.code) ? error.code : 'fine'}"}},
            "each": {"compute": {"state.same": "${item.code == error.code}"}},
            "end": {"compute": {"state.end": 1}}},
        "transitions": [
            {"from": "a", "to": "note"},
            {"from": "a", "to": "note", "on": "failure", "priority": 1},
            {"from": "a", "to": "each", "on": "failure", "priority": 1, "group": "g",
             "foreach": "${[error, error]}"},
            {"from": "each", "to": "end", "join": {"group": "g", "merge": {
                "strategy": "collect", "from": "${state.same}", "into": "state.all"}}}
        ],
        "output": {"all": "${has(state.all) ? state.all : []}"}
    });
    let mut run = Fixture::started(definition.clone(), json!({}));
    run.fail("a", FailureKind::Permanent);
    assert_eq!(run.output(), json!({"all": [true, true]}));
    let why = |run: &Fixture| {
        run.events.iter().find_map(|(event, _)| match event {
            Event::NodeComputed { writes, .. } => writes.get("why").cloned(),
            _ => None,
        })
    };
    assert_eq!(why(&run), Some(json!("broken")));
    let mut run = Fixture::started(definition, json!({}));
    run.succeed("a", json!(null));
    assert_eq!(why(&run), Some(json!("fine")));
}

#[test]
fn values_that_a_journal_could_not_give_back_are_refused() {
    let definition = json!({"name": "v", "start": "a", "nodes": {"a": task_into("state.x")}});
    let bad = [
        json!({"$serde_json::private::RawValue": "1"}),
        json!("a\u{0}b"),
        json!({"a\u{0}": 1}),
        json!(9_007_199_254_740_993_u64),
        json!([-9_007_199_254_740_993_i64]),
        json!(u64::MAX),
    ];
    for value in bad {
        let mut run = Fixture::new(definition.clone());
        assert!(matches!(run.start(value.clone()), Err(Refusal::InputNotStorable(_))), "{value}");
        run.start(json!({})).expect("it starts");
        run.succeed("a", value);
        assert_eq!(run.failure(), "value_not_storable");
    }
    let mut run = Fixture::started(definition, json!({"n": 1e17}));
    run.succeed("a", json!([9_007_199_254_740_992_u64, -1.0, 1e300, "é"]));
    assert_eq!(run.output()["x"], json!([9_007_199_254_740_992_u64, -1, 1e300, "é"]));
}
