//! Why a run is where it is: what was considered, what was taken, what is waited for. From recorded
//! events only.

use chrono::{DateTime, Utc};
use domain::run::RunStatus;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::query::StateAt;
use crate::view::{RunError, WaitingItem};

/// Tokens that one answer explains: the newest ones.
pub const EXPLAINED_TOKENS: usize = 20;

/// What is to be explained.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Explain {
    /// This token.
    pub token: Option<u64>,
    /// The newest tokens at this node, and the ways that lead to it.
    pub node: Option<String>,
    /// As it was then.
    pub at: StateAt,
}

/// Why a run is where it is.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct Explanation {
    pub run_id: String,
    /// The last event that was looked at.
    pub sequence: u64,
    #[schema(value_type = String)]
    pub status: RunStatus,
    /// How the run stands, or why it ended, in a sentence.
    pub why: String,
    pub error: Option<RunError>,
    /// What led there: the last failures, and the end; at most 20, oldest first.
    pub because: Vec<Fact>,
    /// What the run waits for, up to 20 entries; see `GET /runs/{id}/waiting`.
    pub waiting: Vec<WaitingItem>,
    pub waiting_left_out: u64,
    /// The tokens that were asked for, newest first, at most 20.
    pub tokens: Vec<TokenExplanation>,
    pub tokens_left_out: u64,
    /// The transitions that lead to the node that was asked for.
    pub ways: Vec<Way>,
}

/// What an event says, in words.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct Fact {
    pub sequence: u64,
    pub at: DateTime<Utc>,
    pub what: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub token: Option<u64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub node: Option<String>,
}

/// Why a token is where it is, and what became of it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct TokenExplanation {
    pub token: u64,
    pub node: String,
    /// The group and branch index, where the token is a branch.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub group: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub index: Option<u64>,
    /// As in the timeline: `working`, `waiting`, `succeeded`, `failed`, `cancelled` …
    pub status: String,
    pub came: Came,
    /// What happened at the node, oldest first; of more than 30 events the last ones.
    pub did: Vec<Fact>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub waits_for: Option<WaitingItem>,
    /// How it left the node.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub left: Option<Left>,
    /// The join of the group that it is a branch of.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub join: Option<JoinExplanation>,
}

/// How a token came to its node.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct Came {
    /// `start`, `transition`, `branch` (of a fan-out), `join` or `undo`.
    pub by: String,
    /// The event that made it.
    pub sequence: u64,
    /// The token that it came from; of an undo, the one whose work it undoes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub from_token: Option<u64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub from_node: Option<String>,
    /// The transition that was taken.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub taken: Option<Looked>,
    /// The join that fired.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub join: Option<JoinExplanation>,
}

/// How a token left its node.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct Left {
    /// The routing event.
    pub sequence: u64,
    /// How the node had ended: `success` or `failure`.
    pub outcome: String,
    /// The failure went up: no transition took it.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub failed: bool,
    /// Every transition from the node, in the order in which they are looked at.
    pub transitions: Vec<Looked>,
}

/// A transition, and what became of it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct Looked {
    /// Its place in the definition, from 0.
    pub transition: u16,
    pub from: String,
    pub to: String,
    /// Its tier: `priority` in the definition.
    pub tier: i32,
    /// The outcome that it is for: `success`, `failure`, `timeout` or `rejected`.
    pub on: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub when: Option<String>,
    /// `fired`; `not_held` (its condition didn't); `earlier_tier` (one before it held, so it was not
    /// looked at); `other_outcome` (the node ended otherwise).
    pub verdict: String,
    /// What its condition read, by path. A value above 256 bytes is `{"$size": n}`.
    #[serde(default, skip_serializing_if = "Map::is_empty")]
    #[schema(value_type = Object)]
    pub read: Map<String, Value>,
    /// What it led to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub led_to: Option<LedTo>,
}

/// What a transition that fired led to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct LedTo {
    /// The token at the next node, where it is one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub token: Option<u64>,
    /// The group instance: whose branches were made, or whose join the token arrived at.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub instance: Option<u64>,
    /// Branches that were made.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub branches: Option<u64>,
    /// The token arrived at the join.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub arrived: bool,
    /// Too late: the join had fired, or the branch had arrived.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub late: bool,
    /// How often the lineage had taken the transition then, where that is limited.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub iteration: Option<u32>,
}

/// The arithmetic of a join.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct JoinExplanation {
    pub instance: u64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub group: Option<String>,
    /// The node that it leads to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub node: Option<String>,
    /// `waits`, `fired`, `failed`, `ended` (without a join) or `cancelled`.
    pub verdict: String,
    /// The event that decided it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sequence: Option<u64>,
    /// Branches that are expected.
    pub expected: u64,
    pub arrived: u64,
    pub failed: u64,
    /// Ended without arriving.
    pub ended: u64,
    /// How many the join needs; absent without one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub needed: Option<u64>,
    /// It fired because its time was up.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub timed_out: bool,
    /// The token whose transition completed the group.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub completed_by: Option<u64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<RunError>,
}

/// A transition that leads to a node, and what became of it at the last token that left where it
/// begins.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct Way {
    pub transition: u16,
    pub from: String,
    /// Tokens that have left the node where it begins, and how many of them took it.
    pub left: u64,
    pub taken: u64,
    /// The last of them, and what became of the transition there; absent where none has left.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub token: Option<u64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sequence: Option<u64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last: Option<Looked>,
}
