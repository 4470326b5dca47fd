//! What goes wrong around a run, and that nothing of it is lost or done twice.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use chassis::clock::{Clock, SystemClock};
use chassis::journal::Journal;
use chrono::{DateTime, Utc};
use commands::CoordinatorConfig;
use domain::run::RunStatus;
use protocol::{Command, Task};
use serde_json::json;
use uuid::Uuid;

use crate::platform::{Platform, config, fan_out, folder, metrics, sequence};
use crate::watched::Fault;

#[tokio::test]
async fn an_append_that_failed_is_made_up_for() {
    let folder = folder();
    let platform = Platform::start(folder.path()).await;
    let run_id = platform.run(&sequence(2)).await;
    let first = platform.pull_one().await;
    platform.journal.fail_next(Fault::NotWritten);
    platform.succeed(&first, json!(1)).await;
    // The outcome is lost with its append, so the attempt is still owed.
    let again = platform.pull_one().await;
    assert_eq!((again.token, again.attempt), (first.token, first.attempt));
    platform.succeed(&again, json!(1)).await;
    let second = platform.pull_one().await;
    assert_eq!(&*second.node, "s1");
    platform.succeed(&second, json!(1)).await;
    let end = platform.end_of(run_id).await;
    // One event more than without the fault: that the attempt was handed out again.
    assert_eq!((end.status, end.sequence), (RunStatus::Completed, 7));
    platform.stop().await;
}

#[tokio::test]
async fn an_append_whose_answer_was_lost_is_not_repeated() {
    let folder = folder();
    let platform = Platform::start(folder.path()).await;
    let run_id = platform.run(&sequence(2)).await;
    let first = platform.pull_one().await;
    platform.journal.fail_next(Fault::AnswerLost);
    platform.succeed(&first, json!(1)).await;
    let second = platform.pull_one().await;
    assert_eq!(&*second.node, "s1");
    platform.succeed(&second, json!(1)).await;
    let end = platform.end_of(run_id).await;
    // One event more: that what is owed after a load may have been handed out before.
    assert_eq!((end.status, end.sequence), (RunStatus::Completed, 7));
    platform.stop().await;
}

#[tokio::test]
async fn a_start_that_was_not_written_leaves_no_run() {
    let folder = folder();
    let platform = Platform::start(folder.path()).await;
    let known = platform.run(&sequence(1)).await;
    platform.pull_one().await;
    platform.journal.fail_next(Fault::NotWritten);
    let refused = platform.execute(platform.starting(&sequence(1), json!({}))).await;
    assert_eq!(refused.expect_err("the journal is away").code, "unavailable");
    let shard = protocol::shard_of(known);
    let open = platform.journal.inner.open_aggregates("run", shard, "", 10).await;
    assert_eq!(open.expect("a list"), [Arc::from(known.to_string())]);
    platform.stop().await;
}

#[tokio::test]
async fn a_cancelled_run_takes_no_late_outcome() {
    let metrics = metrics();
    let folder = folder();
    let platform = Platform::start(folder.path()).await;
    let run_id = platform.run(&fan_out(20)).await;
    let tasks = platform.pull().await;
    let reason = Some("enough".to_owned());
    platform
        .execute(Command::CancelRun { run_id, reason, compensate: true })
        .await
        .expect("cancel succeeds");
    assert_eq!(platform.end_of(run_id).await.status, RunStatus::Cancelled);
    let events = platform.events(run_id).await;
    for task in &tasks {
        platform.succeed(task, json!(1)).await;
    }
    // The one worker takes messages in order: once this is answered, the outcomes were looked at.
    platform.run(&sequence(1)).await;
    assert_eq!(platform.events(run_id).await, events);
    let counted = format!("wonder_outcomes_refused_total {}", tasks.len());
    let rendered = metrics.render();
    assert!(rendered.lines().any(|line| line == counted), "{counted} is not in\n{rendered}");
    platform.stop().await;
}

