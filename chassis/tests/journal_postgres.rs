//! The journal on PostgreSQL: what every journal has to do, and what only this one can get wrong.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use chassis::database::Database;
use chassis::journal::conformance::Storage;
use chassis::journal::feed::FeedLimits;
use chassis::journal::{Journal, PostgresJournal, PostgresOptions};
use chassis::scratch::ScratchDatabase;
use tokio::sync::Mutex;

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
