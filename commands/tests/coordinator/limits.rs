//! What a project and a workspace allow their runs.

use std::collections::VecDeque;
use std::sync::Arc;

use chassis::clock::SystemClock;
use chassis::journal::Journal;
use commands::CoordinatorConfig;
use domain::resource::Kind;
use domain::run::RunStatus;
use protocol::{Command, RejectionKind, Task};
use serde_json::json;

use crate::platform::{Platform, config, fan_out, folder, sequence};

/// Does what a run owes, and says how many of its tasks were out at most.
async fn most_at_once(platform: &Platform, mut out: VecDeque<Task>) -> usize {
    let mut most = out.len();
    let mut left = 10;
    while let Some(task) = out.pop_front() {
        platform.succeed(&task, json!(1)).await;
        left -= 1;
        while out.len() < left.min(2) {
            out.extend(platform.pull().await);
        }
        most = most.max(out.len());
    }
    most
}

#[tokio::test]
async fn a_project_caps_the_tasks_of_a_run() {
    let folder = folder();
    let platform = Platform::start(folder.path()).await;
    let limits = json!({"limits": {"tasks_in_flight_per_run": 2}});
    platform.revise(Kind::Project, limits).await;
    let run_id = platform.run(&fan_out(10)).await;
    let out = platform.pull().await;
    assert_eq!(out.len(), 2);
    // A cap is one run's: another run isn't held up by it, and the first gets nothing meanwhile.
    let other = platform.run(&sequence(1)).await;
    assert_eq!(platform.pull_one().await.run_id, other);
    assert_eq!(most_at_once(&platform, out.into()).await, 2);
    assert_eq!(platform.end_of(run_id).await.status, RunStatus::Completed);
    platform.stop().await;
}

#[tokio::test]
async fn the_cap_holds_after_a_restart() {
    let folder = folder();
    let platform = Platform::start(folder.path()).await;
    let limits = json!({"limits": {"tasks_in_flight_per_run": 2}});
    platform.revise(Kind::Project, limits).await;
    let run_id = platform.run(&fan_out(10)).await;
    assert_eq!(platform.pull().await.len(), 2);
    platform.stop().await;

    let platform = Platform::start(folder.path()).await;
    let out = platform.pull().await;
    assert_eq!(out.len(), 2);
    assert_eq!(most_at_once(&platform, out.into()).await, 2);
    assert_eq!(platform.end_of(run_id).await.status, RunStatus::Completed);
    platform.stop().await;
}

#[tokio::test]
async fn a_run_of_a_provider_that_is_not_allowed_does_not_start() {
    let folder = folder();
    let platform = Platform::start(folder.path()).await;
    let definition = json!({"name": "ask", "start": "a", "nodes": {"a": {"action": {
        "kind": "llm",
        "with": {"model": {"provider": "openai", "model": "m"}, "prompt": "hello"}}}}});
    platform.run(&definition).await;
    platform.pull_one().await;
    platform.revise(Kind::Workspace, json!({"allowed_providers": ["mock", "anthropic"]})).await;
    let head = platform.journal.inner.head().await;
    let refused = platform.execute(platform.starting(&definition, json!({}))).await;
    let refused = refused.expect_err("openai is not allowed");
    assert_eq!((refused.kind, &*refused.code), (RejectionKind::Forbidden, "provider_not_allowed"));
    assert_eq!(refused.pointer.as_deref(), Some("/nodes/a/action/with/model"));
    assert!(refused.message.contains("mock, anthropic"), "{}", refused.message);
    assert_eq!(platform.journal.inner.head().await, head);
    platform.stop().await;
}

#[tokio::test]
async fn what_finds_the_queue_to_the_workers_full_is_handed_out_once_there_is_room() {
    let folder = folder();
    let few = CoordinatorConfig { tasks_in_flight: 4, ..config() };
    let platform = Platform::start_with(folder.path(), &few, Arc::new(SystemClock::new())).await;
    // Nobody takes the tasks of a run that doesn't wait for them any more.
    let given_up = platform.run(&fan_out(4)).await;
    let cancel = Command::CancelRun { run_id: given_up, reason: None, compensate: true };
    platform.execute(cancel).await.expect("it is cancelled");
    assert_eq!(platform.end_of(given_up).await.status, RunStatus::Cancelled);
    // The second one is started after the first one's tasks were to be handed out.
    let runs = [platform.run(&fan_out(4)).await, platform.run(&sequence(1)).await];
    let unwanted = platform.pull().await;
    assert!(unwanted.len() == 4 && unwanted.iter().all(|task| task.run_id == given_up));
    let mut left = 5;
    while left > 0 {
        for task in platform.pull().await {
            assert!(runs.contains(&task.run_id));
            platform.succeed(&task, json!(1)).await;
            left -= 1;
        }
    }
    for run_id in runs {
        assert_eq!(platform.end_of(run_id).await.status, RunStatus::Completed);
    }
    platform.stop().await;
}
