//! What a project and a workspace allow their runs.

use std::collections::VecDeque;

use chassis::journal::Journal;
use domain::resource::Kind;
use domain::run::RunStatus;
use protocol::{RejectionKind, Task};
use serde_json::json;

use crate::platform::{Platform, fan_out, folder, sequence};

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
