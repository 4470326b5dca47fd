//! What happens to a run. Events are the only truth; they only grow (see `tests/golden`).

use std::collections::BTreeMap;

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::ids::{DefinitionId, ProjectId, RunId, WorkflowId};
use crate::resource::Kind;

mod cancelled;
mod child;
mod compensation;
mod experiment;
mod failure;
mod fork;
mod gate;
mod queue;
mod routed;
mod signal;
mod triggered;

pub use cancelled::{Extent, Region, TokensCancelled};
pub use child::{ChildEnded, ChildStarted, ParentRun};
pub use compensation::{Cause, Compensation, CompensationStarted, UndoFailure};
pub use experiment::{Effect, Experiment};
pub use failure::{FailureKind, RunError, Usage};
pub use fork::{Adopt, BranchPatch, ForkedChild, ForkedFrom, RunForked};
pub use gate::{Decision, GateAnswered, GateClosed, GateOpened, GateOutcome};
pub use queue::{Admission, Dropped, QueueReason};
pub use routed::{
    Arithmetic, Carried, Considered, Extended, Fired, Iteration, Opened, OpenedBranches,
};
pub use signal::SignalReceived;
pub use triggered::TriggeredBy;

/// A token's number within its run, from 1.
pub type TokenId = u64;
/// A group instance's number within its run, from 1.
pub type InstanceId = u64;
/// A transition's place in the definition, from 0.
pub type TransitionIndex = u16;

