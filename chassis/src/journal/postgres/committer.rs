//! The committer: a task that takes everything that is queued into one statement.

use std::collections::HashSet;
use std::hash::{BuildHasher, RandomState};
use std::sync::Arc;
use std::time::{Duration, Instant};

use metrics::{counter, gauge};
use tokio::sync::{Notify, mpsc, watch};

use super::writer::{Failure, Writer};
use crate::journal::fault::Fault;
use crate::journal::feed::Feed;
use crate::journal::queue::{Committed, Message, Request};
use crate::journal::{Append, AppendError};

/// Appends that make a commit a shared one.
const SHARED: usize = 8;
/// How long a shared commit is put off at most.
const LINGER: Duration = Duration::from_millis(4);

pub(super) struct Committer {
    pub(super) writer: Writer,
    pub(super) fault: Arc<Fault>,
    pub(super) requests: mpsc::Receiver<Message>,
    pub(super) feed: Arc<Feed>,
    /// Wakes the follower.
    pub(super) news: Arc<Notify>,
    /// Its end tells the other tasks that nothing more is committed.
    pub(super) committed: watch::Sender<u64>,
    pub(super) events: usize,
    pub(super) bytes: usize,
}

impl Committer {
    pub(super) async fn run(mut self) {
        let mut members = Members::default();
        let mut next = self.requests.recv().await;
        while let Some(message) = next {
            let (batch, left_over) = self.fill(message, &mut members).await;
            gauge!("wonder_journal_queue_depth").set(self.requests.len() as f64);
            if !batch.is_empty() {
                let (begun, is_shared) = (Instant::now(), batch.len() >= SHARED);
                let takes_turns = self.commit(batch).await;
                // Each turn has its price, whatever it carries. Where several processes take turns,
                // what many runs wait for waits for as long again, and is more by then.
                if is_shared && takes_turns {
                    tokio::time::sleep(begun.elapsed().min(LINGER)).await;
                }
            }
            next = match left_over {
                Some(message) => Some(message),
                None => self.requests.recv().await,
            };
        }
        self.writer.close().await;
    }

    /// Takes what is there, up to the limits of a commit, and the first append that has to wait for
    /// the next one.
    async fn fill(
        &mut self,
        first: Message,
        members: &mut Members,
    ) -> (Vec<Request>, Option<Message>) {
        members.0.clear();
        let (mut batch, mut events, mut bytes) = (Vec::new(), 0, 0);
        let mut next = Some(first);
        while let Some(message) = next {
            match message {
                Message::Append(request) => {
                    if !members.admit(&request.append) {
                        return (batch, Some(Message::Append(request)));
                    }
                    events += request.append.events.len();
                    bytes += request.append.bytes();
                    batch.push(*request);
                }
                Message::Probe => self.probe().await,
                Message::Close => self.requests.close(),
            }
            if events >= self.events || bytes >= self.bytes {
                break;
            }
            next = self.requests.try_recv().ok();
        }
        (batch, None)
    }

    /// Commits a batch, and its halves where it holds something that can't be written: the others
    /// are not to suffer for it. Answers whether others have committed since the last one.
    async fn commit(&mut self, batch: Vec<Request>) -> bool {
        let (mut parts, mut takes_turns) = (vec![batch], false);
        while let Some(mut part) = parts.pop() {
            let begun = Instant::now();
            match self.writer.commit(&part).await {
                Ok(done) => {
                    done.measure(begun);
                    let first = done.events.first().map(|event| event.position);
                    takes_turns |= first.is_some_and(|first| first > *self.committed.borrow() + 1);
                    self.settle(part, done);
                }
                Err(Failure::Data(_)) if part.len() > 1 => {
                    parts.push(part.split_off(part.len() / 2));
                    parts.push(part);
                }
                Err(failure) => self.refuse(part, &failure),
            }
        }
        takes_turns
    }

    fn settle(&self, batch: Vec<Request>, done: Committed) {
        if let Some(last) = done.events.last().map(|event| event.position) {
            self.fault.clear();
            if !self.feed.follow(done.events) {
                // Others have written before: the follower reads theirs, and then these.
                self.news.notify_one();
            }
            self.committed.send_replace(last);
        }
        for (request, verdict) in batch.into_iter().zip(done.verdicts) {
            // Nobody may be waiting any more; the events are written all the same.
            request.answer.send(verdict).ok();
        }
    }

    fn refuse(&self, batch: Vec<Request>, failure: &Failure) {
        counter!("wonder_journal_commit_failures_total").increment(1);
        let refused = refusal(failure);
        // What one append holds says nothing about the storage, and a fault that goes on is known.
        let is_data = matches!(failure, Failure::Data(_));
        if is_data || self.fault.set(refused.to_string().into()) {
            tracing::error!(%failure, appends = batch.len(), "committing to the journal failed");
        }
        for request in batch {
            request.answer.send(Err(refused.clone())).ok();
        }
    }

    async fn probe(&mut self) {
        match self.writer.probe().await {
            Ok(()) => self.fault.clear(),
            Err(failure) => {
                self.fault.set(refusal(&failure).to_string().into());
            }
        }
    }
}

fn refusal(failure: &Failure) -> AppendError {
    match failure {
        Failure::Full => AppendError::Full,
        Failure::Data(error) | Failure::Away(error) => AppendError::Unavailable(Arc::clone(error)),
    }
}

/// Hashes of the aggregates and keys of a batch, each of which may be there once. Two that happen
/// to have the same hash only make a batch shorter.
#[derive(Default)]
struct Members(HashSet<u64>, RandomState);

impl Members {
    /// Notes what an append writes, unless the batch writes it already.
    fn admit(&mut self, append: &Append) -> bool {
        let aggregate = self.1.hash_one((&append.aggregate_type, &append.aggregate_id));
        let keys = append.inbox.iter().map(|entry| self.1.hash_one(&entry.key));
        let hashes: Vec<u64> = std::iter::once(aggregate).chain(keys).collect();
        if hashes.iter().any(|hash| self.0.contains(hash)) {
            return false;
        }
        self.0.extend(hashes);
        true
    }
}
