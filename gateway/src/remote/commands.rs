//! Commands, sent to a coordinator, and waits for a run's end at the run's owner.

use std::time::Duration;

use async_trait::async_trait;
use domain::ids::{ExperimentId, Name, RunId, WorkspaceId};
use protocol::remote::{COMMANDS, CommandCall, shard_commands};
use protocol::{
    Command, CommandEnvelope, Commands, Receipt, Rejection, RejectionKind, RunOutcome, StartAnswer,
    run_of, shard_of, shard_of_experiment,
};
use tokio::time::Instant;

use super::{Asked, Effect, Remote, encoded, fresh_pauses, repeated};

/// A wait is asked for in parts of this length, so that it finds a run that has moved.
const SLICE: Duration = Duration::from_secs(5);
/// How long the answer to a part may take beyond its length.
const MARGIN: Duration = Duration::from_secs(2);

impl Remote {
    /// Starts a run at a shard: that of the run that the command names, or where the first answer
    /// sends it.
    async fn start(&self, shard: u16, mut call: CommandCall) -> Result<Receipt, Rejection> {
        let found = match self.ask(&shard_commands(shard), &call, Effect::Writes).await? {
            StartAnswer::Done(receipt) => return Ok(*receipt),
            StartAnswer::Elsewhere(home) => home,
        };
        match &mut call {
            CommandCall::Start(envelope) => {
                if let Command::StartRun(start) = &mut envelope.command {
                    start.home = Some(found);
                }
            }
            CommandCall::Fork { home, .. } => *home = Some(found),
            _ => {}
        }
        match self.ask(&shard_commands(found.shard), &call, Effect::Writes).await? {
            StartAnswer::Done(receipt) => Ok(*receipt),
            StartAnswer::Elsewhere(_) => {
                let message = "the start was sent on twice";
                Err(Rejection::new(RejectionKind::Internal, "internal", message))
            }
        }
    }
}

/// The shard whose owner goes on with an experiment.
fn of_experiment(envelope: &CommandEnvelope, name: &Name) -> u16 {
    shard_of_experiment(ExperimentId::of(envelope.workspace_id, name.as_str()))
}

#[async_trait]
impl Commands for Remote {
    async fn execute(&self, envelope: CommandEnvelope) -> Result<Receipt, Rejection> {
        let run_id = match &envelope.command {
            Command::StartRun(_) => {
                let shard = shard_of(run_of(envelope.id));
                return self.start(shard, CommandCall::Start(Box::new(envelope))).await;
            }
            fork @ (Command::ForkRun(_) | Command::RetryRun { .. }) => {
                let shard = fork.run_id().map_or(0, shard_of);
                let (home, envelope) = (None, Box::new(envelope));
                return self.start(shard, CommandCall::Fork { envelope, home }).await;
            }
            // The run that it starts, on the first request and on each repeated one.
            Command::DeliverWebhook(_) => Some(run_of(envelope.id)),
            other => other.run_id(),
        };
        let shard = match &envelope.command {
            Command::StartExperiment(asked) => Some(of_experiment(&envelope, &asked.name)),
            Command::StopExperiment { name } => Some(of_experiment(&envelope, name)),
            _ => run_id.map(shard_of),
        };
        let owner = shard.map(shard_commands);
        let subject = owner.as_deref().unwrap_or(COMMANDS);
        let call = CommandCall::Execute(Box::new(envelope));
        // Repeating it is safe: the write side remembers every command by its key or its id.
        self.ask(subject, &call, Effect::Writes).await
    }

    /// Where the run's owner can't be reached until the time is up, that is no failure: the run
    /// hasn't ended as far as anybody knows.
    async fn wait(
        &self,
        workspace_id: WorkspaceId,
        run_id: RunId,
        timeout: Duration,
    ) -> Result<Option<RunOutcome>, Rejection> {
        let subject = shard_commands(shard_of(run_id));
        let end = Instant::now() + timeout;
        let mut pauses = fresh_pauses();
        loop {
            let asked = Instant::now();
            let slice = SLICE.min(end.saturating_duration_since(asked));
            let Some(timeout_ms) = u64::try_from(slice.as_millis()).ok().filter(|ms| *ms > 0)
            else {
                return Ok(None);
            };
            let body = encoded(&CommandCall::Wait { workspace_id, run_id, timeout_ms })?;
            match self.ask_once(&subject, body, slice + MARGIN).await {
                Asked::Answered(Ok(None)) if asked.elapsed() >= slice => {
                    pauses = fresh_pauses();
                    continue;
                }
                // Answered before its time: the owner is about to leave.
                Asked::Answered(Ok(None)) => {}
                Asked::Answered(Ok(outcome)) => return Ok(outcome),
                Asked::Answered(Err(away)) if away.kind == RejectionKind::Unavailable => {}
                Asked::Answered(Err(rejection)) => return Err(rejection),
                Asked::NotDone(why) | Asked::Unknown(why) => repeated(&why),
            }
            tokio::time::sleep_until((Instant::now() + pauses.next_pause()).min(end)).await;
        }
    }
}