/// An event of a run. `type` is the journal's event type; the rest is its payload.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum Event {
    /// The first event: token 1 stands at the start node.
    RunStarted(Box<RunStarted>),
    /// The run waits for its admission: nothing of it has begun. Recorded again where the reason
    /// becomes another one.
    RunQueued(QueueReason),
    /// The run may begin. Recorded of runs whose definition bounds them, and of those that waited.
    RunAdmitted {
        /// When the run times out, where it waited: the clock starts here.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        deadline: Option<DateTime<Utc>>,
        /// When the slot of its rate ends that it took, where it waited for one: see
        /// [`crate::rate`].
        #[serde(default, skip_serializing_if = "Option::is_none")]
        until: Option<DateTime<Utc>>,
    },
    /// An attempt succeeded; its node's output was written to the token's level of state.
    TaskSucceeded {
        token: TokenId,
        attempt: u32,
        result: Value,
        #[serde(default, skip_serializing_if = "Map::is_empty")]
        writes: Map<String, Value>,
        #[serde(default, skip_serializing_if = "Usage::is_empty")]
        usage: Usage,
        #[serde(default, skip_serializing_if = "is_zero")]
        duration_ms: u64,
        /// What the node's `undo` gets, where the run may have to undo it.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        undo: Option<Value>,
        /// No call was made: the run that this one was forked from has recorded it as this event.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        adopted: Option<u64>,
    },
    /// An attempt failed. With `retry_at`, the token backs off until then; without, its node
    /// failed.
    TaskFailed {
        token: TokenId,
        attempt: u32,
        error: RunError,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        retry_at: Option<DateTime<Utc>>,
        #[serde(default, skip_serializing_if = "Usage::is_empty")]
        usage: Usage,
        #[serde(default, skip_serializing_if = "is_zero")]
        duration_ms: u64,
        /// As above; then the next attempt starts at once.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        adopted: Option<u64>,
    },
    /// An attempt is handed to a worker. Recorded only where it must not be made twice, and where
    /// it may have been handed out before.
    TaskHandedOut {
        token: TokenId,
        attempt: u32,
    },
    /// A backed-off token works again.
    RetryStarted {
        token: TokenId,
        attempt: u32,
    },
    /// A `compute` node was evaluated.
    NodeComputed {
        token: TokenId,
        #[serde(default, skip_serializing_if = "Map::is_empty")]
        writes: Map<String, Value>,
    },
    /// A node failed without a worker (an expression, a limit).
    NodeFailed {
        token: TokenId,
        error: RunError,
    },
    /// A token left its node; it is gone, and what it made stands in `fired`.
    TokenRouted {
        token: TokenId,
        /// What was looked at, in order; absent where a single transition without a condition was.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        considered: Vec<Considered>,
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        fired: Vec<Fired>,
        /// Group instances that the fired transitions opened; the first slices follow as
        /// `branches_spawned`.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        opened: Vec<Opened>,
        /// Further branches of open group instances; they follow as `branches_spawned`, too.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        extended: Vec<Extended>,
        /// The token ended as failed: no transition took the failure.
        #[serde(default, skip_serializing_if = "std::ops::Not::not")]
        failed: bool,
    },
    /// Branches of a group instance were made: the next indices, with new tokens from `token` on.
    BranchesSpawned {
        instance: InstanceId,
        /// First branch index of this slice.
        index: u64,
        /// First token of this slice; the others count up.
        token: TokenId,
        count: u64,
        /// The items, one per branch (null where the branch isn't of a `foreach`); absent where
        /// no branch of the slice is.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        items: Vec<Value>,
    },
    /// A join was satisfied; exactly one token goes on.
    JoinFired {
        instance: InstanceId,
        /// The new token, on the level of the instance's parent.
        token: TokenId,
        node: String,
        arithmetic: Arithmetic,
        #[serde(default, skip_serializing_if = "Map::is_empty")]
        writes: Map<String, Value>,
        /// How often the lineage has taken this join's transition, where that is limited.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        iteration: Option<Iteration>,
        /// Branches still out go on (`rest: continue`); otherwise they are cancelled.
        #[serde(default, skip_serializing_if = "std::ops::Not::not")]
        rest_continues: bool,
        /// It fired because its time was up.
        #[serde(default, skip_serializing_if = "std::ops::Not::not")]
        timed_out: bool,
        /// It fired because this token took a transition that completes the group.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        completed_by: Option<TokenId>,
    },
    /// A join can't be satisfied any more (or its time was up), or a branch of a group without a
    /// join failed: the group is gone, and the failure goes up a level.
    JoinFailed {
        instance: InstanceId,
        error: RunError,
        arithmetic: Arithmetic,
    },
    /// A transition that is about to be taken ends a part of the run; `token_routed` follows.
    TokensCancelled(Box<TokensCancelled>),
    /// An instance that nobody joins has no branch left; its parent's branch ends there.
    GroupEnded {
        instance: InstanceId,
    },
    /// A token came to a node of a mutex that another one holds; it is let in when its turn comes.
    MutexAwaited {
        token: TokenId,
        mutex: String,
    },
    /// A token has a mutex from now on, until it leaves its node.
    MutexTaken {
        token: TokenId,
        mutex: String,
    },
    /// A `wait` node waits: until a time, or for a signal (and then until it times out).
    WaitStarted {
        token: TokenId,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        until: Option<DateTime<Utc>>,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        signal: Option<String>,
    },
    /// What a `wait` node waited for is there. Where its time ran out instead, `node_failed` says
    /// so.
    WaitEnded {
        token: TokenId,
        result: Value,
        #[serde(default, skip_serializing_if = "Map::is_empty")]
        writes: Map<String, Value>,
        /// The number of the signal that it took.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        signal: Option<u64>,
    },
    /// A signal came to the run.
    SignalReceived(Box<SignalReceived>),
    /// A `gate` node asks people.
    GateOpened(Box<GateOpened>),
    /// Somebody answered.
    GateAnswered(Box<GateAnswered>),
    /// A gate takes no more answers.
    GateClosed(Box<GateClosed>),
    /// An `emit` node published a business event.
    EventEmitted {
        token: TokenId,
        name: String,
        #[serde(default, skip_serializing_if = "Value::is_null")]
        data: Value,
    },
    /// An `emit` node gave a metric a value.
    MetricEmitted {
        token: TokenId,
        name: String,
        /// At most [`crate::limits::METRIC_VALUE`] away from zero.
        value: f64,
        #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
        dimensions: BTreeMap<String, String>,
    },
    /// A `workflow` node started a child run, and waits for its end.
    ChildStarted(Box<ChildStarted>),
    /// The child has ended, or could not be started. Where the node gave it up before, another
    /// event says so.
    ChildEnded(Box<ChildEnded>),
    /// Nothing is handed to workers any more, and the run's timers stand still.
    RunPaused {
        #[serde(default, skip_serializing_if = "Option::is_none")]
        reason: Option<String>,
        /// It was paused with its parent, and goes on with it.
        #[serde(default, skip_serializing_if = "std::ops::Not::not")]
        by_parent: bool,
        /// It was paused with its workflow, and goes on with it.
        #[serde(default, skip_serializing_if = "std::ops::Not::not")]
        by_workflow: bool,
    },
    /// The run goes on; its timers are due later by the length of the pause.
    RunResumed {},
    /// All before it was shared with another run; from here on it is a run of its own.
    RunForked(Box<RunForked>),
    /// The run won't complete: all it was doing is given up, and what it did is undone first.
    CompensationStarted(Box<CompensationStarted>),
    /// A new token undoes what another one had completed at this node.
    UndoStarted {
        token: TokenId,
        undoes: TokenId,
        node: String,
    },
    /// An attempt to undo succeeded; its token is gone.
    UndoSucceeded {
        token: TokenId,
        attempt: u32,
        result: Value,
        #[serde(default, skip_serializing_if = "Usage::is_empty")]
        usage: Usage,
        #[serde(default, skip_serializing_if = "is_zero")]
        duration_ms: u64,
    },
    /// An attempt to undo failed. With `retry_at`, its token backs off; without, it is gone.
    UndoFailed {
        token: TokenId,
        attempt: u32,
        error: RunError,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        retry_at: Option<DateTime<Utc>>,
        #[serde(default, skip_serializing_if = "Usage::is_empty")]
        usage: Usage,
        #[serde(default, skip_serializing_if = "is_zero")]
        duration_ms: u64,
    },
    /// Nothing is left to be undone, or the rest was left out; the run's end follows.
    CompensationEnded(Box<Compensation>),
    /// All tokens have ended and the output is mapped.
    RunCompleted {
        output: Value,
    },
    RunFailed {
        error: RunError,
    },
    RunCancelled {
        #[serde(default, skip_serializing_if = "Option::is_none")]
        reason: Option<String>,
        /// Why, for programs, where no person or parent has asked for it.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        code: Option<String>,
    },
    RunTimedOut {
        error: RunError,
    },
}

