//! Publishing to JetStream: side by side, each acknowledged.

use std::time::Duration;

use async_nats::jetstream::publish::PublishAck;
use async_nats::jetstream::response::Response;
use async_nats::message::OutboundMessage;
use async_nats::{HeaderMap, HeaderName, HeaderValue, Message, StatusCode, header};
use bytes::Bytes;
use tokio::sync::watch;
use tokio::time::Instant;

use super::nats::{Answer, Link, Nats, NatsError};

/// Messages that one acknowledgement stands for.
const GROUP: usize = 256;
/// How long the server may take to acknowledge a message.
const ACK_WITHIN: Duration = Duration::from_secs(5);

/// Resources of the account, of the server, storage.
const NO_ROOM: [u64; 3] = [10_002, 10_023, 10_047];
/// A limit of the stream, or a fault of its storage.
const NOT_STORED: u64 = 10_077;
const MESSAGE_TOO_LARGE: u64 = 10_054;
const NO_STREAM: u64 = 10_059;
const WRONG_LAST_ID: u64 = 10_070;
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

/// A message to publish. It is sent once: who may have to send it again makes it again.
#[derive(Debug)]
pub(super) struct Outgoing {
    subject: String,
    headers: HeaderMap,
    body: Bytes,
}

impl Outgoing {
    pub(super) fn new(subject: String, id: HeaderValue, body: Bytes) -> Self {
        let mut headers = HeaderMap::new();
        headers.insert(header::NATS_MESSAGE_ID, id);
        Self { subject, headers, body }
    }

    /// Of its body.
    pub(super) fn bytes(&self) -> usize {
        self.body.len()
    }

    pub(super) fn header(&mut self, name: HeaderName, value: HeaderValue) {
        self.headers.insert(name, value);
    }
}

/// What became of messages that stand for one another.
pub(super) struct Published {
    /// Of each body.
    pub(super) bytes: Vec<usize>,
    pub(super) result: Result<Acknowledged, Refused>,
}

/// What the server did with a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Acknowledged {
    pub(super) sequence: u64,
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

/// Publishes all of them in their order, in groups of which the last message is acknowledged: the
/// server handles the messages of a connection in their order, and they fare alike but for their
/// sizes. It saves the server and both ends of the connection an answer for each.
///
/// What the server refuses for itself alone (a stream that is full for the larger of two messages)
/// is lost without a word. So it is for queues whose messages are missed by who needs them, and for
/// messages that are taken only after the one before.
pub(super) async fn in_groups(nats: &Nats, messages: Vec<Outgoing>) -> Vec<Published> {
    let mut line = Line { nats, link: nats.link(), connects: nats.connects() };
    let connected = nats.connected(Instant::now() + ACK_WITHIN).await;
    let mut away: Option<Refused> = connected.err().map(Into::into);
    let mut groups = Vec::new();
    let mut messages = messages.into_iter();
    loop {
        let group: Vec<Outgoing> = messages.by_ref().take(GROUP).collect();
        if group.is_empty() {
            break;
        }
        let bytes = group.iter().map(Outgoing::bytes).collect();
        let sent = match &away {
            Some(refused) => Err(refused.clone()),
            None => send_group(nats, group).await,
        };
        // Where the connection takes nothing, it isn't waited for once more with each group.
        if let Err(refused @ Refused::Unavailable(_)) = &sent {
            away = Some(refused.clone());
        }
        groups.push((bytes, sent));
    }
    let mut published = Vec::with_capacity(groups.len());
    for (bytes, sent) in groups {
        published.push(Published { bytes, result: line.acknowledged(sent).await });
    }
    published
}

/// Sends all but what is too large for the connection; the last one is to be acknowledged.
async fn send_group(nats: &Nats, messages: Vec<Outgoing>) -> Result<Sent, Refused> {
    let room = nats.room();
    let largest = messages.iter().map(Outgoing::bytes).max().unwrap_or_default();
    let mut fitting = messages.into_iter().filter(|one| one.bytes() <= room);
    let last = fitting.next_back().ok_or(Refused::TooLarge { bytes: largest })?;
    for message in fitting {
        hand_over(nats, message, None).await?;
    }
    let bytes = last.bytes();
    let answer = nats.inbox().answer().map_err(|error| error.unavailable())?;
    hand_over(nats, last, Some(&answer)).await?;
    Ok(Sent { answer, until: Instant::now() + ACK_WITHIN, bytes })
}

async fn hand_over(nats: &Nats, message: Outgoing, answer: Option<&Answer>) -> Result<(), Refused> {
    if !nats.is_connected() {
        return Err(Refused::Unavailable("not connected".into()));
    }
    let Outgoing { subject, headers, body } = message;
    let sending = OutboundMessage {
        subject: subject.into(),
        reply: answer.map(|answer| answer.subject.as_str().into()),
        headers: Some(headers),
        payload: body,
    };
    Ok(nats.send(sending).await?)
}

/// A message that waits for its acknowledgement.
struct Sent {
    answer: Answer,
    until: Instant,
    bytes: usize,
}

/// The connection that acknowledgements come on; with it they are lost.
struct Line<'a> {
    nats: &'a Nats,
    link: watch::Receiver<Link>,
    connects: u64,
}

impl Line<'_> {
    async fn acknowledged(&mut self, sent: Result<Sent, Refused>) -> Result<Acknowledged, Refused> {
        let Sent { answer, until, bytes } = sent?;
        tokio::select! {
            biased;
            arrived = tokio::time::timeout_at(until, answer.arrived()) => match arrived {
                Ok(arrived) => read(&arrived.map_err(|error| error.unavailable())?.first, bytes),
                Err(_) => Err(Refused::Unavailable("no acknowledgement in time".into())),
            },
            () = self.lost() => Err(Refused::Unavailable("the connection was lost".into())),
        }
    }

    async fn lost(&mut self) {
        while self.nats.is_connected() && self.nats.connects() == self.connects {
            if self.link.changed().await.is_err() {
                return;
            }
        }
    }
}

/// What the server says of a message.
fn read(arrived: &Message, bytes: usize) -> Result<Acknowledged, Refused> {
    if arrived.status == Some(StatusCode::NO_RESPONDERS) {
        return Err(Refused::Missing);
    }
    match serde_json::from_slice::<Response<PublishAck>>(&arrived.payload) {
        Ok(Response::Ok(ack)) => Ok(Acknowledged { sequence: ack.sequence }),
        Ok(Response::Err { error }) => {
            Err(refused(error.error_code().0, &error.to_string(), bytes))
        }
        Err(_) => Err(Refused::Unavailable("something else than jetstream answers".into())),
    }
}

fn refused(code: u64, description: &str, bytes: usize) -> Refused {
    match code {
        NOT_STORED if description.contains("maximum") => Refused::Full,
        code if NO_ROOM.contains(&code) => Refused::Full,
        MESSAGE_TOO_LARGE => Refused::TooLarge { bytes },
        NO_STREAM => Refused::Missing,
        WRONG_LAST_ID | WRONG_LAST_SEQUENCE => Refused::OutOfOrder,
        _ => Refused::Unavailable(format!("{description} ({code})")),
    }
}
