//! Experiments: takes what is asked of them, and goes on with those of the shards that this process
//! owns, until there is nothing more to do.
//!
//! What an experiment gives out is durable before it is done: a fork stands in its events, with
//! what it may cost, and is then made under an id that follows from the experiment and the run. So who
//! takes one up (after a crash, or since the shard is theirs now) makes again what may have been
//! made, and meets it; and two who go on with the same one for a moment can't both write to it.
//!
//! Nothing is looked for while nothing happens: the end of a fork is waited for where the fork is,
//! and the list of experiments that go on is read when a shard comes.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use bytes::Bytes;
use chassis::clock::Clock;
use chassis::journal::{AppendError, Journal, open_ids};
use chassis::shards::{Owned, Ownership};
use domain::experiment::{AGGREGATE, Begun, Command, Refusal, Status};
use domain::ids::{ExperimentId, RunId, WorkspaceId};
use futures::TryStreamExt;
use protocol::{
    CommandEnvelope, Commands, ExperimentProgress, Receipt, Rejection, RejectionKind,
    shard_of_experiment,
};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::coordinator::{not_owner, refused, unavailable};
use crate::store::metadata;
use log::Log;

mod carry;
mod log;

/// Who goes on with experiments.
const ACTOR: &str = "experiment";
/// Experiments that go on in one process, so that what they take stays bounded.
const UNDER_WAY: usize = 256;
/// How often an append meets a faster one before it is given up.
const ATTEMPTS: u32 = 5;
/// How often it is looked whether other shards are owned now, which reads nothing (several that
/// wait for one change would be woken in random order, and a seed would give many histories); and
/// how soon it is tried again to take up what a shard has.
const LOOK: Duration = Duration::from_secs(1);

/// The experiments of a process.
pub(crate) struct Experiments {
    pub(crate) journal: Arc<dyn Journal>,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) ownership: Ownership,
    /// The write side of this process.
    pub(crate) here: Weak<dyn Commands>,
    /// The write side of all processes, where others own shards.
    pub(crate) everywhere: Option<Arc<dyn Commands>>,
    pub(crate) shutdown: CancellationToken,
    pub(crate) tracker: TaskTracker,
    pub(crate) known: Known,
}

/// Experiments that go on here, or that something is just asked of.
#[derive(Default)]
pub(crate) struct Known(Mutex<HashMap<ExperimentId, Arc<Driven>>>);

/// One of them.
struct Driven {
    id: ExperimentId,
    /// Of the shard's ownership.
    epoch: u64,
    /// Somebody else goes on with it.
    left: CancellationToken,
    is_stopped: watch::Sender<bool>,
    held: tokio::sync::Mutex<Held>,
}

#[derive(Default)]
struct Held {
    /// Absent where it isn't known how it stands.
    log: Option<Log>,
    /// The runs whose forks are looked after.
    carried: BTreeSet<RunId>,
}

/// What is asked of an experiment, and by whom.
#[derive(Clone)]
struct Asked {
    id: ExperimentId,
    workspace_id: WorkspaceId,
    command: Command,
    metadata: Bytes,
}

impl Experiments {
    /// Does what somebody asks of an experiment.
    pub(crate) async fn execute(
        self: &Arc<Self>,
        envelope: &CommandEnvelope,
    ) -> Result<Receipt, Rejection> {
        let (name, command) = match &envelope.command {
            protocol::Command::StartExperiment(asked) => {
                let mut asked = asked.clone();
                asked.workspace_id = envelope.workspace_id;
                asked.terms.by.clone_from(&envelope.actor.0);
                (asked.name.clone(), Command::Ask(asked))
            }
            protocol::Command::StopExperiment { name } => (name.clone(), Command::Stop),
            _ => return Err(internal("no command to an experiment")),
        };
        let workspace_id = envelope.workspace_id;
        let id = ExperimentId::of(workspace_id, name.as_str());
        if matches!(command, Command::Ask(_)) && !self.has_room(id) {
            let message = format!("{UNDER_WAY} experiments go on here: try again later");
            return Err(Rejection::new(RejectionKind::Overloaded, "overloaded", message));
        }
        let metadata = metadata::of(envelope);
        self.ask(Asked { id, workspace_id, command, metadata }).await
    }

