//! Runs with a rate: no more begin in a period than may, over restarts too, by a clock that the test
//! moves.

use std::path::Path;
use std::sync::Arc;

use chassis::clock::{Clock, ManualClock};
use chassis::journal::{Journal, RecordedEvent};
use chrono::{DateTime, TimeDelta, Utc};
use domain::ids::RunId;
use domain::run::RunStatus;
use protocol::{Command, Receipt, Task};
use serde_json::{Value, json};

use crate::platform::{Platform, config, folder, node};

fn limited(more: Value) -> Value {
    let mut definition = json!({
        "name": "limited", "start": "work",
        "rate_limit": {"key": "${input.user}", "limit": 6, "period": "1m"},
        "priority": "${has(input.urgent) ? 100 : 0}",
        "nodes": {"work": node()},
    });
    for (key, value) in more.as_object().expect("members") {
        definition["rate_limit"][key] = value.clone();
    }
    definition
}

struct World {
    folder: tempfile::TempDir,
    clock: Arc<ManualClock>,
}

impl World {
    fn new() -> Self {
        // What is kept is forgotten by the machine's clock, and so this one is ahead of it.
        let begin = Utc::now() + TimeDelta::days(1);
        Self { folder: folder(), clock: Arc::new(ManualClock::new(begin)) }
    }

    async fn platform(&self) -> Platform {
        let path: &Path = self.folder.path();
        Platform::start_with(path, &config(), Arc::clone(&self.clock) as Arc<dyn Clock>).await
    }

    fn later(&self, seconds: i64) {
        self.clock.advance(TimeDelta::seconds(seconds));
    }
}

async fn start(platform: &Platform, definition: &Value, input: Value) -> Receipt {
    platform.execute(platform.starting(definition, input)).await.expect("it is taken")
}

fn ann() -> Value {
    json!({"user": "ann"})
}

fn id(receipt: &Receipt) -> RunId {
    receipt.id.parse().expect("a run's id")
}

async fn end(platform: &Platform, task: &Task) {
    platform.succeed(task, json!(1)).await;
    assert_eq!(platform.end_of(task.run_id).await.status, RunStatus::Completed);
}

async fn recorded(platform: &Platform, run_id: RunId) -> Vec<RecordedEvent> {
    let events = platform.journal.inner.load("run", &run_id.to_string(), 0, 100).await;
    events.expect("the journal is there")
}

/// When a run began, by the journal.
async fn begun(platform: &Platform, run_id: RunId) -> DateTime<Utc> {
    let events = recorded(platform, run_id).await;
    let admitted = events.iter().find(|event| &*event.event_type == "run_admitted");
    admitted.expect("it has begun").recorded_at
}

fn reason(events: &[RecordedEvent]) -> Value {
    let queued = events.iter().rev().find(|event| &*event.event_type == "run_queued");
    serde_json::from_slice(&queued.expect("it waits").payload).expect("JSON")
}

#[tokio::test]
async fn runs_begin_at_their_times_and_those_of_other_keys_beside_them() {
    let world = World::new();
    let platform = world.platform().await;
    let definition = limited(json!({}));
    let zero = world.clock.now();
    let first = start(&platform, &definition, ann()).await;
    start(&platform, &definition, json!({"user": "bob"})).await;
    // One at a time or both at once.
    let tasks = platform.pull_many(2).await;
    for task in &tasks {
        end(&platform, task).await;
    }
    let second = start(&platform, &definition, ann()).await;
    let third = start(&platform, &definition, json!({"user": "ann", "urgent": true})).await;
    assert_eq!([second.queued, third.queued], [true, true]);
    let why = reason(&recorded(&platform, id(&second)).await);
    let not_before: DateTime<Utc> =
        serde_json::from_value(why["not_before"].clone()).expect("a time");
    assert_eq!((&why["reason"], &why["ahead"]), (&json!("rate_limit"), &json!(0)), "{why}");
    assert_eq!(not_before, zero + TimeDelta::seconds(10));
    world.later(10);
    // The higher priority goes first; that the clock has moved is seen with the next message.
    platform.cancel_from_elsewhere(id(&first)).await;
    let task = platform.pull_one().await;
    assert_eq!(task.run_id, id(&third));
    end(&platform, &task).await;
    assert_eq!(begun(&platform, id(&third)).await, zero + TimeDelta::seconds(10));
    world.later(9);
    platform.cancel_from_elsewhere(id(&first)).await;
    assert_eq!(platform.events(id(&second)).await, ["run_started", "run_queued"]);
    world.later(1);
    platform.cancel_from_elsewhere(id(&first)).await;
    let task = platform.pull_one().await;
    assert_eq!(task.run_id, id(&second));
    end(&platform, &task).await;
    assert_eq!(begun(&platform, id(&second)).await, zero + TimeDelta::seconds(20));
    platform.stop().await;
}

