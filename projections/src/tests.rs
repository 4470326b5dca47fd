//! Events in, rows out: a journal that is written as the write side does, on both storages.

use std::sync::Arc;
use std::time::Duration;

use chassis::database::Database;
use chassis::journal::{
    Append, Journal, NewEvent, Payload, PostgresJournal, PostgresOptions, Snapshot, SqliteJournal,
    SqliteOptions,
};
use chassis::scratch::ScratchDatabase;
use chrono::{DateTime, TimeDelta, Utc};
use domain::codec::{self, Stored};
use domain::ids::{DefinitionId, ProjectId, RunId, WorkspaceId};
use domain::run::event::{Event, RunStarted};
use serde::Serialize;
use serde_json::{Value, json};
use sqlx::{Connection, SqliteConnection};
use tempfile::TempDir;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use crate::{Config, Projections, Views};

/// Makes a test for each storage of functions that take one.
macro_rules! on_both_storages {
    ($($name:ident),* $(,)?) => {
        mod on_sqlite {
            $(#[tokio::test]
            async fn $name() {
                super::$name(super::Storage::Sqlite).await;
            })*
        }
        mod on_postgres {
            $(#[tokio::test]
            async fn $name() {
                super::$name(super::Storage::Postgres).await;
            })*
        }
    };
}

mod audit;
mod audit_log;
mod bundles;
mod children;
mod compensation;
mod differ;
mod driven;
mod events;
mod explain;
mod export;
mod forks;
mod gates;
mod history;
mod kept;
mod lead;
mod logs;
mod metrics;
mod outside;
mod projector;
mod random;
mod remote;
mod resources;
mod runs;
mod standing;
mod triggers;

/// Where journal and read tables stand.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Storage {
    Sqlite,
    Postgres,
}

/// A store with its read side, which folds until the world is dropped.
struct World {
    shutdown: CancellationToken,
    tasks: Vec<JoinHandle<()>>,
    views: Arc<Projections>,
    journal: Arc<dyn Journal>,
    folder: TempDir,
    scratch: Option<ScratchDatabase>,
}

/// What stands beside events.
const METADATA: &str = r#"{"actor":"test"}"#;
/// What comes at all comes within this time.
const LONG: Duration = Duration::from_secs(30);

fn config() -> Config {
    Config {
        pace: Duration::ZERO,
        stand_in: Duration::from_millis(10),
        // What a stream may take is taken from the server's room at once.
        outside_max_bytes: 16 * 1024 * 1024,
        ..Config::default()
    }
}

impl World {
    /// A new store whose read side folds.
    async fn new(storage: Storage) -> Self {
        let mut world = Self::idle(storage, config()).await;
        world.start();
        world
    }

    /// A new store whose read side is open and not started.
    async fn idle(storage: Storage, config: Config) -> Self {
        let folder = TempDir::new().expect("a temporary folder");
        let (scratch, journal, views): (_, Arc<dyn Journal>, _) = match storage {
            Storage::Sqlite => {
                let path = folder.path().join("journal.db");
                let opened = SqliteJournal::open(&path, SqliteOptions::default()).await;
                let views = Views::File(folder.path().join("views.db"));
                (None, opened.expect("it opens"), views)
            }
            Storage::Postgres => {
                let scratch = ScratchDatabase::create().await;
                let database = scratch.connect().await;
                let journal = journal_of(&database).await;
                (Some(scratch), journal, Views::Database(database))
            }
        };
        let views = Projections::open(Arc::clone(&journal), views, config).await;
        let views = views.expect("it opens");
        let (shutdown, tasks) = (CancellationToken::new(), Vec::new());
        Self { shutdown, tasks, views, journal, folder, scratch }
    }

    fn start(&mut self) {
        self.tasks = self.views.start(None, &self.shutdown);
    }

    /// Another process: with its own connections and its own journal.
    async fn other_process(&self, config: Config) -> Arc<Projections> {
        let scratch = self.scratch.as_ref().expect("a file has one process");
        let database = scratch.connect().await;
        let journal = journal_of(&database).await;
        let views = Projections::open(journal, Views::Database(database), config).await;
        views.expect("it opens")
    }

    /// The read tables, as another process has them.
    async fn other_views(&self) -> Views {
        match &self.scratch {
            None => Views::File(self.folder.path().join("views.db")),
            Some(scratch) => Views::Database(scratch.connect().await),
        }
    }

    /// Another read side on the same tables.
    async fn reopen(&self) -> Arc<Projections> {
        self.reopen_with(config()).await
    }

