//! A run bundle as it is handed on: in parts, each of some lines. The form is
//! [`domain::bundle`]'s; its last line is added by whoever puts the parts together.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use chrono::{DateTime, Utc};
use domain::bundle::Manifest;
use domain::definition::Definition;
use domain::ids::RunId;
use domain::run::event::{Adopt, TokenId};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use serde_json::value::RawValue;

use crate::difference::Divergence;
use crate::fork::ForkPlan;
use crate::query::StateAt;
use crate::view::{RunError, RunStatus, Usage, WaitingItem};

/// What is asked for.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum BundleFrom {
    /// The first part, of a bundle that is made at this time.
    Start { at: DateTime<Utc> },
    /// The part after another one.
    Next(Box<BundleCursor>),
}

/// Lines of a bundle.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct BundlePart {
    /// Of 4 MiB together, or one that is larger.
    pub lines: Vec<Box<RawValue>>,
    /// What to ask for next; absent after the last part.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next: Option<Box<BundleCursor>>,
}

/// What is in a bundle.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct BundleView {
    #[serde(flatten)]
    pub manifest: Manifest,
    /// The run that was asked for, and then its children and theirs.
    pub runs: Vec<BundledRun>,
    /// Of runs.
    pub events: u64,
    /// Values that stand apart from events.
    pub values: u64,
    /// Definitions and other things that runs refer to: `<kind>/<id>@<version>`.
    pub referred: Vec<String>,
    /// Child runs that were started and aren't in it.
    pub children_left_out: u64,
}

/// A run of a bundle, after its last event.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct BundledRun {
    pub run_id: String,
    pub status: RunStatus,
    /// `<name>@<version>`.
    pub definition: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub parent_run_id: Option<String>,
    /// Its last event.
    pub sequence: u64,
    pub started_at: DateTime<Utc>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ended_at: Option<DateTime<Utc>>,
    /// Only of the run that was asked for, as is the output.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub input: Option<Value>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub output: Option<Value>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<RunError>,
    pub usage: Usage,
}

/// What a run of a bundle would do from a moment on, with something different.
#[derive(Debug, Clone, PartialEq)]
pub struct BundleFork {
    pub at: StateAt,
    pub adopt: Adopt,
    /// Another input.
    pub input: Option<Value>,
    /// A JSON merge patch over `state` on the run's own level.
    pub state: Option<Value>,
    /// The same over what branches see, by a token of each.
    pub branches: BTreeMap<TokenId, Value>,
    /// Results of attempts that are under way there, by token.
    pub results: BTreeMap<TokenId, Value>,
    /// Another definition, which refers to nothing but what the run has pinned.
    pub definition: Option<Box<Definition>>,
}

/// What came of a fork that was decided in memory.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ForkTrial {
    #[serde(flatten)]
    pub plan: ForkPlan,
    /// Child runs that it would start.
    pub children: u64,
    /// Where it parts from the run (`left`), by the run's events; absent where it goes the same
    /// way. Without `right` it stands still there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub parts: Option<Divergence>,
    /// The first other value before that.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub values: Option<Divergence>,
    /// What it waits for then.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub waiting: Vec<WaitingItem>,
    /// Where it came to its end: what it gave, or what it failed with.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub output: Option<Value>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<RunError>,
}

/// Where a bundle goes on.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct BundleCursor {
    pub manifest: Manifest,
    /// The manifest was given.
    pub is_begun: bool,
    /// Runs whose events weren't all given; the first one is at `sequence`.
    pub runs: VecDeque<RunId>,
    pub sequence: u64,
    /// How many lines were given of those that the next event comes with.
    pub skip: usize,
    /// How many runs were begun or are to come.
    pub taken: usize,
    /// What runs refer to and was given: `<kind>/<id>@<version>`.
    pub referred: BTreeSet<String>,
}

impl BundleCursor {
    /// The beginning of a bundle.
    pub fn new(manifest: Manifest) -> Self {
        let runs = VecDeque::from([manifest.run_id]);
        let (is_begun, sequence, skip, taken) = (false, 0, 0, 1);
        Self { manifest, is_begun, runs, sequence, skip, taken, referred: BTreeSet::new() }
    }
}
