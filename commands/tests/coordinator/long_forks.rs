//! Forks with a long past: it is copied part by part, and there is no run before it is whole.

use std::sync::Arc;
use std::time::Duration;

use chassis::clock::{Clock, ManualClock, SystemClock};
use chassis::journal::{Journal, RecordedEvent};
use chrono::TimeDelta;
use domain::ids::RunId;
use domain::limits;
use protocol::{Command, Commands, ForkRun, RejectionKind, RunStatus, StateAt, shard_of};
use serde_json::{Value, json};

use crate::forks::fork_of;
use crate::platform::{Platform, config, folder, node};
use crate::watched::Fault;

/// Events of a part at most.
const PART: usize = 500;

/// Many branches that call nobody, and a call over what came of them.
fn long() -> Value {
    json!({
        "name": "long", "start": "begin",
        "nodes": {"begin": {"compute": {"state.word": "yes"}},
            "work": {"compute": {"state.own": "${index}"}}, "after": node()},
        "transitions": [
            {"from": "begin", "to": "work", "spawn": 2_600, "group": "g"},
            {"from": "work", "to": "after", "join": {"group": "g"}}],
    })
}

async fn all(platform: &Platform, run_id: RunId) -> Vec<RecordedEvent> {
    let (mut events, id) = (Vec::new(), run_id.to_string());
    loop {
        let page = platform.journal.inner.load("run", &id, events.len() as u64, 1_000).await;
        let page = page.expect("the journal is there");
        if page.is_empty() {
            return events;
        }
        events.extend(page);
    }
}

async fn open(platform: &Platform, run_id: RunId) -> usize {
    let open = platform.journal.inner.open_aggregates("run", shard_of(run_id), "", 10).await;
    open.expect("a list").len()
}

#[tokio::test]
async fn a_long_past_is_copied_in_parts_and_gone_on_with_where_that_broke_off() {
    let folder = folder();
    let platform = Platform::start(folder.path()).await;
    let parent = platform.run(&long()).await;
    platform.pull_one().await;
    let before = all(&platform, parent).await;
    assert!(before.len() as u64 > limits::FORK_EVENTS_AT_ONCE, "{}", before.len());
    let whole = || fork_of(parent, before.len() as u64);
    let dry = ForkRun { dry_run: true, ..whole() };
    let plan = platform.execute(Command::ForkRun(Box::new(dry))).await.expect("a plan");
    assert_eq!((plan.version, plan.plan.expect("a plan").calls.count), (before.len() as u64, 1));

    let command = platform.envelope(Command::ForkRun(Box::new(whole())));
    let fork = parent.forked(command.id, parent.home());
    platform.journal.fail_after(3, Fault::NotWritten);
    let refused = platform.service.execute(command.clone()).await.expect_err("it broke off");
    assert_eq!(refused.kind, RejectionKind::Unavailable);
    assert_eq!(all(&platform, fork).await.len(), 3 * PART);
    platform.stop().await;

    // There is no such run, whoever takes up what is open.
    let platform = Platform::start(folder.path()).await;
    let again = platform.pull_one().await;
    assert_eq!(again.run_id, parent);
    let cancel = Command::CancelRun { run_id: fork, reason: None, compensate: true };
    let refused = platform.execute(cancel).await.expect_err("there is none");
    assert_eq!(&*refused.code, "run_not_found");
    let retry = Command::RetryRun { run_id: fork, dry_run: false };
    assert_eq!(&*platform.execute(retry).await.expect_err("none").code, "run_not_found");
    assert_eq!(open(&platform, fork).await, 2);

    // The same request goes on with it.
    let told = platform.journal.appends().len();
    let receipt = platform.service.execute(command.clone()).await.expect("it is forked");
    assert!(receipt.created && !receipt.queued);
    assert_eq!((receipt.id.as_str(), receipt.version), (&*fork.to_string(), plan.version + 1));
    let parts = platform.journal.appends()[told..].to_vec();
    assert!(parts.iter().all(|events| *events <= PART), "{parts:?}");
    assert_eq!(parts.iter().sum::<usize>(), before.len() - 3 * PART + 1);
    let repeated = platform.service.execute(command).await.expect("it was forked");
    assert_eq!((repeated.id, repeated.position), (receipt.id, receipt.position));
    let of_fork = platform.pull_one().await;
    assert_eq!((of_fork.run_id, &*of_fork.node), (fork, "after"));

    let copied = all(&platform, fork).await;
    for (own, other) in copied.iter().zip(&before).skip(1) {
        assert_eq!((own.sequence, &own.payload), (other.sequence, &other.payload));
        assert_eq!((&own.event_type, own.recorded_at), (&other.event_type, other.recorded_at));
    }
    assert_eq!(&*copied[before.len()].event_type, "run_forked");
    platform.stop().await;

    // It is loaded, goes on, and can be forked as any.
    let platform = Platform::start(folder.path()).await;
    let tasks = platform.pull_many(2).await;
    let of_fork = tasks.iter().find(|task| task.run_id == fork).expect("it is owed");
    let second = ForkRun { run_id: fork, ..whole() };
    let second = platform.execute(Command::ForkRun(Box::new(second))).await.expect("a fork of it");
    platform.succeed(of_fork, json!(1)).await;
    assert_eq!(platform.end_of(fork).await.status, RunStatus::Completed);
    assert_eq!(platform.pull_one().await.run_id.to_string(), second.id);
    assert!(all(&platform, parent).await.starts_with(&before), "it is as it was");
    platform.stop().await;
}

#[tokio::test]
async fn a_copy_that_nobody_goes_on_with_is_given_up_in_the_end() {
    let folder = folder();
    let platform = Platform::start(folder.path()).await;
    let parent = platform.run(&long()).await;
    platform.pull_one().await;
    platform.journal.fail_after(2, Fault::NotWritten);
    let command =
        platform.envelope(Command::ForkRun(Box::new(ForkRun::unchanged(parent, StateAt::Latest))));
    let fork = parent.forked(command.id, parent.home());
    platform.service.execute(command).await.expect_err("it broke off");
    platform.stop().await;

    let late = SystemClock::new().now() + TimeDelta::minutes(11);
    let clock = Arc::new(ManualClock::new(late));
    let platform = Platform::start_with(folder.path(), &config(), clock).await;
    let given_up = async {
        while open(&platform, fork).await > 1 {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(Duration::from_secs(20), given_up).await.expect("it is given up");
    let events = all(&platform, fork).await;
    assert_eq!(events.len(), 2 * PART + 1);
    assert_eq!(&*events[2 * PART].event_type, "run_cancelled");
    assert_eq!(platform.pull_one().await.run_id, parent);
    platform.stop().await;
}
