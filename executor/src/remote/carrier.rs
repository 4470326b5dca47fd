//! Carries outcomes away, and gives back what has none.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use chassis::bus::{Nats, PublishError, Sender, WorkQueue};
use protocol::task::{Outcome, Task};
use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::held::{Attempt, Held};
use super::owner::{Unanswered, ask, pauses};
use super::parcel::{Parcel, by_call};
use crate::fault::{Fault, permanent};

/// Outcomes that may be on their way to the owners of their shards; more go into the queue.
const CALLED: usize = 4_096;
/// How long an owner may take to make outcomes durable before they go into the queue, where a
/// later one finds them.
const CALL: Duration = Duration::from_secs(1);
/// KiB of large outcomes that may be on their way at the same time.
const LARGE_KIB: u32 = 64 * 1024;
/// How long the owner may take to make a large one durable before it is asked again.
const REPORT: Duration = Duration::from_secs(30);
/// How long the last answers about abandoned attempts may take.
const LAST_ANSWERS: Duration = Duration::from_secs(2);

/// What all parts of a worker's end of the queues share.
pub(super) struct Carrier {
    pub(super) nats: Nats,
    pub(super) held: Held,
    pub(super) fetched: Sender<Task>,
    /// Nothing is pulled any more.
    pub(super) stopping: CancellationToken,
    /// Nothing is waited for any more.
    pub(super) closing: CancellationToken,
    /// Told when there is more room to pull.
    pub(super) changed: Notify,
    tasks: WorkQueue,
    outcomes: WorkQueue,
    called: Arc<Semaphore>,
    large: Arc<Semaphore>,
    /// Deliveries that were pulled and not handed to the executor, or not yet.
    aside: AtomicUsize,
    background: TaskTracker,
}

impl Carrier {
    pub(super) fn new(
        nats: Nats,
        tasks: WorkQueue,
        outcomes: WorkQueue,
        fetched: Sender<Task>,
    ) -> Self {
        Self {
            nats,
            held: Held::default(),
            fetched,
            stopping: CancellationToken::new(),
            closing: CancellationToken::new(),
            changed: Notify::new(),
            tasks,
            outcomes,
            called: Arc::new(Semaphore::new(CALLED)),
            large: Arc::new(Semaphore::new(LARGE_KIB as usize)),
            aside: AtomicUsize::new(0),
            background: TaskTracker::new(),
        }
    }

    /// See [`Carrier::leave_aside`].
    pub(super) fn aside(&self) -> usize {
        self.aside.load(Ordering::Acquire)
    }

    /// So many deliveries don't need room any more.
    pub(super) fn leave_aside(&self, count: usize) {
        self.aside.fetch_sub(count, Ordering::AcqRel);
        self.changed.notify_one();
    }

    /// Does something with a delivery that isn't performed.
    pub(super) fn aside_with(self: &Arc<Self>, work: impl Future<Output = ()> + Send + 'static) {
        self.aside_until_taken(async move {
            work.await;
            false
        });
    }

    /// The same; where it yields true, the delivery needs its room until the task is taken.
    pub(super) fn aside_until_taken(
        self: &Arc<Self>,
        work: impl Future<Output = bool> + Send + 'static,
    ) {
        self.aside.fetch_add(1, Ordering::AcqRel);
        let carrier = Arc::clone(self);
        self.background.spawn(async move {
            if !work.await {
                carrier.leave_aside(1);
            }
        });
    }

    /// Sends outcomes on their way: to the owners of their shards, and where these have too many
    /// already, into the queue. Returns when those for the queue are there and there was room for
    /// the large ones; at once where the worker is closed.
    pub(super) async fn report(self: &Arc<Self>, outcomes: Vec<Outcome>) {
        let parcels = outcomes.into_iter().map(Parcel::of);
        let (large, small): (Vec<_>, Vec<_>) = parcels.partition(Parcel::is_large);
        let mut queued = Vec::new();
        for parcels in by_call(small) {
            let count = u32::try_from(parcels.len()).unwrap_or(u32::MAX);
            match Arc::clone(&self.called).try_acquire_many_owned(count) {
                Ok(room) => {
                    let carrier = Arc::clone(self);
                    self.background.spawn(async move { carrier.call(parcels, room).await });
                }
                Err(_) => queued.extend(parcels),
            }
        }
        self.queue(queued).await;
        self.send_large(large).await;
    }

    /// Hands outcomes of one shard to its owner; where it doesn't take all of them, to the queue.
    async fn call(self: &Arc<Self>, parcels: Vec<Parcel>, room: OwnedSemaphorePermit) {
        let Some(shard) = parcels.first().map(Parcel::shard) else {
            return;
        };
        let call = ask(&self.nats, shard, Parcel::call(&parcels), CALL);
        let Some(answer) = self.until_closed(call).await else {
            return;
        };
        drop(room);
        match answer {
            Ok(()) => {
                for parcel in parcels {
                    self.done(parcel.attempt).await;
                }
            }
            Err::<(), _>(error) => {
                tracing::debug!(shard, %error, "outcomes go into the queue");
                metrics::counter!("wonder_outcomes_queued_total").increment(parcels.len() as u64);
                self.queue(parcels).await;
            }
        }
    }

