//! Views: what queries answer. All of them are folds of events.

use std::collections::BTreeMap;

use chrono::{DateTime, Utc};
use domain::resource::Kind;
use serde::{Deserialize, Serialize};
use serde_json::Value;

pub use domain::run::state::{WaitKind, WaitKinds};
pub use domain::run::{RunStatus, Usage};

use crate::fork::ForkedFrom;
use crate::retention::{RunArchived, RunHeld};
use crate::trigger::RunTrigger;

/// A resource as lists and reads show it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ResourceView {
    pub id: String,
    pub kind: Kind,
    pub workspace_id: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub project_id: Option<String>,
    pub name: String,
    /// The aggregate's version: what `If-Match` names. Revisions of the spec count from 1.
    pub version: u64,
    pub archived: bool,
    pub created_at: DateTime<Utc>,
    pub updated_at: DateTime<Utc>,
    /// The kind's own fields.
    pub spec: Value,
}

/// A run as lists and reads show it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct RunView {
    /// `run_…`.
    pub id: String,
    pub workspace_id: String,
    pub project_id: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub workflow_id: Option<String>,
    #[schema(value_type = String)]
    pub status: RunStatus,
    /// What a run that has not ended waits for, each kind once: `task`, `timer`, `retry`,
    /// `signal`, `gate`, `child`, `mutex`, or `queue` (its turn).
    #[serde(default, skip_serializing_if = "WaitKinds::is_empty")]
    #[schema(value_type = Vec<String>)]
    pub waiting_on: WaitKinds,
    pub definition: DefinitionRef,
    #[schema(value_type = Object)]
    pub input: Value,
    #[schema(value_type = Option<Object>)]
    pub output: Option<Value>,
    pub error: Option<RunError>,
    pub labels: BTreeMap<String, String>,
    /// The run's last event.
    pub sequence: u64,
    /// The journal position of the run's last event that this view knows.
    pub position: u64,
    pub started_at: DateTime<Utc>,
    pub ended_at: Option<DateTime<Utc>>,
    #[schema(value_type = Object)]
    pub usage: Usage,
    /// The run that it is a child of.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub parent_run_id: Option<String>,
    /// The run at the top, of a child.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub root_run_id: Option<String>,
    /// How far the run has undone its work, where it has to. A run with the status `running`,
    /// `waiting` or `paused` is still at it, and ends when nothing remains.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub compensation: Option<CompensationView>,
    /// The trigger that started it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub trigger: Option<RunTrigger>,
    /// The run that it was forked from.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub forked_from: Option<ForkedFrom>,
    /// What is left of it, where content of its events was dropped.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub archived: Option<RunArchived>,
    /// The hold that is on it: nothing of it is dropped.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub held: Option<RunHeld>,
    /// The run that it does again.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rerun_of: Option<String>,
}

/// How far a run has undone its work.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct CompensationView {
    /// How the run ends: `failed`, `cancelled` or `timed_out`.
    pub cause: String,
    /// Completions that are to be undone.
    pub total: u64,
    pub undone: u64,
    /// Those whose undo failed for good.
    pub failed: u64,
    pub remaining: u64,
    /// The first 20 of those that failed, known when the run has ended.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub failures: Vec<UndoFailureView>,
}

/// A completion that could not be undone.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct UndoFailureView {
    pub node: String,
    /// The token that had completed the node.
    pub undoes: u64,
    /// The token of its undo.
    pub token: u64,
    pub code: String,
    pub message: String,
}

/// Which version of which definition.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct DefinitionRef {
    /// `wfd_…`.
    pub id: String,
    pub name: String,
    pub version: u64,
    /// SHA-256 of the canonical definition, hexadecimal.
    pub hash: String,
}

/// Why a run did not complete.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct RunError {
    pub code: String,
    pub message: String,
    /// `transient`, `permanent`, `timeout`, `policy` or `cancelled`.
    pub kind: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub node: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub attempt: Option<u32>,
    #[serde(default, skip_serializing_if = "Value::is_null")]
    #[schema(value_type = Object)]
    pub detail: Value,
}

impl From<&domain::run::RunError> for RunError {
    fn from(error: &domain::run::RunError) -> Self {
        Self {
            code: error.code.clone(),
            message: error.message.clone(),
            kind: error.kind.as_str().to_owned(),
            node: error.node.clone(),
            attempt: error.attempt,
            detail: error.detail.clone(),
        }
    }
}

/// How a run ended.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct RunOutcome {
    pub status: RunStatus,
    pub output: Option<Value>,
    pub error: Option<RunError>,
    pub usage: Usage,
    /// The run's last event.
    pub sequence: u64,
    /// The journal position of that event.
    pub position: u64,
    pub ended_at: DateTime<Utc>,
}

/// A run at a moment, by the engine's own fold.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct RunState {
    pub run_id: String,
    /// The last event that is in it.
    pub sequence: u64,
    /// When that event was recorded.
    pub at: DateTime<Utc>,
    #[schema(value_type = String)]
    pub status: RunStatus,
    /// The whole state: tokens, groups, state values, counters. See `domain::run::Run`.
    #[schema(value_type = Object)]
    pub state: Value,
}

