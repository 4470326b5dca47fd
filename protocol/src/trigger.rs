//! Triggers as lists and reads show them.

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use serde_json::Value;

/// The trigger that started a run, and what happened.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct RunTrigger {
    /// `wf_…`.
    pub workflow_id: String,
    pub name: String,
    /// `webhook`, `schedule`, `event` or `message`.
    pub kind: String,
    /// The scheduled time, the event's or the message's, or that of the request.
    pub at: DateTime<Utc>,
    /// The webhook's id, the scheduled time, the event's id, or the message's place and time.
    pub key: String,
    /// How many runs are before it in a chain in which each is started by an event of the one
    /// before.
    #[serde(default)]
    pub depth: u32,
}

/// A trigger of a workflow, with what has come of it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct TriggerView {
    pub workflow_id: String,
    pub name: String,
    /// `webhook`, `schedule`, `event` or `message`.
    pub kind: String,
    /// Whether it and its workflow are enabled.
    pub enabled: bool,
    /// As the workflow has it.
    #[schema(value_type = Object)]
    pub spec: Value,
    /// The next time of a schedule that is enabled.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next_at: Option<DateTime<Utc>>,
    /// Runs that it has started.
    pub runs: u64,
    /// Of the last one: what it was started for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_at: Option<DateTime<Utc>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_run_id: Option<String>,
    /// How often a run could not be started.
    pub failures: u64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_error: Option<TriggerError>,
    /// The latest times that were missed and started nothing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_missed: Option<MissedTimes>,
}

/// Why a run could not be started.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct TriggerError {
    pub code: String,
    pub message: String,
    /// When it was to start, or what it was to start for happened.
    pub at: DateTime<Utc>,
    pub key: String,
}

/// Times of a schedule in a row.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct MissedTimes {
    pub first: DateTime<Utc>,
    pub last: DateTime<Utc>,
}
