//! Waits for a run's end: at once where it ends, and across moves of the run.

use std::time::{Duration, Instant};

use chrono::DateTime;
use protocol::remote::{CommandCall, shard_commands};
use protocol::{Commands as _, RejectionKind, RunOutcome, RunStatus, Usage, shard_of};

use crate::far::{Far, Place, home, no, not_owner, ok, run_id};

fn ended() -> RunOutcome {
    RunOutcome {
        status: RunStatus::Completed,
        output: None,
        error: None,
        usage: Usage::default(),
        sequence: 3,
        position: 3,
        ended_at: DateTime::from_timestamp(1_790_000_000, 0).expect("a time"),
    }
}

fn subject() -> String {
    shard_commands(shard_of(run_id()))
}

const LONG: Duration = Duration::from_secs(60);

#[tokio::test]
async fn an_end_is_told_as_soon_as_the_owner_tells_it_and_asked_for_in_slices() {
    let place = Place::new();
    let (nats, remote) = (place.nats().await, place.remote().await);
    let (far, _served) = Far::<CommandCall>::at(&nats, &subject(), [ok(Some(ended()))]).await;
    let started = Instant::now();
    assert_eq!(remote.wait(home(), run_id(), LONG).await, Ok(Some(ended())));
    assert!(started.elapsed() < Duration::from_secs(2), "{:?}", started.elapsed());
    let slice = CommandCall::Wait { workspace_id: home(), run_id: run_id(), timeout_ms: 5_000 };
    assert_eq!(far.asked(), [slice]);
}

#[tokio::test]
async fn a_wait_goes_on_at_the_next_owner() {
    let place = Place::new();
    let (first, second) = (place.nats().await, place.nats().await);
    let remote = place.remote().await;
    // One that leaves says so, and ends waits before their time.
    let (old, served) =
        Far::<CommandCall>::at(&first, &subject(), [not_owner(), ok(None::<RunOutcome>)]).await;
    let waiting = tokio::spawn(async move { remote.wait(home(), run_id(), LONG).await });
    old.was_asked(2).await;
    served.stop().await;
    let script = [no(RejectionKind::Unavailable, "journal_unavailable"), ok(Some(ended()))];
    let (new, _served) = Far::<CommandCall>::at(&second, &subject(), script).await;
    assert_eq!(waiting.await.expect("no panic"), Ok(Some(ended())));
    assert_eq!(new.asked().len(), 2);
}

#[tokio::test]
async fn a_run_that_does_not_end_or_has_no_owner_has_not_ended_when_the_time_is_up() {
    let place = Place::new();
    let (nats, remote) = (place.nats().await, place.remote().await);
    let short = Duration::from_millis(200);
    assert_eq!(remote.wait(home(), run_id(), short).await, Ok(None));
    assert_eq!(remote.wait(home(), run_id(), Duration::ZERO).await, Ok(None));
    let (far, _served) =
        Far::<CommandCall>::at(&nats, &subject(), [ok(None::<RunOutcome>), not_owner()]).await;
    let asked = Instant::now();
    assert_eq!(remote.wait(home(), run_id(), short).await, Ok(None));
    assert!(asked.elapsed() >= short);
    let CommandCall::Wait { timeout_ms, .. } = far.asked()[0] else { panic!("no wait") };
    assert!((1..=200).contains(&timeout_ms), "{timeout_ms}");
}

#[tokio::test]
async fn a_run_that_is_not_there_is_told_so() {
    let place = Place::new();
    let (nats, remote) = (place.nats().await, place.remote().await);
    let script = [no(RejectionKind::NotFound, "run_not_found")];
    let (far, _served) = Far::<CommandCall>::at(&nats, &subject(), script).await;
    let refused = remote.wait(home(), run_id(), LONG).await.expect_err("it isn't there");
    assert_eq!(refused.code, "run_not_found");
    assert_eq!(far.asked().len(), 1);
}
