//! Runs and their owners: who decides, who is refused, and what happens when a shard moves.

use std::sync::Arc;
use std::time::Duration;

use chassis::journal::Journal;
use chassis::scratch::ScratchDatabase;
use chassis::shards::{Owned, Ownership, Shards, ShardsOptions};
use domain::ids::RunId;
use domain::run::RunStatus;
use protocol::remote::NOT_OWNER;
use protocol::{
    Command, CommandEnvelope, Commands, Outcome, OutcomeResult, SHARDS, Success, Task, run_of,
    shard_of,
};
use serde_json::json;
use tokio::sync::watch;

use crate::coordinators::{PATIENCE, Side, sequence};

async fn join(scratch: &ScratchDatabase, name: &str) -> Shards {
    let options = ShardsOptions {
        count: SHARDS,
        ttl: Duration::from_secs(2),
        renew: Duration::from_millis(100),
        name: name.to_owned(),
    };
    Shards::join(&scratch.connect().await, options).await.expect("it joins")
}

async fn owns(ownership: &mut Ownership, count: usize) {
    let all = ownership.wait_for(|owned| owned.epochs.len() == count);
    let seen = tokio::time::timeout(PATIENCE, all).await.expect("the shards are owned in time");
    drop(seen.expect("the leases are kept"));
}

/// Whoever owns all shards after somebody has left.
async fn successor(scratch: &ScratchDatabase) -> (Shards, Side) {
    let right = join(scratch, "right").await;
    owns(&mut right.owned(), usize::from(SHARDS)).await;
    let side = Side::start(scratch, right.owned()).await;
    (right, side)
}

/// What is owned now, for good: as a process believes that is frozen.
fn frozen(ownership: &Ownership) -> Ownership {
    let owned: Arc<Owned> = Arc::clone(&ownership.borrow());
    watch::Sender::new(owned).subscribe()
}

fn starting(side: &Side) -> (CommandEnvelope, RunId) {
    let envelope = side.envelope(side.starting(&sequence("two", 2)));
    let run_id = run_of(envelope.id);
    (envelope, run_id)
}

async fn pull(side: &Side) -> Task {
    let tasks = side.service.tasks();
    let mut pulled = tokio::time::timeout(PATIENCE, tasks.pull(1)).await.expect("a task is owed");
    pulled.pop().expect("the write side runs")
}

async fn succeed(side: &Side, task: &Task) {
    let outcome = Outcome {
        run_id: task.run_id,
        token: task.token,
        attempt: task.attempt,
        result: OutcomeResult::Success(Success { result: json!(1), usage: Default::default() }),
        duration_ms: 1,
        secrets: Vec::new(),
    };
    side.service.tasks().report(vec![outcome]).await;
}