    /// Goes on with what comes with shards. It ends with the shutdown.
    pub(crate) fn run(self: Arc<Self>) {
        let shutdown = self.shutdown.clone();
        let tracker = self.tracker.clone();
        tracker.spawn(async move { shutdown.run_until_cancelled(self.follow_shards()).await });
    }

    async fn follow_shards(self: Arc<Self>) {
        let mut taken: BTreeMap<u16, u64> = BTreeMap::new();
        loop {
            let owned = Arc::clone(&self.ownership.borrow());
            self.leave_others(&owned);
            taken.retain(|shard, epoch| owned.epochs.get(shard) == Some(epoch));
            for (shard, epoch) in &owned.epochs {
                if taken.contains_key(shard) {
                    continue;
                }
                match self.take_up(*shard).await {
                    Ok(()) => drop(taken.insert(*shard, *epoch)),
                    Err(error) => {
                        tracing::warn!(shard, %error, "experiments can't be gone on with yet");
                    }
                }
            }
            tokio::time::sleep(LOOK).await;
        }
    }

    /// Goes on with the experiments of a shard.
    async fn take_up(self: &Arc<Self>, shard: u16) -> Result<(), Rejection> {
        let mut open = open_ids(&*self.journal, AGGREGATE, shard);
        while let Some(id) = open.try_next().await.map_err(log::away)? {
            let Ok(id) = id.parse::<ExperimentId>() else { continue };
            let driven = self.driven(id)?;
            let mut held = driven.held.lock().await;
            match self.loaded(&driven, &mut held).await {
                Ok(()) => {}
                Err(error) if may_pass(&error) => return Err(error),
                Err(error) => tracing::error!(%id, %error, "an experiment can't be gone on with"),
            }
        }
        Ok(())
    }

    /// Leaves those whose shards have come to others, or have come back.
    fn leave_others(&self, owned: &Owned) {
        self.known.all().retain(|id, driven| {
            let is_own = owned.epochs.get(&shard_of_experiment(*id)) == Some(&driven.epoch);
            if !is_own {
                driven.left.cancel();
            }
            is_own
        });
    }

    /// Whether one more may go on.
    fn has_room(&self, id: ExperimentId) -> bool {
        let known = self.known.all();
        known.contains_key(&id) || known.len() < UNDER_WAY
    }

    fn driven(&self, id: ExperimentId) -> Result<Arc<Driven>, Rejection> {
        let shard = shard_of_experiment(id);
        let epoch = self.ownership.borrow().epochs.get(&shard).copied().ok_or_else(not_owner)?;
        let mut known = self.known.all();
        if let Some(driven) = known.get(&id).filter(|driven| driven.epoch == epoch) {
            return Ok(Arc::clone(driven));
        }
        let driven = Arc::new(Driven {
            id,
            epoch,
            left: self.shutdown.child_token(),
            is_stopped: watch::Sender::new(false),
            held: tokio::sync::Mutex::default(),
        });
        if let Some(before) = known.insert(id, Arc::clone(&driven)) {
            before.left.cancel();
        }
        Ok(driven)
    }

    /// Does a command, and what follows from it. Whoever asks may go away meanwhile.
    async fn ask(self: &Arc<Self>, asked: Asked) -> Result<Receipt, Rejection> {
        let this = Arc::clone(self);
        let task = self.tracker.spawn(async move {
            let driven = this.driven(asked.id)?;
            let done = this.done(&driven, asked).await;
            this.known.release(driven).await;
            done
        });
        task.await.unwrap_or_else(|error| {
            tracing::error!(%error, "a command to an experiment did not end");
            Err(internal("the command did not end: ask again"))
        })
    }

