//! Child runs as events hold them.

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::{RunError, TokenId};
use crate::ids::RunId;
use crate::run::state::RunStatus;

/// The run that a child was started by.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct ParentRun {
    pub run_id: RunId,
    /// The token that waits for the child.
    pub token: TokenId,
    /// The run at the top, which nobody's node started.
    pub root_run_id: RunId,
    /// How many runs are above it: 1 for a child of the run at the top.
    pub depth: u32,
}

/// See [`super::Event::ChildStarted`].
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ChildStarted {
    pub token: TokenId,
    pub run_id: RunId,
    /// `name` or `name@version`, as the node gave it. The version that it meant stands in the
    /// child's own `run_started`.
    pub definition: String,
    /// When the node gives the child up.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub deadline: Option<DateTime<Utc>>,
}

/// See [`super::Event::ChildEnded`].
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ChildEnded {
    pub token: TokenId,
    pub run_id: RunId,
    /// How it ended; `failed` also where it could not be started.
    pub status: RunStatus,
    /// It hasn't ended: the node's time was up, and the child is given up.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub given_up: bool,
    /// The node's result, where it succeeds.
    #[serde(default, skip_serializing_if = "Value::is_null")]
    pub result: Value,
    #[serde(default, skip_serializing_if = "Map::is_empty")]
    pub writes: Map<String, Value>,
    /// What the node's `undo` gets, where the run may have to undo it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub undo: Option<Value>,
    /// The node's failure, where it fails.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<RunError>,
    /// No child ran: the run that this one was forked from has recorded it as this event.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub adopted: Option<u64>,
}