#[tokio::test]
async fn a_run_that_left_memory_goes_on_where_it_was() {
    let folder = folder();
    let config = CoordinatorConfig { idle: Duration::from_millis(1), ..config() };
    let clock = Arc::new(SystemClock::new());
    let platform = Platform::start_with(folder.path(), &config, clock).await;
    let run_id = platform.run(&sequence(2)).await;
    let first = platform.pull_one().await;
    // A stranger's command loads the run where it isn't in memory: so it has left.
    let loads = platform.journal.run_loads();
    while platform.journal.run_loads() == loads {
        platform.cancel_from_elsewhere(run_id).await;
        tokio::task::yield_now().await;
    }
    // It is in memory again, and its attempt is on a worker: the next task is another run's.
    let other = platform.run(&sequence(1)).await;
    let next = platform.pull_one().await;
    assert_eq!(next.run_id, other);
    platform.succeed(&first, json!(1)).await;
    let second = platform.pull_one().await;
    assert_eq!((second.run_id, &*second.node), (run_id, "s1"));
    platform.succeed(&second, json!(1)).await;
    assert_eq!(platform.end_of(run_id).await.sequence, 6);
    platform.stop().await;
}

#[tokio::test]
async fn what_was_owed_at_the_end_of_a_process_is_owed_to_the_next() {
    let folder = folder();
    let platform = Platform::start(folder.path()).await;
    let run_id = platform.run(&fan_out(5)).await;
    let tasks = platform.pull().await;
    let place = |task: &Task| (task.token, task.attempt);
    platform.stop().await;

    let platform = Platform::start(folder.path()).await;
    let again = platform.pull().await;
    assert_eq!(
        again.iter().map(place).collect::<Vec<_>>(),
        tasks.iter().map(place).collect::<Vec<_>>()
    );
    for task in &again {
        platform.succeed(task, json!(2)).await;
    }
    let end = platform.end_of(run_id).await;
    assert_eq!(end.output, Some(json!({"results": [2, 2, 2, 2, 2]})));
    platform.stop().await;
}

/// A clock that makes the engine panic once, the next time it asks for an event's id.
#[derive(Debug, Default)]
struct Mined {
    clock: SystemClock,
    armed: AtomicBool,
}

impl Clock for Mined {
    fn now(&self) -> DateTime<Utc> {
        self.clock.now()
    }

    fn uuid_v7(&self) -> Uuid {
        assert!(!self.armed.swap(false, Ordering::SeqCst), "the test says so");
        self.clock.uuid_v7()
    }
}

#[tokio::test]
async fn a_panic_stays_with_its_run() {
    let folder = folder();
    let clock = Arc::new(Mined::default());
    let platform =
        Platform::start_with(folder.path(), &config(), Arc::clone(&clock) as Arc<dyn Clock>).await;
    let hit = platform.run(&sequence(2)).await;
    let task = platform.pull_one().await;
    let other = platform.run(&sequence(1)).await;
    let spared = platform.pull_one().await;
    clock.armed.store(true, Ordering::SeqCst);
    platform.succeed(&task, json!(1)).await;
    let workspace_id = platform.service.defaults().workspace_id;
    let wait =
        protocol::Commands::wait(&*platform.service, workspace_id, hit, Duration::from_secs(20));
    assert_eq!(wait.await.expect_err("it is quarantined").code, "run_quarantined");
    platform.succeed(&spared, json!(1)).await;
    assert_eq!(platform.end_of(other).await.status, RunStatus::Completed);
    platform.stop().await;

    // Another process, which has no such defect, does what is owed.
    let platform = Platform::start(folder.path()).await;
    for _ in 0..2 {
        let task = platform.pull_one().await;
        platform.succeed(&task, json!(1)).await;
    }
    assert_eq!(platform.end_of(hit).await.sequence, 7);
    platform.stop().await;
}