    async fn done(self: &Arc<Self>, driven: &Driven, asked: Asked) -> Result<Receipt, Rejection> {
        let Asked { id, workspace_id, command, metadata } = asked;
        let mut held = driven.held.lock().await;
        for _ in 0..ATTEMPTS {
            self.loaded(driven, &mut held).await?;
            let Some(log) = &mut held.log else { continue };
            let events = log.state.decide(id, command.clone()).map_err(|error| of(&error))?;
            if events.is_empty() {
                return Ok(log.receipt(id, false));
            }
            let is_first = log.sequence == 0;
            let append = log.append(&*self.clock, (id, driven.epoch), workspace_id, &events)?;
            let append = chassis::journal::Append { metadata: metadata.clone(), ..append };
            match self.journal.append(append).await {
                Ok(appended) => {
                    log.wrote(&events, &appended, self.clock.now());
                    let receipt = log.receipt(id, is_first);
                    self.carry_on(driven, &mut held);
                    return Ok(receipt);
                }
                // What was written is unknown, or others were faster.
                Err(AppendError::Conflict { .. }) => held.log = None,
                Err(error) => {
                    held.log = None;
                    return Err(refused(&error));
                }
            }
        }
        Err(unavailable("the experiment was changed elsewhere at the same time, try again"))
    }

    /// Reads how it stands, where that isn't known, and looks after its forks.
    async fn loaded(self: &Arc<Self>, driven: &Driven, held: &mut Held) -> Result<(), Rejection> {
        if held.log.is_none() {
            held.log = Some(Log::load(&*self.journal, driven.id).await?);
            self.carry_on(driven, held);
        }
        Ok(())
    }

    /// Looks after the forks that go on and aren't looked after yet.
    fn carry_on(self: &Arc<Self>, driven: &Driven, held: &mut Held) {
        let Held { log: Some(log), carried } = held else { return };
        let Some(begun) = log.state.begun() else { return };
        driven.is_stopped.send_replace(begun.status == Status::Stopped);
        let under_way: BTreeSet<_> = begun.under_way().map(|fork| fork.run_id).collect();
        carried.retain(|run_id| under_way.contains(run_id));
        for fork in begun.under_way() {
            if carried.insert(fork.run_id) {
                self.carry(driven, &begun.asked, *fork);
            }
        }
    }
}

impl Known {
    fn all(&self) -> MutexGuard<'_, HashMap<ExperimentId, Arc<Driven>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Forgets one that nothing more is to be done for, unless something else is asked of it.
    async fn release(&self, driven: Arc<Driven>) {
        let is_open = {
            let held = driven.held.lock().await;
            held.log.as_ref().is_none_or(|log| log.state.is_open())
        };
        let mut known = self.all();
        // Here, and among those that are known.
        if !is_open && Arc::strong_count(&driven) == 2 {
            known.remove(&driven.id);
        }
    }
}

/// Whether a refusal is about the moment, and not about what was asked.
const fn may_pass(rejection: &Rejection) -> bool {
    matches!(rejection.kind, RejectionKind::Unavailable | RejectionKind::Overloaded)
}

fn of(refusal: &Refusal) -> Rejection {
    let (kind, code) = match refusal {
        Refusal::NotStarted => (RejectionKind::NotFound, "not_found"),
        Refusal::Differs(_) => (RejectionKind::Conflict, "experiment_differs"),
        Refusal::Full(_) => (RejectionKind::Invalid, "experiment_full"),
    };
    Rejection::new(kind, code, refusal.to_string())
}

fn progress(begun: &Begun, position: u64) -> Box<ExperimentProgress> {
    Box::new(ExperimentProgress::of(begun, position))
}

fn internal(message: &str) -> Rejection {
    Rejection::new(RejectionKind::Internal, "internal", message)
}

#[cfg(test)]
mod tests;
