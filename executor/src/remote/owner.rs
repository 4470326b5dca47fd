//! Asks the owner of a run's shard.

use std::time::Duration;

use bytes::Bytes;
use chassis::bus::{Nats, RequestError};
use chassis::pauses::Pauses;
use protocol::remote::{Answer, shard_commands};
use protocol::{Rejection, RejectionKind};
use serde::de::DeserializeOwned;

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub(super) enum Unanswered {
    /// The shard has no owner at the moment, or it is busy moving: ask again.
    #[error("the owner of the run is away: {0}")]
    Away(String),
    #[error("the call is too large: {0}")]
    TooLarge(String),
    #[error("the call was refused: {0}")]
    Refused(String),
}

impl From<RequestError> for Unanswered {
    fn from(error: RequestError) -> Self {
        match error {
            RequestError::TooLarge { .. } => Self::TooLarge(error.to_string()),
            RequestError::NoResponders(_)
            | RequestError::Timeout
            | RequestError::Unavailable(_) => Self::Away(error.to_string()),
        }
    }
}

impl From<Rejection> for Unanswered {
    fn from(rejection: Rejection) -> Self {
        match rejection.kind {
            RejectionKind::Unavailable | RejectionKind::Overloaded => {
                Self::Away(rejection.to_string())
            }
            RejectionKind::TooLarge => Self::TooLarge(rejection.to_string()),
            _ => Self::Refused(rejection.to_string()),
        }
    }
}

/// Asks a shard's owner once.
pub(super) async fn ask<T: DeserializeOwned>(
    nats: &Nats,
    shard: u16,
    call: Bytes,
    within: Duration,
) -> Result<T, Unanswered> {
    let answer = nats.request(&shard_commands(shard), call, within).await?;
    let answer: Answer<T> = serde_json::from_slice(&answer)
        .map_err(|error| Unanswered::Refused(format!("the answer has an unknown form: {error}")))?;
    Ok(answer?)
}

/// The pauses before the same is asked again.
pub(super) const fn pauses() -> Pauses {
    Pauses::new(Duration::from_millis(50), Duration::from_secs(2))
}
