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

    pub async fn keep(&self, payloads: Vec<Payload>) -> Result<(), AppendError> {
        unimplemented!("{payloads:?}")
    }
    pub fn database(&self) -> &Database {
        unimplemented!()
    }
    /// Commits what is queued, refuses what comes later, and ends the tails.
    pub async fn close(&self) {
        unimplemented!()
    }
}

#[async_trait]
impl Journal for PostgresJournal {
    async fn append(&self, _: Append) -> Result<Appended, AppendError> {
        unimplemented!()
    }
    async fn load(
        &self,
        _: &str,
        _: &str,
        _: u64,
        _: usize,
    ) -> Result<Vec<RecordedEvent>, ReadError> {
        unimplemented!()
    }
    async fn read(&self, _: u64, _: usize) -> Result<Vec<RecordedEvent>, ReadError> {
        unimplemented!()
    }
    async fn snapshot(&self, _: &str, _: &str, _: u32) -> Result<Option<Snapshot>, ReadError> {
        unimplemented!()
    }
    async fn recall(&self, _: &str) -> Result<Option<Recalled>, ReadError> {
        unimplemented!()
    }
    async fn payloads(&self, _: &[Arc<str>]) -> Result<Vec<Payload>, ReadError> {
        unimplemented!()
    }
    async fn open_aggregates(
        &self,
        _: &str,
        _: u16,
        _: &str,
        _: usize,
    ) -> Result<Vec<Arc<str>>, ReadError> {
        unimplemented!()
    }
    async fn head(&self) -> Result<u64, ReadError> {
        unimplemented!()
    }
    fn epoch(&self) -> u32 {
        unimplemented!()
    }
    fn tail(&self, _: u64) -> Tail {
        unimplemented!()
    }
}
