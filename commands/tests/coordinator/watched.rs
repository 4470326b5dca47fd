//! A real journal that counts what is asked of it, and fails when it is told to.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use async_trait::async_trait;
use chassis::journal::{
    Append, AppendError, Appended, Journal, Mark, Payload, ReadError, Recalled, RecordedEvent,
    Snapshot, Sought, SqliteJournal, Tail, Until, Written,
};
use chrono::{DateTime, Utc};

/// How an append of a run fails.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fault {
    /// Nothing was written.
    NotWritten,
    /// Written, but the answer got lost.
    AnswerLost,
}

/// See the module.
pub(crate) struct Watched {
    pub(crate) inner: Arc<SqliteJournal>,
    /// Events of each append of a run, in order.
    appends: Mutex<Vec<usize>>,
    /// What becomes of the next appends of runs.
    faults: Mutex<VecDeque<Option<Fault>>>,
    /// How many appends of runs are taken before the journal is away for good.
    left: AtomicUsize,
    refused: AtomicUsize,
    /// How many reads of definitions fail from now on.
    unread: AtomicUsize,
    reads: AtomicUsize,
    run_loads: AtomicUsize,
}

impl Watched {
    pub(crate) fn new(inner: Arc<SqliteJournal>) -> Self {
        Self {
            inner,
            appends: Mutex::default(),
            faults: Mutex::default(),
            left: AtomicUsize::new(usize::MAX),
            refused: AtomicUsize::new(0),
            unread: AtomicUsize::new(0),
            reads: AtomicUsize::new(0),
            run_loads: AtomicUsize::new(0),
        }
    }

    /// Events of each append of a run so far.
    pub(crate) fn appends(&self) -> Vec<usize> {
        self.appends.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// The next append of a run fails.
    pub(crate) fn fail_next(&self, fault: Fault) {
        self.fail_after(0, fault);
    }

    /// So many appends of runs succeed, and the next one fails.
    pub(crate) fn fail_after(&self, appends: usize, fault: Fault) {
        let mut faults = self.faults.lock().unwrap_or_else(PoisonError::into_inner);
        faults.extend(std::iter::repeat_n(None, appends).chain([Some(fault)]));
    }

    /// So many appends of runs succeed, and none after them, as if the process had died there.
    pub(crate) fn die_after(&self, appends: usize) {
        self.left.store(appends, Ordering::SeqCst);
    }

    /// The next reads of definitions fail.
    pub(crate) fn fail_reads(&self, reads: usize) {
        self.unread.store(reads, Ordering::SeqCst);
    }

    /// Reads that are still to fail.
    pub(crate) fn unread(&self) -> usize {
        self.unread.load(Ordering::SeqCst)
    }

    /// Whether an append was refused because of [`Watched::die_after`].
    pub(crate) fn is_dead(&self) -> bool {
        self.refused.load(Ordering::SeqCst) > 0
    }

    /// Reads of any kind so far.
    pub(crate) fn reads(&self) -> usize {
        self.reads.load(Ordering::SeqCst)
    }

    /// How often the events of a run were asked for.
    pub(crate) fn run_loads(&self) -> usize {
        self.run_loads.load(Ordering::SeqCst)
    }

    fn count(&self) {
        self.reads.fetch_add(1, Ordering::SeqCst);
    }
}

fn away() -> AppendError {
    AppendError::Unavailable(Arc::from("the test says so"))
}

#[async_trait]
impl Journal for Watched {
    async fn append(&self, append: Append) -> Result<Appended, AppendError> {
        if &*append.aggregate_type != "run" {
            return self.inner.append(append).await;
        }
        let fault =
            self.faults.lock().unwrap_or_else(PoisonError::into_inner).pop_front().flatten();
        let one_less = |left: usize| Some(left.saturating_sub(1));
        if self.left.fetch_update(Ordering::SeqCst, Ordering::SeqCst, one_less) == Ok(0) {
            self.refused.fetch_add(1, Ordering::SeqCst);
            return Err(away());
        }
        if fault == Some(Fault::NotWritten) {
            return Err(away());
        }
        let events = append.events.len();
        let appended = self.inner.append(append).await?;
        self.appends.lock().unwrap_or_else(PoisonError::into_inner).push(events);
        if fault == Some(Fault::AnswerLost) {
            return Err(away());
        }
        Ok(appended)
    }

