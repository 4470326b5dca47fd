//! The committer: a thread that takes everything that is queued into one transaction.

use std::io;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Instant;

use metrics::{counter, gauge};
use rusqlite::ErrorCode;
use tokio::sync::mpsc;

use super::SqliteOptions;
use super::checkpoints::Checkpoints;
use super::writer::Writer;
use crate::journal::AppendError;
use crate::journal::fault::Fault;
use crate::journal::feed::Feed;
use crate::journal::queue::{CloseOnDrop, Message, Queue, Request};

/// Starts the thread. It returns the writer when it has been closed and is done.
pub(super) fn start(
    writer: Writer,
    checkpoints: Checkpoints,
    feed: Arc<Feed>,
    options: &SqliteOptions,
) -> io::Result<(Queue, JoinHandle<Writer>)> {
    let fault = Arc::new(Fault::default());
    let (queue, requests) = Queue::new(options.queue, options.queue_bytes, Arc::clone(&fault));
    let work = Work {
        writer,
        checkpoints,
        fault,
        requests,
        feed: CloseOnDrop(feed),
        events: options.commit_events,
        bytes: options.commit_bytes,
    };
    let thread = std::thread::Builder::new().name("journal".into()).spawn(move || work.run())?;
    Ok((queue, thread))
}

struct Work {
    writer: Writer,
    checkpoints: Checkpoints,
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
            let bytes = self.fill(message, &mut batch);
            gauge!("wonder_journal_queue_depth").set(self.requests.len() as f64);
            if !batch.is_empty() {
                self.commit(&mut batch, bytes);
            }
        }
        self.writer
    }

    /// Takes what is there, up to the limits of a commit. Answers how many bytes that are.
    fn fill(&mut self, first: Message, batch: &mut Vec<Request>) -> usize {
        let (mut events, mut bytes) = (0, 0);
        let mut next = Some(first);
        while let Some(message) = next {
            match message {
                Message::Append(request) => {
                    events += request.append.events.len();
                    bytes += request.append.bytes();
                    batch.push(*request);
                }
                Message::Probe => self.probe(),
                Message::Close => self.requests.close(),
            }
            if events >= self.events || bytes >= self.bytes {
                break;
            }
            next = self.requests.try_recv().ok();
        }
        bytes
    }

    fn commit(&mut self, batch: &mut Vec<Request>, bytes: usize) {
        let begun = Instant::now();
        match self.writer.commit(batch.iter().map(|request| &request.append)) {
            Ok(done) => {
                done.measure(begun);
                if !done.events.is_empty() {
                    self.fault.clear();
                }
                self.checkpoints.committed(bytes);
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
            Err(error) => {
                self.fault.set(refusal(&error).to_string().into());
            }
        }
    }
}

fn refusal(error: &rusqlite::Error) -> AppendError {
    match error.sqlite_error_code() {
        Some(ErrorCode::DiskFull) => AppendError::Full,
        _ => AppendError::Unavailable(error.to_string().into()),
    }
}
