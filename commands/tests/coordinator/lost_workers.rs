//! Attempts whose worker vanished: made again, in doubt, or given up.

use domain::limits::HAND_OUTS;
use domain::run::RunStatus;
use serde_json::json;

use crate::platform::{Platform, folder, sequence};

#[tokio::test]
async fn an_action_that_must_not_be_repeated_ends_in_doubt() {
    let folder = folder();
    let mut definition = sequence(2);
    definition["nodes"]["s0"]["repeatable"] = json!(false);
    let platform = Platform::start(folder.path()).await;
    let run_id = platform.run(&definition).await;
    assert_eq!(&*platform.pull_one().await.node, "s0");
    platform.stop().await;

    let platform = Platform::start(folder.path()).await;
    let end = platform.end_of(run_id).await;
    assert_eq!(end.status, RunStatus::Failed);
    assert_eq!(end.error.expect("a reason").code, "in_doubt");
    platform.stop().await;
}

#[tokio::test]
async fn an_action_that_must_not_be_repeated_is_done_once_where_nothing_happens() {
    let folder = folder();
    let mut definition = sequence(2);
    definition["nodes"]["s0"]["repeatable"] = json!(false);
    let platform = Platform::start(folder.path()).await;
    let run_id = platform.run(&definition).await;
    for node in ["s0", "s1"] {
        let task = platform.pull_one().await;
        assert_eq!(&*task.node, node);
        platform.succeed(&task, json!(1)).await;
    }
    assert_eq!(platform.end_of(run_id).await.status, RunStatus::Completed);
    platform.stop().await;
}

#[tokio::test]
async fn an_attempt_that_takes_every_worker_down_is_given_up() {
    let folder = folder();
    let platform = Platform::start(folder.path()).await;
    let run_id = platform.run(&sequence(1)).await;
    let first = platform.pull_one().await;
    platform.stop().await;

    // The first time isn't recorded, so one more start than hand-outs are counted.
    for _ in 0..HAND_OUTS {
        let platform = Platform::start(folder.path()).await;
        let again = platform.pull_one().await;
        assert_eq!((again.token, again.attempt), (first.token, first.attempt));
        platform.stop().await;
    }
    let platform = Platform::start(folder.path()).await;
    let end = platform.end_of(run_id).await;
    assert_eq!(end.status, RunStatus::Failed);
    assert_eq!(end.error.expect("a reason").code, "worker_lost");
    platform.stop().await;
}
