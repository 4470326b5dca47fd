//! A run bundle as it is handed on: in parts, each of some lines. The form is
//! [`domain::bundle`]'s; its last line is added by whoever puts the parts together.

use std::collections::{BTreeSet, VecDeque};

use domain::bundle::Manifest;
use domain::ids::RunId;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

/// What is asked for.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum BundleFrom {
    /// The first part, of a bundle that is made at this time.
    Start { at: chrono::DateTime<chrono::Utc> },
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
