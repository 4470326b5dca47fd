//! Gates as events hold them: what people are asked, what they answer, and what it comes to.

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::{RunError, TokenId};

/// See [`super::Event::GateOpened`].
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct GateOpened {
    pub token: TokenId,
    pub node: String,
    pub title: String,
    /// JSON Schema of the value that an answer brings.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub form: Option<Value>,
    /// Who may answer; where neither assignees nor roles are named, everybody.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub assignees: Vec<String>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub roles: Vec<String>,
    /// Approvals that it takes.
    pub approvals: u32,
    /// Rejections from which on it is rejected.
    pub rejections: u32,
    /// Who may not answer, since they started the run.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub not_by: Option<String>,
    /// When its time is up.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub deadline: Option<DateTime<Utc>>,
}

/// See [`super::Event::GateAnswered`].
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct GateAnswered {
    pub token: TokenId,
    pub actor: String,
    pub decision: Decision,
    #[serde(default, skip_serializing_if = "Value::is_null")]
    pub value: Value,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub comment: Option<String>,
    pub at: DateTime<Utc>,
}

/// See [`super::Event::GateClosed`].
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct GateClosed {
    pub token: TokenId,
    pub outcome: GateOutcome,
    /// The node's result; absent where nobody waits for it any more.
    #[serde(default, skip_serializing_if = "Value::is_null")]
    pub result: Value,
    #[serde(default, skip_serializing_if = "Map::is_empty")]
    pub writes: Map<String, Value>,
    /// The node failed with this.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<RunError>,
}

/// What somebody answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Decision {
    Approve,
    Reject,
}

/// What a gate came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum GateOutcome {
    Approved,
    Rejected,
    TimedOut,
    /// Its branch was given up before it was answered. (Where the whole run ends, that end is
    /// what closes its gates.)
    Cancelled,
}

impl GateOutcome {
    /// The text in JSON.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Approved => "approved",
            Self::Rejected => "rejected",
            Self::TimedOut => "timed_out",
            Self::Cancelled => "cancelled",
        }
    }
}
