//! Messages of streams that others made and fill: pulled by a durable consumer, each acknowledged.
//!
//! The work queues of the platform have stricter needs (see `work_queue`); here the client library
//! pulls.

use std::time::Duration;

use async_nats::jetstream::consumer::{Consumer, pull};
use async_nats::jetstream::message::AckKind;
use async_nats::jetstream::{self, Message};
use bytes::Bytes;
use chrono::{DateTime, SecondsFormat, Utc};
use futures::{FutureExt, StreamExt};
use serde_json::{Value, json};

use super::nats::{Nats, NatsError};
use super::work_queue::nanos;

/// How long a message may go without an acknowledgement before it is delivered again.
const ACK_WAIT: Duration = Duration::from_secs(30);
/// How long a request for messages stands.
const EXPIRES: Duration = Duration::from_secs(30);
/// How often the server says that a request still stands.
const HEARTBEAT: Duration = Duration::from_secs(5);
/// The consumer to be deleted isn't there.
const NO_CONSUMER: u64 = 10_014;
const NO_STREAM: u64 = 10_059;

/// What is to be pulled.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InletOptions {
    /// The stream's name, as its owner calls it. Not one of the platform's own.
    pub stream: String,
    /// The consumer's name: whoever pulls by it shares the messages. Letters, digits, `-`, `_`.
    pub durable: String,
    /// One subject or pattern; absent means all of the stream's.
    pub subject: Option<String>,
    /// Messages that the server got in this second or later. Counts where the consumer is made.
    pub since: DateTime<Utc>,
    /// Messages that may be unacknowledged, and are delivered ahead, at most.
    pub at_once: usize,
}

/// An open pull. What was delivered to it and not acknowledged is delivered again, after half a
/// minute at most.
pub struct Inlet {
    messages: pull::Stream,
    at_once: usize,
}

/// A message.
pub struct Arrival {
    pub subject: String,
    /// The first value of each, in the sender's spelling.
    pub headers: Vec<(String, String)>,
    pub body: Bytes,
    /// Its place in the stream.
    pub sequence: u64,
    /// When the server got it.
    pub published: DateTime<Utc>,
    message: Message,
}

impl Nats {
    /// Opens a pull, and makes the consumer where it is missing.
    ///
    /// # Errors
    /// Where the stream is missing or the platform's own, its subjects don't include the one asked
    /// for, or NATS is away.
    pub async fn inlet(&self, options: &InletOptions) -> Result<Inlet, NatsError> {
        let InletOptions { stream, durable, subject, since, at_once } = options;
        self.is_foreign(stream)?;
        let asked = json!({
            "durable_name": durable,
            "filter_subject": subject.as_deref().unwrap_or_default(),
            "deliver_policy": "by_start_time",
            "opt_start_time": since.to_rfc3339_opts(SecondsFormat::Secs, true),
            "ack_policy": "explicit",
            "ack_wait": nanos(ACK_WAIT),
            "max_deliver": -1,
            "max_ack_pending": at_once,
            "replay_policy": "instant",
        });
        self.ensure_consumer(stream, &asked).await?;
        let context = jetstream::new(self.client().clone());
        let consumer: Consumer<pull::Config> = context
            .get_consumer_from_stream(durable, stream)
            .await
            .map_err(|error| unavailable(&error))?;
        let messages = consumer
            .stream()
            .max_messages_per_batch(*at_once)
            .expires(EXPIRES)
            .heartbeat(HEARTBEAT)
            .messages();
        let messages = messages.await.map_err(|error| unavailable(&error))?;
        Ok(Inlet { messages, at_once: *at_once })
    }

    /// Deletes a consumer; nothing where it isn't there.
    ///
    /// # Errors
    /// Where NATS is away.
    pub async fn forget_inlet(&self, stream: &str, durable: &str) -> Result<(), NatsError> {
        self.is_foreign(stream)?;
        match self.api::<Value>(&format!("CONSUMER.DELETE.{stream}.{durable}"), &Value::Null).await
        {
            Err(error) if !error.is(NO_CONSUMER) && !error.is(NO_STREAM) => Err(error.into()),
            _ => Ok(()),
        }
    }

    /// Whoever names a stream must not get at what the platform's parts tell each other.
    fn is_foreign(&self, stream: &str) -> Result<(), NatsError> {
        let own = self.stream("");
        if stream.starts_with(&own) {
            let message = format!("{stream} is one of the platform's own streams ({own}…)");
            return Err(NatsError::Setting(message));
        }
        Ok(())
    }
}

impl Inlet {
    /// Waits for messages; those that are there, in the stream's order, never none. Cancel-safe.
    ///
    /// # Errors
    /// Where the consumer or the server is gone: open another one.
    pub async fn pull(&mut self) -> Result<Vec<Arrival>, NatsError> {
        let gone = || NatsError::Unavailable("the consumer gives no more messages".into());
        let mut arrived = Vec::new();
        let first = self.messages.next().await.ok_or_else(gone)?;
        arrived.push(Arrival::of(first.map_err(|error| unavailable(&error))?)?);
        while arrived.len() < self.at_once {
            match self.messages.next().now_or_never() {
                Some(Some(Ok(message))) => arrived.push(Arrival::of(message)?),
                // Said by the next call, too.
                Some(_) | None => break,
            }
        }
        Ok(arrived)
    }
}

impl Arrival {
    fn of(message: Message) -> Result<Self, NatsError> {
        let info = message.info().map_err(|error| unavailable(&error))?;
        let nanos = i64::try_from(info.published.unix_timestamp_nanos()).unwrap_or(i64::MAX);
        let (sequence, published) =
            (info.stream_sequence, DateTime::<Utc>::from_timestamp_nanos(nanos));
        let headers = message.headers.iter().flat_map(|headers| headers.iter());
        let headers = headers.filter_map(|(name, values)| {
            Some((name.to_string(), values.first()?.as_str().to_owned()))
        });
        Ok(Self {
            subject: message.subject.to_string(),
            headers: headers.collect(),
            body: message.payload.clone(),
            sequence,
            published,
            message,
        })
    }

    /// Done: it isn't delivered again. Where that gets lost, it is.
    pub async fn ack(&self) {
        self.say(AckKind::Ack).await;
    }

    /// Not done: it is delivered again after a while.
    pub async fn later(&self, delay: Duration) {
        self.say(AckKind::Nak(Some(delay))).await;
    }

    async fn say(&self, what: AckKind) {
        if let Err(error) = self.message.ack_with(what).await {
            tracing::debug!(%error, "what was said of a message was not sent");
        }
    }
}

fn unavailable(error: &impl std::fmt::Display) -> NatsError {
    NatsError::Unavailable(error.to_string())
}
