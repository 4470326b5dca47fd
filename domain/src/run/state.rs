//! The folded state of a run: tokens, group instances, state values, timers.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::event::{
    Admission, DefinitionRef, Experiment, ForkedChild, InstanceId, OpenedBranches, ParentRun, Pin,
    RunError, TokenId, TransitionIndex, Usage,
};
use super::vars::Vars;
use crate::definition::{FailedPolicy, JoinSpec, JoinWait};
use crate::ids::{ProjectId, RunId, WorkflowId};
use crate::limits;

mod closed;
mod compensation;
mod fork;
mod mutex;
mod status;
mod waiting;
mod waits;

pub use closed::Closed;
pub use compensation::{Compensating, Completion, Undo};
pub use fork::Fork;
pub use mutex::Mutex;
pub use status::RunStatus;
pub use waiting::{Answer, Gate, InQueue, KeptSignal, Pause, Signals};
pub use waits::{WaitKind, WaitKinds, Waits};

/// A run. `Default` is the run before its first event.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Run {
    #[default]
    NotStarted,
    Live(Box<Live>),
    Closed(Box<Closed>),
}

/// Version of the shape of [`Run`]: a snapshot of another one is not used.
pub const STATE_VERSION: u32 = 9;

/// What stays the same from a run's start to its end.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Header {
    pub run_id: RunId,
    pub project_id: ProjectId,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub workflow_id: Option<WorkflowId>,
    pub definition: DefinitionRef,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub pins: Vec<Pin>,
    pub input: Arc<Value>,
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub labels: BTreeMap<String, String>,
    pub started_at: DateTime<Utc>,
    /// Who started it; absent in older runs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub started_by: Option<String>,
    /// The run that it is a child of.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub parent: Option<ParentRun>,
    /// What its admission goes by, where its definition bounds its runs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub admission: Option<Admission>,
    /// How many events it shares with the run that it was forked from, where it is a fork.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub shares: Option<u64>,
    /// The run that it was forked from, and what of it may be adopted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fork: Option<Fork>,
    /// The experiment that it belongs to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub experiment: Option<Arc<Experiment>>,
}

/// A run that goes on.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Live {
    pub header: Header,
    /// `state` on the run's own level. Branches lay their own over a frozen copy.
    pub root: Vars,
    /// The live tokens, boxed: a map of one, which most runs have, has room for eleven.
    pub tokens: BTreeMap<TokenId, Box<Token>>,
    /// The group instances with branches that aren't through.
    pub instances: BTreeMap<InstanceId, Instance>,
    /// Branches of theirs that are declared and not made yet.
    pub unmade: u64,
    pub next_token: TokenId,
    pub next_instance: InstanceId,
    /// What is armed: retries, waits, gates, joins and the run's own time-out.
    pub timers: BTreeSet<(DateTime<Utc>, Timer)>,
    /// How many tokens wait for a time, people, a signal, a mutex or a child.
    #[serde(default, skip_serializing_if = "Waits::is_empty")]
    pub waits: Waits,
    /// Those of them that stand at an open gate.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub gates: BTreeSet<TokenId>,
    /// The child runs that are waited for, by the token that waits.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub children: BTreeMap<TokenId, RunId>,
    #[serde(default, skip_serializing_if = "Signals::is_empty")]
    pub signals: Signals,
    /// The mutexes that are held or waited for, by name.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub mutexes: BTreeMap<String, Mutex>,
    /// Since when and why the run waits for its admission, while it does: nothing of it is owed.
    /// Its first token stands at the start node, or it is a fork, whose tokens and timers stand
    /// still.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub in_queue: Option<InQueue>,
    /// Since when and why the run stands still, while it does.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pause: Option<Pause>,
    /// What can be undone, in the order in which it was completed.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub completions: Vec<Completion>,
    /// Bytes of their inputs.
    pub completions_bytes: usize,
    /// Why and how far the run undoes its work, while it does.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub compensation: Option<Box<Compensating>>,
    pub usage: Usage,
    /// Events so far.
    pub events: u64,
    /// When the last event was recorded.
    pub at: DateTime<Utc>,
}

