//! Shards that come and go: which runs this worker may decide on.

use domain::ids::RunId;
use protocol::shard_of;

use super::{Slot, Worker};
use crate::coordinator::actor::{Holds, refuse_all};
use crate::coordinator::refusal::not_owner;

impl Worker {
    /// The epoch of the shard that a run belongs to, where it is owned.
    pub(super) fn epoch_of(&self, run_id: RunId) -> Option<u64> {
        self.owned.get(&shard_of(run_id)).copied()
    }

    /// A shard is owned from now on. What is in memory from an earlier time isn't trusted.
    pub(super) fn own(&mut self, shard: u16, epoch: u64) {
        if self.owned.get(&shard) != Some(&epoch) {
            self.lose(shard);
            self.owned.insert(shard, epoch);
            self.admissions.shut(shard);
        }
    }

    /// A shard is another coordinator's: its runs leave memory, and who waits for them is sent
    /// there. A run whose append is under way stays until that is settled.
    pub(super) fn lose(&mut self, shard: u16) {
        if self.owned.remove(&shard).is_none() {
            return;
        }
        self.dispatch.forget_shard(shard);
        self.timers.retain(|run_id| shard_of(*run_id) != shard);
        self.children.forget_shard(shard);
        self.checks.lost.retain(|(run_id, _, _)| shard_of(*run_id) != shard);
        self.admissions.forget_shard(shard);
        self.workflows.forget_shard(shard);
        let of_shard = self.runs.keys().filter(|run_id| shard_of(**run_id) == shard);
        let mut runs: Vec<RunId> = of_shard.copied().collect();
        // In the same order each time, whatever follows from it.
        runs.sort_unstable();
        for run_id in runs {
            let under_way = match self.runs.get(&run_id) {
                Some(Slot::Loaded(actor)) => actor.under_way.is_some(),
                Some(Slot::Loading { .. } | Slot::Quarantined) | None => false,
            };
            if !under_way {
                self.let_go(run_id);
            }
        }
    }

    /// A run leaves memory, and who waits for it asks elsewhere.
    pub(super) fn let_go(&mut self, run_id: RunId) {
        match self.runs.remove(&run_id) {
            Some(Slot::Loaded(actor)) => actor.failed(&not_owner()),
            Some(Slot::Loading { queue, waiters, .. }) => {
                refuse_all(queue.into_iter(), &not_owner(), Holds::ForNow);
                for (_, waiter) in waiters {
                    drop(waiter.send(Err(not_owner())));
                }
            }
            Some(Slot::Quarantined) | None => {}
        }
    }

    /// An append was refused because the shard has another owner: a state like others, not a
    /// fault. The whole shard is let go at once.
    pub(super) fn fenced(&mut self, run_id: RunId, shard: u16) {
        let epoch = match self.runs.get(&run_id) {
            Some(Slot::Loaded(actor)) => actor.epoch,
            Some(Slot::Loading { .. } | Slot::Quarantined) | None => return,
        };
        tracing::warn!(%run_id, shard, epoch, "a shard is owned elsewhere, letting it go");
        metrics::counter!("wonder_appends_fenced_total").increment(1);
        self.left_behind(run_id);
        if self.owned.get(&shard) == Some(&epoch) {
            self.lose(shard);
            (self.context.fenced)(shard, epoch);
        }
    }

    /// The append of a run that had to leave is settled. Where its shard has come back meanwhile,
    /// nobody else takes the run up.
    pub(super) fn left_behind(&mut self, run_id: RunId) {
        let epoch = match self.runs.get(&run_id) {
            Some(Slot::Loaded(actor)) => actor.epoch,
            Some(Slot::Loading { .. } | Slot::Quarantined) | None => return,
        };
        self.let_go(run_id);
        if let Some(newer) = self.epoch_of(run_id).filter(|newer| *newer != epoch) {
            self.load(run_id, newer);
        }
    }
}
