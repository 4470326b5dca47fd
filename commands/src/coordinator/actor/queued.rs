//! What waits for a run's decision, and who is told where there is none.

use chrono::{DateTime, Utc};
use domain::run::Command;
use domain::run::command::{AttemptError, Report};
use domain::run::event::{QueueReason, RunStarted};
use domain::run::fork::Forking;
use protocol::event::SecretsUsed;
use protocol::{Outcome, OutcomeResult, Receipt, Rejection};
use tokio::sync::oneshot;

use crate::coordinator::admissions::RateSlot;
use crate::coordinator::append::Cause;
use crate::coordinator::{Reply, Start, Verdict};

/// A command that waits for its decision.
pub(in crate::coordinator) enum Queued {
    Start(Box<Start>),
    Command {
        command: Box<Command>,
        cause: Box<Cause>,
        reply: Reply<Receipt>,
    },
    Outcome(Box<Outcome>, Settled),
    HandOut {
        token: u64,
        attempt: u32,
    },
    /// The run's turn in its queue has come: with the slot of its rate, where it waited for one.
    Admit(Option<RateSlot>),
    /// What the coordinator itself asks of a run, about its parent or its children.
    Own(Box<Command>),
    Wake,
    Advance,
}

impl Queued {
    pub(super) const fn is_from_client(&self) -> bool {
        matches!(self, Self::Start(_) | Self::Command { .. })
    }

    /// The moment as of which it is decided, where that isn't now.
    pub(super) fn at(&self) -> Option<DateTime<Utc>> {
        match self {
            Self::Start(start) => Some(start.started.started_at),
            Self::Admit(slot) => slot.map(|slot| slot.at),
            _ => None,
        }
    }
}

/// Told once an outcome is durable, or refused for good. Dropped untold, the outcome may be given
/// again.
pub(crate) type Settled = Option<oneshot::Sender<()>>;

/// Says that an outcome need not be given again.
pub(in crate::coordinator) fn settle(settled: Settled) {
    if let Some(settled) = settled {
        // Nobody may be waiting any more.
        settled.send(()).ok();
    }
}

/// A queued command, taken apart.
pub(super) struct Asked {
    pub command: Command,
    pub cause: Option<Cause>,
    pub reply: Option<Reply<Receipt>>,
    pub settled: Settled,
    /// The history that a run begins with.
    pub fork: Option<Box<Forking>>,
    /// What the attempt was given whose outcome it is.
    pub secrets: Option<SecretsUsed>,
}

pub(super) fn asked(queued: Queued) -> Asked {
    let own = |command| {
        let (cause, reply, settled, fork, secrets) = (None, None, None, None, None);
        Asked { command, cause, reply, settled, fork, secrets }
    };
    match queued {
        Queued::Start(start) => {
            let Start { started, cause, reply, verdict, fork, .. } = *start;
            let fork = fork.map(|fork| judged(fork, &started, &verdict));
            let started = Box::new(started);
            let command = match verdict {
                Verdict::Begins => Command::Start(started),
                Verdict::Waits(reason) => Command::StartInQueue { started, reason },
                Verdict::IsDropped(over) => Command::StartDropped { started, over },
            };
            Asked { cause: Some(cause), reply: Some(reply), fork, ..own(command) }
        }
        Queued::Command { command, cause, reply } => {
            Asked { cause: Some(*cause), reply: Some(reply), ..own(*command) }
        }
        Queued::Outcome(mut outcome, settled) => {
            let (token, attempt) = (outcome.token, outcome.attempt);
            let names =
                Some(std::mem::take(&mut outcome.secrets)).filter(|names| !names.is_empty());
            let secrets = names.map(|mut names| {
                names.truncate(Outcome::SECRETS);
                SecretsUsed { token, attempt, names }
            });
            Asked { settled, secrets, ..own(Command::Report(Box::new(report(*outcome)))) }
        }
        Queued::HandOut { token, attempt } => own(Command::HandOut { token, attempt }),
        Queued::Admit(slot) => own(Command::Admit { until: slot.map(|slot| slot.until) }),
        Queued::Own(command) => own(*command),
        Queued::Wake => own(Command::Wake),
        Queued::Advance => own(Command::Advance),
    }
}

/// A fork that has to wait does so. One whose workflow is paused, and that needs no turn, is paused
/// with it.
fn judged(mut fork: Box<Forking>, started: &RunStarted, verdict: &Verdict) -> Box<Forking> {
    fork.forked.admission = started.admission.clone().map(Box::new);
    match verdict {
        Verdict::Waits(reason) if started.admission.is_some() => fork.waits = Some(reason.clone()),
        Verdict::Waits(QueueReason::WorkflowPaused { workflow_id }) => {
            let (workflow_id, is_paused, ahead) = (*workflow_id, true, 0);
            fork.first.push(Command::FollowWorkflow { workflow_id, is_paused, ahead });
        }
        Verdict::Waits(_) | Verdict::Begins | Verdict::IsDropped(_) => {}
    }
    fork
}

/// How long a refusal holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::coordinator) enum Holds {
    /// An outcome that is refused so need not be given again.
    ForGood,
    ForNow,
}

/// Tells everybody in a queue that their command can't be done.
pub(in crate::coordinator) fn refuse_all(
    queue: impl Iterator<Item = Queued>,
    rejection: &Rejection,
    holds: Holds,
) {
    for queued in queue {
        match queued {
            Queued::Start(start) => drop(start.reply.send(Err(rejection.clone()))),
            Queued::Command { reply, .. } => drop(reply.send(Err(rejection.clone()))),
            Queued::Outcome(_, settled) => {
                if holds == Holds::ForGood {
                    count_refused();
                    settle(settled);
                }
            }
            Queued::HandOut { .. }
            | Queued::Admit(_)
            | Queued::Own(_)
            | Queued::Wake
            | Queued::Advance => {}
        }
    }
}

fn report(outcome: Outcome) -> Report {
    let (result, usage) = match outcome.result {
        OutcomeResult::Success(success) => (Ok(success.result), success.usage),
        OutcomeResult::Failure(failure) => (
            Err(AttemptError {
                code: failure.code,
                message: failure.message,
                kind: failure.kind,
                detail: failure.detail,
                retry_after: failure.retry_after,
            }),
            failure.usage,
        ),
    };
    Report {
        token: outcome.token,
        attempt: outcome.attempt,
        result,
        usage,
        duration_ms: outcome.duration_ms,
        adopted: None,
    }
}

pub(in crate::coordinator) fn count_refused() {
    metrics::counter!("wonder_outcomes_refused_total").increment(1);
}
