//! One fork of an experiment: makes it, waits for its end, and says what came of it.

use std::sync::Arc;
use std::time::Duration;

use chassis::pauses::Pauses;
use domain::experiment::{self, Command, Fork, fork_of};
use domain::ids::{CommandId, ExperimentId, WorkspaceId};
use protocol::{CommandEnvelope, Commands, ForkRun, Rejection, RejectionKind, RunOutcome};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::{ACTOR, Asked, Driven, Experiments, may_pass};
use crate::coordinator::unavailable;
use crate::store::metadata::{self, Along};

/// How long an end is waited for at a time.
const WAIT: Duration = Duration::from_secs(60);
/// How long it is looked whether a fork is there that can't be made again.
const LOOK: Duration = Duration::from_secs(2);
/// The pauses before what failed for a moment is tried again.
const FIRST_PAUSE: Duration = Duration::from_millis(100);
const LONGEST_PAUSE: Duration = Duration::from_secs(30);

/// A fork that was begun.
struct Carried {
    id: ExperimentId,
    workspace_id: WorkspaceId,
    name: String,
    /// What makes it, and who asks.
    fork: Fork,
    asked: Box<ForkRun>,
    by: String,
    is_stopped: watch::Receiver<bool>,
    left: CancellationToken,
}

impl Experiments {
    /// Looks after a fork that was begun, until it has ended or others do.
    pub(super) fn carry(self: &Arc<Self>, driven: &Driven, asked: &experiment::Asked, fork: Fork) {
        let one = Carried {
            id: driven.id,
            workspace_id: asked.workspace_id,
            name: asked.name.to_string(),
            fork,
            asked: Box::new(ForkRun::of_experiment(asked, fork.run_id, fork.budget_micros)),
            by: asked.terms.by.clone(),
            is_stopped: driven.is_stopped.subscribe(),
            left: driven.left.clone(),
        };
        let (this, left) = (Arc::clone(self), one.left.clone());
        self.tracker.spawn(left.run_until_cancelled_owned(async move {
            let came = this.what_comes_of(&one).await;
            this.tell(&one, came).await;
        }));
    }

    async fn what_comes_of(&self, one: &Carried) -> Command {
        let Fork { run_id, fork_id, .. } = one.fork;
        let mut pauses = Pauses::new(FIRST_PAUSE, LONGEST_PAUSE);
        loop {
            match self.end_of(one).await {
                Ok(outcome) => {
                    let (status, cost_micros) = (outcome.status, outcome.usage.cost_micros);
                    return Command::End { run_id, status, cost_micros };
                }
                Err(refused) if may_pass(&refused) => {
                    let experiment = &one.name;
                    tracing::warn!(experiment, %run_id, %fork_id, %refused, "a fork waits");
                    pauses.pause().await;
                }
                Err(refused) => {
                    if refused.kind == RejectionKind::Internal {
                        let experiment = &one.name;
                        tracing::error!(experiment, %run_id, %refused, "a fork isn't made");
                    }
                    let Rejection { code, message: detail, .. } = refused;
                    return Command::Refuse { run_id, code, detail };
                }
            }
        }
    }

    /// Makes a fork, if that isn't done, and waits for its end. Once the experiment is stopped, it
    /// is cancelled.
    async fn end_of(&self, one: &Carried) -> Result<RunOutcome, Rejection> {
        let commands = self.commands()?;
        let (workspace_id, fork_id) = (one.workspace_id, one.fork.fork_id);
        if let Err(refused) = commands.execute(one.making()).await {
            // It may have been made so long ago that the answer is forgotten.
            let found = commands.wait(workspace_id, fork_id, LOOK).await;
            found.map_err(|_| refused)?;
        }
        let (mut is_stopped, mut is_cancelled) = (one.is_stopped.clone(), false);
        loop {
            tokio::select! {
                ended = commands.wait(workspace_id, fork_id, WAIT) => {
                    if let Some(outcome) = ended? {
                        return Ok(outcome);
                    }
                }
                () = stopped(&mut is_stopped), if !is_cancelled => {
                    match commands.execute(one.cancelling()).await {
                        Err(refused) if may_pass(&refused) => return Err(refused),
                        // It has ended by itself.
                        Ok(_) | Err(_) => is_cancelled = true,
                    }
                }
            }
        }
    }

    /// Says what came of a fork, until it is durable.
    async fn tell(self: &Arc<Self>, one: &Carried, command: Command) {
        let mut pauses = Pauses::new(FIRST_PAUSE, LONGEST_PAUSE);
        loop {
            let metadata =
                metadata::by(ACTOR, CommandId::new(self.clock.uuid_v7()), Along::default());
            let (id, workspace_id, command) = (one.id, one.workspace_id, command.clone());
            match self.ask(Asked { id, workspace_id, command, metadata }).await {
                Ok(_) => return,
                Err(refused) if may_pass(&refused) => {
                    let experiment = &one.name;
                    tracing::warn!(experiment, %refused, "what came of a fork isn't written yet");
                    pauses.pause().await;
                }
                Err(refused) => {
                    let experiment = &one.name;
                    tracing::error!(experiment, %refused, "what came of a fork isn't written");
                    return;
                }
            }
        }
    }

    fn commands(&self) -> Result<Arc<dyn Commands>, Rejection> {
        let commands = self.everywhere.clone().or_else(|| self.here.upgrade());
        commands.ok_or_else(|| unavailable("the process ends"))
    }
}

impl Carried {
    /// The command that makes it: the same one each time.
    fn making(&self) -> CommandEnvelope {
        let (command_id, _) = fork_of(self.id, self.fork.run_id);
        let command = protocol::Command::ForkRun(self.asked.clone());
        CommandEnvelope::new(command_id, self.workspace_id, &self.by, command)
    }

    fn cancelling(&self) -> CommandEnvelope {
        let (run_id, name) = (self.fork.fork_id, &self.name);
        let reason = Some(format!("the experiment {name} was stopped"));
        let command = protocol::Command::CancelRun { run_id, reason, compensate: true };
        let command_id = CommandId::derived(&run_id.to_string(), "stopped");
        CommandEnvelope::new(command_id, self.workspace_id, ACTOR, command)
    }
}

/// Ends once the experiment is stopped.
async fn stopped(is_stopped: &mut watch::Receiver<bool>) {
    let never_is = is_stopped.wait_for(|is_stopped| *is_stopped).await.is_err();
    if never_is {
        std::future::pending().await
    }
}
