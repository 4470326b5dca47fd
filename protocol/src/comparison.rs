//! Two versions of a definition compared, with recorded runs of the first one rehearsed by the
//! second.

use domain::definition::{Definition, Problem};
use domain::ids::DefinitionId;
use serde::{Deserialize, Serialize};
use serde_json::Value;

/// Runs that a comparison rehearses at most.
pub const REHEARSED_RUNS: u32 = 500;

/// What is to be compared.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Compare {
    pub definition_id: DefinitionId,
    /// The version that runs were recorded of.
    pub from: u64,
    pub to: ComparedTo,
    /// How many of the newest runs that have ended are rehearsed: 0 to [`REHEARSED_RUNS`].
    pub runs: u32,
    /// The position of the journal that runs and references are known to, at least.
    #[serde(default)]
    pub min_position: Option<u64>,
}

/// What a version is compared to.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ComparedTo {
    /// Another version.
    Version(u64),
    /// A definition that isn't published.
    Definition(Box<Definition>),
}

/// What two versions of a definition differ in, and what that would have meant to recorded runs.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct Comparison {
    /// `wfd_…`.
    pub definition_id: String,
    pub from: u64,
    /// The other version; absent where a definition was given that isn't published.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub to: Option<u64>,
    /// The differences, at most 5,000.
    pub changes: Vec<DefinitionChange>,
    /// How many there are beyond those.
    pub changes_left_out: u64,
    pub rehearsal: RehearsalView,
}

/// One difference of two definitions.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct DefinitionChange {
    /// `added`, `removed`, `changed`, or `moved` (a transition that comes at another place among
    /// those of its node).
    pub kind: String,
    /// JSON Pointer into the new definition; of what was removed, into the old one.
    pub pointer: String,
    /// The place in the old definition, where it is another one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub from_pointer: Option<String>,
    /// The transition that it is about, as in `draft -> review`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub transition: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub before: Option<Value>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub after: Option<Value>,
}

/// What became of recorded runs by the other version.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct RehearsalView {
    /// Runs that were rehearsed: the newest that have ended.
    pub runs: u64,
    /// Those of them that come out the same.
    pub same: u64,
    /// Those that go the same way with other values.
    pub values: u64,
    /// Each that doesn't come out the same, and where first.
    pub parted: Vec<PartedRun>,
    /// Runs that could not be rehearsed.
    pub not_rehearsed: Vec<NotRehearsed>,
}

/// A run that doesn't come out the same.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct PartedRun {
    pub run_id: String,
    /// `path`: it goes another way. `refused`: its input is refused. `values`: it goes the same way,
    /// with other values.
    pub kind: String,
    /// The sequence of the first event that is another one.
    pub sequence: u64,
    /// The node that it is about, where it is about one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub node: Option<String>,
    /// The event that stands there, `type` and payload; absent where the history ends before it.
    /// Instead of a large member stands `{"left_out_bytes": …}`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<Object>)]
    pub recorded: Option<Value>,
    /// The event that is decided instead; absent where none is, as where the version needs what the
    /// history doesn't have.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<Object>)]
    pub decided: Option<Value>,
    /// What is wrong with the input, of one that is refused.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schema(value_type = Vec<Object>)]
    pub problems: Vec<Problem>,
}

/// A run that could not be rehearsed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct NotRehearsed {
    pub run_id: String,
    /// The reason, in words.
    pub why: String,
}
