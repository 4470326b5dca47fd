//! Why a run refuses a command. A refused command changes nothing.

use super::event::TokenId;
use super::state::RunStatus;
use crate::codec::EncodeError;
use crate::definition::Problem;
use crate::ids::RunId;

/// A refusal.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    #[error("the run has not started")]
    NotStarted,
    #[error("the run has started already")]
    AlreadyStarted,
    /// Its end stands; nothing can be asked of it any more.
    #[error("the run has ended as {}", .status.as_str())]
    Ended { status: RunStatus },
    /// The attempt is over, or its token is gone (cancelled, joined, retried).
    #[error("token {token} has no attempt {attempt} under way")]
    StaleOutcome { token: TokenId, attempt: u32 },
    /// Nobody waits for it any more.
    #[error("token {token} does not wait for the child run {run_id}")]
    StaleChild { token: TokenId, run_id: RunId },
    #[error("the input does not satisfy the definition's input_schema")]
    InvalidInput { problems: Vec<Problem> },
    #[error("the input has {bytes} bytes, at most {limit} are allowed")]
    InputTooLarge { bytes: usize, limit: usize },
    #[error("the input is nested deeper than {limit} levels")]
    InputTooDeep { limit: usize },
    #[error("the input can't be stored: {0}")]
    InputNotStorable(EncodeError),
    #[error("the run has {count} labels, at most {limit} are allowed")]
    TooManyLabels { count: usize, limit: usize },
    #[error("the signal's payload has {bytes} bytes, at most {limit} are allowed")]
    SignalTooLarge { bytes: usize, limit: usize },
    #[error("the signal's payload can't be stored: {0}")]
    SignalNotStorable(EncodeError),
    #[error("the run keeps {kept} signals that no wait has taken, and has no room for another")]
    TooManySignals { kept: usize },
    /// It was answered, its time is up, or there never was one.
    #[error("no gate is open at token {token}")]
    GateNotOpen { token: TokenId },
    #[error("whoever started the run may not answer this gate")]
    SelfApproval,
    #[error("{actor} is not among those who may answer this gate")]
    NotAssigned { actor: String },
    #[error("{actor} has answered this gate already")]
    AlreadyAnswered { actor: String },
    #[error("the value does not fit the gate's form")]
    InvalidAnswer { problems: Vec<Problem> },
    #[error("the value has {bytes} bytes, at most {limit} are allowed")]
    AnswerTooLarge { bytes: usize, limit: usize },
    #[error("the value can't be stored: {0}")]
    AnswerNotStorable(EncodeError),
    #[error("the comment may have {limit} bytes")]
    CommentTooLong { limit: usize },
    /// It ends by itself when that is done; a cancel without compensation ends it at once.
    #[error("the run is ending already, and undoes its work before that")]
    Compensating,
    #[error("the run is paused already")]
    AlreadyPaused,
    #[error("the run's workflow is paused: resume that")]
    WorkflowPaused,
    #[error("the run is not paused")]
    NotPaused,
    #[error("the run was undoing its work there, and a fork has nothing to undo")]
    ForkWhileUndoing,
    #[error("token {token} stands at the node {node:?}, which the definition doesn't have")]
    NodeMissing { token: TokenId, node: String },
    #[error("no token {token} is in a branch")]
    NoBranch { token: TokenId },
    #[error("the patch has {bytes} bytes, at most {limit} are allowed")]
    PatchTooLarge { bytes: usize, limit: usize },
    #[error("the patch can't be stored: {0}")]
    PatchNotStorable(EncodeError),
    #[error("the run is suspended, since it has {limit} events, as many as it may: cancel it")]
    TooManyEvents { limit: u64 },
}
