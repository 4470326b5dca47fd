//! Paused runs: nothing of theirs is handed out, and after the pause everything, once.

use std::time::Duration;

use domain::ids::RunId;
use domain::run::RunStatus;
use protocol::{AnswerGate, Command, GateId, RejectionKind};
use serde_json::{Value, json};

use crate::platform::{Platform, folder, node, sequence};

async fn pause(platform: &Platform, run_id: RunId) {
    let paused = platform.execute(Command::PauseRun { run_id, reason: None }).await;
    paused.expect("it is paused");
}

async fn resume(platform: &Platform, run_id: RunId) {
    platform.execute(Command::ResumeRun { run_id }).await.expect("it is resumed");
}

/// Another run's task is the next one that is handed out: of the paused run none was.
async fn only_others_are_handed_out(platform: &Platform) {
    let beside = platform.run(&sequence(1)).await;
    let task = platform.pull_one().await;
    assert_eq!(task.run_id, beside);
    platform.succeed(&task, json!(1)).await;
    assert_eq!(platform.end_of(beside).await.status, RunStatus::Completed);
}

async fn recorded(platform: &Platform, run_id: RunId, event: &str) {
    let mut look = tokio::time::interval(Duration::from_millis(2));
    let looking = async {
        while !platform.events(run_id).await.iter().any(|one| one == event) {
            look.tick().await;
        }
    };
    tokio::time::timeout(Duration::from_secs(20), looking).await.expect(event);
}

#[tokio::test]
async fn what_follows_an_outcome_waits_for_the_end_of_the_pause() {
    let folder = folder();
    let platform = Platform::start(folder.path()).await;
    let run_id = platform.run(&sequence(2)).await;
    let first = platform.pull_one().await;
    pause(&platform, run_id).await;
    platform.succeed(&first, json!(1)).await;
    recorded(&platform, run_id, "task_succeeded").await;
    only_others_are_handed_out(&platform).await;
    resume(&platform, run_id).await;
    let second = platform.pull_one().await;
    assert_eq!((second.run_id, &*second.node), (run_id, "s1"));
    platform.succeed(&second, json!(1)).await;
    assert_eq!(platform.end_of(run_id).await.status, RunStatus::Completed);
    platform.stop().await;
}

#[tokio::test]
async fn what_is_on_a_worker_is_not_handed_out_again_after_it() {
    let folder = folder();
    let platform = Platform::start(folder.path()).await;
    let run_id = platform.run(&sequence(1)).await;
    let task = platform.pull_one().await;
    pause(&platform, run_id).await;
    resume(&platform, run_id).await;
    only_others_are_handed_out(&platform).await;
    platform.succeed(&task, json!(1)).await;
    assert_eq!(platform.end_of(run_id).await.status, RunStatus::Completed);
    platform.stop().await;
}

#[tokio::test]
async fn a_restart_hands_out_nothing_of_a_paused_run() {
    let folder = folder();
    let platform = Platform::start(folder.path()).await;
    let run_id = platform.run(&sequence(1)).await;
    let first = platform.pull_one().await;
    pause(&platform, run_id).await;
    platform.stop().await;

    let platform = Platform::start(folder.path()).await;
    only_others_are_handed_out(&platform).await;
    resume(&platform, run_id).await;
    let again = platform.pull_one().await;
    assert_eq!((again.run_id, again.token), (run_id, first.token));
    let events = platform.events(run_id).await;
    assert_eq!(events.last().map(String::as_str), Some("task_handed_out"), "{events:?}");
    platform.succeed(&again, json!(1)).await;
    assert_eq!(platform.end_of(run_id).await.status, RunStatus::Completed);
    platform.stop().await;
}

#[tokio::test]
async fn what_a_pause_held_back_is_handed_out_as_if_for_the_first_time() {
    let folder = folder();
    let platform = Platform::start(folder.path()).await;
    let mut definition = sequence(2);
    definition["nodes"]["s1"]["repeatable"] = json!(false);
    let run_id = platform.run(&definition).await;
    let first = platform.pull_one().await;
    pause(&platform, run_id).await;
    platform.succeed(&first, json!(1)).await;
    recorded(&platform, run_id, "task_succeeded").await;
    platform.stop().await;

    let platform = Platform::start(folder.path()).await;
    only_others_are_handed_out(&platform).await;
    resume(&platform, run_id).await;
    let second = platform.pull_one().await;
    assert_eq!((second.run_id, &*second.node), (run_id, "s1"));
    let events = platform.events(run_id).await;
    let handed_out = events.iter().filter(|event| *event == "task_handed_out").count();
    assert_eq!(handed_out, 1, "once, since it must not be repeated: {events:?}");
    platform.succeed(&second, json!(1)).await;
    assert_eq!(platform.end_of(run_id).await.status, RunStatus::Completed);
    platform.stop().await;
}

#[tokio::test]
async fn refusals_of_gates_and_pauses_say_what_is_wrong() {
    let folder = folder();
    let platform = Platform::start(folder.path()).await;
    let gate = json!({"title": "?", "self_approval": false});
    let definition = json!({"name": "gated", "start": "ask",
        "nodes": {"ask": {"gate": gate}, "then": node()},
        "transitions": [{"from": "ask", "to": "then"}]});
    let run_id = platform.run(&definition).await;
    let refused = async |command| platform.execute(command).await.expect_err("refused");
    let answer = |token| {
        let (decision, roles) = (domain::run::event::Decision::Approve, Vec::new());
        let answer = AnswerGate { decision, value: Value::Null, comment: None, roles };
        Command::AnswerGate { gate: GateId { run_id, token }, answer: Box::new(answer) }
    };
    // Whoever started the run asks.
    let own = refused(answer(1)).await;
    assert_eq!((own.kind, own.code.as_str()), (RejectionKind::Forbidden, "self_approval"));
    let none = refused(answer(7)).await;
    assert_eq!((none.kind, none.code.as_str()), (RejectionKind::Conflict, "gate_not_open"));
    let running = refused(Command::ResumeRun { run_id }).await;
    assert_eq!((running.kind, running.code.as_str()), (RejectionKind::Conflict, "not_paused"));
    let long = Some("x".repeat(domain::limits::REASON_BYTES + 1));
    let long = refused(Command::PauseRun { run_id, reason: long }).await;
    assert_eq!((long.code.as_str(), long.pointer.as_deref()), ("reason_too_long", Some("/reason")));
    let before = platform.events(run_id).await;
    assert_eq!(before, ["run_started", "gate_opened"]);

    let mut envelope = platform.envelope(answer(1));
    envelope.actor = protocol::Actor("somebody else".to_owned());
    protocol::Commands::execute(&*platform.service, envelope).await.expect("it is answered");
    let task = platform.pull_one().await;
    platform.succeed(&task, json!(1)).await;
    assert_eq!(platform.end_of(run_id).await.status, RunStatus::Completed);
    platform.stop().await;
}