    /// Returns when the queue has them, but for those that it finds too large.
    async fn queue(self: &Arc<Self>, parcels: Vec<Parcel>) {
        let too_large = self.until_closed(self.publish(parcels)).await.unwrap_or_default();
        self.send_large(too_large).await;
    }

    /// Returns when there was room for all of them on the way to their owners.
    async fn send_large(self: &Arc<Self>, parcels: Vec<Parcel>) {
        for parcel in parcels {
            let kib = u32::try_from(parcel.bytes() / 1024 + 1).unwrap_or(LARGE_KIB);
            let room = Arc::clone(&self.large).acquire_many_owned(kib.min(LARGE_KIB));
            let Some(Ok(room)) = self.until_closed(room).await else {
                return;
            };
            let carrier = Arc::clone(self);
            self.background.spawn(async move { carrier.send(parcel, room).await });
        }
    }

    async fn until_closed<T>(&self, work: impl Future<Output = T>) -> Option<T> {
        self.closing.run_until_cancelled(work).await
    }

    /// Publishes until the server has all of them; gives back those that it finds too large.
    async fn publish(&self, mut parcels: Vec<Parcel>) -> Vec<Parcel> {
        let (mut too_large, mut pauses) = (Vec::new(), pauses());
        while !parcels.is_empty() {
            let messages = parcels.iter().map(Parcel::message).collect();
            let answers = self.outcomes.publish(messages).await;
            let (mut left, mut reason) = (Vec::new(), None);
            for (parcel, answer) in parcels.into_iter().zip(answers) {
                match answer {
                    Ok(()) => self.done(parcel.attempt).await,
                    Err(PublishError::TooLarge { .. }) => too_large.push(parcel),
                    Err(error @ (PublishError::Full | PublishError::Unavailable(_))) => {
                        reason = Some(error);
                        left.push(parcel);
                    }
                }
            }
            parcels = left;
            if let Some(error) = reason {
                let waiting = parcels.len();
                tracing::warn!(%error, waiting, "outcomes could not be published, trying again");
                pauses.pause().await;
            }
        }
        too_large
    }

    /// Sends a large outcome to its run's owner, until it is durable there.
    async fn send(&self, parcel: Parcel, room: OwnedSemaphorePermit) {
        let Attempt { run_id, token, .. } = parcel.attempt;
        let call = Parcel::call(std::slice::from_ref(&parcel));
        let mut pauses = pauses();
        let sent = async {
            loop {
                match ask(&self.nats, parcel.shard(), call.clone(), REPORT).await {
                    Ok(()) => return self.done(parcel.attempt).await,
                    Err(Unanswered::Away(_)) => pauses.pause().await,
                    Err(error @ Unanswered::TooLarge(_)) => {
                        tracing::warn!(%run_id, token, %error, "an outcome is too large");
                        self.publish(vec![parcel.refused()]).await;
                        return;
                    }
                    Err(error @ Unanswered::Refused(_)) => {
                        tracing::error!(%run_id, token, %error, "an outcome was refused");
                        // Not acknowledged, the task comes again.
                        self.held.release(parcel.attempt);
                        return;
                    }
                }
            }
        };
        self.until_closed(sent).await;
        drop(room);
    }

    /// An attempt's task leaves the queue.
    pub(super) async fn done(&self, attempt: Attempt) {
        for delivery in self.held.release(attempt) {
            delivery.ack().await;
        }
    }

    /// Gives tasks to other workers.
    pub(super) async fn give_back(&self, attempts: Vec<Attempt>) {
        let held = attempts.into_iter().map(|attempt| self.held.release(attempt)).collect();
        self.tasks.give_back(held).await;
    }

    /// Waits for what is on its way, and gives back the rest.
    pub(super) async fn close(&self, patience: Duration) {
        self.background.close();
        drop(tokio::time::timeout(patience, self.background.wait()).await);
        self.closing.cancel();
        self.background.wait().await;
        self.leave_in_doubt(self.held.all_once()).await;
        self.give_back(self.held.attempts()).await;
    }

    /// Answers attempts that have begun, must not be made twice, and are abandoned. Where that
    /// fails they are delivered again, and found in doubt then.
    async fn leave_in_doubt(&self, attempts: Vec<Attempt>) {
        let outcomes = attempts.iter().map(|attempt| attempt.failed(*in_doubt()));
        let published = self.publish(outcomes.map(Parcel::of).collect());
        drop(tokio::time::timeout(LAST_ANSWERS, published).await);
        for attempt in attempts {
            self.held.release(attempt);
        }
    }
}

/// What becomes of an attempt that may have been made and must not be made again.
pub(super) fn in_doubt() -> Fault {
    permanent("in_doubt", "the worker vanished, and the action may have been done")
}
