//! Compensation: what is kept, what is undone and in which order, and how the run ends then.

use serde_json::{Value, json};

use super::fixture::{Fixture, error, task};
use crate::run::command::ChildReport;
use crate::run::event::{Event, FailureKind};
use crate::run::{Command, Decision, Refusal, Run, RunStatus};

fn undoable(retry: &Value) -> Value {
    let mut node = task();
    node["output"] = json!({"state.last": "${result.id}"});
    node["undo"] = json!({"action": {"kind": "mock"},
        "input": {"id": "${result.id}", "before": "${has(state.last) ? state.last : null}"}});
    if !retry.is_null() {
        node["undo"]["retry"] = retry.clone();
    }
    node
}

/// Three steps that can be undone, and one that can't.
fn trip(retry: &Value) -> Value {
    json!({
        "name": "trip", "start": "flight", "compensate": true,
        "nodes": {"flight": undoable(retry), "hotel": undoable(retry), "car": undoable(retry),
            "pay": task()},
        "transitions": [
            {"from": "flight", "to": "hotel"}, {"from": "hotel", "to": "car"},
            {"from": "car", "to": "pay"},
        ],
    })
}

fn booked(retry: &Value) -> Fixture {
    let mut run = Fixture::started(trip(retry), json!({}));
    for (node, id) in [("flight", 1), ("hotel", 2), ("car", 3)] {
        run.succeed(node, json!({"id": id}));
    }
    run
}

fn cancel(compensate: bool) -> Command {
    Command::Cancel { reason: Some("enough".to_owned()), compensate }
}

fn last_types(decision: &Decision) -> Vec<&'static str> {
    decision.events.iter().map(Event::event_type).collect()
}

#[test]
fn a_failing_run_undoes_what_it_completed_newest_first_and_fails_with_its_own_error() {
    let mut run = booked(&Value::Null);
    let failed = run.fail("pay", FailureKind::Permanent);
    assert_eq!(
        last_types(&failed),
        ["task_failed", "token_routed", "compensation_started", "undo_started"]
    );
    assert_eq!(run.run.status(), Some(RunStatus::Running));
    let mut undone = Vec::new();
    for node in ["car", "hotel", "flight"] {
        let (token, _) = run.at(node);
        undone.push((token, run.input_at(node)));
        let owed = run.run.owed(&run.plan);
        assert_eq!(owed.attempts, [(token, 1)], "one after another, also after a restart");
        run.succeed(node, json!({"ok": true}));
    }
    // With what each had when it completed, and by tokens of their own.
    assert_eq!(
        undone,
        [
            (5, json!({"id": 3, "before": 2})),
            (6, json!({"id": 2, "before": 1})),
            (7, json!({"id": 1, "before": null})),
        ]
    );
    assert_eq!((run.closed().status, run.failure()), (RunStatus::Failed, "broken"));
    let record = run.closed().compensation.clone().expect("it is recorded");
    assert_eq!((record.total, record.undone, record.failed), (3, 3, 0));
    // Four steps and three undos.
    assert_eq!(run.closed().usage.input_tokens, 7);
}

#[test]
fn an_undo_is_retried_and_one_that_fails_for_good_does_not_stop_the_others() {
    let retry = json!({"max_attempts": 2, "initial": "1s", "jitter": false});
    let mut run = booked(&retry);
    run.fail("pay", FailureKind::Permanent);
    run.fail("car", FailureKind::Transient);
    assert_eq!(run.run.status(), Some(RunStatus::Waiting));
    assert!(run.advance_clock(999).events.is_empty());
    assert_eq!(last_types(&run.advance_clock(1)), ["retry_started"]);
    assert_eq!(run.at("car"), (5, 2), "the same token, so the same idempotency key");
    assert_eq!(
        last_types(&run.fail("car", FailureKind::Transient)),
        ["undo_failed", "undo_started"]
    );
    run.succeed("hotel", Value::Null);
    run.fail("flight", FailureKind::Permanent);
    let closed = run.closed();
    assert_eq!(closed.error.as_deref().and_then(|error| error.node.as_deref()), Some("pay"));
    let record = closed.compensation.clone().expect("it is recorded");
    assert_eq!((record.total, record.undone, record.failed, record.remaining()), (3, 1, 2, 0));
    let failures: Vec<_> =
        record.failures.iter().map(|one| (&*one.node, one.undoes, &*one.code)).collect();
    assert_eq!(failures, [("car", 3, "broken"), ("flight", 1, "broken")]);
}

#[test]
fn without_a_retry_of_its_own_an_undo_has_five_attempts() {
    let mut run = booked(&Value::Null);
    run.fail("pay", FailureKind::Permanent);
    for _ in 0..4 {
        run.fail("car", FailureKind::Timeout);
        run.advance_clock(300_000);
    }
    run.fail("car", FailureKind::Timeout);
    assert_eq!(run.at("hotel").1, 1);
}

