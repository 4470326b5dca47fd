//! The services on the far side of the bus, as the traits that the edge calls.
//!
//! A call is asked again where that can't do anything twice: where nobody took it, where the far
//! side says that it doesn't own the run, and, since commands are remembered by their ids, where
//! no answer came. So a restart or a move on the far side costs a client time, and no failure.

mod audit;
mod commands;
mod ephemeral;
mod events;
mod logs;
mod queries;

use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use chassis::bus::{Nats, RequestError};
use chassis::pauses::Pauses;
use protocol::remote::{Answer, CALL_DEADLINE, NOT_OWNER};
use protocol::{Rejection, RejectionKind};
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::time::Instant;

/// Requests that a call's time is cut into: one without an answer is asked again, because its
/// far side may have died with it.
const ATTEMPTS: u32 = 3;
/// What the call's deadline leaves for the rest of a request.
const RESERVE: Duration = Duration::from_secs(4);
/// Code of the refusal of an answer that the bus doesn't carry.
const TOO_LARGE: &str = "answer_too_large";
const FIRST_PAUSE: Duration = Duration::from_millis(20);
const LONGEST_PAUSE: Duration = Duration::from_millis(500);

/// The write side and the read side, asked over NATS. Clones share the connection.
#[derive(Clone)]
pub struct Remote {
    nats: Nats,
    patience: Duration,
    /// When it was last said that somebody listens to ephemeral messages.
    said: Arc<Mutex<Option<Instant>>>,
}

impl Remote {
    /// Asks over this connection, each call for at most 26 s, so that the edge can still answer
    /// within its own 30.
    pub fn new(nats: Nats) -> Self {
        let patience = CALL_DEADLINE.saturating_sub(RESERVE);
        Self { nats, patience, said: Arc::default() }
    }

    /// The same, asking each call for at most so long. A wait has its own time; a stream that
    /// broke off is given up after this.
    #[must_use]
    pub fn with_patience(mut self, patience: Duration) -> Self {
        self.patience = patience;
        self
    }

    /// Asks until there is an answer, or the patience is at its end.
    async fn ask<T: DeserializeOwned>(
        &self,
        subject: &str,
        call: &impl Serialize,
        effect: Effect,
    ) -> Result<T, Rejection> {
        let body = encoded(call)?;
        let (end, longest) = (Instant::now() + self.patience, self.patience / ATTEMPTS);
        let (mut pauses, mut in_doubt) = (fresh_pauses(), false);
        loop {
            let within = longest.min(end.saturating_duration_since(Instant::now()));
            let why = match self.ask_once(subject, body.clone(), within).await {
                Asked::Answered(answer) => return answer,
                Asked::NotDone(why) => why,
                Asked::Unknown(why) => {
                    in_doubt |= matches!(effect, Effect::Writes);
                    why
                }
            };
            let pause = pauses.next_pause();
            if Instant::now() + pause >= end {
                tracing::warn!(subject, error = %why, "no answer over the bus");
                return Err(unanswered(in_doubt));
            }
            repeated(&why);
            tokio::time::sleep(pause).await;
        }
    }

    async fn ask_once<T: DeserializeOwned>(
        &self,
        subject: &str,
        body: Bytes,
        within: Duration,
    ) -> Asked<T> {
        let answer = match self.nats.request(subject, body, within).await {
            Ok(answer) => answer,
            Err(error @ (RequestError::NoResponders(_) | RequestError::Unavailable(_))) => {
                return Asked::NotDone(error.into());
            }
            Err(RequestError::TooLarge { bytes }) => {
                return Asked::Answered(Err(too_large(bytes)));
            }
            Err(error @ RequestError::Timeout) => return Asked::Unknown(error.into()),
        };
        match decoded(&answer) {
            Err(rejection) if rejection.code == NOT_OWNER => Asked::NotDone(Why::NotOwner),
            answer => Asked::Answered(answer),
        }
    }
}

/// What a call may leave behind.
#[derive(Clone, Copy)]
enum Effect {
    Reads,
    Writes,
}

/// What one request came to.
enum Asked<T> {
    Answered(Answer<T>),
    /// Nobody did it.
    NotDone(Why),
    /// It may have been done, and may still be.
    Unknown(Why),
}

/// Why a request is repeated.
#[derive(Debug, thiserror::Error)]
enum Why {
    #[error(transparent)]
    Request(#[from] RequestError),
    #[error("the run has moved to another owner")]
    NotOwner,
}

/// The pauses between requests.
const fn fresh_pauses() -> Pauses {
    Pauses::new(FIRST_PAUSE, LONGEST_PAUSE)
}

fn repeated(why: &Why) {
    let cause = match why {
        Why::NotOwner => "not_owner",
        Why::Request(RequestError::NoResponders(_)) => "no_responders",
        Why::Request(RequestError::Timeout) => "timeout",
        Why::Request(_) => "unavailable",
    };
    metrics::counter!("wonder_calls_repeated_total", "cause" => cause).increment(1);
}

fn unanswered(in_doubt: bool) -> Rejection {
    if in_doubt {
        let message = "the answer took too long; the command may still take effect: repeat it \
                       with the same idempotency-key";
        return Rejection::new(RejectionKind::Unavailable, "timeout", message);
    }
    unavailable("the service that does this is away at the moment: try again")
}

fn unavailable(message: &str) -> Rejection {
    Rejection::new(RejectionKind::Unavailable, "unavailable", message)
}

/// What a client sends is bounded far below what the bus carries: it is the answer.
fn too_large(bytes: usize) -> Rejection {
    let message =
        format!("the answer has {bytes} bytes, more than one may have: ask for less at a time");
    Rejection::new(RejectionKind::TooLarge, TOO_LARGE, message)
}

fn encoded(call: &impl Serialize) -> Result<Bytes, Rejection> {
    serde_json::to_vec(call).map(Bytes::from).map_err(|error| unreadable("a call", &error))
}

fn decoded<T: DeserializeOwned>(answer: &[u8]) -> Answer<T> {
    serde_json::from_slice(answer).unwrap_or_else(|error| Err(unreadable("an answer", &error)))
}

fn unreadable(what: &str, error: &serde_json::Error) -> Rejection {
    let message = format!("{what} over the bus has an unknown form: {error}");
    Rejection::new(RejectionKind::Internal, "internal", message)
}
