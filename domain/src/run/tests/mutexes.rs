//! Mutexes: one token at a time, in the order in which they came, whatever becomes of each.

use serde_json::{Value, json};

use super::fixture::{Fixture, task};
use crate::run::event::FailureKind;
use crate::run::state::Phase;
use crate::run::{Command, RunStatus};

/// `start` fans out over `input.items` to `work`, which has the mutex `m`.
fn definition(work: Value, join: Value) -> Value {
    let (mut work, mut join) = (work, join);
    work["mutex"] = json!("m");
    join["group"] = json!("g");
    json!({
        "name": "mutexes", "start": "start",
        "nodes": {"start": task(), "work": work, "done": task()},
        "transitions": [
            {"from": "start", "to": "work", "foreach": "${input.items}", "group": "g"},
            {"from": "work", "to": "done", "join": join}
        ]
    })
}

fn begun(work: Value, join: Value, items: usize) -> Fixture {
    let items: Vec<_> = (0..items).collect();
    let mut run = Fixture::started(definition(work, join), json!({"items": items}));
    run.succeed("start", Value::Null);
    run
}

fn blocked(run: &Fixture) -> Vec<u64> {
    let live = run.run.live().expect("it lives");
    let is_blocked = |phase: &Phase| matches!(phase, Phase::Blocked { .. });
    live.tokens.iter().filter(|(_, token)| is_blocked(&token.phase)).map(|(id, _)| *id).collect()
}

#[test]
fn one_works_and_the_others_wait_in_the_order_in_which_they_came() {
    let mut run = begun(task(), json!({}), 3);
    for index in 0..3 {
        assert_eq!(run.owed, [(2 + index, 1)], "one attempt is handed out");
        assert_eq!(blocked(&run).len() as u64, 2 - index);
        run.succeed("work", json!(index));
    }
    run.succeed("done", Value::Null);
    assert_eq!(run.closed().status, RunStatus::Completed);
    let count = |name| run.types().iter().filter(|found| **found == name).count();
    assert_eq!((count("mutex_taken"), count("mutex_awaited")), (3, 2));
}

#[test]
fn a_retry_keeps_it_and_a_failure_gives_it_back() {
    let mut work = task();
    work["retry"] = json!({"max_attempts": 2, "initial": "1s", "jitter": false});
    let mut run = begun(work, json!({"failed": "ignore"}), 2);
    run.fail("work", FailureKind::Transient);
    assert!(run.owed.is_empty(), "who backs off has it still");
    assert_eq!(run.run.status(), Some(RunStatus::Waiting));
    run.advance_clock(1_000);
    assert_eq!(run.owed, [(2, 2)]);
    run.fail("work", FailureKind::Transient);
    assert_eq!(run.owed, [(3, 1)]);
}

#[test]
fn who_is_cancelled_gives_it_back_and_leaves_the_queue() {
    let mut run = begun(task(), json!({"wait": "any"}), 3);
    run.succeed("work", Value::Null);
    assert_eq!(run.run.live().expect("it lives").mutexes.len(), 0);
    assert!(run.events.iter().filter(|(event, _)| event.event_type() == "mutex_taken").count() < 3);
    run.succeed("done", Value::Null);
    assert_eq!(run.closed().status, RunStatus::Completed);
}

#[test]
fn a_region_gives_the_mutex_to_who_is_outside() {
    let mut run = Fixture::started(
        json!({
            "name": "regions", "start": "start",
            "nodes": {"start": task(), "a": {"mutex": "m", "action": {"kind": "mock"}},
                      "b": {"mutex": "m", "action": {"kind": "mock"}}, "stop": task(),
                      "end": task()},
            "transitions": [
                {"from": "start", "to": "a"}, {"from": "start", "to": "b"},
                {"from": "start", "to": "stop"},
                {"from": "stop", "to": "end", "cancel": {"nodes": ["a"]}}
            ]
        }),
        Value::Null,
    );
    run.succeed("start", Value::Null);
    assert_eq!(blocked(&run).len(), 1);
    run.succeed("stop", Value::Null);
    run.succeed("b", Value::Null);
    run.succeed("end", Value::Null);
    assert_eq!(run.closed().status, RunStatus::Completed);
}

#[test]
fn nodes_without_a_worker_pass_it_on_through_many_decisions() {
    let run = begun(json!({"compute": {"state.x": "${item}"}}), json!({"failed": "count"}), 3_000);
    let count = |name| run.types().iter().filter(|found| **found == name).count();
    assert_eq!(count("mutex_taken"), 3_000);
    assert_eq!(count("join_fired"), 1);
}

#[test]
fn a_wait_in_a_mutex_holds_it_until_it_is_over() {
    let mut run = begun(json!({"wait": {"signal": "go"}}), json!({}), 2);
    assert_eq!(blocked(&run), [3]);
    assert_eq!(run.run.status(), Some(RunStatus::Waiting));
    let go = || Command::Signal {
        name: "go".parse().expect("a name"),
        payload: Value::Null,
        transient: false,
    };
    run.when(&go()).expect("it is awaited");
    assert_eq!(blocked(&run), [] as [u64; 0]);
    run.when(&go()).expect("it is awaited");
    run.succeed("done", Value::Null);
    assert_eq!(run.closed().status, RunStatus::Completed);
}

#[test]
fn a_pause_hands_out_who_was_let_in_meanwhile() {
    let mut run = begun(task(), json!({}), 2);
    run.when(&Command::Pause { reason: None }).expect("it is paused");
    run.succeed("work", Value::Null);
    assert!(run.owed.is_empty());
    run.when(&Command::Resume).expect("it goes on");
    assert_eq!(run.owed, [(3, 1)]);
}