#[test]
fn a_cancel_undoes_too_and_one_without_compensation_ends_it_at_once() {
    let mut run = booked(&Value::Null);
    run.when(&cancel(true)).expect("it always succeeds");
    run.succeed("car", Value::Null);
    // One that lets it undo its work changes nothing, so that a repeated one does no harm.
    assert_eq!(run.when(&cancel(true)), Err(Refusal::Compensating));
    let (token, attempt) = run.at("hotel");
    let ended = run.when(&cancel(false)).expect("it always succeeds");
    assert_eq!(last_types(&ended), ["compensation_ended", "run_cancelled"]);
    let closed = run.closed();
    assert_eq!((closed.status, closed.reason.as_deref()), (RunStatus::Cancelled, Some("enough")));
    let record = closed.compensation.clone().expect("it is recorded");
    assert_eq!((record.undone, record.remaining()), (1, 2));
    assert!(matches!(run.report(token, attempt, Ok(Value::Null)), Err(Refusal::Ended { .. })));

    let mut run = booked(&Value::Null);
    let ended = run.when(&cancel(false)).expect("it always succeeds");
    assert_eq!(last_types(&ended), ["run_cancelled"]);
}

#[test]
fn a_run_that_times_out_or_has_no_valid_output_undoes_its_work() {
    let mut definition = trip(&Value::Null);
    definition["timeout"] = json!("1m");
    let mut run = Fixture::started(definition, json!({}));
    run.succeed("flight", json!({"id": 1}));
    run.advance_clock(60_000);
    run.succeed("flight", Value::Null);
    assert_eq!((run.closed().status, run.failure()), (RunStatus::TimedOut, "run_timeout"));

    let mut definition = trip(&Value::Null);
    definition["output_schema"] = json!({"type": "object", "required": ["total"]});
    let mut run = Fixture::started(definition, json!({}));
    for (node, id) in [("flight", 1), ("hotel", 2), ("car", 3)] {
        run.succeed(node, json!({"id": id}));
    }
    let decision = run.succeed("pay", Value::Null);
    assert_eq!(last_types(&decision)[2..], ["compensation_started", "undo_started"]);
    for node in ["car", "hotel", "flight"] {
        run.succeed(node, Value::Null);
    }
    assert_eq!(run.failure(), "invalid_output");
}

#[test]
fn a_run_that_completes_or_does_not_compensate_undoes_nothing() {
    let mut run = booked(&Value::Null);
    run.succeed("pay", Value::Null);
    assert_eq!(run.closed().status, RunStatus::Completed);

    let mut definition = trip(&Value::Null);
    definition["compensate"] = json!(false);
    let mut run = Fixture::started(definition, json!({}));
    let decision = run.succeed("flight", json!({"id": 1}));
    assert!(matches!(&decision.events[0], Event::TaskSucceeded { undo: None, .. }));
    run.fail("hotel", FailureKind::Permanent);
    assert!(!run.types().contains(&"compensation_started"));

    // Nothing that could be undone was completed.
    let mut run = Fixture::started(trip(&Value::Null), json!({}));
    run.fail("flight", FailureKind::Permanent);
    assert!(!run.types().contains(&"compensation_started"));
}

#[test]
fn branches_are_undone_in_the_order_in_which_they_completed_and_the_rest_is_given_up() {
    let definition = json!({
        "name": "fan", "start": "begin", "compensate": true,
        "nodes": {"begin": {"compute": {"state.begun": true}},
            "work": {"action": {"kind": "mock"}, "undo": {"action": {"kind": "mock"},
                "input": {"item": "${item}", "index": "${index}", "gave": "${result}"}}},
            "ask": {"gate": {"title": "Go on?"}}, "child": {"workflow": {"definition": "below"}},
            "end": task()},
        "transitions": [
            {"from": "begin", "to": "work", "foreach": "${input.items}", "group": "all"},
            {"from": "begin", "to": "ask"}, {"from": "begin", "to": "child"},
            {"from": "work", "to": "end", "join": {"group": "all"}},
        ],
    });
    let mut run = Fixture::started(definition, json!({"items": ["a", "b", "c", "d"]}));
    let mut owed = run.owed.clone();
    owed.sort_unstable();
    for at in [2, 0, 1] {
        run.report(owed[at].0, 1, Ok(json!(at))).expect("it is owed");
    }
    let child = run.run.owed(&run.plan).children[0].1;
    run.report(owed[3].0, 1, Err(error(FailureKind::Permanent))).expect("it is owed");
    assert_eq!(run.given_up, [child]);
    assert!(run.run.live().expect("it goes on").gates.is_empty());
    for (item, index) in [("b", 1), ("a", 0), ("c", 2)] {
        assert_eq!(run.input_at("work"), json!({"item": item, "index": index, "gave": index}));
        run.succeed("work", Value::Null);
    }
    assert_eq!(run.failure(), "broken");
}

