//! Forks: a run that goes on from any event of another one.

use std::collections::{BTreeMap, HashMap};

use domain::definition::Variant;
use domain::experiment::{Asked, BUDGET_LABEL, CHANGE_LABEL, LABEL};
use domain::ids::RunId;
use domain::run::event::{Adopt, Experiment, RunError, TokenId};
use domain::run::fork::Trial;
use serde::{Deserialize, Serialize};
use serde_json::Value;

pub use domain::experiment::ForkDefinition;

use crate::query::StateAt;
use crate::view::{RunStatus, Usage};

/// What to fork, and what is to be different.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ForkRun {
    pub run_id: RunId,
    pub at: StateAt,
    #[serde(default)]
    pub adopt: Adopt,
    /// Another input.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub input: Option<Value>,
    /// A JSON merge patch (RFC 7386) over `state` on the run's own level.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub state: Option<Value>,
    /// The same over what branches see, by a token of each.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub branches: BTreeMap<TokenId, Value>,
    /// Outcomes of attempts that are under way there, by token.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub outcomes: BTreeMap<TokenId, ForkOutcome>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub definition: Option<ForkDefinition>,
    /// Other labels.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub labels: Option<BTreeMap<String, String>>,
    /// The experiment that it is for. Then it goes on from the run's beginning, whatever `at` says.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub experiment: Option<Box<ForkExperiment>>,
    /// Only say what would happen.
    #[serde(default)]
    pub dry_run: bool,
}

/// What a fork of an experiment may do, and what is different in its run's definition.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ForkExperiment {
    pub experiment: Experiment,
    #[serde(default, skip_serializing_if = "Variant::is_empty")]
    pub variant: Variant,
}

impl ForkRun {
    /// A run's fork for an experiment, which may cost so much.
    pub fn of_experiment(asked: &Asked, run_id: RunId, budget: Option<u64>) -> Self {
        let experiment = Experiment {
            name: asked.name.to_string(),
            allow: asked.allow.clone(),
            max_cost_micros: budget,
        };
        let labels = [
            (LABEL, Some(asked.name.to_string())),
            (CHANGE_LABEL, Some(asked.mark.clone())),
            (BUDGET_LABEL, budget.map(|budget| budget.to_string())),
        ];
        let labels = labels.into_iter().filter_map(|(key, value)| Some((key.to_owned(), value?)));
        let variant = asked.variant.clone();
        Self {
            definition: asked.definition.clone(),
            labels: Some(labels.collect()),
            experiment: Some(Box::new(ForkExperiment { experiment, variant })),
            ..Self::unchanged(run_id, StateAt::Sequence(1))
        }
    }

    /// A fork in which nothing is different.
    pub fn unchanged(run_id: RunId, at: StateAt) -> Self {
        Self {
            run_id,
            at,
            adopt: Adopt::default(),
            input: None,
            state: None,
            branches: BTreeMap::new(),
            outcomes: BTreeMap::new(),
            definition: None,
            labels: None,
            experiment: None,
            dry_run: false,
        }
    }
}

/// An outcome that an attempt is given.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ForkOutcome {
    Result(Value),
    Error(RunError),
}

/// The run that a run was forked from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct ForkedFrom {
    /// `run_…`.
    pub run_id: String,
    /// The last event that both have.
    pub sequence: u64,
}

/// What a fork would do.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct ForkPlan {
    pub forked_from: ForkedFrom,
    /// Where it stands once it has taken over what it can.
    #[schema(value_type = String)]
    pub status: RunStatus,
    /// Outcomes that it takes over, and what their calls cost the other run.
    pub adopted: ForkCalls,
    /// Calls that it makes at once, with the last cost of each.
    pub calls: ForkCalls,
    /// Recorded calls that it doesn't take over, or hasn't come to: they are made again where it
    /// comes to them.
    pub later: ForkCalls,
    /// Open gates.
    pub gates: u64,
    /// Tokens that wait for a time, a signal or a child.
    pub waits: u64,
    /// Live children that fork with it, and theirs: their calls, gates and waits are among these.
    #[serde(default)]
    pub children: u64,
}

/// Calls of a plan: all are counted, the first 1,000 are named.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct ForkCalls {
    pub count: u64,
    #[schema(value_type = Object)]
    pub usage: Usage,
    pub items: Vec<ForkCall>,
}

/// One call.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct ForkCall {
    /// The child that makes it, where a child forks with its parent: the one of the other run.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub run_id: Option<String>,
    pub node: String,
    /// The token: the fork's for what it does at once, else the other run's.
    pub token: u64,
    /// The event of the other run that records its outcome.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sequence: Option<u64>,
    /// What it cost the last time; of a call that was never made, nothing.
    #[schema(value_type = Object)]
    pub usage: Usage,
}

/// Calls that are named.
const NAMED: usize = 1_000;

impl ForkPlan {
    /// What a fork of a run would do, as it was tried.
    pub fn of(from: RunId, sequence: u64, trial: &Trial) -> Self {
        let run = &trial.run;
        let mut plan = Self {
            forked_from: ForkedFrom { run_id: from.to_string(), sequence },
            status: run.status().unwrap_or(RunStatus::Running),
            adopted: ForkCalls::default(),
            calls: ForkCalls::default(),
            later: ForkCalls::default(),
            gates: run.live().map_or(0, |live| live.gates.len() as u64),
            waits: run.live().map_or(0, |live| live.waits.total() - live.gates.len() as u64),
            children: 0,
        };
        let mut last: HashMap<&str, Usage> = HashMap::new();
        let experiment = run.header().and_then(|header| header.experiment.as_deref());
        let recorded = trial.adoption.recorded().iter();
        for one in recorded.filter(|one| one.is_call(experiment)) {
            last.insert(&one.node, one.usage);
            let calls = if one.is_taken { &mut plan.adopted } else { &mut plan.later };
            calls.push(ForkCall {
                run_id: None,
                node: one.node.to_string(),
                token: one.token,
                sequence: Some(one.sequence),
                usage: one.usage,
            });
        }
        for (token, _) in &trial.dispatch {
            let Some((at, _)) = run.working_attempt(*token) else { continue };
            plan.calls.push(ForkCall {
                run_id: None,
                node: at.node.to_string(),
                token: *token,
                sequence: None,
                usage: last.get(&*at.node).copied().unwrap_or_default(),
            });
        }
        plan
    }

    /// Takes in what a child would do that forks with its parent.
    pub fn join(&mut self, child: Self) {
        let run_id = child.forked_from.run_id;
        let calls = [&mut self.adopted, &mut self.calls, &mut self.later];
        for (calls, of_child) in calls.into_iter().zip([child.adopted, child.calls, child.later]) {
            calls.join(of_child, &run_id);
        }
        self.gates += child.gates;
        self.waits += child.waits;
    }
}

impl ForkCalls {
    /// Counts those of a child.
    fn join(&mut self, child: Self, run_id: &str) {
        self.count += child.count;
        self.usage.add(&child.usage);
        let room = NAMED - self.items.len();
        self.items.extend(child.items.into_iter().take(room).map(|call| ForkCall {
            run_id: Some(call.run_id.unwrap_or_else(|| run_id.to_owned())),
            ..call
        }));
    }

    /// Counts one more.
    pub fn push(&mut self, call: ForkCall) {
        self.count += 1;
        self.usage.add(&call.usage);
        if self.items.len() < NAMED {
            self.items.push(call);
        }
    }
}
