//! Forks and retries of runs with a concurrency key: each takes its turn as a start does.

use domain::ids::RunId;
use protocol::{Command, FailureKind, Receipt, Rejection, RunStatus};
use serde_json::{Value, json};

use crate::forks::fork_of;
use crate::platform::{Platform, folder, node};

fn bounded(then: &str) -> Value {
    json!({
        "name": "bounded", "start": "first",
        "concurrency": {"key": "${input.user}", "limit": 1, "then": then},
        "nodes": {"first": node(), "second": node()},
        "transitions": [{"from": "first", "to": "second"}],
    })
}

async fn started(platform: &Platform, then: &str, user: &str) -> Receipt {
    let command = platform.starting(&bounded(then), json!({"user": user}));
    platform.execute(command).await.expect("it is taken")
}

async fn forked(platform: &Platform, run_id: RunId, user: &str) -> Result<Receipt, Rejection> {
    let mut fork = fork_of(run_id, 2);
    fork.input = Some(json!({"user": user}));
    platform.execute(Command::ForkRun(Box::new(fork))).await
}

fn id(receipt: &Receipt) -> RunId {
    receipt.id.parse().expect("a run's id")
}

#[tokio::test]
async fn a_fork_waits_for_its_key_over_restarts_and_then_goes_on_where_it_was() {
    let folder = folder();
    let platform = Platform::start(folder.path()).await;
    let parent = id(&started(&platform, "queue", "ann").await);
    platform.succeed(&platform.pull_one().await, json!(1)).await;
    let under_way = platform.pull_one().await;
    // Before its shard was looked through it may have had to wait, too.
    let shared = platform.events(parent).await.len();
    let fork = fork_of(parent, shared as u64);
    let fork = platform.execute(Command::ForkRun(Box::new(fork))).await;
    let fork = fork.expect("it is forked");
    assert!(fork.queued);
    assert_eq!(id(&fork).home(), parent.home());
    let next = started(&platform, "queue", "ann").await;
    platform.stop().await;
    let platform = Platform::start(folder.path()).await;
    // What was under way is again, and nothing else.
    let again = platform.pull_one().await;
    assert_eq!((again.run_id, again.token), (under_way.run_id, under_way.token));
    platform.succeed(&again, json!(2)).await;
    assert_eq!(platform.end_of(parent).await.status, RunStatus::Completed);
    let of_fork = platform.pull_one().await;
    assert_eq!((of_fork.run_id, &*of_fork.node), (id(&fork), "second"));
    platform.succeed(&of_fork, json!(2)).await;
    assert_eq!(platform.end_of(id(&fork)).await.status, RunStatus::Completed);
    assert_eq!(platform.pull_one().await.run_id, id(&next));
    let events = platform.events(id(&fork)).await;
    assert_eq!(events[shared..shared + 3], ["run_forked", "run_queued", "run_admitted"]);
    platform.stop().await;
}

#[tokio::test]
async fn a_fork_with_another_key_asks_for_a_place_of_that() {
    let folder = folder();
    let platform = Platform::start(folder.path()).await;
    let parent = id(&started(&platform, "queue", "ann").await);
    let other = forked(&platform, parent, "bob").await.expect("it is forked");
    // Nobody else has the key.
    let mut at_work: Vec<_> =
        platform.pull_many(2).await.into_iter().map(|task| task.run_id).collect();
    at_work.sort_by_key(|run_id| *run_id != parent);
    assert_eq!(at_work, [parent, id(&other)]);
    let third = started(&platform, "queue", "bob").await;
    assert!(third.queued);
    assert_eq!(id(&third).home(), id(&other).home());
    platform.stop().await;
}

#[tokio::test]
async fn a_fork_over_the_limit_is_refused_or_takes_the_place_of_the_oldest() {
    let folder = folder();
    let platform = Platform::start(folder.path()).await;
    let parent = id(&started(&platform, "drop", "ann").await);
    let refused = forked(&platform, parent, "ann").await.expect_err("there is no place");
    assert_eq!(&*refused.code, "concurrency_dropped");
    // There is one once the place is free.
    platform.execute(cancel(parent)).await.expect("it is cancelled");
    let fork = forked(&platform, parent, "ann").await.expect("it is forked");
    platform.execute(cancel(id(&fork))).await.expect("it is cancelled");

    let parent = id(&started(&platform, "cancel_oldest", "ann").await);
    let fork = forked(&platform, parent, "ann").await.expect("it is forked");
    let end = platform.end_of(parent).await;
    assert_eq!(end.status, RunStatus::Cancelled);
    assert_eq!(end.error.map(|error| error.code.to_string()), Some("concurrency_replaced".into()));
    // Before it come those of the others, which have ended.
    let task = loop {
        let tasks = platform.pull().await;
        if let Some(task) = tasks.into_iter().find(|task| task.run_id == id(&fork)) {
            break task;
        }
    };
    assert_eq!((task.attempt, &*task.node), (1, "first"));
    platform.stop().await;
}

fn cancel(run_id: RunId) -> Command {
    Command::CancelRun { run_id, reason: None, compensate: true }
}

#[tokio::test]
async fn a_retry_waits_for_its_key_as_well() {
    let folder = folder();
    let platform = Platform::start(folder.path()).await;
    let failed = id(&started(&platform, "queue", "ann").await);
    platform.fail(&platform.pull_one().await, FailureKind::Permanent).await;
    assert_eq!(platform.end_of(failed).await.status, RunStatus::Failed);
    let next = id(&started(&platform, "queue", "ann").await);
    let retry = Command::RetryRun { run_id: failed, dry_run: false };
    let retry = platform.execute(retry).await.expect("it is retried");
    assert!(retry.queued);
    let task = platform.pull_one().await;
    assert_eq!(task.run_id, next);
    platform.execute(cancel(next)).await.expect("it is cancelled");
    let task = platform.pull_one().await;
    assert_eq!((task.run_id, task.attempt, &*task.node), (id(&retry), 1, "first"));
    platform.stop().await;
}
