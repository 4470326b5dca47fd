//! Legal holds: runs of which nothing may be dropped, whoever asks, until they are released.
//!
//! A hold is an aggregate of its own, under the run's id, so that a run's last event stays its end,
//! and a run that is archived can be told from one that was only held once. At most one hold is on
//! a run at a time.

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};

use crate::codec::{self, DecodeError};

/// The aggregate type in the journal; ids are those of runs.
pub const AGGREGATE: &str = "hold";

/// What happened to a hold. `type` is the journal's event type; the rest is its payload.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum Event {
    /// Nothing of the run is dropped from here on.
    RunHeld { reason: String },
    /// The run may be archived again.
    RunReleased {
        #[serde(default, skip_serializing_if = "Option::is_none")]
        reason: Option<String>,
    },
}

/// A hold that is on a run.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hold {
    pub reason: String,
    pub by: String,
    pub at: DateTime<Utc>,
}

impl Event {
    /// Every event type.
    pub const TYPES: [&'static str; 2] = ["run_held", "run_released"];

    /// The journal's event type.
    pub const fn event_type(&self) -> &'static str {
        match self {
            Self::RunHeld { .. } => "run_held",
            Self::RunReleased { .. } => "run_released",
        }
    }

    /// The version of the event's payload.
    pub const fn event_version(&self) -> u32 {
        1
    }
}

impl Hold {
    /// The hold that is on a run after an event, as it is stored: a type, a version, a payload and
    /// metadata, which names who did it; recorded at a time.
    ///
    /// # Errors
    /// Where what is stored is no event of a hold.
    pub fn after(
        (event_type, event_version): (&str, u32),
        payload: &[u8],
        metadata: &[u8],
        at: DateTime<Utc>,
    ) -> Result<Option<Self>, DecodeError> {
        #[derive(Deserialize)]
        struct By {
            actor: String,
        }
        let event: Event = codec::decode(event_type, event_version, payload, &|_| None)?;
        let By { actor: by } = serde_json::from_slice(metadata).map_err(|error| {
            DecodeError::Damaged { event_type: event_type.to_owned(), reason: error.to_string() }
        })?;
        Ok(match event {
            Event::RunHeld { reason } => Some(Self { reason, by, at }),
            Event::RunReleased { .. } => None,
        })
    }
}
