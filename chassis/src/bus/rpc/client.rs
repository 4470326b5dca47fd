//! Asking.

use async_nats::message::OutboundMessage;
use async_nats::{HeaderMap, StatusCode};
use bytes::Bytes;
use tokio::time::Instant;

use super::RequestError;
use super::wire::{self, Refusal};
use crate::bus::nats::{Answer, Arrived, LARGEST, Nats, NatsError, NotArrived, split};

impl From<NatsError> for RequestError {
    fn from(error: NatsError) -> Self {
        Self::Unavailable(match error {
            NatsError::Unavailable(why) => why,
            error => error.to_string(),
        })
    }
}

/// Asks, and waits for the answer until the deadline. `deliver` is where the frames of a stream
/// are to go.
pub(super) async fn ask(
    nats: &Nats,
    below: &str,
    body: Bytes,
    deliver: Option<&str>,
    until: Instant,
) -> Result<Arrived, RequestError> {
    if body.len() > LARGEST {
        return Err(RequestError::TooLarge { bytes: body.len() });
    }
    nats.connected(until).await?;
    let subject = nats.subject(below);
    let mut parts = split(&body, nats.room());
    let in_parts = parts.len() > 1;
    let Some((part, piece)) = parts.next() else {
        return Err(RequestError::TooLarge { bytes: body.len() });
    };
    let mut headers = wire::request(until);
    if in_parts {
        let (name, value) = part.header();
        headers.insert(name, value);
    }
    if let Some(deliver) = deliver {
        headers.insert(wire::DELIVER, deliver);
    }
    let answer = place(nats)?;
    send(nats, &subject, &answer, headers, piece).await?;
    let arrived = wait(below, answer, until).await?;
    if !in_parts {
        return Ok(arrived);
    }
    let Some(rest) = wire::header(&arrived.first, wire::REST) else {
        return Err(RequestError::Unavailable("it was answered before it was whole".into()));
    };
    let answer = place(nats)?;
    for (part, piece) in parts {
        let mut headers = HeaderMap::new();
        let (name, value) = part.header();
        headers.insert(name, value);
        send(nats, rest, &answer, headers, piece).await?;
    }
    wait(below, answer, until).await
}

fn place(nats: &Nats) -> Result<Answer, RequestError> {
    nats.inbox().answer().map_err(|error| error.unavailable().into())
}

async fn send(
    nats: &Nats,
    subject: &str,
    answer: &Answer,
    headers: HeaderMap,
    body: Bytes,
) -> Result<(), RequestError> {
    let reply = Some(answer.subject.as_str().into());
    let message = OutboundMessage { reply, ..wire::outbound(subject, headers, body) };
    Ok(nats.send(message).await?)
}

async fn wait(below: &str, answer: Answer, until: Instant) -> Result<Arrived, RequestError> {
    let arrived = match tokio::time::timeout_at(until, answer.arrived()).await {
        Ok(Ok(arrived)) => arrived,
        // It was sent, and nobody knows more.
        Ok(Err(NotArrived::Closed | NotArrived::Torn | NotArrived::Full)) | Err(_) => {
            return Err(RequestError::Timeout);
        }
    };
    if arrived.first.status == Some(StatusCode::NO_RESPONDERS) {
        return Err(RequestError::NoResponders(below.to_owned()));
    }
    match Refusal::of(&arrived.first) {
        Some(refused) => Err(refused),
        None => Ok(arrived),
    }
}
