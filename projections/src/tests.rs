//! Events in, rows out: a journal in a temporary folder, written as the write side does.

use std::path::PathBuf;
use std::sync::Arc;

use chassis::journal::{
    Append, Journal, NewEvent, Payload, Snapshot, SqliteJournal, SqliteOptions,
};
use chrono::{DateTime, TimeDelta, Utc};
use domain::codec::{self, Stored};
use domain::ids::{DefinitionId, ProjectId, RunId, WorkspaceId};
use domain::run::event::{Event, RunStarted};
use serde::Serialize;
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use crate::{Config, Projections};

mod events;
mod history;
mod projector;
mod resources;
mod runs;

/// A store with its read side, which folds until the world is dropped.
struct World {
    folder: TempDir,
    journal: Arc<SqliteJournal>,
    views: Arc<Projections>,
    shutdown: CancellationToken,
    tasks: Vec<JoinHandle<()>>,
}

fn config() -> Config {
    Config { pace: std::time::Duration::ZERO, ..Config::default() }
}

impl World {
    /// A new store whose read side folds.
    async fn new() -> Self {
        let mut world = Self::idle(config()).await;
        world.start();
        world
    }

    /// A new store whose read side is open and not started.
    async fn idle(config: Config) -> Self {
        let folder = TempDir::new().expect("a temporary folder");
        let path = folder.path().join("journal.db");
        let journal = SqliteJournal::open(&path, SqliteOptions::default()).await.expect("it opens");
        let views = folder.path().join("views.db");
        let views =
            Projections::open(Arc::clone(&journal) as _, &views, config).await.expect("it opens");
        Self { folder, journal, views, shutdown: CancellationToken::new(), tasks: Vec::new() }
    }

    fn start(&mut self) {
        self.tasks = self.views.start(&self.shutdown);
    }

    fn views_path(&self) -> PathBuf {
        self.folder.path().join("views.db")
    }

    /// Another read side on the same file.
    async fn reopen(&self) -> Arc<Projections> {
        let journal = Arc::clone(&self.journal) as Arc<dyn Journal>;
        Projections::open(journal, &self.views_path(), config()).await.expect("it opens")
    }

    async fn caught_up(&self) {
        let head = self.journal.head().await.expect("the journal answers");
        self.views.caught_up(head).await;
    }

    async fn append<E: Stored + Serialize>(
        &self,
        stream: (&str, &str),
        workspace: WorkspaceId,
        after: u64,
        events: &[E],
    ) -> u64 {
        let mut payloads = Vec::new();
        let mut encoded = Vec::new();
        for event in events {
            let tagged = serde_json::to_value(event).expect("JSON");
            let one = codec::encode(event, workspace).expect("it encodes");
            payloads.extend(
                one.blobs
                    .into_iter()
                    .map(|(hash, bytes)| Payload { hash: hash.into(), bytes: bytes.into() }),
            );
            encoded.push(NewEvent {
                id: Uuid::now_v7(),
                event_type: tagged["type"].as_str().expect("a tag").into(),
                event_version: 1,
                payload: one.payload.into(),
            });
        }
        let append = Append {
            aggregate_type: stream.0.into(),
            aggregate_id: stream.1.into(),
            expected_sequence: after,
            workspace_id: workspace.to_string().into(),
            metadata: br#"{"actor":"test"}"#.as_slice().into(),
            recorded_at: moment(after),
            events: encoded,
            inbox: Vec::new(),
            payloads,
            open: None,
            snapshot: None,
            shard: 0,
            epoch: None,
        };
        self.journal.append(append).await.expect("it appends").last_position
    }

    async fn run(&self, run: RunId, after: u64, events: &[Event]) -> u64 {
        self.append(("run", &run.to_string()), ours(), after, events).await
    }

    /// A run of some steps; it ends if it is told to.
    async fn whole_run(&self, number: u128, steps: u64, ends: bool) -> RunId {
        let run = run_id(number);
        let mut events = vec![started(run, json!({"n": number as u64}), &[])];
        for step in 1..=steps {
            events.push(succeeded(step, json!(step)));
            events.push(moved(step, step + 1));
        }
        if ends {
            events.push(Event::RunCompleted { output: json!({"done": number as u64}) });
        }
        self.run(run, 0, &events).await;
        run
    }
}

impl Drop for World {
    fn drop(&mut self) {
        self.shutdown.cancel();
        self.tasks.iter().for_each(JoinHandle::abort);
    }
}

fn ours() -> WorkspaceId {
    WorkspaceId::new(Uuid::from_u128(1))
}

fn theirs() -> WorkspaceId {
    WorkspaceId::new(Uuid::from_u128(2))
}

fn run_id(number: u128) -> RunId {
    RunId::new(Uuid::from_u128(number))
}

fn project_id(number: u128) -> ProjectId {
    ProjectId::new(Uuid::from_u128(number))
}

/// One second later for each event of a stream.
fn moment(sequence: u64) -> DateTime<Utc> {
    DateTime::UNIX_EPOCH + TimeDelta::days(20_000) + TimeDelta::seconds(sequence.cast_signed())
}

fn started(run: RunId, input: Value, labels: &[(&str, &str)]) -> Event {
    let labels: serde_json::Map<_, _> =
        labels.iter().map(|(key, value)| ((*key).to_owned(), json!(value))).collect();
    let number = run.bits().as_u128();
    let started: RunStarted = serde_json::from_value(json!({
        "run_id": run,
        "project_id": project_id(number % 2),
        "definition": {"id": DefinitionId::new(Uuid::nil()), "name": format!("flow-{}", number % 3),
            "version": 1, "hash": "ab"},
        "start": "first",
        "input": input,
        "labels": labels,
        "started_at": DateTime::UNIX_EPOCH + TimeDelta::seconds((number / 2) as i64),
    }))
    .expect("a start");
    Event::RunStarted(Box::new(started))
}

fn event(json: Value) -> Event {
    serde_json::from_value(json).expect("an event")
}

fn succeeded(token: u64, result: Value) -> Event {
    event(json!({"type": "task_succeeded", "token": token, "attempt": 1, "result": result,
        "usage": {"input_tokens": 10, "output_tokens": 2, "cost_micros": 5}}))
}

fn moved(token: u64, next: u64) -> Event {
    event(json!({"type": "token_routed", "token": token,
        "fired": [{"moved": {"transition": 0, "token": next, "node": "again"}}]}))
}

fn snapshot(sequence: u64, state: Vec<u8>) -> Snapshot {
    Snapshot { sequence, version: domain::run::state::STATE_VERSION, state: state.into() }
}
