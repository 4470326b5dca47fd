//! What requests, answers and streams look like on the wire, beside their bodies.

use std::time::Duration;

use async_nats::message::OutboundMessage;
use async_nats::{HeaderMap, HeaderName, Message};
use bytes::Bytes;
use tokio::time::Instant;

use super::RequestError;

/// Of a request: milliseconds until its deadline.
const WITHIN: HeaderName = HeaderName::from_static("Within-Ms");
/// Of an answer to the first part of a request: where the other parts go.
pub(super) const REST: HeaderName = HeaderName::from_static("Rest");
/// Of a request for a stream: where its frames go.
pub(super) const DELIVER: HeaderName = HeaderName::from_static("Deliver");
/// Of the answer to a request for a stream: where the reader's signs go.
pub(super) const CONTROL: HeaderName = HeaderName::from_static("Control");
/// Of an answer: why the request was not done.
const REFUSED: HeaderName = HeaderName::from_static("Refused");
/// Of a message of a stream: its frame.
const FRAME: HeaderName = HeaderName::from_static("Frame");

/// The longest deadline; also that of requests without one.
const LONGEST: Duration = Duration::from_secs(3_600);

/// When a deadline is over.
pub(super) fn until(deadline: Duration) -> Instant {
    Instant::now() + deadline.min(LONGEST)
}

/// The headers of a request.
pub(super) fn request(until: Instant) -> HeaderMap {
    let left = until.saturating_duration_since(Instant::now());
    let mut headers = HeaderMap::new();
    headers.insert(WITHIN, left.as_millis().to_string());
    headers
}

/// When the deadline of a request that has just come is over.
pub(super) fn deadline(message: &Message) -> Instant {
    let left = header(message, WITHIN).and_then(|text| text.parse().ok());
    until(left.map_or(LONGEST, Duration::from_millis))
}

pub(super) fn header(message: &Message, name: HeaderName) -> Option<&str> {
    Some(message.headers.as_ref()?.get(name)?.as_str())
}

/// A message with headers.
pub(super) fn outbound(subject: &str, headers: HeaderMap, body: Bytes) -> OutboundMessage {
    let headers = Some(headers);
    OutboundMessage { subject: subject.into(), reply: None, payload: body, headers }
}

/// Why a request was not done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Refusal {
    Overloaded,
    /// The answer is too large; the request was done.
    AnswerTooLarge(usize),
}

impl Refusal {
    pub(super) fn message(self, reply: &str) -> OutboundMessage {
        let text = match self {
            Self::Overloaded => "overloaded".to_owned(),
            Self::AnswerTooLarge(bytes) => bytes.to_string(),
        };
        let mut headers = HeaderMap::new();
        headers.insert(REFUSED, text);
        outbound(reply, headers, Bytes::new())
    }

    pub(super) fn of(message: &Message) -> Option<RequestError> {
        let text = header(message, REFUSED)?;
        Some(match text.parse() {
            Ok(bytes) => RequestError::TooLarge { bytes },
            Err(_) => RequestError::Unavailable("those who answer have too much to do".into()),
        })
    }
}

/// What a message of a stream is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// A message, or the last part of one.
    Whole,
    /// A part of a message; more follow.
    Piece,
    /// A sign of life.
    Beat,
    End,
    /// The server ends it before its end.
    Broken,
}

/// What a message of a stream is, and how many with a body were sent until now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Frame {
    pub(super) kind: Kind,
    /// The own number of one with a body, from 1; else that of the last one.
    pub(super) number: u64,
}

impl Frame {
    pub(super) fn message(self, to: &str, body: Bytes) -> OutboundMessage {
        let kind = match self.kind {
            Kind::Whole => 'w',
            Kind::Piece => 'p',
            Kind::Beat => 'b',
            Kind::End => 'e',
            Kind::Broken => 'x',
        };
        let mut headers = HeaderMap::new();
        headers.insert(FRAME, format!("{kind}{}", self.number));
        outbound(to, headers, body)
    }

    pub(super) fn of(message: &Message) -> Option<Self> {
        let text = header(message, FRAME)?;
        let (kind, number) = text.split_at_checked(1)?;
        let kind = match kind {
            "w" => Kind::Whole,
            "p" => Kind::Piece,
            "b" => Kind::Beat,
            "e" => Kind::End,
            "x" => Kind::Broken,
            _ => return None,
        };
        Some(Self { kind, number: number.parse().ok()? })
    }
}

/// What the reader of a stream tells its server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Sign {
    /// It lives, and takes the frames up to a number.
    Credit(u64),
    /// It is gone.
    Cancel,
}

impl Sign {
    pub(super) fn body(self) -> Bytes {
        match self {
            Self::Credit(number) => number.to_string().into(),
            Self::Cancel => Bytes::from_static(b"cancel"),
        }
    }

    pub(super) fn of(message: &Message) -> Self {
        let text = std::str::from_utf8(&message.payload);
        text.ok().and_then(|text| text.parse().ok()).map_or(Self::Cancel, Self::Credit)
    }
}
