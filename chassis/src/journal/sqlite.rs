//! The journal on SQLite: one file, one process, one writer.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use async_trait::async_trait;
use chrono::{DateTime, Utc};

use super::feed::{Feed, FeedLimits};
use super::{
    Append, AppendError, Appended, Journal, Mark, Payload, ReadError, Recalled, RecordedEvent,
    Sieve, Snapshot, Sought, Tail, Until, Written,
};
use crate::clock::{Clock, SystemClock};

mod checkpoints;
mod committer;
mod open;
mod reader;
mod writer;

pub use open::OpenError;

use super::queue::Queue;
use checkpoints::Checkpoints;
use reader::Reader;
use writer::Writer;

/// How a journal is opened; the defaults are right for production.
#[derive(Debug, Clone)]
pub struct SqliteOptions {
    /// Appends that may wait for the committer; more wait in [`Journal::append`].
    pub queue: usize,
    /// Bytes of appends that may wait for the committer, at least 1 MiB.
    pub queue_bytes: usize,
    /// Events of one commit, after which no further append joins it.
    pub commit_events: usize,
    /// Bytes of one commit, after which no further append joins it.
    pub commit_bytes: usize,
    /// Bytes that the database may take, without its write-ahead log; more is refused as full.
    pub max_bytes: u64,
    /// Bounds of the recent events that are kept in memory.
    pub feed: FeedLimits,
    /// Dates the inbox.
    pub clock: Arc<dyn Clock>,
}

impl Default for SqliteOptions {
    fn default() -> Self {
        Self {
            queue: 4_096,
            queue_bytes: 128 * 1024 * 1024,
            commit_events: 2_000,
            commit_bytes: 4 * 1024 * 1024,
            max_bytes: u64::MAX,
            feed: FeedLimits::default(),
            clock: Arc::new(SystemClock::new()),
        }
    }
}

/// A journal in one SQLite file.
///
/// A thread of its own owns the one connection that writes and takes everything that is queued
/// into one transaction. Reads go through a small pool of read-only connections.
#[derive(Debug)]
pub struct SqliteJournal {
    epoch: u32,
    feed: Arc<Feed>,
    reader: Arc<Reader>,
    queue: Queue,
    thread: Mutex<Option<std::thread::JoinHandle<Writer>>>,
}

impl SqliteJournal {
    /// Opens a journal, and makes it (and its folder) where there is none. Needs a tokio runtime.
    ///
    /// # Errors
    /// [`OpenError::InUse`] where another process has it open, and what the storage says.
    pub async fn open(path: &Path, options: SqliteOptions) -> Result<Arc<Self>, OpenError> {
        let opened = open::open(path, &options).await?;
        let feed = Arc::new(Feed::new(opened.writer.head(), options.feed));
        let failed = |source| OpenError::Io { path: PathBuf::from(path), source };
        let checkpoints = Checkpoints::start(opened.beside).map_err(failed)?;
        let (queue, thread) =
            committer::start(opened.writer, checkpoints, Arc::clone(&feed), &options)
                .map_err(failed)?;
        Ok(Arc::new(Self {
            epoch: opened.epoch,
            feed,
            reader: Arc::new(Reader::new(opened.pool)),
            queue,
            thread: Mutex::new(Some(thread)),
        }))
    }

    /// Commits what is queued, refuses what comes later, and returns when the files are closed.
    /// Without it the thread ends by itself some time after the last owner is gone.
    pub async fn close(&self) {
        self.queue.close().await;
        let thread = self.thread.lock().unwrap_or_else(PoisonError::into_inner).take();
        let Some(thread) = thread else { return };
        // Readers go first: the last connection to close is then the writer, the only one that
        // may move the write-ahead log into the database.
        let joined = tokio::task::spawn_blocking(|| thread.join()).await;
        self.reader.close().await;
        if let Ok(Ok(writer)) = joined {
            let closed = tokio::task::spawn_blocking(|| drop(writer)).await;
            if let Err(error) = closed {
                tracing::error!(%error, "closing the journal failed");
            }
        }
    }
}

