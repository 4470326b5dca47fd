//! Promise 11: timers fire once, never early, and survive any downtime.
//!
//! The first tests play the worker and move the clock; the last has real processes that are down
//! when their retries are due. It fails where a timer is a sleeping task (a restart forgets it),
//! where a restart fires what has been fired, and where the deadline isn't the one in the event.

use std::collections::HashMap;
use std::time::Duration;

use chassis::clock::Clock;
use chrono::{DateTime, TimeDelta, Utc};
use domain::ids::RunId;
use domain::run::Event;
use protocol::{Failure, FailureKind, Outcome, OutcomeResult, RunStatus};
use serde_json::{Value, json};
use system_tests::{Records, Setting, World, Writer, wait_for, within, workflows};

system_tests::in_both_settings!(retries_that_came_due_while_all_was_down_start_once);

/// Runs whose retries come due while nothing runs.
const RUNS: usize = 2_000;
/// Runs of real processes.
const REAL_RUNS: usize = 40;

/// One task that fails, and is tried again after an hour.
fn hourly(name: &str) -> Value {
    let mut definition = workflows::flaky(name, 0, 2);
    definition["nodes"]["try"]["retry"]["initial"] = json!("1h");
    definition["nodes"]["try"]["retry"]["max"] = json!("1h");
    definition
}

/// Takes tasks and has each fail as transient, until so many have.
async fn fail(writer: &Writer, count: usize) {
    let mut failed = 0;
    while failed < count {
        let tasks = within("tasks", writer.tasks.pull(64)).await;
        let outcomes = tasks.iter().map(|task| Outcome {
            run_id: task.run_id,
            token: task.token,
            attempt: task.attempt,
            result: OutcomeResult::Failure(Failure {
                kind: FailureKind::Transient,
                code: "test".to_owned(),
                message: "as the test wants it".to_owned(),
                detail: Value::Null,
                retry_after: None,
                usage: Default::default(),
            }),
            duration_ms: 1,
            secrets: Vec::new(),
        });
        failed += tasks.len();
        writer.tasks.report(outcomes.collect()).await;
    }
}

/// Returns when so many events of a type stand in the journal.
async fn recorded(writer: &Writer, event_type: &str, count: usize) {
    wait_for(&format!("{count} of {event_type}"), || async {
        let records = writer.records().await;
        let found = records.events.iter().filter(|event| &*event.event_type == event_type);
        (found.count() >= count).then_some(())
    })
    .await;
}

/// When each retry was due and when it started, by run; fails where one started twice or early.
fn retries(records: &Records) -> HashMap<String, (DateTime<Utc>, DateTime<Utc>)> {
    let mut found = HashMap::new();
    for run_id in records.run_ids() {
        let mut due = None;
        for (step, recorded) in records.fold(&run_id).iter().zip(records.of_run(&run_id)) {
            match &step.event {
                Event::TaskFailed { retry_at, .. } => due = *retry_at,
                Event::RetryStarted { .. } => {
                    let due = due.take().expect("a retry follows a failure, once");
                    let at = recorded.recorded_at;
                    assert!(at >= due, "{run_id}: due {due}, started {at}");
                    assert!(found.insert(run_id.clone(), (due, at)).is_none(), "{run_id} twice");
                }
                _ => {}
            }
        }
    }
    found
}

#[tokio::test(flavor = "multi_thread")]
async fn what_came_due_in_an_hour_of_downtime_fires_once() {
    let world = World::default();
    let writer = world.start().await;
    let definition = hourly("p11");
    let mut runs = Vec::new();
    for chunk in 0..RUNS / 100 {
        for _ in 0..100 {
            runs.push(writer.start_run(&definition, json!({"chunk": chunk})).await);
        }
        fail(&writer, 100).await;
    }
    recorded(&writer, "task_failed", RUNS).await;
    writer.stop().await;

    world.clock.advance(TimeDelta::hours(1));
    let writer = world.start().await;
    fail(&writer, RUNS).await;
    for run_id in &runs {
        assert_eq!(writer.end_of(*run_id).await.status, RunStatus::Failed);
    }
    let records = writer.records().await;
    records.check();
    assert_eq!(retries(&records).len(), RUNS);
    writer.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_clock_that_jumps_fires_nothing_early_and_nothing_twice() {
    let world = World::default();
    let mut writer = world.start().await;
    let waiting: RunId = writer.start_run(&hourly("p11"), json!({})).await;
    fail(&writer, 1).await;
    recorded(&writer, "task_failed", 1).await;
    let due = world.clock.now() + TimeDelta::hours(1);
    // Back by ten minutes, forth by twenty, and so on, always before the hour is over; with a
    // restart after each jump, since a new process knows nothing of the old one's time.
    for (jump, minutes) in [-10, 20, -10, 50, -10, 19].into_iter().enumerate() {
        world.clock.advance(TimeDelta::minutes(minutes));
        assert!(world.clock.now() < due);
        writer.stop().await;
        writer = world.start().await;
        let other = writer.start_run(&hourly("p11-other"), json!({"jump": jump})).await;
        // What was owed before comes as well, and may come sooner.
        wait_for("the other run's task", || async {
            let tasks = within("tasks", writer.tasks.pull(64)).await;
            let tasks: Vec<RunId> = tasks.iter().map(|task| task.run_id).collect();
            assert!(!tasks.contains(&waiting), "the retry was handed out before its time");
            tasks.contains(&other).then_some(())
        })
        .await;
    }
    world.clock.set(due);
    for _ in 0..3 {
        writer.stop().await;
        writer = world.start().await;
        wait_for("the retry to be handed out", || async {
            let tasks = within("tasks", writer.tasks.pull(64)).await;
            tasks.iter().any(|task| (task.run_id, task.attempt) == (waiting, 2)).then_some(())
        })
        .await;
        world.clock.advance(TimeDelta::minutes(-10));
    }
    let records = writer.records().await;
    records.check();
    let retries = retries(&records);
    assert_eq!(retries[&waiting.to_string()], (due, due));
    writer.stop().await;
}

async fn retries_that_came_due_while_all_was_down_start_once(setting: Setting) {
    let mut platform = crate::platform_in(setting).await;
    let client = platform.client();
    let mut definition = workflows::flaky("p11", 1, 2);
    definition["nodes"]["try"]["retry"]["initial"] = json!("2s");
    client.post("/workflow-definitions", &definition).await.ok();
    let mut runs = Vec::new();
    for _ in 0..REAL_RUNS {
        runs.push(client.start(&json!("p11"), json!({})).await);
    }
    wait_for("all first attempts to fail", || async {
        let failed = client.get("/events?type=task_failed&limit=1000").await;
        (failed["items"].as_array()?.len() == REAL_RUNS).then_some(())
    })
    .await;
    platform.kill_9().await;
    // Nothing of it is there while the retries come due.
    let down = tokio::time::Instant::now() + Duration::from_millis(2_500);
    tokio::time::interval_at(down, Duration::from_secs(1)).tick().await;
    platform.restart().await;
    for run_id in &runs {
        let view = client.end_of(run_id).await;
        assert_eq!(view["status"], "completed", "{view}");
    }
    platform.stop().await;
    let records = platform.records().await;
    records.check();
    assert_eq!(retries(&records).len(), REAL_RUNS);
}
