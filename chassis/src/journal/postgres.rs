//! The journal on PostgreSQL: many processes, one order.

use std::sync::Arc;

use async_trait::async_trait;
use tokio::sync::watch;

use super::feed::FeedLimits;
use super::{
    Append, AppendError, Appended, Journal, Payload, ReadError, Recalled, RecordedEvent, Snapshot,
    Tail,
};
use crate::database::{Database, DatabaseError};

/// How a journal is opened; the defaults are right for production.
#[derive(Debug, Clone)]
pub struct PostgresOptions {
    /// Appends that may wait for the committer; more wait in [`Journal::append`].
    pub queue: usize,
    /// Bytes of appends that may wait for the committer, at least 1 MiB.
    pub queue_bytes: usize,
    /// Events of one commit, after which no further append joins it.
    pub commit_events: usize,
    /// Bytes of one commit, after which no further append joins it.
    pub commit_bytes: usize,
    /// Bounds of the recent events that are kept in memory.
    pub feed: FeedLimits,
    /// How often it is looked for events of other processes, where nobody tells of them.
    pub poll: std::time::Duration,
}

/// A journal in a PostgreSQL database.
#[derive(Debug)]
pub struct PostgresJournal {}

impl PostgresJournal {
    /// Opens the journal of a migrated database.
    pub async fn open(
        database: &Database,
        options: PostgresOptions,
    ) -> Result<Arc<Self>, DatabaseError> {
        let _ = database;
        unimplemented!("{options:?}")
    }

    /// The newest position that this process has committed, now and later: what to tell others.
    pub fn committed(&self) -> watch::Receiver<u64> {
        unimplemented!()
    }

    /// Somebody says that there are events up to a position: tails read them now.
    pub fn hear(&self, position: u64) {
        unimplemented!("{position}")
    }

    /// Commits what is queued, refuses what comes later, and ends the tails.
    pub async fn close(&self) {
        unimplemented!()
    }
}