/// See [`Event::RunStarted`].
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct RunStarted {
    pub run_id: RunId,
    pub project_id: ProjectId,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub workflow_id: Option<WorkflowId>,
    pub definition: DefinitionRef,
    /// The versions that references were resolved to; they hold for the whole run.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub pins: Vec<Pin>,
    pub start: String,
    pub input: Value,
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub labels: BTreeMap<String, String>,
    pub started_at: DateTime<Utc>,
    /// When the run times out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub deadline: Option<DateTime<Utc>>,
    /// Who started it, as the actor of the command; absent in older runs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub started_by: Option<String>,
    /// The run that it is a child of.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub parent: Option<ParentRun>,
    /// The trigger that started it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub trigger: Option<TriggeredBy>,
    /// What its admission goes by, where its definition bounds its runs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub admission: Option<Admission>,
    /// The run that it was forked from.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub forked_from: Option<ForkedFrom>,
    /// The run that it does again.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rerun_of: Option<RunId>,
}

/// Which version of which definition.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DefinitionRef {
    pub id: DefinitionId,
    pub name: String,
    pub version: u64,
    /// SHA-256 of the canonical definition, hexadecimal.
    pub hash: String,
}

/// A reference and the version that it was resolved to.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Pin {
    pub kind: Kind,
    /// The reference as it stands in the definition.
    pub reference: String,
    /// The resource.
    pub id: String,
    pub version: u64,
}

