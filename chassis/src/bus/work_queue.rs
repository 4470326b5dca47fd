//! Work queues over JetStream: what is published stays until somebody has acknowledged it.
//!
//! JetStream is a carrier, not the truth: it may lose everything, and what was lost is published
//! again by whoever knows that it is still owed.

mod consumer;
mod demand;
mod session;

use std::borrow::{Borrow, Cow};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use serde_json::{Value, json};
use tokio::sync::Mutex;
use tokio::time::Instant;
use uuid::Uuid;

use super::nats::{Nats, NatsError, Storage, outbound};
use super::publish::{self, Outgoing, Published, Refused};

pub use super::publish::PublishError;
pub use consumer::{Consumer, Delivery};

/// A repeated message id is dropped within it.
const DUPLICATE_WINDOW: Duration = Duration::from_secs(120);
/// How long to wait for whoever has the stream; nobody answers where it is missing.
const DIRECT_WITHIN: Duration = Duration::from_millis(500);
/// How often a missing stream is made anew for a call: while it is being deleted it looks as if it
/// were there.
const RESTORES: usize = 3;
/// How long deliveries may take to be given back.
const GIVE_BACK: Duration = Duration::from_secs(2);
/// Pull requests that may wait at one consumer, over all who pull.
const PULL_REQUESTS: u64 = 2_048;

const NO_MESSAGE: u64 = 10_037;
const NO_STREAM: u64 = 10_059;

/// A queue.
#[derive(Debug, Clone)]
pub struct WorkQueueOptions {
    /// In capitals, as in `TASKS`; the stream is called `<PREFIX>_TASKS`.
    pub name: Cow<'static, str>,
    /// Below the prefix, as in `tasks.>`.
    pub subjects: Cow<'static, str>,
    /// Bytes that the queue may hold; more is refused.
    pub max_bytes: i64,
    /// How long a message may stay that nobody acknowledges; zero means for ever.
    pub max_age: Duration,
    /// Nothing asks for memory where the queue is made, and takes it as it is where it is there.
    pub storage: Option<Storage>,
}

impl WorkQueueOptions {
    /// A queue of this name and these subjects, whose messages stay until they are acknowledged.
    pub fn of((name, subjects): (String, String), max_bytes: i64) -> Self {
        let (max_age, storage) = (Duration::ZERO, Some(Storage::File));
        Self { name: name.into(), subjects: subjects.into(), max_bytes, max_age, storage }
    }

    /// The same of tasks, kept where the connection was told to keep them.
    pub fn of_tasks(nats: &Nats, queue: (String, String), max_bytes: i64) -> Self {
        Self { storage: nats.task_storage(), ..Self::of(queue, max_bytes) }
    }
}

/// A message to publish.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Message {
    /// Below the prefix.
    pub subject: String,
    /// A repeated id is dropped for two minutes, even after the first was acknowledged.
    pub id: String,
    pub body: Bytes,
}

/// A stream with work-queue retention. Made where it is missing, also when it vanishes later.
#[derive(Clone)]
pub struct WorkQueue {
    inner: Arc<Inner>,
}

struct Inner {
    nats: Nats,
    stream: String,
    asked: Value,
    /// When it was last made, or seen as asked for.
    seen: Mutex<Instant>,
}

