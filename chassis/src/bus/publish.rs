//! Publishing to JetStream: side by side, each acknowledged.

use std::collections::VecDeque;
use std::time::Duration;

use async_nats::jetstream::publish::PublishAck;
use async_nats::jetstream::response::Response;
use async_nats::message::OutboundMessage;
use async_nats::{HeaderMap, HeaderName, StatusCode, header};
use bytes::Bytes;
use tokio::time::Instant;

use super::nats::{Answer, Nats, NatsError};

/// Messages that are on their way at a time.
const IN_FLIGHT: usize = 1_024;
/// How long the server may take to acknowledge a message.
const ACK_WITHIN: Duration = Duration::from_secs(5);

/// Resources of the account, of the server, storage.
const NO_ROOM: [u64; 3] = [10_002, 10_023, 10_047];
/// A limit of the stream, or a fault of its storage.
const NOT_STORED: u64 = 10_077;
const MESSAGE_TOO_LARGE: u64 = 10_054;
const NO_STREAM: u64 = 10_059;
const WRONG_LAST_SEQUENCE: u64 = 10_071;

/// Why a message isn't there, or may not be.
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

/// A message to publish.
#[derive(Debug, Clone)]
pub(super) struct Outgoing {
    subject: String,
    headers: HeaderMap,
    body: Bytes,
}

impl Outgoing {
    pub(super) fn new(subject: String, id: String, body: Bytes) -> Self {
        let mut headers = HeaderMap::new();
        headers.insert(header::NATS_MESSAGE_ID, id);
        Self { subject, headers, body }
    }

    pub(super) fn header(&mut self, name: HeaderName, value: String) {
        self.headers.insert(name, value);
    }
}

/// What the server did with a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Acknowledged {
    pub(super) sequence: u64,
    /// It was there already.
    pub(super) duplicate: bool,
}

/// Why the server didn't take a message, or isn't known to have.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Refused {
    /// There is no stream for it.
    Missing,
    Full,
    TooLarge {
        bytes: usize,
    },
    /// The newest message is another one than expected.
    OutOfOrder,
    Unavailable(String),
}

impl From<Refused> for PublishError {
    fn from(refused: Refused) -> Self {
        match refused {
            Refused::Missing => Self::Unavailable("there is no such stream".into()),
            Refused::Full => Self::Full,
            Refused::TooLarge { bytes } => Self::TooLarge { bytes },
            Refused::OutOfOrder => Self::Unavailable("somebody else published meanwhile".into()),
            Refused::Unavailable(why) => Self::Unavailable(why),
        }
    }
}

impl From<NatsError> for Refused {
    fn from(error: NatsError) -> Self {
        match error {
            NatsError::Unavailable(why) => Self::Unavailable(why),
            error => Self::Unavailable(error.to_string()),
        }
    }
}

/// Publishes all of them in their order, and waits for the acknowledgements side by side.
pub(super) async fn all(nats: &Nats, messages: &[Outgoing]) -> Vec<Result<Acknowledged, Refused>> {
    let mut results = Vec::with_capacity(messages.len());
    let mut waiting: VecDeque<Result<(Instant, Answer), Refused>> = VecDeque::new();
    let mut away = nats.connected(Instant::now() + ACK_WITHIN).await.err();
    for message in messages {
        if waiting.len() >= IN_FLIGHT
            && let Some(first) = waiting.pop_front()
        {
            results.push(acknowledged(first).await);
        }
        let sent = match &away {
            Some(error) => Err(error.clone().into()),
            None => send(nats, message).await,
        };
        if matches!(sent, Err(Refused::Unavailable(_))) && away.is_none() {
            away = Some(NatsError::Unavailable("the connection takes nothing".into()));
        }
        waiting.push_back(sent);
    }
    for one in waiting {
        results.push(acknowledged(one).await);
    }
    results
}

async fn send(nats: &Nats, message: &Outgoing) -> Result<(Instant, Answer), Refused> {
    let bytes = message.body.len();
    if bytes > nats.room() {
        return Err(Refused::TooLarge { bytes });
    }
    if !nats.is_connected() {
        return Err(Refused::Unavailable("not connected".into()));
    }
    let answer = nats.inbox().answer().map_err(|error| error.unavailable())?;
    let sending = OutboundMessage {
        subject: message.subject.as_str().into(),
        reply: Some(answer.subject.as_str().into()),
        headers: Some(message.headers.clone()),
        payload: message.body.clone(),
    };
    nats.send(sending).await?;
    Ok((Instant::now() + ACK_WITHIN, answer))
}

async fn acknowledged(sent: Result<(Instant, Answer), Refused>) -> Result<Acknowledged, Refused> {
    let (until, answer) = sent?;
    let arrived = match tokio::time::timeout_at(until, answer.arrived()).await {
        Ok(Ok(arrived)) => arrived.first,
        Ok(Err(error)) => return Err(error.unavailable().into()),
        Err(_) => return Err(Refused::Unavailable("no acknowledgement in time".into())),
    };
    if arrived.status == Some(StatusCode::NO_RESPONDERS) {
        return Err(Refused::Missing);
    }
    match serde_json::from_slice::<Response<PublishAck>>(&arrived.payload) {
        Ok(Response::Ok(ack)) => {
            Ok(Acknowledged { sequence: ack.sequence, duplicate: ack.duplicate })
        }
        Ok(Response::Err { error }) => Err(refused(error.error_code().0, &error.to_string())),
        Err(_) => Err(Refused::Unavailable("something else than jetstream answers".into())),
    }
}

fn refused(code: u64, description: &str) -> Refused {
    match code {
        NOT_STORED if description.contains("maximum") => Refused::Full,
        code if NO_ROOM.contains(&code) => Refused::Full,
        MESSAGE_TOO_LARGE => Refused::TooLarge { bytes: 0 },
        NO_STREAM => Refused::Missing,
        WRONG_LAST_SEQUENCE => Refused::OutOfOrder,
        _ => Refused::Unavailable(format!("{description} ({code})")),
    }
}
