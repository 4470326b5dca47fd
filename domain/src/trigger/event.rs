//! What happens to a trigger beside the runs that it starts. Events only grow.

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};

use crate::ids::{Name, RunId, WorkflowId};

/// Which trigger.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct TriggerRef {
    pub workflow_id: WorkflowId,
    pub name: Name,
}

/// An event of a trigger. `type` is the journal's event type; the rest is its payload.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum Event {
    /// A time or an event is done with: its run is there.
    TriggerFired {
        #[serde(flatten)]
        trigger: TriggerRef,
        /// What happened: the scheduled time, or the event's id.
        key: String,
        /// When it was to happen, or happened.
        at: DateTime<Utc>,
        run_id: RunId,
        /// The event's place in the journal, of a trigger by events.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        position: Option<u64>,
    },
    /// A run could not be started; what happened is done with all the same.
    TriggerFailed {
        #[serde(flatten)]
        trigger: TriggerRef,
        /// As above, or the webhook's id, or the message's place and time.
        key: String,
        at: DateTime<Utc>,
        code: String,
        message: String,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        position: Option<u64>,
    },
    /// Scheduled times were missed, and start no run.
    TriggerMissed {
        #[serde(flatten)]
        trigger: TriggerRef,
        first: DateTime<Utc>,
        last: DateTime<Utc>,
    },
    /// All events up to a place in the journal are done with.
    TriggerAdvanced {
        #[serde(flatten)]
        trigger: TriggerRef,
        position: u64,
    },
}

impl Event {
    /// Every event type of a trigger.
    pub const TYPES: [&'static str; 4] =
        ["trigger_fired", "trigger_failed", "trigger_missed", "trigger_advanced"];

    /// The journal's event type.
    pub const fn event_type(&self) -> &'static str {
        match self {
            Self::TriggerFired { .. } => "trigger_fired",
            Self::TriggerFailed { .. } => "trigger_failed",
            Self::TriggerMissed { .. } => "trigger_missed",
            Self::TriggerAdvanced { .. } => "trigger_advanced",
        }
    }

    /// The version of the event's payload.
    pub const fn event_version(&self) -> u32 {
        1
    }

    /// Whose event it is.
    pub const fn trigger(&self) -> &TriggerRef {
        match self {
            Self::TriggerFired { trigger, .. }
            | Self::TriggerFailed { trigger, .. }
            | Self::TriggerMissed { trigger, .. }
            | Self::TriggerAdvanced { trigger, .. } => trigger,
        }
    }
}
