//! Experiments as events hold them: what a fork that belongs to one may do.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

/// The experiment that a fork belongs to. What has an effect outside that it doesn't allow isn't
/// done: the recorded outcome of the node is given, or the node fails as `stubbed`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Experiment {
    pub name: String,
    /// The effects that it may have all the same.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub allow: BTreeSet<Effect>,
    /// What the calls of this fork may cost, in millionths: where the next one would go beyond, by
    /// what its node has cost before, it fails as `cost_cap`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_cost_micros: Option<u64>,
}

/// What a run does to others.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Effect {
    /// HTTP requests with a method that isn't `GET`, `HEAD` or `OPTIONS`.
    Http,
    /// Child runs, with all that they do.
    Workflow,
    /// Events and metrics that are emitted: whether triggers, subscribers and metrics are told.
    Emit,
    /// Gates: whether people are asked.
    Gate,
    /// Signals: whether they are waited for.
    Signal,
}

impl Experiment {
    /// Whether it doesn't allow an effect.
    pub fn keeps_from(&self, effect: Effect) -> bool {
        !self.allow.contains(&effect)
    }
}
