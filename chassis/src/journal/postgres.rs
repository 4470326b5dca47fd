//! The journal on PostgreSQL: many processes, one order.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use chrono::{DateTime, Utc};
use tokio::sync::{Notify, watch};
use tokio::task::JoinHandle;

use super::fault::Fault;
use super::feed::{Feed, FeedLimits};
use super::queue::Queue;
use super::{
    Append, AppendError, Appended, Journal, Mark, Payload, ReadError, Recalled, RecordedEvent,
    Sieve, Snapshot, Sought, Tail, Until, Written,
};
use crate::database::{Database, DatabaseError};

mod batch;
mod committer;
mod decoding;
mod follower;
mod reader;
mod sweeper;
mod writer;

use committer::Committer;
use follower::Follower;
use reader::Reader;
use writer::Writer;

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
    pub poll: Duration,
}

impl Default for PostgresOptions {
    fn default() -> Self {
        Self {
            queue: 4_096,
            queue_bytes: 128 * 1024 * 1024,
            commit_events: 2_000,
            commit_bytes: 4 * 1024 * 1024,
            feed: FeedLimits::default(),
            poll: Duration::from_millis(100),
        }
    }
}

/// A journal in a PostgreSQL database.
///
/// A task of its own owns the one connection that appends, and takes everything that is queued into
/// one statement. Another one follows what all processes commit, on behalf of all tails. Reads go
/// through the database's pool.
#[derive(Debug)]
pub struct PostgresJournal {
    database: Database,
    epoch: u32,
    feed: Arc<Feed>,
    reader: Arc<Reader>,
    queue: Queue,
    /// Wakes the follower.
    news: Arc<Notify>,
    committed: watch::Receiver<u64>,
    tasks: Mutex<Vec<JoinHandle<()>>>,
}

impl PostgresJournal {
    /// Opens the journal of a migrated database.
    ///
    /// # Errors
    /// [`DatabaseError::Damaged`] where positions are missing at an end, and what the database
    /// says.
    pub async fn open(
        database: &Database,
        options: PostgresOptions,
    ) -> Result<Arc<Self>, DatabaseError> {
        let reader = Arc::new(Reader::new(database.pool().clone()));
        let (epoch, head) = reader.identify().await?;
        let writer = Writer::connect(database).await.map_err(DatabaseError::Unreachable)?;
        let feed = Arc::new(Feed::new(head, options.feed));
        let fault = Arc::new(Fault::default());
        let news = Arc::new(Notify::new());
        let (queue, requests) = Queue::new(options.queue, options.queue_bytes, Arc::clone(&fault));
        let (published, committed) = watch::channel(head);
        let committer = Committer {
            writer,
            fault: Arc::clone(&fault),
            requests,
            feed: Arc::clone(&feed),
            news: Arc::clone(&news),
            committed: published,
            events: options.commit_events,
            bytes: options.commit_bytes,
        };
        let follower = Follower {
            feed: Arc::clone(&feed),
            reader: Arc::clone(&reader),
            news: Arc::clone(&news),
            committed: committed.clone(),
            fault,
            poll: options.poll,
        };
        let sweeper = sweeper::run(database.pool().clone(), committed.clone());
        let tasks = Mutex::new(vec![
            tokio::spawn(committer.run()),
            tokio::spawn(follower.run()),
            tokio::spawn(sweeper),
        ]);
        let database = database.clone();
        Ok(Arc::new(Self { database, epoch, feed, reader, queue, news, committed, tasks }))
    }

    /// The newest position that this process has committed, now and later: what to tell others. It
    /// begins with the newest of all, and ends when the journal is closed.
    pub fn committed(&self) -> watch::Receiver<u64> {
        self.committed.clone()
    }

    /// Somebody says that there are events up to a position: tails read them now.
    pub fn hear(&self, position: u64) {
        if position > self.feed.head() {
            self.news.notify_one();
        }
    }

    /// The database that it is in.
    pub const fn database(&self) -> &Database {
        &self.database
    }

    /// Keeps content-addressed values that events of another writer will refer to. Kept twice they
    /// are kept once.
    ///
    /// # Errors
    /// Where the database can't be written.
    pub async fn keep(&self, payloads: Vec<Payload>) -> Result<(), AppendError> {
        if payloads.is_empty() {
            return Ok(());
        }
        let (hashes, values): (Vec<_>, Vec<_>) = payloads
            .into_iter()
            .map(|payload| (payload.hash.to_string(), payload.bytes.to_vec()))
            .unzip();
        let sql = "insert into payloads (hash, bytes) \
                   select * from unnest($1, $2) as p (hash, bytes) \
                   order by hash collate \"C\" on conflict do nothing";
        let kept = sqlx::query(sql).bind(hashes).bind(values).execute(self.database.pool()).await;
        kept.map(drop).map_err(|error| AppendError::Unavailable(error.to_string().into()))
    }

    /// Commits what is queued, refuses what comes later, and ends the tails. The database stays
    /// open. Without it the tasks end by themselves some time after the last owner is gone.
    pub async fn close(&self) {
        self.queue.close().await;
        let tasks = std::mem::take(&mut *self.tasks.lock().unwrap_or_else(PoisonError::into_inner));
        for task in tasks {
            if let Err(error) = task.await {
                tracing::error!(%error, "closing the journal failed");
            }
        }
    }
}

#[async_trait]
impl Journal for PostgresJournal {
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
        self.reader.head().await
    }

    fn epoch(&self) -> u32 {
        self.epoch
    }

    async fn written_elsewhere(
        &self,
        after_position: u64,
        without_type: &str,
    ) -> Result<Vec<Written>, ReadError> {
        self.reader.written_elsewhere(after_position, without_type).await
    }

    fn fault(&self) -> Option<Arc<str>> {
        self.queue.fault()
    }

    fn tail(&self, after_position: u64) -> Tail {
        let pages: Arc<Reader> = Arc::clone(&self.reader);
        let tail = Tail::new(Arc::clone(&self.feed), pages, after_position);
        // Where there was none, nobody has looked for news since.
        self.news.notify_one();
        tail
    }
}
