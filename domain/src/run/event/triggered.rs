//! The trigger that started a run, as its first event holds it.

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};

use crate::ids::{Name, WorkflowId};
use crate::trigger::TriggerKind;

/// Which trigger, and what happened.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TriggeredBy {
    pub workflow_id: WorkflowId,
    pub name: Name,
    pub kind: TriggerKind,
    /// When it was to happen, or happened: the scheduled time, the event's, or that of the request.
    pub at: DateTime<Utc>,
    /// What happened: the webhook's id, the scheduled time, or the event's id.
    pub key: String,
    /// How many runs are before it in a chain in which each is started by an event of the one
    /// before.
    #[serde(default, skip_serializing_if = "is_first")]
    pub depth: u32,
}

fn is_first(depth: &u32) -> bool {
    *depth == 0
}
