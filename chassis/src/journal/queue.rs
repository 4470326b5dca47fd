//! The way to a journal's committer: a bounded queue of appends, each with the way back.
//!
//! There is no waiting for more: what arrives while a commit runs is the next batch.

use std::sync::Arc;
use std::time::Instant;

use metrics::{counter, histogram};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, oneshot};

use super::fault::Fault;
use super::feed::Feed;
use super::{Append, AppendError, Appended, RecordedEvent};

/// The unit in which waiting bytes are counted.
const KIB: usize = 1024;

/// The writers' end.
#[derive(Debug)]
pub(super) struct Queue {
    messages: mpsc::Sender<Message>,
    bytes: Arc<Semaphore>,
    bytes_kib: u32,
    fault: Arc<Fault>,
}

/// What a committer is asked for.
#[derive(Debug)]
pub(super) enum Message {
    Append(Box<Request>),
    /// Try whether writing works.
    Probe,
    Close,
}

#[derive(Debug)]
pub(super) struct Request {
    pub(super) append: Append,
    pub(super) answer: oneshot::Sender<Result<Appended, AppendError>>,
    /// Given back with the answer.
    _bytes: OwnedSemaphorePermit,
}

impl Queue {
    /// A queue for so many appends and bytes (at least 1 MiB), and the committer's end.
    pub(super) fn new(
        appends: usize,
        bytes: usize,
        fault: Arc<Fault>,
    ) -> (Self, mpsc::Receiver<Message>) {
        let (messages, requests) = mpsc::channel(appends.max(1));
        let kib = (bytes / KIB).clamp(KIB, Semaphore::MAX_PERMITS);
        let bytes_kib = u32::try_from(kib).unwrap_or(u32::MAX);
        let bytes = Arc::new(Semaphore::new(bytes_kib as usize));
        (Self { messages, bytes, bytes_kib, fault }, requests)
    }

    /// Queues an append and waits for its commit.
    pub(super) async fn append(&self, append: Append) -> Result<Appended, AppendError> {
        append.check_limits()?;
        let bytes = append.bytes();
        let kib = u32::try_from(bytes.div_ceil(KIB)).unwrap_or(u32::MAX).clamp(1, self.bytes_kib);
        let permit = Arc::clone(&self.bytes).acquire_many_owned(kib).await;
        let permit = permit.map_err(|_| closed())?;
        let (answer, committed) = oneshot::channel();
        let request = Request { append, answer, _bytes: permit };
        self.messages.send(Message::Append(Box::new(request))).await.map_err(|_| closed())?;
        committed.await.unwrap_or_else(|_| Err(closed()))
    }

    /// Why the last commit failed, unless a later one wrote something.
    pub(super) fn fault(&self) -> Option<Arc<str>> {
        let (reason, due) = self.fault.look()?;
        if due {
            // A full queue holds appends, which try it as well.
            self.messages.try_send(Message::Probe).ok();
        }
        Some(reason)
    }

    /// Refuses what comes from now on; what is queued is still committed.
    pub(super) async fn close(&self) {
        // An error means that the committer has ended, which is what is wanted.
        self.messages.send(Message::Close).await.ok();
    }
}

fn closed() -> AppendError {
    AppendError::Unavailable("it is closed".into())
}

/// Tells the tails, even if the committer panics.
pub(super) struct CloseOnDrop(pub(super) Arc<Feed>);

impl Drop for CloseOnDrop {
    fn drop(&mut self) {
        self.0.close();
    }
}

/// What became of a batch.
#[derive(Debug, Default)]
pub(super) struct Committed {
    /// One for each append, in order.
    pub(super) verdicts: Vec<Result<Appended, AppendError>>,
    /// What was written, in position order.
    pub(super) events: Vec<Arc<RecordedEvent>>,
}

impl Committed {
    /// Counts a commit that began at a time and has just ended.
    pub(super) fn measure(&self, begun: Instant) {
        let conflicts = self
            .verdicts
            .iter()
            .filter(|verdict| matches!(verdict, Err(AppendError::Conflict { .. })))
            .count();
        counter!("wonder_journal_conflicts_total").increment(conflicts as u64);
        if self.events.is_empty() {
            return;
        }
        counter!("wonder_journal_commits_total").increment(1);
        counter!("wonder_journal_events_total").increment(self.events.len() as u64);
        histogram!("wonder_journal_commit_seconds").record(begun.elapsed());
        histogram!("wonder_journal_events_per_commit").record(self.events.len() as f64);
    }
}