fn is_zero(number: &u64) -> bool {
    *number == 0
}

impl Event {
    /// When the slot of its rate ends that the run took with this event.
    pub fn slot_until(&self) -> Option<DateTime<Utc>> {
        match self {
            Self::RunStarted(started) => started.admission.as_ref()?.rate?.until,
            Self::RunForked(forked) => forked.admission.as_ref()?.rate?.until,
            Self::RunAdmitted { until, .. } => *until,
            _ => None,
        }
    }

    /// The journal's event type.
    pub const fn event_type(&self) -> &'static str {
        match self {
            Self::RunStarted(_) => "run_started",
            Self::RunQueued(_) => "run_queued",
            Self::RunAdmitted { .. } => "run_admitted",
            Self::TaskSucceeded { .. } => "task_succeeded",
            Self::TaskFailed { .. } => "task_failed",
            Self::RetryStarted { .. } => "retry_started",
            Self::TaskHandedOut { .. } => "task_handed_out",
            Self::NodeComputed { .. } => "node_computed",
            Self::NodeFailed { .. } => "node_failed",
            Self::TokenRouted { .. } => "token_routed",
            Self::BranchesSpawned { .. } => "branches_spawned",
            Self::JoinFired { .. } => "join_fired",
            Self::JoinFailed { .. } => "join_failed",
            Self::TokensCancelled(_) => "tokens_cancelled",
            Self::GroupEnded { .. } => "group_ended",
            Self::MutexAwaited { .. } => "mutex_awaited",
            Self::MutexTaken { .. } => "mutex_taken",
            Self::WaitStarted { .. } => "wait_started",
            Self::WaitEnded { .. } => "wait_ended",
            Self::SignalReceived(_) => "signal_received",
            Self::GateOpened(_) => "gate_opened",
            Self::GateAnswered(_) => "gate_answered",
            Self::GateClosed(_) => "gate_closed",
            Self::EventEmitted { .. } => "event_emitted",
            Self::MetricEmitted { .. } => "metric_emitted",
            Self::ChildStarted(_) => "child_started",
            Self::ChildEnded(_) => "child_ended",
            Self::RunPaused { .. } => "run_paused",
            Self::RunResumed {} => "run_resumed",
            Self::RunForked(_) => "run_forked",
            Self::CompensationStarted(_) => "compensation_started",
            Self::UndoStarted { .. } => "undo_started",
            Self::UndoSucceeded { .. } => "undo_succeeded",
            Self::UndoFailed { .. } => "undo_failed",
            Self::CompensationEnded(_) => "compensation_ended",
            Self::RunCompleted { .. } => "run_completed",
            Self::RunFailed { .. } => "run_failed",
            Self::RunCancelled { .. } => "run_cancelled",
            Self::RunTimedOut { .. } => "run_timed_out",
        }
    }

    /// Whether tokens may be gone after it that weren't through: what they waited for, or had on
    /// workers, is given up.
    pub const fn may_give_up(&self) -> bool {
        matches!(
            self,
            Self::JoinFired { rest_continues: false, .. }
                | Self::JoinFailed { .. }
                | Self::TokensCancelled(_)
                | Self::TokenRouted { failed: true, .. }
        )
    }

    /// Whether all that the run was doing is over with it.
    pub const fn gives_all_up(&self) -> bool {
        matches!(self, Self::CompensationStarted(_)) || self.ends_run()
    }

    /// Whether it is a run's last one.
    pub const fn ends_run(&self) -> bool {
        matches!(
            self,
            Self::RunCompleted { .. }
                | Self::RunFailed { .. }
                | Self::RunCancelled { .. }
                | Self::RunTimedOut { .. }
        )
    }

    /// The version of the event's payload.
    pub const fn event_version(&self) -> u32 {
        1
    }
}
