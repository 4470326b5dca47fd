//! Runs that have come to as many events as their owner warns of, and to as many as a run may have.

use std::io;
use std::path::Path;
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use chassis::journal::{Append, Journal, NewEvent, Snapshot, SqliteJournal, SqliteOptions};
use domain::ids::RunId;
use domain::run::{Event, Run, RunStatus, STATE_VERSION};
use domain::{codec, limits};
use protocol::{Command, RejectionKind};
use serde_json::json;

use crate::platform::{Platform, folder, sequence};

/// A run that is paused, as if it had come to so many events, with one by which it is resumed.
/// Nobody has it in memory.
async fn age(folder: &Path, run_id: RunId, events: u64) {
    let journal = SqliteJournal::open(&folder.join("journal.db"), SqliteOptions::default()).await;
    let journal = journal.expect("the journal opens");
    let id = run_id.to_string();
    let recorded = journal.load("run", &id, 0, 1_000).await.expect("its events");
    let last = recorded.last().expect("there are some").clone();
    let mut run = Run::default();
    for one in &recorded {
        let event = codec::decode(&one.event_type, one.event_version, &one.payload, &|_| None);
        run.evolve(&event.expect("it is read"), one.recorded_at);
    }
    let resumed = Event::RunResumed {};
    run.evolve(&resumed, last.recorded_at);
    let Run::Live(live) = &mut run else { panic!("it goes on") };
    live.events = events;
    let workspace = last.workspace_id.parse().expect("an id");
    let sequence = last.sequence + 1;
    let state = Bytes::from(serde_json::to_vec(&run).expect("JSON"));
    let append = Append {
        aggregate_type: last.aggregate_type,
        aggregate_id: last.aggregate_id,
        expected_sequence: last.sequence,
        workspace_id: last.workspace_id,
        metadata: last.metadata,
        recorded_at: last.recorded_at,
        events: vec![NewEvent {
            id: uuid::Uuid::now_v7(),
            event_type: resumed.event_type().into(),
            event_version: resumed.event_version(),
            payload: codec::encode(&resumed, workspace).expect("JSON").payload.into(),
            recorded_at: None,
        }],
        snapshot: Some(Snapshot { sequence, version: STATE_VERSION, state }),
        shard: protocol::shard_of(run_id),
        ..Append::default()
    };
    journal.append(append).await.expect("it is written");
    journal.close().await;
}

/// A platform with a run of so many steps that has come to so many events, the first step of which
/// is owed.
async fn platform_with(folder: &Path, steps: usize, events: u64) -> (Platform, RunId) {
    let platform = Platform::start(folder).await;
    let run_id = platform.run(&sequence(steps)).await;
    platform.pull_one().await;
    let pause = Command::PauseRun { run_id, reason: None };
    platform.execute(pause).await.expect("it is paused");
    platform.stop().await;
    age(folder, run_id, events).await;
    (Platform::start(folder).await, run_id)
}

async fn cannot_be_resumed(platform: &Platform, run_id: RunId) {
    let resumed = platform.execute(Command::ResumeRun { run_id }).await;
    let refused = resumed.expect_err("it has too many events");
    assert_eq!((refused.kind, &*refused.code), (RejectionKind::Conflict, "too_many_events"));
}

#[tokio::test]
async fn a_run_with_1_000_000_events_stands_still_until_it_is_cancelled() {
    let folder = folder();
    let most = limits::EVENTS_PER_RUN;
    // The hand-out is recorded, since the attempt may have been handed out before.
    let (platform, run_id) = platform_with(folder.path(), 2, most - 3).await;
    let task = platform.pull_one().await;
    platform.succeed(&task, json!(1)).await;
    // Nothing of it is handed out any more: what comes next is another run's.
    let other = platform.run(&sequence(1)).await;
    let next = platform.pull_one().await;
    assert_eq!(next.run_id, other);
    platform.succeed(&next, json!(1)).await;
    assert_eq!(platform.end_of(other).await.status, RunStatus::Completed);
    let events = platform.events(run_id).await;
    assert_eq!(events[events.len() - 2..], ["token_routed", "run_paused"], "{events:?}");
    cannot_be_resumed(&platform, run_id).await;
    platform.stop().await;

    let platform = Platform::start(folder.path()).await;
    cannot_be_resumed(&platform, run_id).await;
    let cancel = Command::CancelRun { run_id, reason: None, compensate: true };
    platform.execute(cancel).await.expect("it is cancelled");
    assert_eq!(platform.end_of(run_id).await.status, RunStatus::Cancelled);
    platform.stop().await;
}

/// What was logged, as lines of JSON.
#[derive(Clone, Default)]
struct Lines(Arc<Mutex<Vec<u8>>>);

impl Lines {
    fn of_long_runs(&self) -> usize {
        let bytes = self.0.lock().expect("no writer panics").clone();
        let text = String::from_utf8(bytes).expect("text");
        let lines = text.lines().map(|line| serde_json::from_str(line).expect("a line of JSON"));
        let is_warning = |line: &serde_json::Value| {
            line["level"] == "WARN" && line["fields"]["message"] == "a long run"
        };
        lines.filter(is_warning).count()
    }
}

impl io::Write for Lines {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().expect("no writer panics").write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[tokio::test]
async fn the_log_warns_once_of_a_run_with_100_000_events() {
    let lines = Lines::default();
    let writer = lines.clone();
    let subscriber = tracing_subscriber::fmt().json().with_writer(move || writer.clone()).finish();
    let _guard = tracing::subscriber::set_default(subscriber);
    let folder = folder();
    let warned_of = limits::EVENTS_WARNED_OF;
    // The hand-out, an outcome and a step of each task.
    let (platform, run_id) = platform_with(folder.path(), 4, warned_of - 6).await;
    let mut before = Vec::new();
    for _ in 0..4 {
        let task = platform.pull_one().await;
        before.push(lines.of_long_runs());
        platform.succeed(&task, json!(1)).await;
    }
    assert_eq!(platform.end_of(run_id).await.status, RunStatus::Completed);
    assert_eq!((before, lines.of_long_runs()), (vec![0, 0, 0, 1], 1));
    platform.stop().await;
}
