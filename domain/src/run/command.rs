//! What can be asked of a run.

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::event::{
    Decision, Dropped, FailureKind, GateOutcome, QueueReason, RunError, RunForked, RunStarted,
    TokenId, Usage,
};
use super::state::RunStatus;
use crate::ids::{Name, RunId, WorkflowId};
use crate::span::Span;

/// A command to a run.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Command {
    /// Starts the run; the input is checked against the definition's schema.
    Start(Box<RunStarted>),
    /// Starts a run that has to wait for its admission.
    StartInQueue { started: Box<RunStarted>, reason: QueueReason },
    /// Records a start that ends at once: as many runs of its key go on, or have begun, as may.
    StartDropped { started: Box<RunStarted>, over: Dropped },
    /// The run may begin; `until` is when the slot of its rate ends, where it waited for one.
    Admit { until: Option<DateTime<Utc>> },
    /// The run goes on waiting for its admission, for this reason.
    StayInQueue(QueueReason),
    /// Ends the run, because a newer one of its key takes its place.
    Displace { by: RunId },
    /// What became of an attempt.
    Report(Box<Report>),
    /// An attempt is about to be handed to a worker, and that has to be known afterwards: because
    /// it must not be made twice, or because it may have been handed out before.
    HandOut { token: TokenId, attempt: u32 },
    /// Time has passed: does what is due.
    Wake,
    /// Goes on with work that an earlier decision put off for its size.
    Advance,
    /// Ends the run: once its work is undone, where its definition says so and this does.
    Cancel { reason: Option<String>, compensate: bool },
    /// Wakes the wait that has waited longest for it, or is kept for one that is reached later;
    /// a transient one isn't kept.
    Signal { name: Name, payload: Value, transient: bool },
    /// Answers a gate.
    Answer(Box<GateAnswer>),
    /// Stops handing attempts to workers, and the timers.
    Pause { reason: Option<String> },
    /// Goes on after a pause.
    Resume,
    /// Ends a wait or a gate of a fork before its time: with what it came to in the other run, or
    /// because nobody is to be waited for.
    EndWait(Box<EndWait>),
    /// A child run has ended, or could not be started.
    ReportChild(Box<ChildReport>),
    /// The workflow was paused, or goes on, and its run with it. `ahead` counts who waits before a
    /// run that waits for its turn.
    FollowWorkflow { workflow_id: WorkflowId, is_paused: bool, ahead: u64 },
    /// The parent was paused, or goes on, and its child with it.
    FollowParent { is_paused: bool },
    /// Makes a run of its own of one that has the first events of another one. Since when timers
    /// stood still is found by the decision where the other run was paused.
    Fork(Box<RunForked>),
}

/// See [`Command::ReportChild`].
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ChildReport {
    /// The token that waits for it.
    pub token: TokenId,
    pub run_id: RunId,
    /// How it ended; `failed` where it could not be started.
    pub status: RunStatus,
    #[serde(default)]
    pub output: Option<Value>,
    #[serde(default)]
    pub error: Option<RunError>,
    /// The event of the run that this one was forked from which says so; no child ran here.
    #[serde(default)]
    pub adopted: Option<u64>,
}

/// See [`Command::EndWait`].
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct EndWait {
    /// The token that waits.
    pub token: TokenId,
    pub result: Result<Value, RunError>,
    /// What a gate came to; no gate ends without it.
    #[serde(default)]
    pub gate: Option<GateOutcome>,
}

/// See [`Command::Answer`].
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct GateAnswer {
    /// The token at the gate.
    pub token: TokenId,
    pub actor: String,
    /// The roles that the actor has.
    pub roles: Vec<String>,
    pub decision: Decision,
    pub value: Value,
    pub comment: Option<String>,
}

/// See [`Command::Report`].
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Report {
    pub token: TokenId,
    pub attempt: u32,
    pub result: Result<Value, AttemptError>,
    pub usage: Usage,
    pub duration_ms: u64,
    /// The event of the run that this one was forked from which says so; no call was made here.
    #[serde(default)]
    pub adopted: Option<u64>,
}

/// Why an attempt failed.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct AttemptError {
    pub code: String,
    pub message: String,
    pub kind: FailureKind,
    #[serde(default)]
    pub detail: Value,
    /// The next attempt isn't made sooner than this.
    #[serde(default)]
    pub retry_after: Option<Span>,
}

impl From<&RunError> for AttemptError {
    fn from(error: &RunError) -> Self {
        Self {
            code: error.code.clone(),
            message: error.message.clone(),
            kind: error.kind,
            detail: error.detail.clone(),
            retry_after: None,
        }
    }
}
