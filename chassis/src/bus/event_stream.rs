//! A stream of events for subscribers outside: in order, each once, kept for a while.
//!
//! Each message says which one must be the newest before it, and the server refuses it otherwise.
//! So a failure in the middle lets no later message in, and of two publishers one is stopped.

use std::sync::Arc;
use std::time::Duration;

use async_nats::jetstream::message::StreamMessage;
use async_nats::jetstream::stream::RawMessage;
use async_nats::{HeaderName, HeaderValue, header};
use bytes::Bytes;
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::sync::Mutex;

use super::nats::{Nats, NatsError};
use super::publish::{self, Outgoing, PublishError, Published, Refused};
use super::work_queue::nanos;

/// A repeated id is dropped within it, or within the age of messages where that is shorter.
const DUPLICATE_WINDOW: Duration = Duration::from_secs(120);
/// What the server's own headers begin with.
const OF_THE_SERVER: &str = "Nats-";

const NO_MESSAGE: u64 = 10_037;

/// A stream.
#[derive(Debug, Clone)]
pub struct EventStreamOptions {
    /// In capitals, as in `EVENTS`; the stream is called `<PREFIX>_EVENTS`.
    pub name: &'static str,
    /// Below the prefix, as in `events.>`.
    pub subjects: &'static str,
    /// How long a message is kept.
    pub max_age: Duration,
    /// Bytes that are kept; beyond them the oldest messages go.
    pub max_bytes: i64,
}

/// A message to publish.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Publication {
    /// Below the prefix.
    pub subject: String,
    pub id: String,
    /// Names in ASCII, values without line breaks.
    pub headers: Vec<(&'static str, String)>,
    pub body: Bytes,
}

/// A stream with limits, made where it is missing. Clones publish in turns.
#[derive(Clone)]
pub struct EventStream {
    inner: Arc<Inner>,
}

struct Inner {
    nats: Nats,
    stream: String,
    asked: Value,
    /// The sequence of the newest message; nothing where that is to be asked for.
    newest: Mutex<Option<u64>>,
}

#[derive(Deserialize)]
struct Got {
    message: RawMessage,
}

impl EventStream {
    /// Opens it; refused where the server has it otherwise than asked for.
    pub async fn open(nats: &Nats, options: EventStreamOptions) -> Result<Self, NatsError> {
        let stream = nats.stream(options.name);
        let asked = json!({
            "name": stream,
            "subjects": [nats.subject(options.subjects)],
            "retention": "limits",
            "storage": "file",
            "discard": "old",
            "max_bytes": options.max_bytes,
            "max_msgs": -1,
            "max_msgs_per_subject": -1,
            "max_consumers": -1,
            "max_age": nanos(options.max_age),
            "num_replicas": nats.replicas(),
            "duplicate_window": nanos(DUPLICATE_WINDOW.min(options.max_age)),
            "allow_direct": true,
        });
        nats.ensure_stream(&asked).await?;
        let inner = Inner { nats: nats.clone(), stream, asked, newest: Mutex::new(None) };
        Ok(Self { inner: Arc::new(inner) })
    }

    /// The headers of the newest message, without the server's own, by name. Nothing where there
    /// is none: never was, or is no longer kept, or the server has lost all (then the stream is
    /// made anew).
    pub async fn last(&self) -> Result<Option<Vec<(String, String)>>, NatsError> {
        let Inner { nats, stream, asked, newest } = &*self.inner;
        let mut newest = newest.lock().await;
        *newest = None;
        let state = &nats.ensure_stream(asked).await?["state"];
        let Some(sequence) = state["last_seq"].as_u64() else {
            return Err(NatsError::Unavailable("jetstream doesn't say what it has".into()));
        };
        let headers = if state["messages"] == 0 {
            None
        } else {
            let subject = format!("STREAM.MSG.GET.{stream}");
            match nats.api::<Got>(&subject, &json!({"seq": sequence})).await {
                Ok(got) => Some(headers(got.message)?),
                Err(error) if error.is(NO_MESSAGE) => None,
                Err(error) => return Err(error.into()),
            }
        };
        *newest = Some(sequence);
        Ok(headers)
    }

    /// Publishes all of them in their order, and returns once the server has them.
    ///
    /// Before the first call, and after an error, [`EventStream::last`] is to be asked for where
    /// to go on; until then all is refused. Some of the messages may be there then, none without
    /// those before it.
    pub async fn publish(&self, publications: Vec<Publication>) -> Result<(), PublishError> {
        let Inner { nats, newest, .. } = &*self.inner;
        let mut newest = newest.lock().await;
        // Where this call is dropped, nobody knows what is there.
        let Some(mut sequence) = newest.take() else {
            let why = "ask for the newest message first, to go on after it";
            return Err(PublishError::Unavailable(why.into()));
        };
        let mut expected = sequence;
        let mut outgoing = Vec::with_capacity(publications.len());
        let mut before: Option<HeaderValue> = None;
        let mut too_large = None;
        for publication in publications {
            let Publication { subject, id, headers, body } = publication;
            if body.len() > nats.room() {
                too_large = Some(PublishError::TooLarge { bytes: body.len() });
                break;
            }
            let id = value("the id", id)?;
            let mut message = Outgoing::new(nats.subject(&subject), id.clone(), body);
            for (name, text) in headers {
                message.header(HeaderName::from_static(name), value(name, text)?);
            }
            message.header(header::NATS_EXPECTED_LAST_SEQUENCE, sequence.into());
            sequence += 1;
            // Where some are there already, the sequence of a later one could be right by chance.
            if let Some(before) = before.replace(id) {
                message.header(header::NATS_EXPECTED_LAST_MESSAGE_ID, before);
            }
            outgoing.push(message);
        }
        // Each is taken only after the one before: where the last of a group is there, all are.
        for Published { bytes, result } in publish::in_groups(nats, outgoing).await {
            expected += bytes.len() as u64;
            if result?.sequence != expected {
                return Err(Refused::OutOfOrder.into());
            }
        }
        if let Some(error) = too_large {
            return Err(error);
        }
        *newest = Some(sequence);
        Ok(())
    }
}

/// The value of a header.
fn value(of: &str, text: String) -> Result<HeaderValue, PublishError> {
    if text.contains(['\r', '\n']) {
        let message = format!("the header of {of} has a line break in it");
        return Err(PublishError::Unavailable(message));
    }
    Ok(text.into())
}

fn headers(message: RawMessage) -> Result<Vec<(String, String)>, NatsError> {
    let message = StreamMessage::try_from(message)
        .map_err(|error| NatsError::Unavailable(format!("a message can't be read: {error}")))?;
    let all = message.headers.iter().map(|(name, values)| {
        (name.to_string(), values.first().map(ToString::to_string).unwrap_or_default())
    });
    let mut own: Vec<_> = all.filter(|(name, _)| !name.starts_with(OF_THE_SERVER)).collect();
    own.sort_unstable();
    Ok(own)
}
