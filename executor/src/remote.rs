//! Tasks from a work queue of the bus, and outcomes back into one.
//!
//! A task is acknowledged when the server has its outcome, and kept alive until then: whatever
//! happens to this worker, the task comes to another one.

mod carrier;
mod held;
mod owner;
mod parcel;
mod receive;
mod sink;

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use chassis::bus::{self, Consumer, ConsumerOptions, Nats, NatsError, WorkQueue, WorkQueueOptions};
use domain::ids::RunId;
use futures::StreamExt;
use futures::stream::BoxStream;
use protocol::remote::{QUEUE_BYTES, outcomes_queue, tasks_abandoned, tasks_held, tasks_queue};
use protocol::{Abandoned, Outcome, Task, Tasks};
use tokio::sync::Mutex;
use tokio_util::sync::DropGuard;

use carrier::Carrier;
use held::Attempt;
pub use sink::RemoteSink;

/// How long a task may go without a sign of life before it goes to another worker.
const ACK_WAIT: Duration = Duration::from_secs(10);
/// Signs of life in that time.
const HEARTBEATS: u32 = 3;
/// Tasks of a pool that may be on its workers at the same time.
const MAX_ACK_PENDING: i64 = 20_000;
/// How long outcomes may still take to get away once the worker is closed.
const LAST_OUTCOMES: Duration = Duration::from_secs(3);

/// The tasks of a pool. It is closed with [`RemoteTasks::close`] when its executor has ended.
pub struct RemoteTasks {
    carrier: Arc<Carrier>,
    /// `None` when no more is pulled.
    consumer: Mutex<Option<Consumer>>,
    fetched: bus::Receiver<Task>,
    abandoned: Mutex<BoxStream<'static, Bytes>>,
    /// Answers about what is held end with this.
    _answers: DropGuard,
    /// Signs of life end with this.
    _ends: DropGuard,
}

impl RemoteTasks {
    /// Connects to a pool's tasks, for a worker that performs so many at the same time. A pool's
    /// name has letters and digits of ASCII, `_` and `-`.
    ///
    /// # Errors
    /// Where NATS is away, has the queues otherwise than asked for, or the name can't be one.
    pub async fn connect(
        nats: Nats,
        pool: &str,
        concurrency: usize,
    ) -> Result<Arc<Self>, NatsError> {
        Self::connect_with(nats, pool, concurrency, ACK_WAIT).await
    }

    /// The same; a worker of the pool that gives no sign of life for so long has vanished. All
    /// workers of a pool must be told the same.
    ///
    /// # Errors
    /// As [`RemoteTasks::connect`].
    pub async fn connect_with(
        nats: Nats,
        pool: &str,
        concurrency: usize,
        ack_wait: Duration,
    ) -> Result<Arc<Self>, NatsError> {
        let fits = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'-');
        if pool.is_empty() || !pool.bytes().all(fits) {
            let message = format!("{pool:?} can't be a pool: use letters, digits, _ and -");
            return Err(NatsError::Setting(message));
        }
        let tasks = WorkQueueOptions::of_tasks(&nats, tasks_queue(pool), QUEUE_BYTES);
        let tasks = WorkQueue::open(&nats, tasks).await?;
        let outcomes = WorkQueueOptions::of(outcomes_queue(), QUEUE_BYTES);
        let outcomes = WorkQueue::open(&nats, outcomes).await?;
        let options = ConsumerOptions {
            durable: format!("pool-{pool}"),
            filter: tasks_queue(pool).1,
            ack_wait,
            max_ack_pending: MAX_ACK_PENDING,
        };
        let consumer = tasks.consumer(options).await?;
        let abandoned = Mutex::new(nats.listen(&tasks_abandoned(pool)).await?);
        let (sender, fetched) = bus::queue(concurrency);
        let carrier = Arc::new(Carrier::new(nats.clone(), tasks, outcomes, sender));
        tokio::spawn(keep_alive(Arc::clone(&carrier), ack_wait / HEARTBEATS));
        let _ends = carrier.closing.clone().drop_guard();
        let holder = Arc::clone(&carrier);
        let _answers =
            nats.answer_surveys(&tasks_held(pool), move |asked| holder.held.among(&asked)).await?;
        Ok(Arc::new(Self {
            carrier,
            consumer: Mutex::new(Some(consumer)),
            fetched,
            abandoned,
            _answers,
            _ends,
        }))
    }

    /// Lets the last outcomes get away, and gives back the tasks that have none. For use after
    /// the executor has ended: a task that still runs is given to somebody else.
    pub async fn close(&self) {
        self.stop().await;
        self.carrier.close(LAST_OUTCOMES).await;
    }
}

#[async_trait]
impl Tasks for RemoteTasks {
    async fn pull(&self, limit: usize) -> Vec<Task> {
        let carrier = &self.carrier;
        let mut place = self.consumer.lock().await;
        let Some(consumer) = place.as_mut() else {
            return Vec::new();
        };
        loop {
            // What is fetched takes room when it comes.
            let room = limit.saturating_sub(carrier.aside());
            let mut tasks = Vec::new();
            tokio::select! {
                biased;
                () = carrier.stopping.cancelled() => return tasks,
                taken = self.fetched.recv_many(&mut tasks, limit) => carrier.leave_aside(taken),
                deliveries = consumer.pull(room), if room > 0 => {
                    tasks.extend(deliveries.into_iter().filter_map(|one| carrier.receive(one)));
                }
                () = carrier.changed.notified() => {}
            }
            if !tasks.is_empty() {
                return tasks;
            }
        }
    }

    async fn report(&self, outcomes: Vec<Outcome>) {
        self.carrier.report(outcomes).await;
    }

    async fn abandoned(&self) -> Vec<Abandoned> {
        let mut words = self.abandoned.lock().await;
        match words.next().await.map(|word| serde_json::from_slice(&word)) {
            Some(Ok(abandoned)) => abandoned,
            Some(Err(error)) => {
                tracing::warn!(%error, "word of abandoned work can't be read");
                Vec::new()
            }
            // The connection was closed.
            None => std::future::pending().await,
        }
    }

    async fn gave_up(&self, run_id: RunId, token: u64, attempt: u32) {
        self.carrier.done(Attempt { run_id, token, attempt }).await;
    }

    async fn stop(&self) {
        self.carrier.stopping.cancel();
        if let Some(consumer) = self.consumer.lock().await.take() {
            consumer.close().await;
        }
        let mut unbegun = Vec::new();
        self.fetched.try_recv_many(&mut unbegun, usize::MAX);
        self.carrier.give_back(unbegun.iter().map(Into::into).collect()).await;
    }
}

/// Gives signs of life of every task that is held.
async fn keep_alive(carrier: Arc<Carrier>, every: Duration) {
    let mut beat = tokio::time::interval(every);
    beat.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            () = carrier.closing.cancelled() => return,
            _ = beat.tick() => {}
        }
        for delivery in carrier.held.all() {
            delivery.progress().await;
        }
    }
}
