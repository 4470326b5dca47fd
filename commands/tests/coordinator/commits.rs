//! What a run costs: events, commits and reads; and what it leaves when it has ended.

use chassis::journal::Journal;
use domain::run::RunStatus;
use protocol::event::tells_of_secrets;
use protocol::{Command, Commands};
use serde_json::{Value, json};

use crate::platform::{Platform, fan_out, folder, sequence};

#[tokio::test]
async fn a_step_takes_two_events_and_one_commit() {
    let folder = folder();
    let platform = Platform::start(folder.path()).await;
    let run_id = platform.run(&sequence(3)).await;
    for step in 0..3 {
        let task = platform.pull_one().await;
        assert_eq!((&*task.node, task.attempt), (&*format!("s{step}"), 1));
        platform.succeed(&task, json!({"step": step})).await;
    }
    let end = platform.end_of(run_id).await;
    assert_eq!((end.status, end.sequence), (RunStatus::Completed, 8));
    assert_eq!(platform.journal.appends(), [1, 2, 2, 3]);
    platform.stop().await;
}

#[tokio::test]
async fn outcomes_that_come_together_share_a_commit() {
    let folder = folder();
    let platform = Platform::start(folder.path()).await;
    let run_id = platform.run(&fan_out(50)).await;
    let tasks = platform.pull_many(50).await;
    let before = platform.journal.appends().len();
    let outcomes = tasks.iter().map(|task| protocol::Outcome {
        run_id,
        token: task.token,
        attempt: task.attempt,
        result: protocol::OutcomeResult::Success(protocol::Success {
            result: json!(1),
            usage: Default::default(),
        }),
        duration_ms: 1,
        secrets: Vec::new(),
    });
    platform.tasks.report(outcomes.collect()).await;
    let end = platform.end_of(run_id).await;
    assert_eq!(end.output, Some(json!({"results": vec![1; 50]})));
    let commits = platform.journal.appends().len() - before;
    assert!(commits <= 5, "50 outcomes took {commits} commits");
    platform.stop().await;
}

#[tokio::test]
async fn the_secrets_that_attempts_were_given_stand_beside_their_outcomes() {
    let folder = folder();
    let platform = Platform::start(folder.path()).await;
    let run_id = platform.run(&fan_out(3)).await;
    let outcomes = platform.pull_many(3).await.into_iter().map(|task| protocol::Outcome {
        run_id,
        token: task.token,
        attempt: task.attempt,
        result: protocol::OutcomeResult::Success(protocol::Success {
            result: json!(1),
            usage: Default::default(),
        }),
        duration_ms: 1,
        secrets: if task.token == 2 { vec!["MODEL_KEY".to_owned()] } else { Vec::new() },
    });
    platform.tasks.report(outcomes.collect()).await;
    platform.end_of(run_id).await;
    let events = platform.journal.inner.load("run", &run_id.to_string(), 0, 100).await;
    let events = events.expect("events");
    let told = events.iter().filter(|event| tells_of_secrets(&event.metadata));
    let told: Vec<Value> = told
        .map(|event| serde_json::from_slice(&event.metadata).expect("JSON"))
        .map(|metadata: Value| metadata["secrets"].clone())
        .collect();
    assert!(!told.is_empty());
    let used = json!([{"token": 2, "attempt": 1, "names": ["MODEL_KEY"]}]);
    assert!(told.iter().all(|secrets| *secrets == used), "{told:?}");
    platform.stop().await;
}

#[tokio::test]
async fn a_start_of_what_is_known_reads_nothing() {
    let folder = folder();
    let platform = Platform::start(folder.path()).await;
    let definition = sequence(1);
    platform.run(&definition).await;
    let (reads, head) = (platform.journal.reads(), platform.journal.inner.head().await);
    for _ in 0..10 {
        platform.run(&definition).await;
    }
    assert_eq!(platform.journal.reads(), reads, "a start read the journal");
    let head = head.expect("a head") + 10;
    assert_eq!(platform.journal.inner.head().await, Ok(head), "published again");
    platform.stop().await;
}

#[tokio::test]
async fn the_end_of_a_run_is_known_after_it_left_memory() {
    let folder = folder();
    let platform = Platform::start(folder.path()).await;
    let run_id = platform.run(&sequence(1)).await;
    let task = platform.pull_one().await;
    platform.succeed(&task, json!(1)).await;
    let end = platform.end_of(run_id).await;
    assert_eq!(platform.end_of(run_id).await, end);
    platform.stop().await;

    let platform = Platform::start(folder.path()).await;
    assert_eq!(platform.end_of(run_id).await, end);
    let again =
        platform.execute(Command::CancelRun { run_id, reason: None, compensate: true }).await;
    assert_eq!(again.expect_err("it has ended").code, "run_ended");
    platform.stop().await;
}

#[tokio::test]
async fn another_workspace_finds_no_run() {
    let folder = folder();
    let platform = Platform::start(folder.path()).await;
    let run_id = platform.run(&sequence(1)).await;
    assert_eq!(platform.cancel_from_elsewhere(run_id).await.code, "run_not_found");
    let elsewhere = domain::ids::WorkspaceId::derived("", "elsewhere");
    let patience = std::time::Duration::from_secs(20);
    let live = platform.service.wait(elsewhere, run_id, patience).await;
    assert_eq!(live.expect_err("not theirs").code, "run_not_found");
    let task = platform.pull_one().await;
    platform.succeed(&task, json!(1)).await;
    assert_eq!(platform.end_of(run_id).await.status, RunStatus::Completed);
    let ended = platform.service.wait(elsewhere, run_id, patience).await;
    assert_eq!(ended.expect_err("not theirs").code, "run_not_found");
    platform.stop().await;
}
