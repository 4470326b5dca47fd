//! Admission as events hold it: what a run's start goes by, why it waits, and when it may go.

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};

use crate::definition::Overflow;
use crate::ids::WorkflowId;

/// What the admission of a run goes by, evaluated over its input when it was started. Runs of one
/// definition with the same key, whatever their versions, share a queue.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Admission {
    /// The value of `concurrency.key`, as a text; absent where the definition gives none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key: Option<String>,
    /// How many runs with the key may go on at the same time.
    pub limit: u32,
    #[serde(default, skip_serializing_if = "Overflow::is_queue")]
    pub then: Overflow,
    #[serde(default, skip_serializing_if = "is_zero")]
    pub priority: i32,
    /// The place in the queue, smallest first: when it was started, moved forward by its priority.
    pub rank: DateTime<Utc>,
}

fn is_zero(number: &i32) -> bool {
    *number == 0
}

/// Why a run waits for its admission.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "reason", rename_all = "snake_case")]
pub enum QueueReason {
    /// As many runs with its key go on as may, or others have come before it.
    Concurrency {
        #[serde(default, skip_serializing_if = "Option::is_none")]
        key: Option<String>,
        limit: u32,
        /// How many runs of the queue were ahead of it at that moment, counted up to
        /// [`crate::limits::AHEAD_COUNTED`] where it didn't come last.
        ahead: u64,
    },
    /// Its workflow is paused.
    WorkflowPaused { workflow_id: WorkflowId },
}
