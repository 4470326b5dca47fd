//! The sweep over attempts that nothing was heard of: a queue outside of this process may have lost
//! them. It repeats for as long as the worker lives.

use std::collections::HashSet;
use std::time::Duration;

use protocol::shard_of;
use tokio::time::Instant;

use super::{Message, Worker};
use crate::coordinator::dispatch::{Attempt, Look, Whereabouts};

/// How long nothing may be heard of an attempt before it is looked for, and how often.
const EVERY: Duration = Duration::from_secs(5);
/// How long after a look those are looked for again that may be lost: their runs wait for that.
const SOON: Duration = Duration::from_millis(500);

/// When it was looked for attempts.
#[derive(Debug, Default)]
pub(super) struct Checks {
    /// A look is under way.
    is_under_way: bool,
    last: Option<Instant>,
    /// Attempts were taken over: they are looked for now.
    pub(super) is_urgent: bool,
    /// Attempts that may be lost, and when they are looked for again.
    in_doubt: Vec<Attempt>,
    again_at: Option<Instant>,
    /// Attempts that are lost for certain, of runs that have left memory: handed out again once
    /// their run is back.
    pub(super) lost: HashSet<Attempt>,
}

impl Checks {
    /// How long nothing is to be looked for again.
    pub(super) fn until_due(&self) -> Duration {
        self.again_at.map_or(Duration::MAX, |at| at.saturating_duration_since(Instant::now()))
    }
}

impl Worker {
    /// Looks for attempts in the queue, where it is time to.
    pub(super) fn check_unheard(&mut self) {
        let Some(queue) = &self.context.queue else { return };
        let now = Instant::now();
        let is_due = self.checks.last.is_none_or(|last| now - last >= EVERY);
        let for_all = is_due || self.checks.is_urgent;
        let for_doubts = self.checks.again_at.is_some_and(|at| at <= now);
        if self.checks.is_under_way || !(for_all || for_doubts) {
            return;
        }
        let in_doubt = std::mem::take(&mut self.checks.in_doubt);
        self.checks.again_at = None;
        let unheard = if for_all {
            self.checks.last = Some(now);
            self.checks.is_urgent = false;
            let unheard = self.dispatch.unheard(EVERY);
            self.gauges.unheard.set(unheard.len() as f64);
            unheard
        } else {
            in_doubt
        };
        if unheard.is_empty() {
            return;
        }
        self.checks.is_under_way = true;
        let (queue, mailbox) = (std::sync::Arc::clone(queue), self.context.mailbox.clone());
        tokio::spawn(async move {
            let looked = queue.look(&unheard).await;
            if let Some(mailbox) = mailbox.upgrade() {
                drop(mailbox.send(Message::Checked(looked)).await);
            }
        });
    }

    /// Attempts were looked for.
    pub(super) fn checked(&mut self, looked: Vec<(Attempt, Look)>) {
        self.checks.is_under_way = false;
        for (attempt, look) in looked {
            match self.dispatch.looked_for(attempt, look) {
                Whereabouts::Lost => {}
                Whereabouts::InPlace => continue,
                Whereabouts::InDoubt => {
                    self.checks.in_doubt.push(attempt);
                    self.checks.again_at = Some(Instant::now() + SOON);
                    continue;
                }
            }
            let (run_id, token, number) = attempt;
            tracing::info!(%run_id, token, attempt = number, "a task was lost, handing it out again");
            metrics::counter!("wonder_tasks_handed_out_again_total").increment(1);
            self.dispatch.back(run_id, token, number);
            match (self.runs.get_mut(&run_id), self.owned.get(&shard_of(run_id)).copied()) {
                (Some(super::Slot::Loaded(actor)), _) => {
                    actor.handed_out_before(token, number);
                    let limit = self.context.limit_of(actor);
                    self.dispatch.ready(run_id, limit, token, number);
                }
                (None, Some(epoch)) => {
                    self.checks.lost.insert(attempt);
                    self.load(run_id, epoch);
                }
                (Some(super::Slot::Loading { .. }), _) => {
                    self.checks.lost.insert(attempt);
                }
                (Some(super::Slot::Quarantined), _) | (None, None) => {}
            }
        }
    }
}