/// A run's history, decided again from what came from outside.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct Verification {
    pub run_id: String,
    /// Whether the same events were decided again, all of them.
    pub verified: bool,
    /// Events that are the same, up to the first difference.
    pub events: u64,
    /// The first event that differs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub difference: Option<HistoryDifference>,
}

/// See [`Verification::difference`].
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct HistoryDifference {
    /// The sequence of the event.
    pub sequence: u64,
    /// The event that stands there, `type` and payload; absent where the history ends before it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<Object>)]
    pub recorded: Option<Value>,
    /// The event that is decided now; absent where nothing is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<Object>)]
    pub decided: Option<Value>,
}

/// One node's work for one token, folded from its events.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct TimelineEntry {
    /// The token, counted within the run.
    pub token: u64,
    pub node: String,
    /// The group and branch index, where the token is a branch.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub group: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub index: Option<u64>,
    /// `queued` (the run waits for its turn), `working`, `backing_off`, `waiting`, `blocked`, `gated`, `awaiting_child`, `succeeded`,
    /// `failed`, `cancelled`.
    pub status: String,
    pub attempts: u32,
    pub started_at: DateTime<Utc>,
    pub ended_at: Option<DateTime<Utc>>,
    /// The worker's own measure of the last attempt.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub duration_ms: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error: Option<RunError>,
    /// The token whose completion of the node it undoes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub undoes: Option<u64>,
    /// The child run of a `workflow` node.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub child_run_id: Option<String>,
    #[schema(value_type = Object)]
    pub usage: Usage,
    /// First and last event (sequence) of the entry.
    pub first_sequence: u64,
    pub last_sequence: u64,
}

/// What a run waits for.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct Waiting {
    pub run_id: String,
    /// The last event that is in it.
    pub sequence: u64,
    /// `queued`, `running`, `waiting` (nothing is on a worker), `paused`, or how the run ended.
    #[schema(value_type = String)]
    pub status: RunStatus,
    /// Why and since when the run stands still.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pause: Option<WaitingPause>,
    /// How far the run has undone its work, while it does.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub compensation: Option<CompensationView>,
    /// When the run times out.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub deadline: Option<DateTime<Utc>>,
    /// One entry for each live token, then one for each open group; at most 1,000.
    pub items: Vec<WaitingItem>,
    /// How many there are beyond those.
    pub left_out: u64,
}

/// A run that stands still until it is resumed.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct WaitingPause {
    pub since: DateTime<Utc>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}

/// What one token, or one open group, waits for.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct WaitingItem {
    /// The token, counted within the run; absent for a group.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub token: Option<u64>,
    /// Where the token stands; of a group, where its join leads.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub node: Option<String>,
    /// The group and branch index, where the token is a branch; the group itself otherwise.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub group: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub index: Option<u64>,
    /// `task`, `retry`, `timer`, `signal`, `gate`, `mutex`, `child`, `coordinator`, `branches`, or
    /// `queue` (the whole run waits for its turn).
    #[serde(rename = "for")]
    pub what: String,
    /// Who or what can bring it, in words.
    pub by: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub since: Option<DateTime<Utc>>,
    /// When it ends by itself: a retry, a time, a time-out.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub until: Option<DateTime<Utc>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub attempt: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub signal: Option<String>,
    /// The token whose completion of the node is undone.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub undoes: Option<u64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub child_run_id: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub gate: Option<WaitingGate>,
    /// The queue that the run waits in.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub queue: Option<WaitingQueue>,
    /// The mutex that the token waits for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mutex: Option<WaitingMutex>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub branches: Option<WaitingBranches>,
}

/// A gate that a token stands at.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct WaitingGate {
    pub id: String,
    pub title: String,
    pub assignees: Vec<String>,
    pub roles: Vec<String>,
    /// How many have approved so far, and have to.
    pub approved: u32,
    pub approvals: u32,
    /// How many have rejected so far, and from how many on it is rejected.
    pub rejected: u32,
    pub rejections: u32,
}

/// A queue that a run waits in.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct WaitingQueue {
    /// `concurrency`: as many runs with its key go on as may. `rate_limit`: as many have begun in the
    /// period as may. `workflow_paused`: its workflow is.
    pub reason: String,
    /// The key that runs are counted by, where the definition gives one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key: Option<String>,
    /// How many runs with the key may go on at the same time, or begin in the period.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub limit: Option<u32>,
    /// The period of a rate, as `1m`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub period: Option<String>,
    /// How many runs of the queue are before it, as the read model has it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ahead: Option<u64>,
    /// When it may begin at the earliest, as it stood when it began to wait for its rate.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub not_before: Option<DateTime<Utc>>,
}

/// A mutex that a token waits for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct WaitingMutex {
    pub name: String,
    /// The token that has it.
    pub held_by: Option<u64>,
    /// How many came earlier and wait too.
    pub ahead: u64,
}

/// The numbers of an open group.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct WaitingBranches {
    pub declared: u64,
    pub arrived: u64,
    pub failed: u64,
    /// Ended without arriving.
    pub ended: u64,
    pub outstanding: u64,
    /// How many its join needs.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub needed: Option<u64>,
}
