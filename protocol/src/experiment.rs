//! Experiments: forks of many runs with one change, and what they came to.

use domain::experiment::{Begun, Fork, NotForked};
use domain::run::{RunStatus, Usage};
use serde::{Deserialize, Serialize};
use serde_json::Value;

/// What the forks of an experiment came to so far.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct ExperimentReport {
    pub name: String,
    /// As that of its progress: `running`, `ended`, `capped` or `stopped`.
    pub status: String,
    /// Runs that aren't forked yet.
    pub left: u64,
    /// Runs that can't be forked so.
    pub refused: Vec<ExperimentRefusal>,
    pub totals: ExperimentTotals,
    /// Each run with its fork, in the order in which they were forked.
    pub items: Vec<ExperimentRun>,
}

/// Sums over the forks of an experiment.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct ExperimentTotals {
    pub runs: u64,
    /// Forks that go on.
    pub running: u64,
    /// Forks that went the same way, with the same values.
    pub same: u64,
    /// Forks that went the same way with other values.
    pub values: u64,
    /// Forks that went another way.
    pub path: u64,
    /// Of those that have ended, how many ended with another status or code.
    pub ended_otherwise: u64,
    pub outputs_differ: u64,
    pub calls: ExperimentCalls,
    pub usage: ExperimentUsage,
}

/// A run and its fork.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct ExperimentRun {
    /// The run that was forked, and its fork.
    pub run_id: String,
    pub fork_id: String,
    /// The definition that the fork follows, as `name@version`.
    pub definition: String,
    /// `running`, or what became of it: `same`, `values` or `path`.
    pub result: String,
    pub before: ExperimentEnd,
    pub after: ExperimentEnd,
    /// Whether both have the same output.
    pub same_output: bool,
    /// Where it first goes another way.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub parts: Option<ExperimentParting>,
    /// Where it first has another value.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub values: Option<ExperimentParting>,
    pub calls: ExperimentCalls,
    pub usage: ExperimentUsage,
}

/// How a run ended, or where it stands.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct ExperimentEnd {
    #[schema(value_type = String)]
    pub status: RunStatus,
    /// The code and the node of its failure.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub code: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub node: Option<String>,
    /// A value above 1,000 bytes is shown as `{"left_out_bytes": n}`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<Object>)]
    pub output: Option<Value>,
}

/// Where a fork and its run part.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct ExperimentParting {
    pub node: String,
    /// The event of the run by which it left the node; of the fork, where the run wasn't there.
    pub sequence: u64,
    /// What the node led to: `{failed, to}`, absent where it wasn't come to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<Object>)]
    pub before: Option<Value>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<Object>)]
    pub after: Option<Value>,
}

/// Calls of a fork, or of all.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct ExperimentCalls {
    /// Tasks that were done again, and child runs.
    pub made: u64,
    /// Recorded outcomes that were taken over.
    pub adopted: u64,
    /// Effects that weren't allowed: the recorded outcome was given, or the node failed.
    pub stubbed: u64,
    /// Calls that weren't made for their cost.
    pub capped: u64,
}

/// What was used up.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct ExperimentUsage {
    /// By the runs.
    #[schema(value_type = Object)]
    pub before: Usage,
    /// By the forks, if they had taken nothing over.
    #[schema(value_type = Object)]
    pub after: Usage,
    /// By the calls of the forks.
    #[schema(value_type = Object)]
    pub spent: Usage,
}

impl ExperimentCalls {
    /// Adds others.
    pub const fn add(&mut self, other: &Self) {
        self.made += other.made;
        self.adopted += other.adopted;
        self.stubbed += other.stubbed;
        self.capped += other.capped;
    }
}

impl ExperimentTotals {
    /// Counts one more.
    pub fn add(&mut self, run: &ExperimentRun) {
        self.runs += 1;
        match &*run.result {
            "running" => self.running += 1,
            "same" => self.same += 1,
            "values" => self.values += 1,
            _ => self.path += 1,
        }
        if run.after.status.is_terminal() {
            let ends = |end: &ExperimentEnd| (end.status, end.code.clone());
            self.ended_otherwise += u64::from(ends(&run.before) != ends(&run.after));
            self.outputs_differ += u64::from(!run.same_output);
        }
        self.calls.add(&run.calls);
        self.usage.before.add(&run.usage.before);
        self.usage.after.add(&run.usage.after);
        self.usage.spent.add(&run.usage.spent);
    }
}

/// How far an experiment is.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct ExperimentProgress {
    pub name: String,
    /// `running`: it goes on by itself. `ended`: all have ended. `capped`: what is left of the cap
    /// doesn't cover the next run. `stopped`: somebody has stopped it; forks may be about to end.
    pub status: String,
    /// The runs of the set.
    pub runs: u64,
    /// Forks that go on, and runs that aren't forked yet.
    pub running: u64,
    pub left: u64,
    /// What the forks that have ended have cost, in millionths.
    pub spent_micros: u64,
    /// Runs that can't be forked so.
    pub refused: Vec<ExperimentRefusal>,
    pub items: Vec<ExperimentFork>,
    /// The journal position of what happened to it last.
    pub position: u64,
}

impl ExperimentProgress {
    /// How far an experiment is, whose last event has this position.
    pub fn of(begun: &Begun, position: u64) -> Self {
        Self {
            name: begun.asked.name.to_string(),
            status: begun.status.as_str().to_owned(),
            runs: begun.asked.terms.runs.len() as u64,
            running: begun.under_way().count() as u64,
            left: begun.left().count() as u64,
            spent_micros: begun.spent_micros(),
            refused: begun.refused.iter().map(ExperimentRefusal::from).collect(),
            items: begun.forks.iter().map(ExperimentFork::from).collect(),
            position,
        }
    }
}

impl From<&Fork> for ExperimentFork {
    fn from(fork: &Fork) -> Self {
        Self {
            run_id: fork.run_id.to_string(),
            fork_id: fork.fork_id.to_string(),
            status: fork.end.map_or(RunStatus::Running, |end| end.status),
        }
    }
}

impl From<&NotForked> for ExperimentRefusal {
    fn from(refused: &NotForked) -> Self {
        let NotForked { run_id, code, detail } = refused.clone();
        Self { run_id: run_id.to_string(), code, detail }
    }
}

/// A fork of an experiment.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct ExperimentFork {
    pub run_id: String,
    pub fork_id: String,
    #[schema(value_type = String)]
    pub status: RunStatus,
}

/// A run that can't be forked as the experiment asks.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct ExperimentRefusal {
    pub run_id: String,
    pub code: String,
    pub detail: String,
}

/// What an experiment would do.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct ExperimentPlan {
    pub name: String,
    /// Recorded outcomes that are taken over.
    pub adopted: u64,
    /// Recorded calls that may be made again, and what they cost the last time.
    pub calls: u64,
    #[schema(value_type = Object)]
    pub usage: Usage,
    pub refused: Vec<ExperimentRefusal>,
    pub items: Vec<PlannedFork>,
}

/// What the fork of one run would do.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct PlannedFork {
    pub run_id: String,
    /// Where it stands once it has taken over what it can at once.
    #[schema(value_type = String)]
    pub status: RunStatus,
    pub adopted: u64,
    pub calls: u64,
    #[schema(value_type = Object)]
    pub usage: Usage,
}