impl WorkQueue {
    /// Opens it; refused where the server has it otherwise than asked for.
    pub async fn open(nats: &Nats, options: WorkQueueOptions) -> Result<Self, NatsError> {
        let stream = nats.stream(&options.name);
        let mut asked = json!({
            "name": stream,
            "subjects": [nats.subject(&options.subjects)],
            "retention": "workqueue",
            "storage": options.storage.unwrap_or(Storage::Memory),
            "discard": "new",
            "max_bytes": options.max_bytes,
            "max_msgs": -1,
            "max_msgs_per_subject": -1,
            "max_consumers": -1,
            "max_age": nanos(options.max_age),
            "num_replicas": nats.replicas(),
            // The server takes none that is longer than the age.
            "duplicate_window": nanos(match options.max_age {
                Duration::ZERO => DUPLICATE_WINDOW,
                age => DUPLICATE_WINDOW.min(age),
            }),
            "allow_direct": true,
        });
        match nats.ensure_stream(&asked).await {
            Err(NatsError::Different { .. }) if options.storage.is_none() => {
                asked["storage"] = json!(Storage::File);
                nats.ensure_stream(&asked).await?;
            }
            ensured => drop(ensured?),
        }
        let seen = Mutex::new(Instant::now());
        Ok(Self { inner: Arc::new(Inner { nats: nats.clone(), stream, asked, seen }) })
    }

    /// Publishes all of them, and answers for each once the server has it. Their order in the queue
    /// is theirs, as far as none fails.
    ///
    /// They are acknowledged in groups (see `publish::in_groups`): where the server refuses one it
    /// answers so for all of its group, and what it has of them already is dropped when it is
    /// published again; where it has just become full, a message may be lost without a word.
    pub async fn publish(&self, messages: Vec<Message>) -> Vec<Result<(), PublishError>> {
        let nats = &self.inner.nats;
        let mut began = Instant::now();
        let mut results = publish_each(nats, &messages, 0..messages.len()).await;
        for _ in 0..RESTORES {
            let missing = |index: &usize| results[*index] == Err(Refused::Missing);
            let again: Vec<usize> = (0..results.len()).filter(missing).collect();
            if again.is_empty() || self.restore(began).await.is_err() {
                break;
            }
            began = Instant::now();
            let once_more = publish_each(nats, &messages, again.iter().copied()).await;
            for (index, result) in again.into_iter().zip(once_more) {
                results[index] = result;
            }
        }
        results.into_iter().map(|result| Ok(result?)).collect()
    }

    /// Gives messages back that nobody has begun with, as new ones at the end of the queue: so the
    /// count of deliveries says how many have vanished with a message. What can't be published is
    /// delivered again. Each item is all deliveries of one message, or of one and its copies.
    pub async fn give_back<D: Borrow<Delivery>>(&self, messages: Vec<impl AsRef<[D]>>) {
        let renewed = |deliveries: &[D]| {
            let first = deliveries.first()?.borrow();
            let id = Uuid::new_v4().simple().to_string();
            Some(Message { subject: first.subject.clone(), id, body: first.body.clone() })
        };
        let renewed: Vec<_> = messages.iter().filter_map(|one| renewed(one.as_ref())).collect();
        if renewed.is_empty() {
            return;
        }
        let published = tokio::time::timeout(GIVE_BACK, self.publish(renewed)).await;
        let mut published = published.unwrap_or_default().into_iter();
        for deliveries in messages.iter().map(AsRef::as_ref).filter(|one| !one.is_empty()) {
            let is_published = published.next().is_some_and(|result| result.is_ok());
            for delivery in deliveries.iter().map(Borrow::borrow) {
                match is_published {
                    true => delivery.ack().await,
                    false => delivery.nak().await,
                }
            }
        }
    }

    /// Whether the queue holds a message with exactly this subject: not acknowledged yet.
    pub async fn holds(&self, subject: &str) -> Result<bool, NatsError> {
        let Inner { nats, stream, .. } = &*self.inner;
        let (subject, began) = (nats.subject(subject), Instant::now());
        if let Some(holds) = self.holds_directly(&subject).await? {
            return Ok(holds);
        }
        let by_subject = json!({"last_by_subj": subject});
        match nats.api::<Value>(&format!("STREAM.MSG.GET.{stream}"), &by_subject).await {
            Ok(_) => Ok(true),
            Err(error) if error.is(NO_MESSAGE) => Ok(false),
            Err(error) if error.is(NO_STREAM) => self.restore(began).await.map(|()| false),
            Err(error) => Err(error.into()),
        }
    }