    async fn reopen_with(&self, config: Config) -> Arc<Projections> {
        let views = self.other_views().await;
        Projections::open(Arc::clone(&self.journal), views, config).await.expect("it opens")
    }

    /// Ends what folds.
    async fn end(&self, tasks: impl IntoIterator<Item = JoinHandle<()>>) {
        self.shutdown.cancel();
        for task in tasks {
            task.await.expect("it ends");
        }
    }

    async fn sql_on_views(&self, text: &str) {
        self.sql("views.db", text).await;
    }

    async fn sql_on_journal(&self, text: &str) {
        self.sql("journal.db", text).await;
    }

    async fn sql(&self, file: &str, text: &str) {
        let done = match self.other_views().await {
            Views::Database(database) => sqlx::query(text).execute(database.pool()).await.map(drop),
            Views::File(_) => {
                let url = format!("sqlite://{}", self.folder.path().join(file).display());
                let mut file = SqliteConnection::connect(&url).await.expect("it opens");
                sqlx::query(text).execute(&mut file).await.map(drop)
            }
        };
        done.expect("it runs");
    }

    /// Where a projection goes on after a restart; 0 where it never was.
    async fn checkpoint(&self, projection: &str) -> u64 {
        const POSITION: &str = "select position from checkpoints where projection = $1";
        let query = sqlx::query_scalar(POSITION).bind(projection);
        let position: Option<i64> = match self.other_views().await {
            Views::Database(database) => query.fetch_optional(database.pool()).await,
            Views::File(_) => {
                let url = format!("sqlite://{}", self.folder.path().join("views.db").display());
                let mut file = SqliteConnection::connect(&url).await.expect("it opens");
                let query = sqlx::query_scalar(POSITION).bind(projection);
                query.fetch_optional(&mut file).await
            }
        }
        .expect("it answers");
        position.unwrap_or_default().unsigned_abs()
    }

    async fn caught_up(&self) {
        let head = self.journal.head().await.expect("the journal answers");
        reach(&self.views, head).await;
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
                recorded_at: None,
            });
        }
        self.append_encoded(stream, workspace, after, encoded, payloads, METADATA).await
    }

    /// An event that no writer of ours would write, of a run of its own.
    async fn append_raw(&self, event_type: &str, payload: &str) -> u64 {
        self.append_raw_to(("run", "run_raw"), event_type, payload).await
    }

    async fn append_raw_to(&self, stream: (&str, &str), event_type: &str, payload: &str) -> u64 {
        self.append_beside(stream, event_type, payload, METADATA).await
    }

    /// The first event of a stream, with its metadata.
    async fn append_beside(
        &self,
        stream: (&str, &str),
        event_type: &str,
        payload: &str,
        metadata: &str,
    ) -> u64 {
        let event = NewEvent {
            id: Uuid::now_v7(),
            event_type: event_type.into(),
            event_version: 1,
            payload: payload.to_owned().into(),
            recorded_at: None,
        };
        self.append_encoded(stream, ours(), 0, vec![event], Vec::new(), metadata).await
    }

    async fn append_encoded(
        &self,
        stream: (&str, &str),
        workspace: WorkspaceId,
        after: u64,
        events: Vec<NewEvent>,
        payloads: Vec<Payload>,
        metadata: &str,
    ) -> u64 {
        let append = Append {
            aggregate_type: stream.0.into(),
            aggregate_id: stream.1.into(),
            expected_sequence: after,
            workspace_id: workspace.to_string().into(),
            metadata: metadata.to_owned().into(),
            recorded_at: moment(after),
            events,
            payloads,
            ..Append::default()
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

async fn journal_of(database: &Database) -> Arc<dyn Journal> {
    let options = PostgresOptions { poll: Duration::from_millis(5), ..PostgresOptions::default() };
    PostgresJournal::open(database, options).await.expect("it opens")
}

/// Waits until something holds, for a bounded time.
async fn until(what: &str, holds: impl AsyncFn() -> bool) {
    let mut look = tokio::time::interval(Duration::from_millis(2));
    let waiting = async {
        while !holds().await {
            look.tick().await;
        }
    };
    let done = tokio::time::timeout(LONG, waiting).await;
    assert!(done.is_ok(), "{what} did not come");
}

/// Waits until read models have reached a position, for a bounded time.
async fn reach(views: &Projections, position: u64) {
    let done = tokio::time::timeout(LONG, views.caught_up(position)).await;
    assert!(done.is_ok(), "position {position} was not reached: it is {}", views.position());
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
