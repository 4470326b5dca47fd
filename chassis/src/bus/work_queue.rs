//! Work queues over JetStream: what is published stays until somebody has acknowledged it.
//!
//! JetStream is a carrier, not the truth: it may lose everything, and what was lost is published
//! again by whoever knows that it is still owed.

use std::time::Duration;

use bytes::Bytes;

use super::nats::{Nats, NatsError};

/// A queue.
#[derive(Debug, Clone)]
pub struct WorkQueueOptions {
    /// In capitals, as in `TASKS`; the stream is called `<PREFIX>_TASKS`.
    pub name: &'static str,
    /// Below the prefix, as in `tasks.>`.
    pub subjects: &'static str,
    /// Bytes that the queue may hold; more is refused.
    pub max_bytes: i64,
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

/// Why a message isn't in the queue, or may not be.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PublishError {
    #[error("the queue is full")]
    Full,
    #[error("a message of {bytes} bytes is too large")]
    TooLarge { bytes: usize },
    /// It may be there all the same: publish it again under the same id.
    #[error("nats is unavailable: {0}")]
    Unavailable(String),
}

/// A stream with work-queue retention. Made where it is missing, also when it vanishes later.
#[derive(Clone)]
pub struct WorkQueue {}

impl WorkQueue {
    /// Opens it; refused where the server has it otherwise than asked for.
    pub async fn open(nats: &Nats, options: WorkQueueOptions) -> Result<Self, NatsError> {
        let _ = nats;
        unimplemented!("{options:?}")
    }

    /// Publishes all of them side by side, and answers for each once the server has it.
    pub async fn publish(&self, messages: Vec<Message>) -> Vec<Result<(), PublishError>> {
        unimplemented!("{messages:?}")
    }

    /// Whether the queue holds a message with exactly this subject: not acknowledged yet.
    pub async fn holds(&self, subject: &str) -> Result<bool, NatsError> {
        unimplemented!("{subject}")
    }

    /// A durable consumer, shared by everybody who names it.
    pub async fn consumer(&self, options: ConsumerOptions) -> Result<Consumer, NatsError> {
        unimplemented!("{options:?}")
    }
}

/// A consumer.
#[derive(Debug, Clone)]
pub struct ConsumerOptions {
    pub durable: String,
    /// One subject or pattern below the prefix.
    pub filter: String,
    /// How long a delivery may go without an acknowledgement or a sign of life before the message
    /// is delivered to somebody else.
    pub ack_wait: Duration,
    /// Deliveries that may be unacknowledged at a time, over all who pull.
    pub max_ack_pending: i64,
}

/// Pulls from a queue.
pub struct Consumer {}

impl Consumer {
    /// Waits for messages and takes at most `limit`; what was asked for and didn't come in time is
    /// still asked for, and given by the next call. Never empty. Cancel-safe.
    ///
    /// While NATS or the consumer is away it waits, and makes what is missing.
    pub async fn pull(&mut self, limit: usize) -> Vec<Delivery> {
        unimplemented!("{limit}")
    }

    /// Gives back what was delivered and not pulled.
    pub async fn close(self) {
        unimplemented!()
    }
}

/// A delivered message. Dropped without an acknowledgement it is delivered again, later.
#[derive(Debug)]
pub struct Delivery {
    /// Below the prefix.
    pub subject: String,
    pub body: Bytes,
    /// How often it has been delivered, this time included.
    pub deliveries: u64,
}

impl Delivery {
    /// Done: it leaves the queue. Not waited for; where it gets lost, the message comes again.
    pub async fn ack(&self) {
        unimplemented!()
    }

    /// Not done: it is delivered again at once.
    pub async fn nak(&self) {
        unimplemented!()
    }

    /// A sign of life: the time until redelivery begins anew.
    pub async fn progress(&self) {
        unimplemented!()
    }
}
