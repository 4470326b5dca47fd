//! Refusals as callers see them: from runs, from the journal, from the worker itself.

use chassis::journal::AppendError;
use domain::definition::Problem;
use domain::ids::RunId;
use domain::run::Refusal;
use domain::run::event::Dropped;
use protocol::{Rejection, RejectionKind, RunOutcome};

pub(crate) fn not_found(run_id: RunId) -> Rejection {
    let message = format!("there is no run {run_id}");
    Rejection::new(RejectionKind::NotFound, "run_not_found", message)
}

pub(super) fn quarantined() -> Rejection {
    let message = "the engine failed on this run and leaves it alone until the service restarts";
    Rejection::new(RejectionKind::Internal, "run_quarantined", message)
}

pub(super) fn ended(outcome: &RunOutcome) -> Rejection {
    let message = format!("the run has ended as {}", outcome.status.as_str());
    Rejection::new(RejectionKind::Conflict, "run_ended", message)
}

/// The refusal that a caller sees when its append wrote nothing.
pub(crate) fn refused(error: &AppendError) -> Rejection {
    match error {
        AppendError::Conflict { .. } => Rejection::new(
            RejectionKind::Conflict,
            super::CONFLICT,
            "the run was changed elsewhere at the same time, try again",
        ),
        AppendError::TooLarge => Rejection::new(
            RejectionKind::TooLarge,
            "append_too_large",
            "the command would write more than one append may hold",
        ),
        AppendError::Full => Rejection::new(
            RejectionKind::Unavailable,
            "storage_full",
            "the journal's storage is full, nothing was written",
        ),
        AppendError::Fenced { .. } => not_owner(),
        AppendError::Duplicate(_) | AppendError::Unavailable(_) => {
            unavailable("the journal is unavailable, try again")
        }
    }
}

/// A refusal because something needed is away.
pub(crate) fn unavailable(message: &str) -> Rejection {
    Rejection::new(RejectionKind::Unavailable, "unavailable", message)
}

/// A refusal because another coordinator owns the run: the same may be asked there.
pub(crate) fn not_owner() -> Rejection {
    let message = "the run is moving to another coordinator, try again";
    Rejection::new(RejectionKind::Unavailable, protocol::remote::NOT_OWNER, message)
}