/// What a timer is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Timer {
    Run,
    Join(InstanceId),
    Retry(TokenId),
    /// Of a `wait` node, a gate, or a wait for a child.
    Wait(TokenId),
}

/// A position in the graph.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Token {
    pub node: Arc<str>,
    /// The branch that it belongs to; absent on the run's own level.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub branch: Option<Branch>,
    /// What the branch wrote to `state`; empty on the run's own level.
    #[serde(default, skip_serializing_if = "Vars::is_empty")]
    pub vars: Vars,
    /// The branch's item of a `foreach`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub item: Option<Arc<Value>>,
    /// How often its lineage took the transitions that are limited.
    #[serde(default, skip_serializing_if = "no_taken")]
    pub taken: Taken,
    /// The failure whose transition led here: `error` in the node's expressions.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<Box<RunError>>,
    /// What it undoes; absent of a token that does its node's own work.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub undo: Option<Box<Undo>>,
    pub phase: Phase,
    /// Since when it is in this phase.
    pub since: DateTime<Utc>,
    /// How often it was recorded that the attempt was handed to a worker.
    #[serde(default, skip_serializing_if = "is_never")]
    pub handed_out: u32,
}

const fn is_never(times: &u32) -> bool {
    *times == 0
}

/// Counts by transition, shared between tokens.
pub type Taken = Arc<BTreeMap<TransitionIndex, u32>>;

fn no_taken(taken: &Taken) -> bool {
    taken.is_empty()
}

/// A branch of a group instance.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Branch {
    pub instance: InstanceId,
    pub index: u64,
}

/// What a token is doing.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Phase {
    /// The node's work is owed: by a worker, or (`compute`) by the coordinator.
    Working { attempt: u32 },
    /// The next attempt starts at this time.
    BackingOff { attempt: u32, until: DateTime<Utc> },
    /// It waits until a time, or for a signal (and then until it times out).
    Waiting { until: Option<DateTime<Utc>>, signal: Option<Arc<str>> },
    /// It waits for its turn at a mutex.
    Blocked { mutex: Arc<str>, turn: u64 },
    /// It waits for people.
    Gated { gate: Box<Gate> },
    /// It waits for the end of a child run, which runs this definition, or is a fork of another.
    AwaitingChild {
        run_id: RunId,
        definition: Arc<str>,
        until: Option<DateTime<Utc>>,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        fork_of: Option<Arc<ForkedChild>>,
    },
    /// The node is done and its token not yet routed.
    Succeeded { result: Option<Arc<Value>> },
    /// The node failed and its token isn't yet routed.
    Failed { error: Box<RunError> },
}

/// One fan-out: the branches of one parent token.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Instance {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub group: Option<String>,
    pub parent: Parent,
    pub branches: Vec<OpenedBranches>,
    pub declared: u64,
    pub spawned: u64,
    /// What arrived, by branch index.
    pub arrived: BTreeMap<u64, Option<Arc<Value>>>,
    pub failed: BTreeSet<u64>,
    /// Branches that ended without arriving.
    pub ended: BTreeSet<u64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub first_error: Option<Box<RunError>>,
    /// Live parts beyond the first of branches that have several.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub extra_parts: BTreeMap<u64, u32>,
    /// The join has fired; the branches still out go on, and arrive too late.
    pub fired: bool,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub deadline: Option<DateTime<Utc>>,
    /// How the parent's node ended, for as long as branches are made: `foreach` may read its
    /// result, and the branches its error.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cause: Option<Phase>,
    /// What added branches that are not made yet begin with, by branch index.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub added: BTreeMap<u64, Added>,
    /// How often the lineages of its branches took the limited transitions, the most of each.
    #[serde(default, skip_serializing_if = "no_taken")]
    pub taken: Taken,
    /// Bytes of the values that arrived.
    pub arrived_bytes: usize,
}