#[tokio::test]
async fn a_key_whose_runs_have_all_ended_still_counts_after_a_restart() {
    let world = World::new();
    let definition = limited(json!({"then": "drop", "burst": 2}));
    let platform = world.platform().await;
    let zero = world.clock.now();
    for _ in 0..2 {
        start(&platform, &definition, ann()).await;
        let task = platform.pull_one().await;
        end(&platform, &task).await;
    }
    platform.stop().await;
    let platform = world.platform().await;
    let dropped = start(&platform, &definition, ann()).await;
    let outcome = dropped.outcome.as_ref().expect("it has ended");
    assert_eq!(outcome.status, RunStatus::Cancelled);
    let why = outcome.error.as_ref().expect("why");
    assert_eq!((&*why.code, why.message.contains("6 in 1m")), ("rate_limit_dropped", true));
    assert_eq!(platform.events(id(&dropped)).await, ["run_started", "run_cancelled"]);
    platform.stop().await;
    world.later(10);
    let platform = world.platform().await;
    let taken = start(&platform, &definition, ann()).await;
    assert_eq!(begun(&platform, id(&taken)).await, zero + TimeDelta::seconds(10));
    let dropped = start(&platform, &definition, ann()).await;
    assert!(dropped.outcome.is_some());
    platform.stop().await;
}

#[tokio::test]
async fn who_waits_begins_in_turn_through_restarts() {
    let world = World::new();
    let definition = limited(json!({}));
    let platform = world.platform().await;
    let mut runs = Vec::new();
    for _ in 0..4 {
        runs.push(id(&start(&platform, &definition, ann()).await));
    }
    let task = platform.pull_one().await;
    assert_eq!(task.run_id, runs[0]);
    end(&platform, &task).await;
    platform.stop().await;
    for run_id in &runs[1..] {
        world.later(10);
        let platform = world.platform().await;
        let task = platform.pull_one().await;
        assert_eq!(task.run_id, *run_id);
        end(&platform, &task).await;
        platform.stop().await;
    }
    let platform = world.platform().await;
    let mut times = Vec::new();
    for run_id in runs {
        times.push(begun(&platform, run_id).await);
    }
    let gaps: Vec<_> = times.windows(2).map(|two| (two[1] - two[0]).num_seconds()).collect();
    assert_eq!(gaps, [10, 10, 10]);
    platform.stop().await;
}

#[tokio::test]
async fn a_place_and_a_slot_are_both_waited_for_and_the_reason_says_which() {
    let world = World::new();
    let mut definition = limited(json!({}));
    definition["concurrency"] = json!({"key": "${input.user}", "limit": 1});
    let platform = world.platform().await;
    start(&platform, &definition, ann()).await;
    let first = platform.pull_one().await;
    let second = id(&start(&platform, &definition, ann()).await);
    assert_eq!(reason(&recorded(&platform, second).await)["reason"], "concurrency");
    end(&platform, &first).await;
    assert_eq!(platform.events(second).await, ["run_started", "run_queued"]);
    world.later(10);
    let third = id(&start(&platform, &definition, ann()).await);
    let task = platform.pull_one().await;
    assert_eq!(task.run_id, second);
    world.later(10);
    end(&platform, &task).await;
    let task = platform.pull_one().await;
    assert_eq!(task.run_id, third);
    end(&platform, &task).await;
    platform.stop().await;
}

#[tokio::test]
async fn a_run_that_is_paused_keeps_its_place_and_no_slot_is_wasted_on_it() {
    let world = World::new();
    let definition = limited(json!({}));
    let platform = world.platform().await;
    start(&platform, &definition, ann()).await;
    let task = platform.pull_one().await;
    end(&platform, &task).await;
    let paused = id(&start(&platform, &definition, ann()).await);
    let next = id(&start(&platform, &definition, ann()).await);
    let pause = Command::PauseRun { run_id: paused, reason: None };
    platform.execute(pause).await.expect("it is paused");
    world.later(10);
    platform.cancel_from_elsewhere(paused).await;
    let task = platform.pull_one().await;
    assert_eq!(task.run_id, next);
    end(&platform, &task).await;
    world.later(10);
    platform.execute(Command::ResumeRun { run_id: paused }).await.expect("it is resumed");
    let task = platform.pull_one().await;
    assert_eq!(task.run_id, paused);
    end(&platform, &task).await;
    platform.stop().await;
}

#[tokio::test]
async fn a_clock_that_is_put_back_stops_a_key_for_a_short_time_only() {
    let world = World::new();
    let definition = limited(json!({}));
    let platform = world.platform().await;
    start(&platform, &definition, ann()).await;
    let task = platform.pull_one().await;
    end(&platform, &task).await;
    let waiting = id(&start(&platform, &definition, ann()).await);
    platform.stop().await;
    world.later(-3_600);
    let platform = world.platform().await;
    let late = id(&start(&platform, &definition, json!({"user": "bob"})).await);
    let task = platform.pull_one().await;
    assert_eq!(task.run_id, late);
    end(&platform, &task).await;
    world.later(10);
    platform.cancel_from_elsewhere(late).await;
    let task = platform.pull_one().await;
    assert_eq!(task.run_id, waiting);
    end(&platform, &task).await;
    platform.stop().await;
}

#[tokio::test]
async fn a_key_that_is_idle_leaves_nothing_behind() {
    let world = World::new();
    let platform = world.platform().await;
    let definition = limited(json!({}));
    let run_id = id(&start(&platform, &definition, ann()).await);
    let task = platform.pull_one().await;
    end(&platform, &task).await;
    let shard = protocol::shard_of(run_id);
    let kept = platform.journal.inner.marks(shard, "", 10).await.expect("they can be read");
    assert_eq!(kept.len(), 1);
    assert_eq!(kept[0].until, begun(&platform, run_id).await + TimeDelta::seconds(10));
    platform.stop().await;
}