/// A refusal as clients see it.
pub(crate) fn of_command(refusal: &Refusal) -> Rejection {
    use RejectionKind::{Conflict, Forbidden, Invalid, NotFound, TooLarge};
    let (kind, code) = match refusal {
        Refusal::NotStarted => (NotFound, "run_not_found"),
        Refusal::AlreadyStarted => (Conflict, super::RUN_ALREADY_STARTED),
        Refusal::Ended { .. } => (Conflict, "run_ended"),
        Refusal::StaleOutcome { .. } | Refusal::StaleChild { .. } => (Conflict, "stale_outcome"),
        Refusal::InvalidInput { .. } => (Invalid, "invalid_input"),
        Refusal::InputTooLarge { .. } => (TooLarge, "input_too_large"),
        Refusal::InputTooDeep { .. } => (Invalid, "input_too_deep"),
        Refusal::InputNotStorable(_) => (Invalid, "invalid_input"),
        Refusal::TooManyLabels { .. } => (Invalid, "too_many_labels"),
        Refusal::SignalTooLarge { .. } => (TooLarge, "signal_too_large"),
        Refusal::SignalNotStorable(_) => (Invalid, "unstorable"),
        Refusal::TooManySignals { .. } => (Conflict, "too_many_signals"),
        Refusal::GateNotOpen { .. } => (Conflict, "gate_not_open"),
        Refusal::SelfApproval => (Forbidden, "self_approval"),
        Refusal::NotAssigned { .. } => (Forbidden, "not_assigned"),
        Refusal::AlreadyAnswered { .. } => (Conflict, "already_answered"),
        Refusal::InvalidAnswer { .. } => (Invalid, "invalid_answer"),
        Refusal::AnswerTooLarge { .. } => (TooLarge, "value_too_large"),
        Refusal::AnswerNotStorable(_) => (Invalid, "unstorable"),
        Refusal::CommentTooLong { .. } => (Invalid, "comment_too_long"),
        Refusal::Compensating => (Conflict, "run_compensating"),
        Refusal::AlreadyPaused => (Conflict, "already_paused"),
        Refusal::NotPaused => (Conflict, "not_paused"),
        Refusal::WorkflowPaused => (Conflict, "workflow_paused"),
        Refusal::ForkWhileUndoing => (Conflict, "fork_while_undoing"),
        Refusal::NodeMissing { .. } => (Conflict, "fork_node_missing"),
        Refusal::NoBranch { .. } => (Invalid, "fork_token"),
        Refusal::PatchTooLarge { .. } => (TooLarge, "value_too_large"),
        Refusal::PatchNotStorable(_) => (Invalid, "unstorable"),
        Refusal::TooManyEvents { .. } => (Conflict, "too_many_events"),
    };
    let rejection = Rejection::new(kind, code, refusal.to_string());
    match refusal {
        Refusal::InvalidInput { problems } => with_problems(rejection, problems, "/input"),
        Refusal::InvalidAnswer { problems } => with_problems(rejection, problems, "/value"),
        Refusal::InputTooLarge { .. }
        | Refusal::InputTooDeep { .. }
        | Refusal::InputNotStorable(_) => rejection.at("/input"),
        Refusal::TooManyLabels { .. } => rejection.at("/labels"),
        Refusal::SignalTooLarge { .. } | Refusal::SignalNotStorable(_) => rejection.at("/payload"),
        Refusal::AnswerTooLarge { .. } | Refusal::AnswerNotStorable(_) => rejection.at("/value"),
        Refusal::CommentTooLong { .. } => rejection.at("/comment"),
        Refusal::NodeMissing { .. } => rejection.at("/definition"),
        Refusal::NoBranch { .. } => rejection.at("/branches"),
        Refusal::PatchTooLarge { .. } | Refusal::PatchNotStorable(_) => rejection.at("/state"),
        Refusal::NotStarted
        | Refusal::AlreadyStarted
        | Refusal::Ended { .. }
        | Refusal::StaleOutcome { .. }
        | Refusal::StaleChild { .. }
        | Refusal::TooManySignals { .. }
        | Refusal::GateNotOpen { .. }
        | Refusal::SelfApproval
        | Refusal::NotAssigned { .. }
        | Refusal::AlreadyAnswered { .. }
        | Refusal::Compensating
        | Refusal::AlreadyPaused
        | Refusal::WorkflowPaused
        | Refusal::NotPaused
        | Refusal::ForkWhileUndoing
        | Refusal::TooManyEvents { .. } => rejection,
    }
}

/// A fork isn't made, since as many runs of its key go on, or have begun, as may.
pub(crate) fn dropped(over: Dropped) -> Rejection {
    let message = match over {
        Dropped::Concurrency => {
            "as many runs with the fork's concurrency key as may go on already, and the definition \
             drops what comes then: fork once one of them has ended"
        }
        Dropped::RateLimit => {
            "as many runs with the fork's key as may have begun already, and the definition drops \
             what comes then: fork later"
        }
    };
    Rejection::new(RejectionKind::Conflict, over.code(), message)
}

/// The problems of a value, moved below its place in the body; the first one's is the refusal's.
fn with_problems(rejection: Rejection, problems: &[Problem], below: &str) -> Rejection {
    let problems: Vec<_> = problems
        .iter()
        .map(|problem| Problem {
            pointer: format!("{below}{}", problem.pointer),
            ..problem.clone()
        })
        .collect();
    let first = problems.first().map(|problem| problem.pointer.clone()).unwrap_or_default();
    rejection.with_problems(problems).at(first)
}
