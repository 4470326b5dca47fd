//! The journal on PostgreSQL: what every journal has to do, and what only this one can get wrong.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use chassis::database::Database;
use chassis::journal::conformance::Storage;
use chassis::journal::feed::FeedLimits;
use chassis::journal::{
    Append, AppendError, Appended, InboxEntry, Journal, NewEvent, PostgresJournal, PostgresOptions,
};
use chassis::scratch::ScratchDatabase;
use chrono::Utc;
use tokio::sync::Mutex;
use uuid::Uuid;

mod faults;
mod sharing;

struct Postgres {
    // Before the scratch, which is dropped when nobody is connected any more.
    open: Mutex<Option<(Arc<PostgresJournal>, Database)>>,
    options: PostgresOptions,
    scratch: ScratchDatabase,
}

impl Postgres {
    async fn new(options: PostgresOptions) -> Self {
        Self { open: Mutex::new(None), options, scratch: ScratchDatabase::create().await }
    }
}

#[async_trait]
impl Storage for Postgres {
    async fn open(&self) -> Arc<dyn Journal> {
        self.close().await;
        let database = self.scratch.connect().await;
        let opened = PostgresJournal::open(&database, self.options.clone()).await;
        let journal = opened.expect("the journal can be opened");
        *self.open.lock().await = Some((Arc::clone(&journal), database));
        journal
    }

    async fn close(&self) {
        if let Some((journal, database)) = self.open.lock().await.take() {
            journal.close().await;
            database.pool().close().await;
        }
    }
}

mod with_defaults {
    chassis::journal_conformance!(super::Postgres::new(super::PostgresOptions::default()).await);
}

/// Everything is at its narrowest: one append a commit, one waiting, two events in memory.
mod with_tight_limits {
    chassis::journal_conformance!(super::Postgres::new(super::tight()).await);
}

fn tight() -> PostgresOptions {
    PostgresOptions {
        queue: 1,
        queue_bytes: 1,
        commit_events: 1,
        commit_bytes: 1,
        feed: FeedLimits { events: 2, bytes: 1_000_000 },
        poll: Duration::from_millis(10),
    }
}

/// What a process has: its connections and the journal over them.
struct Process {
    journal: Arc<PostgresJournal>,
    database: Database,
}

impl Process {
    async fn start(scratch: &ScratchDatabase, options: PostgresOptions) -> Self {
        let database = scratch.connect().await;
        let opened = PostgresJournal::open(&database, options).await;
        Self { journal: opened.expect("the journal can be opened"), database }
    }

    async fn stop(self) {
        self.journal.close().await;
        self.database.pool().close().await;
    }

    /// Runs SQL beside the journal.
    async fn sql(&self, sql: &str) {
        let done = sqlx::raw_sql(sql).execute(self.database.pool()).await;
        done.unwrap_or_else(|error| panic!("{sql}: {error}"));
    }

    async fn count(&self, sql: &str) -> i64 {
        let counted = sqlx::query_scalar(sql).fetch_one(self.database.pool()).await;
        counted.unwrap_or_else(|error| panic!("{sql}: {error}"))
    }
}

/// An append of one event to `thing/<id>`.
fn append(id: &str, expected_sequence: u64) -> Append {
    Append {
        aggregate_type: "thing".into(),
        aggregate_id: id.into(),
        expected_sequence,
        workspace_id: "ws".into(),
        metadata: Bytes::from_static(b"{}"),
        recorded_at: Utc::now(),
        events: vec![NewEvent {
            id: Uuid::now_v7(),
            event_type: "thing.changed".into(),
            event_version: 1,
            payload: Bytes::from_static(b"{}"),
            recorded_at: None,
        }],
        ..Append::default()
    }
}

fn with_key(key: &str, append: Append) -> Append {
    let (key, fingerprint, answer) = (key.into(), "f".into(), Bytes::from_static(b"done"));
    Append { inbox: vec![InboxEntry { key, fingerprint, answer }], ..append }
}

async fn must(journal: &PostgresJournal, append: Append) -> Appended {
    let id = Arc::clone(&append.aggregate_id);
    journal.append(append).await.unwrap_or_else(|error: AppendError| panic!("{id}: {error}"))
}

/// Asks again and again until it is so, and gives up after half a minute.
async fn eventually(what: &str, mut is_so: impl AsyncFnMut() -> bool) {
    let asking = async {
        while !is_so().await {
            tokio::task::yield_now().await;
        }
    };
    let done = tokio::time::timeout(Duration::from_secs(30), asking).await;
    assert!(done.is_ok(), "waited in vain: {what}");
}
