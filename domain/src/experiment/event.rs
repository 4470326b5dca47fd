//! What happens to an experiment. Events only grow.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::definition::{Definition, Variant};
use crate::ids::{Name, RunId, WorkspaceId};
use crate::run::RunStatus;
use crate::run::event::Effect;

/// An event of an experiment. `type` is the journal's event type; the rest is its payload.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum Event {
    /// It was asked for the first time.
    ExperimentStarted(Box<Asked>),
    /// It goes on, under these terms; runs that were refused are tried again.
    ExperimentChanged(Box<Terms>),
    /// A fork is made, and may cost so much: that isn't given out again until it has ended.
    ExperimentForkBegun {
        run_id: RunId,
        fork_id: RunId,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        budget_micros: Option<u64>,
    },
    /// It can't be made.
    ExperimentForkRefused { run_id: RunId, code: String, detail: String },
    /// It has ended, and has cost so much.
    ExperimentForkEnded { run_id: RunId, status: RunStatus, cost_micros: u64 },
    /// Somebody has stopped it: no more forks are made, and those that go on are cancelled.
    ExperimentStopped,
    /// There is nothing more to do.
    ExperimentEnded { status: Rest },
}

/// How an experiment has come to rest by itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Rest {
    /// All of its forks have ended.
    Ended,
    /// So have those that were made, and what is left of the cap doesn't cover the next run.
    Capped,
}

/// What is tried, and on which runs.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Asked {
    pub workspace_id: WorkspaceId,
    pub name: Name,
    /// What tells one change, with what its forks may do, from another one.
    pub mark: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub definition: Option<ForkDefinition>,
    #[serde(default, skip_serializing_if = "Variant::is_empty")]
    pub variant: Variant,
    /// The effects that forks may have all the same.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub allow: BTreeSet<Effect>,
    pub terms: Terms,
}

/// What may be another one when an experiment is asked for again.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Terms {
    /// Who asks: the forks are made for them.
    pub by: String,
    /// The runs, in the order in which they are forked.
    pub runs: Vec<Tried>,
    /// What the runs were found by.
    #[serde(default, rename = "where", skip_serializing_if = "Option::is_none")]
    pub filter: Option<Value>,
    /// Forks that go on at the same time.
    pub at_once: usize,
    /// What all forks together may cost, in millionths.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_cost_micros: Option<u64>,
}

/// A run that is tried again, and what it has cost.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tried {
    pub run_id: RunId,
    pub cost_micros: u64,
}

/// Another definition than that of the run that is forked.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ForkDefinition {
    /// One of the project: `name` or `name@version`.
    Named(String),
    /// One that comes with the command. It is published as that of a start is, once the fork can be
    /// made; of an experiment under a name of its own ([`Definition::for_experiment`]).
    Inline(Box<Definition>),
}

impl Event {
    /// Every event type.
    pub const TYPES: [&'static str; 7] = [
        "experiment_started",
        "experiment_changed",
        "experiment_fork_begun",
        "experiment_fork_refused",
        "experiment_fork_ended",
        "experiment_stopped",
        "experiment_ended",
    ];

    /// The journal's event type.
    pub const fn event_type(&self) -> &'static str {
        match self {
            Self::ExperimentStarted(_) => "experiment_started",
            Self::ExperimentChanged(_) => "experiment_changed",
            Self::ExperimentForkBegun { .. } => "experiment_fork_begun",
            Self::ExperimentForkRefused { .. } => "experiment_fork_refused",
            Self::ExperimentForkEnded { .. } => "experiment_fork_ended",
            Self::ExperimentStopped => "experiment_stopped",
            Self::ExperimentEnded { .. } => "experiment_ended",
        }
    }

    /// The version of the event's payload.
    pub const fn event_version(&self) -> u32 {
        1
    }
}

impl Terms {
    /// Whether these are the same as others. What the runs were found by stands for them: they are
    /// found once.
    pub fn are_like(&self, other: &Self) -> bool {
        let runs = |terms: &Self| -> BTreeSet<RunId> {
            terms.runs.iter().map(|tried| tried.run_id).collect()
        };
        (self.at_once, self.max_cost_micros) == (other.at_once, other.max_cost_micros)
            && match (&self.filter, &other.filter) {
                (Some(own), Some(others)) => own == others,
                (None, None) => runs(self) == runs(other),
                (Some(_), None) | (None, Some(_)) => false,
            }
    }
}