    async fn load(
        &self,
        aggregate_type: &str,
        aggregate_id: &str,
        after_sequence: u64,
        limit: usize,
    ) -> Result<Vec<RecordedEvent>, ReadError> {
        self.count();
        if aggregate_type == "run" {
            self.run_loads.fetch_add(1, Ordering::SeqCst);
        }
        let one_less = |left: usize| left.checked_sub(1);
        if aggregate_type == "workflow_definition"
            && self.unread.fetch_update(Ordering::SeqCst, Ordering::SeqCst, one_less).is_ok()
        {
            return Err(ReadError::Unavailable(Arc::from("the test says so")));
        }
        self.inner.load(aggregate_type, aggregate_id, after_sequence, limit).await
    }

    async fn read(
        &self,
        after_position: u64,
        limit: usize,
    ) -> Result<Vec<RecordedEvent>, ReadError> {
        self.count();
        self.inner.read(after_position, limit).await
    }

    async fn snapshot(
        &self,
        aggregate_type: &str,
        aggregate_id: &str,
        version: u32,
    ) -> Result<Option<Snapshot>, ReadError> {
        self.count();
        self.inner.snapshot(aggregate_type, aggregate_id, version).await
    }

    async fn snapshot_until(
        &self,
        aggregate_type: &str,
        aggregate_id: &str,
        version: u32,
        until: Until,
    ) -> Result<Option<Snapshot>, ReadError> {
        self.count();
        self.inner.snapshot_until(aggregate_type, aggregate_id, version, until).await
    }

    async fn recall(&self, key: &str) -> Result<Option<Recalled>, ReadError> {
        self.count();
        self.inner.recall(key).await
    }

    async fn payloads(&self, hashes: &[Arc<str>]) -> Result<Vec<Payload>, ReadError> {
        self.count();
        self.inner.payloads(hashes).await
    }

    async fn open_aggregates(
        &self,
        aggregate_type: &str,
        shard: u16,
        after_id: &str,
        limit: usize,
    ) -> Result<Vec<Arc<str>>, ReadError> {
        self.inner.open_aggregates(aggregate_type, shard, after_id, limit).await
    }

    async fn leaning(
        &self,
        aggregate_type: &str,
        on: &str,
        after_id: &str,
        limit: usize,
    ) -> Result<Vec<Arc<str>>, ReadError> {
        self.inner.leaning(aggregate_type, on, after_id, limit).await
    }

    async fn marks(
        &self,
        shard: u16,
        after_name: &str,
        limit: usize,
    ) -> Result<Vec<Mark>, ReadError> {
        self.inner.marks(shard, after_name, limit).await
    }

    async fn aggregates(
        &self,
        aggregate_type: &str,
        after_id: &str,
        limit: usize,
    ) -> Result<Vec<Arc<str>>, ReadError> {
        self.inner.aggregates(aggregate_type, after_id, limit).await
    }

    async fn released(
        &self,
        until: DateTime<Utc>,
        limit: usize,
    ) -> Result<Vec<Arc<str>>, ReadError> {
        self.inner.released(until, limit).await
    }

    async fn seek(&self, sought: Sought<'_>) -> Result<Vec<Written>, ReadError> {
        self.inner.seek(sought).await
    }

    async fn head(&self) -> Result<u64, ReadError> {
        self.inner.head().await
    }

    fn epoch(&self) -> u32 {
        self.inner.epoch()
    }

    fn tail(&self, after_position: u64) -> Tail {
        self.inner.tail(after_position)
    }
}