#[async_trait]
impl Journal for SqliteJournal {
    /// An append whose future is dropped after it was queued is committed all the same.
    async fn append(&self, append: Append) -> Result<Appended, AppendError> {
        self.queue.append(append).await
    }

    async fn load(
        &self,
        aggregate_type: &str,
        aggregate_id: &str,
        after_sequence: u64,
        limit: usize,
    ) -> Result<Vec<RecordedEvent>, ReadError> {
        self.reader.load(aggregate_type, aggregate_id, after_sequence, limit).await
    }

    async fn load_some(
        &self,
        aggregate_type: &str,
        aggregate_id: &str,
        after_sequence: u64,
        limit: usize,
        sieve: Sieve<'_>,
    ) -> Result<Vec<RecordedEvent>, ReadError> {
        self.reader.load_some(aggregate_type, aggregate_id, after_sequence, limit, sieve).await
    }

    async fn read(
        &self,
        after_position: u64,
        limit: usize,
    ) -> Result<Vec<RecordedEvent>, ReadError> {
        self.reader.read(after_position, limit).await
    }

    async fn snapshot(
        &self,
        aggregate_type: &str,
        aggregate_id: &str,
        version: u32,
    ) -> Result<Option<Snapshot>, ReadError> {
        self.reader.snapshot(aggregate_type, aggregate_id, version).await
    }

    async fn snapshot_until(
        &self,
        aggregate_type: &str,
        aggregate_id: &str,
        version: u32,
        until: Until,
    ) -> Result<Option<Snapshot>, ReadError> {
        self.reader.snapshot_until(aggregate_type, aggregate_id, version, until).await
    }

    async fn recall(&self, key: &str) -> Result<Option<Recalled>, ReadError> {
        self.reader.recall(key).await
    }

    async fn payloads(&self, hashes: &[Arc<str>]) -> Result<Vec<Payload>, ReadError> {
        self.reader.payloads(hashes).await
    }

    async fn open_aggregates(
        &self,
        aggregate_type: &str,
        shard: u16,
        after_id: &str,
        limit: usize,
    ) -> Result<Vec<Arc<str>>, ReadError> {
        self.reader.open_aggregates(aggregate_type, shard, after_id, limit).await
    }

    async fn leaning(
        &self,
        aggregate_type: &str,
        on: &str,
        after_id: &str,
        limit: usize,
    ) -> Result<Vec<Arc<str>>, ReadError> {
        self.reader.leaning(aggregate_type, on, after_id, limit).await
    }

    async fn marks(
        &self,
        shard: u16,
        after_name: &str,
        limit: usize,
    ) -> Result<Vec<Mark>, ReadError> {
        self.reader.marks(shard, after_name, limit).await
    }

    async fn aggregates(
        &self,
        aggregate_type: &str,
        after_id: &str,
        limit: usize,
    ) -> Result<Vec<Arc<str>>, ReadError> {
        self.reader.aggregates(aggregate_type, after_id, limit).await
    }

    async fn released(
        &self,
        until: DateTime<Utc>,
        limit: usize,
    ) -> Result<Vec<Arc<str>>, ReadError> {
        self.reader.released(until, limit).await
    }

    async fn seek(&self, sought: Sought<'_>) -> Result<Vec<Written>, ReadError> {
        self.reader.seek(sought).await
    }

    async fn head(&self) -> Result<u64, ReadError> {
        Ok(self.feed.head())
    }

    fn epoch(&self) -> u32 {
        self.epoch
    }

    fn fault(&self) -> Option<Arc<str>> {
        self.queue.fault()
    }

    fn tail(&self, after_position: u64) -> Tail {
        let pages: Arc<Reader> = Arc::clone(&self.reader);
        Tail::new(Arc::clone(&self.feed), pages, after_position)
    }
}