async fn ends(side: &Side, run_id: RunId) -> RunStatus {
    let workspace_id = side.service.defaults().workspace_id;
    let ended = side.service.wait(workspace_id, run_id, PATIENCE).await;
    ended.expect("the run is known").expect("it ends in time").status
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_run_is_decided_by_its_shards_owner_alone() {
    let scratch = ScratchDatabase::create().await;
    let (left, right) = (join(&scratch, "left").await, join(&scratch, "right").await);
    for shards in [&left, &right] {
        owns(&mut shards.owned(), usize::from(SHARDS) / 2).await;
    }
    let one = Side::start(&scratch, left.owned()).await;
    let other = Side::start(&scratch, right.owned()).await;
    let mut started = [0, 0];
    for _ in 0..40 {
        let (envelope, run_id) = starting(&one);
        let mine = left.owned().borrow().epochs.contains_key(&shard_of(run_id));
        let (owner, stranger) = if mine { (&one, &other) } else { (&other, &one) };
        let refused = stranger.send(&envelope).await.expect_err("it isn't its run");
        assert_eq!(refused.code, NOT_OWNER);
        let receipt = owner.send(&envelope).await.expect("its owner starts it");
        // Asked again, it is the same run.
        let again = owner.send(&envelope).await.expect("it is started already");
        assert_eq!((&again.id, again.position), (&receipt.id, receipt.position));
        started[usize::from(mine)] += 1;
        for _ in 0..2 {
            let task = pull(owner).await;
            succeed(owner, &task).await;
        }
        assert_eq!(ends(owner, run_id).await, RunStatus::Completed);
    }
    assert!(started.iter().all(|count| *count > 0), "{started:?}");
    one.stop().await;
    other.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_run_goes_on_where_its_shard_went() {
    let scratch = ScratchDatabase::create().await;
    let left = join(&scratch, "left").await;
    owns(&mut left.owned(), usize::from(SHARDS)).await;
    let one = Side::start(&scratch, left.owned()).await;
    let (envelope, run_id) = starting(&one);
    one.send(&envelope).await.expect("it starts");
    let first = pull(&one).await;
    succeed(&one, &first).await;
    let second = pull(&one).await;
    one.stop().await;
    left.leave().await;

    let (_right, other) = successor(&scratch).await;
    // Nothing lies between this coordinator and its workers, so what is owed is handed out again.
    let again = pull(&other).await;
    assert_eq!((again.token, again.attempt), (second.token, second.attempt));
    succeed(&other, &again).await;
    assert_eq!(ends(&other, run_id).await, RunStatus::Completed);
    other.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_child_goes_with_its_parent_where_their_shard_went() {
    let scratch = ScratchDatabase::create().await;
    let left = join(&scratch, "left").await;
    owns(&mut left.owned(), usize::from(SHARDS)).await;
    let one = Side::start(&scratch, left.owned()).await;
    // What another process publishes is there for a child that starts after that.
    let elsewhere = Side::of_resources(&scratch).await;
    let definition = sequence("two", 2);
    let publish =
        elsewhere.creating("workflow_definition", json!({"definition": definition, "hash": ""}));
    elsewhere.execute(publish).await.expect("it is published");
    elsewhere.stop().await;
    let parent = json!({"name": "parent", "start": "ask",
        "nodes": {"ask": {"workflow": {"definition": "two"}}}});
    let envelope = one.envelope(one.starting(&parent));
    let run_id = run_of(envelope.id);
    one.send(&envelope).await.expect("it starts");
    let first = pull(&one).await;
    assert_eq!(first.run_id, run_id.child(1));
    succeed(&one, &first).await;
    let second = pull(&one).await;
    one.stop().await;
    left.leave().await;

    let (_right, other) = successor(&scratch).await;
    let again = pull(&other).await;
    assert_eq!((again.run_id, again.token), (second.run_id, second.token));
    succeed(&other, &again).await;
    assert_eq!(ends(&other, run_id).await, RunStatus::Completed);
    other.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_coordinator_that_does_not_know_that_it_lost_a_shard_writes_nothing() {
    let scratch = ScratchDatabase::create().await;
    let left = join(&scratch, "left").await;
    owns(&mut left.owned(), usize::from(SHARDS)).await;
    let old = Side::start(&scratch, frozen(&left.owned())).await;
    let (envelope, run_id) = starting(&old);
    old.send(&envelope).await.expect("it starts");
    let task = pull(&old).await;
    left.leave().await;
    let (_right, new) = successor(&scratch).await;
    let again = pull(&new).await;

    // The old one still believes that the run is its own.
    succeed(&old, &task).await;
    let cancel = Command::CancelRun { run_id, reason: None, compensate: true };
    let refused = old.execute(cancel).await.expect_err("the shard has another owner");
    assert_eq!(refused.code, NOT_OWNER);
    let (late, _) = starting(&old);
    let refused = old.send(&late).await;
    if let Err(refusal) = &refused {
        assert_eq!(refusal.code, NOT_OWNER);
    }
    refused.expect_err("no shard is its own");

    succeed(&new, &again).await;
    let last = pull(&new).await;
    succeed(&new, &last).await;
    assert_eq!(ends(&new, run_id).await, RunStatus::Completed);
    let events = new.journal.load("run", &run_id.to_string(), 0, 100).await.expect("its events");
    let outcomes = events.iter().filter(|event| &*event.event_type == "task_succeeded").count();
    assert_eq!(outcomes, 2, "each step once");
    old.stop().await;
    new.stop().await;
}
