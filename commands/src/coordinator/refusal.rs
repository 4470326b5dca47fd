//! Refusals as callers see them: from runs, from the journal, from the worker itself.

use chassis::journal::AppendError;
use domain::ids::RunId;
use domain::run::Refusal;
use protocol::{Rejection, RejectionKind, RunOutcome};

pub(super) fn not_found(run_id: RunId) -> Rejection {
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
pub(super) fn refused(error: &AppendError) -> Rejection {
    match error {
        AppendError::Conflict { .. } => Rejection::new(
            RejectionKind::Conflict,
            "conflict",
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
    use RejectionKind::{Conflict, Invalid, TooLarge};
    let (kind, code) = match refusal {
        Refusal::NotStarted => (RejectionKind::NotFound, "run_not_found"),
        Refusal::AlreadyStarted => (Conflict, super::RUN_ALREADY_STARTED),
        Refusal::Ended { .. } => (Conflict, "run_ended"),
        Refusal::StaleOutcome { .. } => (Conflict, "stale_outcome"),
        Refusal::InvalidInput { .. } => (Invalid, "invalid_input"),
        Refusal::InputTooLarge { .. } => (TooLarge, "input_too_large"),
        Refusal::InputTooDeep { .. } => (Invalid, "input_too_deep"),
        Refusal::InputNotStorable(_) => (Invalid, "invalid_input"),
        Refusal::TooManyLabels { .. } => (Invalid, "too_many_labels"),
    };
    let rejection = Rejection::new(kind, code, refusal.to_string());
    match refusal {
        Refusal::InvalidInput { problems } => {
            let first = problems.first().map(|problem| format!("/input{}", problem.pointer));
            let problems = problems.clone().into_iter().map(|mut problem| {
                problem.pointer = format!("/input{}", problem.pointer);
                problem
            });
            rejection.with_problems(problems.collect()).at(first.unwrap_or_default())
        }
        Refusal::InputTooLarge { .. }
        | Refusal::InputTooDeep { .. }
        | Refusal::InputNotStorable(_) => rejection.at("/input"),
        Refusal::TooManyLabels { .. } => rejection.at("/labels"),
        Refusal::NotStarted
        | Refusal::AlreadyStarted
        | Refusal::Ended { .. }
        | Refusal::StaleOutcome { .. } => rejection,
    }
}
