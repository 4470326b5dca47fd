//! Loading runs in the background, and taking them over with what they are owed; and leaving alone
//! those that can't be decided on.

use std::collections::VecDeque;
use std::sync::Arc;

use domain::ids::{RunId, WorkspaceId};
use domain::queue::Hold;
use protocol::{Rejection, RunOutcome};

use super::{Slot, Worker, refuse_one, wait_for};
use crate::coordinator::actor::{Actor, Holds, Queued, Taken, refuse_all};
use crate::coordinator::load::{self, LoadError, Loaded};
use crate::coordinator::refusal::{not_found, quarantined};
use crate::coordinator::{Message, Reply};

impl Worker {
    pub(super) fn load(&mut self, run_id: RunId, epoch: u64) {
        self.expect_load(run_id, epoch);
        self.loads.ask(run_id, epoch);
    }

    fn expect_load(&mut self, run_id: RunId, epoch: u64) {
        let (queue, waiters) = (VecDeque::new(), Vec::new());
        self.runs.insert(run_id, Slot::Loading { epoch, queue, waiters });
    }

    /// Takes up a run that was open when its shard was taken over.
    pub(super) fn recover(&mut self, run_id: RunId, epoch: u64) {
        match self.runs.get(&run_id) {
            Some(Slot::Loaded(actor)) if actor.epoch == epoch => return,
            Some(Slot::Quarantined) => return,
            // One of an earlier time is loaded again as soon as its append is settled.
            Some(Slot::Loaded(_) | Slot::Loading { .. }) => {}
            None => {
                self.expect_load(run_id, epoch);
                self.loads.take_up(run_id, epoch);
            }
        }
        self.admissions.expect(run_id);
    }

    /// Begins loads, as many as may be under way.
    pub(super) fn start_loads(&mut self) {
        while let Some((run_id, epoch)) = self.loads.next() {
            let is_wanted = |slot: &Slot| matches!(slot, Slot::Loading { epoch: wanted, .. } if *wanted == epoch);
            if !self.runs.get(&run_id).is_some_and(is_wanted) {
                self.loads.ended();
                continue;
            }
            let journal = Arc::clone(&self.context.journal);
            let resolver = Arc::clone(&self.context.resolver);
            let plans = Arc::clone(&self.context.plans);
            let clock = Arc::clone(&self.context.clock);
            let mailbox = self.context.mailbox.clone();
            tokio::spawn(async move {
                let loaded = load::load(&*journal, &*clock, &resolver, &plans, run_id, epoch).await;
                if let Some(mailbox) = mailbox.upgrade() {
                    drop(mailbox.send(Message::Loaded { run_id, epoch, loaded }).await);
                }
            });
        }
    }

    pub(super) fn loaded(&mut self, run_id: RunId, epoch: u64, loaded: Result<Loaded, LoadError>) {
        self.loads.ended();
        let Some(Slot::Loading { epoch: wanted, queue, waiters }) = self.runs.get_mut(&run_id)
        else {
            return;
        };
        if *wanted != epoch {
            // The shard was lost and owned again meanwhile; another load is on its way.
            return;
        }
        let (queue, waiters) = (std::mem::take(queue), std::mem::take(waiters));
        let rejection = match loaded {
            Ok(Some(taken)) => return self.take_over(*taken, queue, waiters),
            Ok(None) => {
                self.runs.remove(&run_id);
                self.forget(run_id);
                self.admissions.know(run_id);
                self.child_missing(run_id);
                not_found(run_id)
            }
            // The run stays as it is and is tried again for ever: what it owes isn't forgotten.
            Err(error) => {
                tracing::error!(%run_id, %error, "can't load a run, trying again");
                metrics::counter!("wonder_run_load_failures_total").increment(1);
                self.loads.again(run_id, epoch);
                let rejection = error.refusal();
                refuse_all(queue.into_iter(), &rejection, Holds::ForNow);
                for (_, waiter) in waiters {
                    drop(waiter.send(Err(rejection.clone())));
                }
                return;
            }
        };
        refuse_all(queue.into_iter(), &rejection, Holds::ForGood);
        for (_, waiter) in waiters {
            drop(waiter.send(Err(rejection.clone())));
        }
    }

    fn take_over(
        &mut self,
        taken: Taken,
        queue: VecDeque<Queued>,
        waiters: Vec<(WorkspaceId, Reply<RunOutcome>)>,
    ) {
        let run_id = taken.run_id;
        let workflow_id = taken.run.live().and_then(|live| live.header.workflow_id);
        if let (Some(workflow_id), Some(standing)) = (workflow_id, taken.standing) {
            self.follow_workflow(run_id, workflow_id, standing);
        }
        let mut actor = Box::new(Actor::new(taken));
        let owed = actor.owed();
        for queued in queue {
            let foreign = match &queued {
                Queued::Command { cause, .. } => cause.workspace_id != actor.workspace_id(),
                Queued::Start(_)
                | Queued::Outcome(..)
                | Queued::HandOut { .. }
                | Queued::Admit(_)
                | Queued::Own(_)
                | Queued::Wake
                | Queued::Advance => false,
            };
            if foreign {
                refuse_one(queued, &not_found(run_id), Holds::ForGood);
            } else {
                actor.queue.push_back(queued);
            }
        }
        if owed.advance {
            actor.queue.push_back(Queued::Advance);
        }
        for (workspace_id, waiter) in waiters {
            wait_for(&mut actor, workspace_id, waiter);
        }
        self.place(&actor);
        self.timers.set(run_id, owed.next_due);
        let limit = self.context.limit_of(&actor);
        for (token, attempt) in owed.attempts {
            if actor.run.live().is_some_and(|live| live.is_held_back(token)) {
                continue;
            }
            let is_lost = self.checks.lost.remove(&(run_id, token, attempt));
            if self.context.queue.is_some() && !is_lost {
                self.dispatch.out(run_id, limit, token, attempt);
                self.checks.is_urgent = true;
            } else {
                if !self.dispatch.is_out(run_id, token, attempt) {
                    actor.handed_out_before(token, attempt);
                }
                self.dispatch.ready(run_id, limit, token, attempt);
            }
        }
        self.runs.insert(run_id, Slot::Loaded(actor));
        self.turns.push(run_id);
        self.seek_children(run_id, owed.children);
        self.child_found(run_id);
        self.let_wait(run_id);
    }

    /// A run whose memory can't be trusted is loaded again, and what it owes is done again. A
    /// start that was never written leaves nothing to load.
    pub(super) fn drop_run(&mut self, run_id: RunId, rejection: &Rejection) {
        let Some(Slot::Loaded(actor)) = self.runs.remove(&run_id) else { return };
        self.dispatch.forget_ready(run_id);
        self.children_in_doubt(&actor);
        actor.failed(rejection);
        let Some(epoch) = self.epoch_of(run_id) else { return };
        self.expect_load(run_id, epoch);
        self.loads.again(run_id, epoch);
    }

    /// Deciding on a run panicked: see [`Slot::Quarantined`].
    pub(super) fn quarantine(&mut self, run_id: RunId) {
        tracing::error!(%run_id, "deciding on a run panicked, it is left alone until a restart");
        metrics::counter!("wonder_runs_quarantined_total").increment(1);
        let before = self.runs.insert(run_id, Slot::Quarantined);
        self.dispatch.forget_ready(run_id);
        self.timers.set(run_id, None);
        self.children.stuck(run_id);
        self.admissions.hold(run_id, Hold::Run, true);
        if let Some(Slot::Loaded(actor)) = before {
            actor.failed(&quarantined());
        }
    }
}