    /// A durable consumer, shared by everybody who names it.
    pub async fn consumer(&self, options: ConsumerOptions) -> Result<Consumer, NatsError> {
        let Inner { nats, stream, asked: queue, .. } = &*self.inner;
        let filter = nats.subject(&options.filter);
        // Who wants everything is given it without a look at the subjects: before 2.10 that look
        // goes through all that are in the queue, for each message.
        let filter = if queue["subjects"] == json!([filter]) { String::new() } else { filter };
        let asked = json!({
            "durable_name": options.durable,
            "filter_subject": filter,
            "deliver_policy": "all",
            "ack_policy": "explicit",
            "ack_wait": nanos(options.ack_wait),
            "max_deliver": -1,
            "max_ack_pending": options.max_ack_pending,
            "max_waiting": PULL_REQUESTS,
            "replay_policy": "instant",
            // What is acknowledged has left the stream, so its state isn't worth a file.
            "mem_storage": true,
        });
        nats.ensure_consumer(stream, &asked).await?;
        Ok(Consumer::new(self.clone(), &options.durable, asked))
    }

    /// Asks any server that has the stream; nothing where none answers so.
    async fn holds_directly(&self, subject: &str) -> Result<Option<bool>, NatsError> {
        let Inner { nats, stream, .. } = &*self.inner;
        let until = Instant::now() + DIRECT_WITHIN;
        nats.connected(until).await?;
        let answer = nats.inbox().answer().map_err(|error| error.unavailable())?;
        let reply = Some(answer.subject.clone());
        let direct = format!("$JS.API.DIRECT.GET.{stream}.{subject}");
        nats.send(outbound(direct, reply, Bytes::new())).await?;
        match tokio::time::timeout_at(until, answer.arrived()).await {
            Ok(Ok(arrived)) => Ok(match arrived.first.status.map(|status| status.as_u16()) {
                None => Some(true),
                Some(404) => Some(false),
                Some(_) => None,
            }),
            Ok(Err(error)) => Err(error.unavailable()),
            Err(_) => Ok(None),
        }
    }

    /// Makes the stream anew where it has vanished, unless somebody did since it was missed.
    async fn restore(&self, missed: Instant) -> Result<(), NatsError> {
        let mut seen = self.inner.seen.lock().await;
        if *seen > missed {
            return Ok(());
        }
        let restored = self.inner.nats.ensure_stream(&self.inner.asked).await;
        match &restored {
            Ok(_) => *seen = Instant::now(),
            Err(error) => {
                tracing::warn!(stream = self.inner.stream, %error, "a stream can't be made anew");
            }
        }
        restored.map(drop)
    }
}

/// Publishes some of them. What became of each: the same for all of a group, but for what the
/// connection doesn't carry.
async fn publish_each(
    nats: &Nats,
    messages: &[Message],
    which: impl Iterator<Item = usize>,
) -> Vec<Result<(), Refused>> {
    let room = nats.room();
    let outgoing = which.map(|index| {
        let Message { subject, id, body } = &messages[index];
        Outgoing::new(nats.subject(subject), id.as_str().into(), body.clone())
    });
    let mut results = Vec::with_capacity(messages.len());
    for Published { bytes, result } in publish::in_groups(nats, outgoing.collect()).await {
        results.extend(bytes.into_iter().map(|bytes| match bytes {
            bytes if bytes > room => Err(Refused::TooLarge { bytes }),
            _ => result.clone().map(drop),
        }));
    }
    results
}

/// A consumer.
#[derive(Debug, Clone)]
pub struct ConsumerOptions {
    pub durable: String,
    /// One subject or pattern below the prefix; that of the queue for everything.
    pub filter: String,
    /// How long a delivery may go without an acknowledgement or a sign of life before the message
    /// is delivered to somebody else.
    pub ack_wait: Duration,
    /// Deliveries that may be unacknowledged at a time, over all who pull.
    pub max_ack_pending: i64,
}

/// As JetStream writes durations.
pub(super) fn nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}