#[test]
fn each_round_of_a_loop_is_undone_by_itself() {
    let definition = json!({
        "name": "rounds", "start": "work", "compensate": true,
        "nodes": {"work": undoable(&Value::Null)},
        "transitions": [{"from": "work", "to": "work", "max_iterations": 2}],
    });
    let mut run = Fixture::started(definition, json!({}));
    for id in 1..=3 {
        run.succeed("work", json!({"id": id}));
    }
    for id in [3, 2, 1] {
        assert_eq!(run.input_at("work")["id"], json!(id));
        run.succeed("work", Value::Null);
    }
    assert_eq!(run.failure(), "loop_limit");
}

#[test]
fn a_pause_holds_the_undo_back_and_a_cancel_lifts_it() {
    let mut run = booked(&Value::Null);
    run.when(&Command::Pause { reason: None }).expect("it runs");
    let decision = run.fail("pay", FailureKind::Permanent);
    assert!(decision.dispatch.is_empty(), "nothing is handed out of a paused run");
    assert_eq!(run.run.status(), Some(RunStatus::Paused));
    assert_eq!(run.when(&Command::Resume).expect("it is paused").dispatch, [(5, 1)]);

    let mut run = booked(&Value::Null);
    run.when(&Command::Pause { reason: None }).expect("it runs");
    let decision = run.when(&cancel(true)).expect("it always succeeds");
    assert_eq!(last_types(&decision), ["run_resumed", "compensation_started", "undo_started"]);
    assert_eq!(decision.dispatch, [(5, 1)]);
}

#[test]
fn an_undo_that_must_not_be_repeated_is_in_doubt_where_its_worker_vanished() {
    let mut definition = trip(&Value::Null);
    definition["nodes"]["flight"]["undo"]["repeatable"] = json!(false);
    let mut run = Fixture::started(definition, json!({}));
    run.succeed("flight", json!({"id": 1}));
    run.fail("hotel", FailureKind::Permanent);
    let (token, attempt) = run.at("flight");
    run.when(&Command::HandOut { token, attempt }).expect("it is owed");
    run.when(&Command::HandOut { token, attempt }).expect("it is owed");
    let record = run.closed().compensation.clone().expect("it is recorded");
    assert_eq!((record.failed, &*record.failures[0].code), (1, "in_doubt"));
}

#[test]
fn an_undo_that_can_not_be_mapped_fails_its_node() {
    let mut definition = trip(&Value::Null);
    definition["nodes"]["flight"]["output"] = json!({});
    let mut run = Fixture::started(definition, json!({}));
    let decision = run.succeed("flight", json!({"number": 1}));
    let Event::TaskFailed { error, .. } = &decision.events[0] else { panic!("{decision:?}") };
    assert!(error.message.starts_with("undo.input.id: "), "{}", error.message);
    assert_eq!(error.node.as_deref(), Some("flight"));
}

#[test]
fn what_is_kept_for_undos_is_bounded() {
    let mut definition = trip(&Value::Null);
    for node in ["flight", "hotel", "car"] {
        definition["nodes"][node]["undo"]["input"] = json!({"all": "${result.text}"});
    }
    let mut run = Fixture::started(definition, json!({}));
    // Three of them have more than 8 MiB.
    let text = "x".repeat(3 << 20);
    for node in ["flight", "hotel", "car"] {
        run.succeed(node, json!({"id": 1, "text": text}));
    }
    for node in ["hotel", "flight"] {
        run.succeed(node, Value::Null);
    }
    let closed = run.closed();
    assert_eq!(closed.error.as_deref().and_then(|error| error.node.as_deref()), Some("car"));
    assert_eq!(run.failure(), "context_too_large");
}

#[test]
fn a_completed_child_is_undone_by_an_action_that_takes_its_output() {
    for (status, undoes) in [(RunStatus::Completed, true), (RunStatus::Failed, false)] {
        let definition = json!({
            "name": "parent", "start": "child", "compensate": true,
            "nodes": {"child": {"workflow": {"definition": "below", "on_failure": "catch"},
                    "undo": {"action": {"kind": "mock"}, "input": {"of": "${result.output.id}"}}},
                "after": task()},
            "transitions": [{"from": "child", "to": "after"}],
        });
        let mut run = Fixture::started(definition, json!({}));
        let run_id = run.run.awaited_child(1).expect("it waits");
        // What the undo gets can't be mapped where there is no output.
        let output = undoes.then(|| json!({"id": 7}));
        let report = ChildReport { token: 1, run_id, status, output, error: None, adopted: None };
        run.when(&Command::ReportChild(Box::new(report))).expect("it is awaited");
        run.fail("after", FailureKind::Permanent);
        assert_eq!(matches!(run.run, Run::Live(_)), undoes);
        if undoes {
            assert_eq!(run.input_at("child"), json!({"of": 7}));
            run.succeed("child", Value::Null);
        }
        assert_eq!(run.failure(), "broken");
    }
}
