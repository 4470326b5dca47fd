//! The committer: a thread that takes everything that is queued into one transaction.
//!
//! There is no waiting for more: what arrives while a commit runs is the next batch.

use std::io;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Instant;

use metrics::{counter, gauge, histogram};
use rusqlite::ErrorCode;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, oneshot};

use super::SqliteOptions;
use super::fault::Fault;
use super::writer::{Committed, Writer};
use crate::journal::feed::Feed;
use crate::journal::{Append, AppendError, Appended};

/// The unit in which waiting bytes are counted.
const KIB: usize = 1024;

/// The way to the thread.
#[derive(Debug)]
pub(super) struct Committer {
    queue: mpsc::Sender<Message>,
    bytes: Arc<Semaphore>,
    bytes_kib: u32,
    fault: Arc<Fault>,
}

#[derive(Debug)]
enum Message {
    Append(Box<Request>),
    /// Try whether writing works.
    Probe,
    Close,
}

#[derive(Debug)]
struct Request {
    append: Append,
    answer: oneshot::Sender<Result<Appended, AppendError>>,
    /// Given back with the answer.
    _bytes: OwnedSemaphorePermit,
}

impl Committer {
    /// Starts the thread. It returns the writer when it has been closed and is done.
    pub(super) fn start(
        writer: Writer,
        feed: Arc<Feed>,
        options: &SqliteOptions,
    ) -> io::Result<(Self, JoinHandle<Writer>)> {
        let (queue, requests) = mpsc::channel(options.queue.max(1));
        let kib = (options.queue_bytes / KIB).clamp(KIB, Semaphore::MAX_PERMITS);
        let bytes_kib = u32::try_from(kib).unwrap_or(u32::MAX);
        let bytes = Arc::new(Semaphore::new(bytes_kib as usize));
        let fault = Arc::new(Fault::default());
        let work = Work {
            writer,
            fault: Arc::clone(&fault),
            requests,
            feed: CloseOnDrop(feed),
            events: options.commit_events,
            bytes: options.commit_bytes,
        };
        let thread =
            std::thread::Builder::new().name("journal".into()).spawn(move || work.run())?;
        Ok((Self { queue, bytes, bytes_kib, fault }, thread))
    }

    /// Queues an append and waits for its commit.
    pub(super) async fn append(&self, append: Append) -> Result<Appended, AppendError> {
        append.check_limits()?;
        let bytes = append.event_bytes() + append.attached_bytes();
        let kib = u32::try_from(bytes.div_ceil(KIB)).unwrap_or(u32::MAX).clamp(1, self.bytes_kib);
        let permit = Arc::clone(&self.bytes).acquire_many_owned(kib).await;
        let permit = permit.map_err(|_| closed())?;
        let (answer, committed) = oneshot::channel();
        let request = Request { append, answer, _bytes: permit };
        self.queue.send(Message::Append(Box::new(request))).await.map_err(|_| closed())?;
        committed.await.unwrap_or_else(|_| Err(closed()))
    }

    /// Why the last commit failed, unless a later one wrote something.
    pub(super) fn fault(&self) -> Option<Arc<str>> {
        let (reason, due) = self.fault.look()?;
        if due {
            // A full queue holds appends, which try it as well.
            self.queue.try_send(Message::Probe).ok();
        }
        Some(reason)
    }

    /// Refuses what comes from now on; what is queued is still committed.
    pub(super) async fn close(&self) {
        // An error means that the thread has ended, which is what is wanted.
        self.queue.send(Message::Close).await.ok();
    }
}

fn closed() -> AppendError {
    AppendError::Unavailable("it is closed".into())
}

/// Tells the tails, even if the thread panics.
struct CloseOnDrop(Arc<Feed>);

impl Drop for CloseOnDrop {
    fn drop(&mut self) {
        self.0.close();
    }
}

struct Work {
    writer: Writer,
    fault: Arc<Fault>,
    requests: mpsc::Receiver<Message>,
    feed: CloseOnDrop,
    events: usize,
    bytes: usize,
}

impl Work {
    fn run(mut self) -> Writer {
        let mut batch = Vec::new();
        while let Some(message) = self.requests.blocking_recv() {
            self.fill(message, &mut batch);
            gauge!("wonder_journal_queue_depth").set(self.requests.len() as f64);
            if !batch.is_empty() {
                self.commit(&mut batch);
            }
        }
        self.writer
    }

    /// Takes what is there, up to the limits of a commit.
    fn fill(&mut self, first: Message, batch: &mut Vec<Request>) {
        let (mut events, mut bytes) = (0, 0);
        let mut next = Some(first);
        while let Some(message) = next {
            match message {
                Message::Append(request) => {
                    events += request.append.events.len();
                    bytes += request.append.event_bytes() + request.append.attached_bytes();
                    batch.push(*request);
                }
                Message::Probe => self.probe(),
                Message::Close => self.requests.close(),
            }
            if events >= self.events || bytes >= self.bytes {
                return;
            }
            next = self.requests.try_recv().ok();
        }
    }

    fn commit(&mut self, batch: &mut Vec<Request>) {
        let begun = Instant::now();
        match self.writer.commit(batch.iter().map(|request| &request.append)) {
            Ok(done) => {
                measure(&done, begun);
                if !done.events.is_empty() {
                    self.fault.clear();
                }
                self.feed.0.publish(done.events);
                for (request, verdict) in batch.drain(..).zip(done.verdicts) {
                    // Nobody may be waiting any more; the events are written all the same.
                    request.answer.send(verdict).ok();
                }
            }
            Err(error) => {
                tracing::error!(%error, appends = batch.len(), "committing to the journal failed");
                counter!("wonder_journal_commit_failures_total").increment(1);
                let refused = refusal(&error);
                self.fault.set(refused.to_string().into());
                for request in batch.drain(..) {
                    request.answer.send(Err(refused.clone())).ok();
                }
            }
        }
    }
}

impl Work {
    fn probe(&self) {
        match self.writer.probe() {
            Ok(()) => self.fault.clear(),
            Err(error) => self.fault.set(refusal(&error).to_string().into()),
        }
    }
}

fn refusal(error: &rusqlite::Error) -> AppendError {
    match error.sqlite_error_code() {
        Some(ErrorCode::DiskFull) => AppendError::Full,
        _ => AppendError::Unavailable(error.to_string().into()),
    }
}

fn measure(done: &Committed, begun: Instant) {
    let conflicts = done
        .verdicts
        .iter()
        .filter(|verdict| matches!(verdict, Err(AppendError::Conflict { .. })))
        .count();
    counter!("wonder_journal_conflicts_total").increment(conflicts as u64);
    if done.events.is_empty() {
        return;
    }
    counter!("wonder_journal_commits_total").increment(1);
    counter!("wonder_journal_events_total").increment(done.events.len() as u64);
    histogram!("wonder_journal_commit_seconds").record(begun.elapsed());
    histogram!("wonder_journal_events_per_commit").record(done.events.len() as f64);
}
