//! What two moments of a run differ in, or two runs.

use std::collections::BTreeMap;

use chrono::{DateTime, Utc};
use domain::ids::RunId;
use domain::run::{RunStatus, Usage};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::comparison::DefinitionChange;
use crate::query::StateAt;
use crate::view::RunError;

/// What a run is compared to.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum DiffTo {
    /// Itself, from one moment to another.
    Moments { from: StateAt, to: StateAt },
    /// Another run of the workspace, each as it is now.
    Run(RunId),
}

/// What two moments of a run, or two runs, differ in: the left one and the right one.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct RunDiff {
    pub left: DiffSide,
    pub right: DiffSide,
    /// Of two runs, the first event that leads another way; absent where none does.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub parts: Option<Divergence>,
    /// Of two runs, the first event before that with another value; absent where there is none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub values: Option<Divergence>,
    /// The nodes at which tokens did otherwise, in the order of their names: at most 1,000.
    pub nodes: Vec<NodeDiff>,
    /// How the run's own level of `state` differs, and, by their places, `output` and `input`.
    pub changes: Vec<DefinitionChange>,
    pub changes_left_out: u64,
    /// Of two moments, the events between them, by type.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub events: BTreeMap<String, u64>,
}

/// One of the two.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct DiffSide {
    pub run_id: String,
    /// The last event that is in it, and when it was recorded.
    pub sequence: u64,
    pub at: DateTime<Utc>,
    #[schema(value_type = String)]
    pub status: RunStatus,
    /// The definition that it follows, as `name@version`.
    pub definition: String,
    pub error: Option<RunError>,
    #[schema(value_type = Object)]
    pub usage: Usage,
}

/// Where two histories part.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct Divergence {
    /// The sequence of the event in both.
    pub sequence: u64,
    /// The node that it is about, where it is about one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub node: Option<String>,
    /// The event in each; absent where the history ends before it. A member above 1,000 bytes is
    /// shown as `{"left_out_bytes": n}`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<Object>)]
    pub left: Option<Value>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<Object>)]
    pub right: Option<Value>,
}

/// What tokens did at a node, on each side.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct NodeDiff {
    pub node: String,
    pub left: NodeCounts,
    pub right: NodeCounts,
}

/// What tokens did at a node.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct NodeCounts {
    /// Tokens that came to it.
    pub tokens: u64,
    pub succeeded: u64,
    pub failed: u64,
    pub cancelled: u64,
    /// Attempts of all of them.
    pub attempts: u64,
    #[schema(value_type = Object)]
    pub usage: Usage,
}
