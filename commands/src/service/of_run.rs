//! Commands to runs, as runs take them.

use domain::ids::RunId;
use domain::limits;
use domain::run;
use domain::run::command::GateAnswer;
use protocol::{Command, CommandEnvelope, Rejection, RejectionKind};

/// A command to a run that is there, as the run takes it. What may be large is moved out of the
/// envelope.
pub(super) fn of_run(
    envelope: &mut CommandEnvelope,
) -> Result<Option<(RunId, run::Command)>, Rejection> {
    let command = match &mut envelope.command {
        Command::CancelRun { reason, compensate, .. } => {
            run::Command::Cancel { reason: checked(reason)?, compensate: *compensate }
        }
        Command::PauseRun { reason, .. } => run::Command::Pause { reason: checked(reason)? },
        Command::ResumeRun { .. } => run::Command::Resume,
        Command::SignalRun { name, payload, transient, .. } => run::Command::Signal {
            name: name.clone(),
            payload: std::mem::take(payload),
            transient: *transient,
        },
        Command::AnswerGate { gate, answer } => run::Command::Answer(Box::new(GateAnswer {
            token: gate.token,
            actor: envelope.actor.0.clone(),
            roles: std::mem::take(&mut answer.roles),
            decision: answer.decision,
            value: std::mem::take(&mut answer.value),
            comment: answer.comment.take(),
        })),
        Command::Create(_)
        | Command::Revise { .. }
        | Command::Archive { .. }
        | Command::StartRun(_)
        | Command::ForkRun(_)
        | Command::RetryRun { .. }
        | Command::ArchiveRun(_)
        | Command::HoldRun { .. }
        | Command::ReleaseRun { .. }
        | Command::DeliverWebhook(_)
        | Command::StartExperiment(_)
        | Command::StopExperiment { .. }
        | Command::RecordAccess(_) => return Ok(None),
    };
    Ok(envelope.command.run_id().map(|run_id| (run_id, command)))
}

pub(super) fn checked(reason: &mut Option<String>) -> Result<Option<String>, Rejection> {
    let reason = reason.take();
    if reason.as_ref().is_some_and(|reason| reason.len() > limits::REASON_BYTES) {
        let message = format!("the reason may have {} bytes", limits::REASON_BYTES);
        return Err(
            Rejection::new(RejectionKind::Invalid, "reason_too_long", message).at("/reason")
        );
    }
    Ok(reason)
}
