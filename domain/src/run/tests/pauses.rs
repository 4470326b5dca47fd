//! Pauses: what stands still, what is taken all the same, and what follows the end of one.

use chrono::TimeDelta;
use serde_json::{Value, json};

use super::fixture::{Fixture, task};
use crate::run::event::{FailureKind, GateOutcome};
use crate::run::{Command, Event, Refusal, RunStatus};

fn pause(run: &mut Fixture) {
    let reason = Some("maintenance".to_owned());
    run.when(&Command::Pause { reason }).expect("it runs");
    assert_eq!(run.run.status(), Some(RunStatus::Paused));
}

fn resume(run: &mut Fixture) {
    run.when(&Command::Resume).expect("it is paused");
}

fn two_steps(first: Value) -> Value {
    json!({"name": "d", "start": "one", "nodes": {"one": first, "two": task()},
           "transitions": [{"from": "one", "to": "two"}]})
}

#[test]
fn outcomes_are_taken_and_what_follows_is_handed_out_after_it() {
    let mut run = Fixture::started(two_steps(task()), json!({}));
    pause(&mut run);
    let decision = run.succeed("one", json!(1));
    assert_eq!(run.types()[2..], ["task_succeeded", "token_routed"]);
    assert!(decision.dispatch.is_empty());
    let hand_out = Command::HandOut { token: 2, attempt: 1 };
    let decision = run.when(&hand_out).expect("it isn't refused, and leads to nothing");
    assert!(decision.events.is_empty() && decision.dispatch.is_empty());
    let decision = run.when(&Command::Resume).expect("it is paused");
    assert_eq!(decision.dispatch, [(2, 1)]);
    run.succeed("two", json!(2));
    assert_eq!(run.run.status(), Some(RunStatus::Completed));
}

#[test]
fn what_was_on_a_worker_is_owed_after_it() {
    let mut run = Fixture::started(two_steps(task()), json!({}));
    pause(&mut run);
    let decision = run.when(&Command::Resume).expect("it is paused");
    assert_eq!(decision.dispatch, [(1, 1)]);
    assert_eq!(run.run.status(), Some(RunStatus::Running));
}

#[test]
fn timers_stand_still_and_are_due_later_by_the_length_of_the_pause() {
    let mut definition = two_steps(json!({"wait": {"for": "10m"}}));
    definition["timeout"] = json!("20m");
    let mut run = Fixture::started(definition, json!({}));
    run.advance_clock(60_000);
    let due = run.run.next_due().expect("armed");
    pause(&mut run);
    assert_eq!(run.run.next_due(), None);
    run.advance_clock(3_600_000);
    assert_eq!(run.types()[2..], ["run_paused"]);
    resume(&mut run);
    let later = due + TimeDelta::hours(1);
    assert_eq!(run.run.next_due(), Some(later));
    run.advance_clock(9 * 60_000 - 1);
    assert_eq!(run.types()[3..], ["run_resumed"]);
    run.advance_clock(1);
    assert_eq!(run.at("two").1, 1);
    run.advance_clock(10 * 60_000);
    assert_eq!(run.run.status(), Some(RunStatus::TimedOut));
}

#[test]
fn what_is_armed_during_a_pause_counts_from_its_end() {
    let mut first = task();
    first["retry"] = json!({"max_attempts": 2, "initial": "10s", "jitter": false});
    let mut run = Fixture::started(two_steps(first), json!({}));
    pause(&mut run);
    run.advance_clock(60_000);
    run.fail("one", FailureKind::Transient);
    run.advance_clock(60_000);
    resume(&mut run);
    assert_eq!(run.run.next_due(), Some(run.now + TimeDelta::seconds(10)));
    run.advance_clock(10_000);
    assert_eq!(run.at("one").1, 2);
}

#[test]
fn joins_and_gates_are_moved_as_well() {
    let definition = json!({"name": "d", "start": "split",
        "nodes": {"split": {"compute": {}}, "end": task(),
                  "gate": {"gate": {"title": "?", "timeout": "2m", "on_timeout": "proceed"}}},
        "transitions": [{"from": "split", "to": "gate", "group": "g"},
            {"from": "gate", "to": "end",
             "join": {"group": "g", "timeout": "1m", "on_timeout": "proceed"}}]});
    let mut run = Fixture::started(definition, json!({}));
    pause(&mut run);
    run.now += TimeDelta::minutes(5);
    resume(&mut run);
    let live = run.run.live().expect("it goes on");
    let instance = live.instances.values().next().expect("a group");
    assert_eq!(instance.deadline, Some(run.now + TimeDelta::minutes(1)));
    assert_eq!(live.timers.len(), 2);
    let decision = run.advance_clock(60_000);
    let given_up = |event: &Event| match event {
        Event::GateClosed(closed) => closed.outcome == GateOutcome::Cancelled,
        _ => false,
    };
    assert!(decision.events.iter().any(given_up));
    assert!(run.run.live().is_some_and(|live| live.timers.is_empty()));
}

#[test]
fn signals_are_taken_and_a_paused_run_can_be_cancelled() {
    let mut run = Fixture::started(two_steps(json!({"wait": {"signal": "go"}})), json!({}));
    pause(&mut run);
    let name = "go".parse().expect("a name");
    let signal = Command::Signal { name, payload: json!(1), transient: false };
    let decision = run.when(&signal).expect("it is taken");
    assert!(decision.events.iter().any(|event| event.event_type() == "wait_ended"));
    assert!(decision.dispatch.is_empty());
    run.when(&Command::Cancel { reason: None, compensate: true }).expect("it is cancelled");
    assert_eq!(run.run.status(), Some(RunStatus::Cancelled));
}

#[test]
fn pausing_twice_and_resuming_what_runs_is_refused() {
    let mut run = Fixture::started(two_steps(task()), json!({}));
    assert_eq!(run.when(&Command::Resume), Err(Refusal::NotPaused));
    pause(&mut run);
    let again = run.when(&Command::Pause { reason: None });
    assert_eq!(again, Err(Refusal::AlreadyPaused));
}
