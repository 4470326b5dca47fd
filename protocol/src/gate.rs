//! Gates: their ids, and how lists and reads show them.

use std::fmt;
use std::str::FromStr;

use chrono::{DateTime, Utc};
use domain::ids::RunId;
use domain::run::event::TokenId;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_json::Value;

/// A gate: the run, and the token that stands at it, as in `run_….7`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct GateId {
    pub run_id: RunId,
    pub token: TokenId,
}

/// Why a text isn't a [`GateId`].
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is no gate: write run_ and 26 characters, a dot, and the number of the token")]
pub struct InvalidGateId(pub String);

impl FromStr for GateId {
    type Err = InvalidGateId;

    fn from_str(text: &str) -> Result<Self, InvalidGateId> {
        let invalid = || InvalidGateId(text.chars().take(80).collect());
        let (run_id, token) = text.split_once('.').ok_or_else(invalid)?;
        let is_plain = token.bytes().all(|b| b.is_ascii_digit()) && !token.starts_with('0');
        let token = token.parse().ok().filter(|_| is_plain).ok_or_else(invalid)?;
        Ok(Self { run_id: run_id.parse().map_err(|_| invalid())?, token })
    }
}

impl fmt::Display for GateId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.run_id, self.token)
    }
}

impl Serialize for GateId {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for GateId {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = std::borrow::Cow::<'de, str>::deserialize(deserializer)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

/// Whether a gate takes answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum GateStatus {
    Open,
    Closed,
}

impl GateStatus {
    /// The text in JSON.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Open => "open",
            Self::Closed => "closed",
        }
    }
}

/// Which gates, of one workspace.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct GateFilter {
    pub status: Option<GateStatus>,
    /// Only those that name this assignee.
    pub assignee: Option<String>,
    /// Only those that name this role.
    pub role: Option<String>,
    pub workflow_id: Option<String>,
    pub run_id: Option<String>,
}

/// A gate as lists and reads show it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct GateView {
    /// `run_….<token>`.
    pub id: String,
    pub workspace_id: String,
    pub run_id: String,
    /// The token at the gate, counted within the run.
    pub token: u64,
    pub node: String,
    pub project_id: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub workflow_id: Option<String>,
    /// The definition's name.
    pub definition: String,
    pub title: String,
    /// `open` or `closed`.
    #[schema(value_type = String)]
    pub status: GateStatus,
    /// `approved`, `rejected`, `timed_out`, or `cancelled` where its branch or run ended first.
    pub outcome: Option<String>,
    /// JSON Schema of an answer's value.
    #[schema(value_type = Option<Object>)]
    pub form: Option<Value>,
    /// Who may answer; where neither assignees nor roles are named, everybody.
    pub assignees: Vec<String>,
    pub roles: Vec<String>,
    /// Approvals that it takes.
    pub approvals: u32,
    /// Rejections from which on it is rejected.
    pub rejections: u32,
    /// Who may not answer, since they started the run.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub not_by: Option<String>,
    /// When its time is up, if the run isn't paused meanwhile.
    pub deadline: Option<DateTime<Utc>>,
    pub answers: Vec<GateAnswerView>,
    pub opened_at: DateTime<Utc>,
    pub closed_at: Option<DateTime<Utc>>,
}

/// An answer to a gate.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct GateAnswerView {
    pub actor: String,
    /// `approve` or `reject`.
    pub decision: String,
    #[schema(value_type = Object)]
    pub value: Value,
    pub comment: Option<String>,
    pub at: DateTime<Utc>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hostile_text_is_a_gate_as_it_was_given_or_refused() {
        let valid = ["run_01900000000000000000000000.7", "run_0000000000000000000000000c.100000"];
        graphs::holds(1_000, graphs::hostile_text(&valid), |text| match text.parse::<GateId>() {
            Ok(gate) => assert_eq!(gate.to_string(), text),
            Err(InvalidGateId(shown)) => assert!(text.starts_with(&shown)),
        });
    }

    #[test]
    fn a_gate_has_one_text() {
        let of = |token: &str| format!("run_01900000000000000000000000.{token}").parse::<GateId>();
        assert_eq!(of("7").map(|gate| gate.token), Ok(7));
        for bad in ["", "0", "07", "+7", "-7", "7 ", "7.7", "18446744073709551616", "٧"] {
            assert!(of(bad).is_err(), "{bad}");
        }
    }
}