/// What a branch begins with that was added to an open group.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Added {
    /// Its item of a `foreach`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub item: Option<Arc<Value>>,
    /// How often the lineage of the token that added it took the transitions that are limited.
    #[serde(default, skip_serializing_if = "no_taken")]
    pub taken: Taken,
}

/// What the parent token of a fan-out was, for its branches and for the join's token.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Parent {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub branch: Option<Branch>,
    /// The parent level's `state` at the fan-out: what the branches see beneath their own.
    pub vars: Vars,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub item: Option<Arc<Value>>,
    #[serde(default, skip_serializing_if = "no_taken")]
    pub taken: Taken,
}

impl Run {
    /// Where the run stands; `None` before its first event.
    pub fn status(&self) -> Option<RunStatus> {
        match self {
            Self::NotStarted => None,
            Self::Live(live) => Some(live.status()),
            Self::Closed(closed) => Some(closed.status),
        }
    }

    /// What stays the same over the run; `None` before its first event.
    pub fn header(&self) -> Option<&Header> {
        match self {
            Self::NotStarted => None,
            Self::Live(live) => Some(&live.header),
            Self::Closed(closed) => Some(&closed.header),
        }
    }

    /// The run while it goes on.
    pub fn live(&self) -> Option<&Live> {
        match self {
            Self::Live(live) => Some(live),
            Self::NotStarted | Self::Closed(_) => None,
        }
    }

    /// Whether the run stands still until it is resumed.
    pub fn is_paused(&self) -> bool {
        self.live().is_some_and(|live| live.pause.is_some())
    }

    /// Whether the run waits for its admission.
    pub fn is_in_queue(&self) -> bool {
        self.live().is_some_and(|live| live.in_queue.is_some())
    }

    /// When the run's next timer is due.
    pub fn next_due(&self) -> Option<DateTime<Utc>> {
        self.live()?.next_due()
    }

    /// What was used up so far.
    pub fn usage(&self) -> Usage {
        match self {
            Self::NotStarted => Usage::default(),
            Self::Live(live) => live.usage,
            Self::Closed(closed) => closed.usage,
        }
    }
}

impl Phase {
    /// The failure of a node that failed.
    pub fn error(&self) -> Option<&RunError> {
        match self {
            Self::Failed { error } => Some(error),
            Self::Working { .. }
            | Self::BackingOff { .. }
            | Self::Waiting { .. }
            | Self::Blocked { .. }
            | Self::Gated { .. }
            | Self::AwaitingChild { .. }
            | Self::Succeeded { .. } => None,
        }
    }

    /// The result of a node that succeeded on a worker.
    pub fn result(&self) -> Option<&Arc<Value>> {
        match self {
            Self::Succeeded { result } => result.as_ref(),
            Self::Working { .. }
            | Self::BackingOff { .. }
            | Self::Waiting { .. }
            | Self::Blocked { .. }
            | Self::Gated { .. }
            | Self::AwaitingChild { .. }
            | Self::Failed { .. } => None,
        }
    }

    /// The timer that goes with it, for a token.
    pub(in crate::run) fn timer(&self, id: TokenId) -> Option<(DateTime<Utc>, Timer)> {
        match self {
            Self::BackingOff { until, .. } => Some((*until, Timer::Retry(id))),
            Self::Waiting { until, .. } => until.map(|until| (until, Timer::Wait(id))),
            Self::Gated { gate } => gate.deadline.map(|until| (until, Timer::Wait(id))),
            Self::AwaitingChild { until, .. } => until.map(|until| (until, Timer::Wait(id))),
            Self::Working { .. }
            | Self::Blocked { .. }
            | Self::Succeeded { .. }
            | Self::Failed { .. } => None,
        }
    }
}

impl Live {
    fn status(&self) -> RunStatus {
        match (&self.pause, &self.in_queue, self.all_wait()) {
            (Some(_), ..) => RunStatus::Paused,
            (None, Some(_), _) => RunStatus::Queued,
            (None, None, true) => RunStatus::Waiting,
            (None, None, false) => RunStatus::Running,
        }
    }

