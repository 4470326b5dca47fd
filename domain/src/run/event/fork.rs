//! Forks as events hold them.

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::{Admission, DefinitionRef, Experiment, Pin, TokenId};
use crate::ids::RunId;

/// Where a run was forked from, as its first event says. The events up to that place are those of
/// the other run, with the times at which they happened to it; `run_forked` comes after them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct ForkedFrom {
    pub run_id: RunId,
    /// The last event that both have.
    pub sequence: u64,
    /// When it was forked.
    pub at: DateTime<Utc>,
}

/// Which outcomes that the other run recorded after the fork are taken over, where an attempt of
/// the fork asks for the same.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Adopt {
    /// All of them, attempt by attempt: an unchanged fork does what the other run did.
    #[default]
    All,
    /// All of them, and also what people answered, and what signals and times came to.
    Outside,
    /// What succeeded; what failed is tried again.
    Successes,
    None,
}

/// A change of what a branch has written.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct BranchPatch {
    /// A token of the branch.
    pub token: TokenId,
    /// A JSON merge patch.
    pub patch: Value,
}

/// A child run that was waited for where its parent was forked: what waits for it in the fork waits
/// for a fork of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ForkedChild {
    /// The token that waits for it, in both runs.
    pub token: TokenId,
    /// The child of the other run, and its last event by then.
    pub run_id: RunId,
    pub sequence: u64,
    /// The children that it waited for itself.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub children: Vec<ForkedChild>,
}

/// See [`super::Event::RunForked`].
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct RunForked {
    /// The fork; up to here its events call it as the other run is called.
    pub run_id: RunId,
    /// The other run, and the last event that both have.
    pub from: RunId,
    pub sequence: u64,
    /// Outcomes that the other run recorded after that may be adopted, up to this event of it.
    pub until: u64,
    pub adopt: Adopt,
    /// Since when timers stood still: they are due later by the time since then.
    pub since: DateTime<Utc>,
    /// When the run times out, where its clock starts here.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub deadline: Option<DateTime<Utc>>,
    /// Who forked it, and so started this run.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub forked_by: Option<String>,
    /// Another input.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub input: Option<Value>,
    /// A JSON merge patch (RFC 7386) over `state` on the run's own level.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub state: Option<Value>,
    /// The same over what branches have written themselves.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub branches: Vec<BranchPatch>,
    /// Tokens whose attempt was given another outcome; it follows as their attempt's own.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub outcomes: Vec<TokenId>,
    /// Another definition, with the versions that its references were resolved to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub definition: Option<DefinitionRef>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub pins: Vec<Pin>,
    /// What its own admission goes by, where its definition bounds its runs: it waits for its turn
    /// from here on, and stands still until `run_admitted`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub admission: Option<Box<Admission>>,
    /// The experiment that it belongs to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub experiment: Option<Box<Experiment>>,
    /// Children that fork as well; others that it waits for are started anew.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub children: Vec<ForkedChild>,
}
