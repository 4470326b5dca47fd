//! Legal holds: runs of which nothing may be dropped, whoever asks, until they are released.
//!
//! A hold is an aggregate of its own, under the run's id, so that a run's last event stays its end,
//! and a run that is archived can be told from one that was only held once. At most one hold is on
//! a run at a time.

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};

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

    /// The hold that is on the run after it, where somebody did it at a time.
    pub fn hold(self, by: &str, at: DateTime<Utc>) -> Option<Hold> {
        match self {
            Self::RunHeld { reason } => Some(Hold { reason, by: by.to_owned(), at }),
            Self::RunReleased { .. } => None,
        }
    }
}