    /// The tokens that are there, and the branches that are to be made.
    pub fn tokens_at_once(&self) -> u64 {
        self.tokens.len() as u64 + self.unmade
    }

    /// Whether a token came to where it stands during the pause: its work was handed to nobody.
    pub fn is_held_back(&self, id: TokenId) -> bool {
        let (token, pause) = (self.tokens.get(&id), &self.pause);
        token.zip(pause.as_ref()).is_some_and(|(token, pause)| token.since > pause.since)
    }

    /// Whether it has come to [`limits::EVENTS_PER_RUN`]: it stands still until it is cancelled.
    /// What undoes its work is bounded, and goes on.
    pub fn is_suspended(&self) -> bool {
        self.events >= limits::EVENTS_PER_RUN && self.compensation.is_none()
    }

    /// Whether it is a run of its own: a fork is once it is told so, after what it shares.
    pub fn is_its_own(&self) -> bool {
        self.header.shares.is_none_or(|shares| self.events > shares)
    }

    /// When the next timer is due; those of a run that is paused, or waits for its turn, stand
    /// still.
    pub fn next_due(&self) -> Option<DateTime<Utc>> {
        let stands_still = self.pause.is_some() || self.in_queue.is_some();
        self.timers.first().map(|(due, _)| *due).filter(|_| !stands_still)
    }
}

impl Instance {
    /// Whether it is one of a group of this name.
    pub fn is_of(&self, group: &str) -> bool {
        self.group.as_deref() == Some(group)
    }

    /// Branches that may still arrive.
    pub fn outstanding(&self) -> u64 {
        let through = self.arrived.len() + self.failed.len() + self.ended.len();
        self.declared - through as u64
    }

    /// How many branches its join needs, as far as is known now.
    pub fn needed(&self, join: &JoinSpec) -> u64 {
        let lost = (self.failed.len() + self.ended.len()) as u64;
        match (join.wait, join.failed) {
            (JoinWait::All, FailedPolicy::Ignore) => self.declared - lost,
            (JoinWait::All, FailedPolicy::Fail | FailedPolicy::Count) => self.declared,
            (JoinWait::Any, _) => 1.min(self.declared),
            // Where there are no branches at all, there is nothing to wait for.
            (JoinWait::Count(_), _) if self.declared == 0 => 0,
            (JoinWait::Count(count), _) => count,
        }
    }

    /// Keeps the most of each of the counts.
    pub(in crate::run) fn take_most(&mut self, taken: &Taken) {
        for (transition, count) in taken.iter() {
            if self.taken.get(transition).is_none_or(|most| most < count) {
                Arc::make_mut(&mut self.taken).insert(*transition, *count);
            }
        }
    }

    /// Branches that are to be made next, up to one that was cancelled before it was made.
    pub fn to_make(&self) -> u64 {
        let ended = self.ended.range(self.spawned..).next().copied();
        ended.unwrap_or(self.declared) - self.spawned
    }

    /// Branches that are declared and not made yet.
    pub const fn unmade(&self) -> u64 {
        self.declared - self.spawned
    }

    /// Counts branches as made that ended before they were.
    pub(in crate::run) fn skip_ended(&mut self) {
        while self.spawned < self.declared && self.ended.contains(&self.spawned) {
            self.spawned += 1;
        }
    }

    /// Whether nothing of it is alive, and nothing more will be made.
    pub fn is_drained(&self) -> bool {
        self.outstanding() == 0 && self.extra_parts.is_empty() && self.spawned == self.declared
    }

    /// Whether a branch is through: it arrived, failed or ended.
    pub fn is_through(&self, index: u64) -> bool {
        self.arrived.contains_key(&index)
            || self.failed.contains(&index)
            || self.ended.contains(&index)
    }

    /// The part of the fan-out that a branch belongs to.
    pub fn branches_of(&self, index: u64) -> Option<&OpenedBranches> {
        // From the end, since what is looked for has mostly been added last.
        let mut first = self.declared;
        self.branches.iter().rev().filter(|_| index < self.declared).find(|branches| {
            first -= branches.count;
            first <= index
        })
    }
}
