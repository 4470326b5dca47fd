//! Child runs: started, told of their parents, and their ends told to these.
//!
//! All that is asked of runs here may be lost with the process, or with an append that fails: a run
//! that is taken over seeks the children that it waits for, and a child that is taken over asks
//! whether it is waited for.

use domain::ids::RunId;
use domain::run::command::ChildReport;
use domain::run::event::{FailureKind, TokenId};
use domain::run::{Command, Run, RunError, RunStatus};
use protocol::Rejection;

use self::start::Wish;
use super::{Slot, Worker};
use crate::coordinator::Start;
use crate::coordinator::actor::{Actor, Durable, Queued};
use crate::coordinator::children::{Awaited, Stage};

mod start;

/// Why a child is cancelled whose parent has ended, or undoes its work before it does.
const PARENT_ENDED: &str = "parent_ended";
/// Why one is whose parent goes on without it.
const NOT_AWAITED: &str = "no_longer_awaited";

impl Worker {
    /// An append of a run is durable: its new children are started, those that it gave up are
    /// cancelled, and the others follow its pause.
    pub(super) fn children_follow(&mut self, run_id: RunId, durable: &mut Durable) {
        for (token, child) in durable.children.drain(..) {
            self.children.due(child, run_id, token);
        }
        for child in durable.given_up.drain(..) {
            // One that was never started needs no end.
            let awaited = self.children.remove(child);
            if awaited.is_none_or(|one| one.stage != Stage::Due) {
                self.cancel_child(child, if durable.is_over { PARENT_ENDED } else { NOT_AWAITED });
            }
        }
        if let Some(is_paused) = durable.paused {
            for child in self.live_children(run_id) {
                self.tell(child, Command::FollowParent { is_paused });
            }
        }
        if durable.created && self.children.live(run_id) {
            self.follow_pause(run_id);
        }
        for child in self.children.take_unverified(run_id) {
            self.verify(child);
        }
    }

    fn live_children(&self, run_id: RunId) -> Vec<RunId> {
        let Some(Slot::Loaded(actor)) = self.runs.get(&run_id) else { return Vec::new() };
        let children = actor.run.live().into_iter().flat_map(|live| live.children.values());
        let is_live = |child: &RunId| {
            self.children.get(*child).is_some_and(|awaited| awaited.stage == Stage::Live)
        };
        children.copied().filter(is_live).collect()
    }

    fn tell(&mut self, run_id: RunId, command: Command) {
        self.queue(run_id, None, Queued::Own(Box::new(command)));
    }

    fn cancel_child(&mut self, child: RunId, reason: &str) {
        let reason = Some(reason.to_owned());
        self.tell(child, Command::Cancel { reason, compensate: true });
    }

    /// An append of a run failed, and may be durable all the same: what its children would have been
    /// told then follows once the run is loaded again.
    pub(super) fn children_in_doubt(&mut self, actor: &Actor) {
        let Some(durable) = actor.to_follow() else { return };
        for child in &durable.given_up {
            self.children.remove(*child);
            self.children.verify_later(actor.run_id, *child);
        }
        if durable.paused.is_some() {
            let children = actor.run.live().into_iter().flat_map(|live| live.children.values());
            for child in children {
                self.children.remove(*child);
            }
        }
    }

    /// A run was taken over: seeks the children that it waits for.
    pub(super) fn seek_children(&mut self, run_id: RunId, owed: Vec<(TokenId, RunId)>) {
        for (token, child) in owed {
            if !self.children.seek(child, run_id, token) {
                continue;
            }
            match (self.runs.get(&child), self.epoch_of(child)) {
                (Some(Slot::Loaded(_)), _) => self.child_found(child),
                (None, Some(epoch)) => self.load(child, epoch),
                (Some(Slot::Loading { .. } | Slot::Quarantined), _) | (None, None) => {}
            }
        }
        for child in self.children.take_unverified(run_id) {
            self.verify(child);
        }
    }

    /// A run that may be a child is in memory.
    pub(super) fn child_found(&mut self, run_id: RunId) {
        let Some(Slot::Loaded(actor)) = self.runs.get(&run_id) else { return };
        if actor.run.header().is_none_or(|header| header.parent.is_none()) {
            return;
        }
        if !matches!(actor.run, Run::Closed(_)) {
            if self.children.live(run_id) {
                self.follow_pause(run_id);
            } else {
                self.verify(run_id);
            }
        } else if actor.under_way.is_none() {
            let is_idle = actor.is_idle();
            let run = actor.run.clone();
            self.tell_parent(run_id, &run);
            if is_idle {
                self.runs.remove(&run_id);
            }
        }
    }

    /// A run that was to be in the journal isn't.
    pub(super) fn child_missing(&mut self, run_id: RunId) {
        if let Some(Awaited { parent, token, .. }) = self.children.get(run_id) {
            self.children.due(run_id, parent, token);
        }
        for child in self.children.take_unverified(run_id) {
            self.cancel_child(child, PARENT_ENDED);
        }
    }

    /// Asks the parent of a live child whether it waits for it, and cancels the child where not.
    fn verify(&mut self, child: RunId) {
        let actor = match (self.runs.get(&child), self.epoch_of(child)) {
            (Some(Slot::Loaded(actor)), _) => actor,
            // It has left memory meanwhile, and is asked about when it is back.
            (None, Some(epoch)) => return self.load(child, epoch),
            (Some(Slot::Loading { .. } | Slot::Quarantined), _) | (None, None) => return,
        };
        let header = actor.run.live().map(|live| &live.header);
        let Some(parent) = header.and_then(|header| header.parent) else { return };
        match self.runs.get(&parent.run_id) {
            Some(Slot::Loaded(above)) if above.under_way.is_none() => {
                if above.run.awaited_child(parent.token) == Some(child) {
                    self.children.seek(child, parent.run_id, parent.token);
                    self.children.live(child);
                    self.follow_pause(child);
                } else {
                    let live = above.run.live();
                    let is_over = live.is_none_or(|live| live.compensation.is_some());
                    self.cancel_child(child, if is_over { PARENT_ENDED } else { NOT_AWAITED });
                }
            }
            Some(Slot::Loaded(_) | Slot::Loading { .. }) => {
                self.children.verify_later(parent.run_id, child);
            }
            Some(Slot::Quarantined) => {}
            None => {
                self.children.verify_later(parent.run_id, child);
                if let Some(epoch) = self.epoch_of(parent.run_id) {
                    self.load(parent.run_id, epoch);
                }
            }
        }
    }

    /// A child that has come follows a pause that it wasn't told of.
    fn follow_pause(&mut self, child: RunId) {
        let Some(awaited) = self.children.get(child) else { return };
        let is_paused = |run_id: RunId| match self.runs.get(&run_id) {
            Some(Slot::Loaded(actor)) => Some(actor.run.is_paused()),
            Some(Slot::Loading { .. } | Slot::Quarantined) | None => None,
        };
        if let Some(above) = is_paused(awaited.parent)
            && is_paused(child) != Some(above)
        {
            self.tell(child, Command::FollowParent { is_paused: above });
        }
    }

    /// The end of a run is durable: its parent is told, where it waits for it.
    pub(super) fn tell_parent(&mut self, run_id: RunId, run: &Run) {
        let (Some(awaited), Run::Closed(closed)) = (self.children.remove(run_id), run) else {
            return;
        };
        let cancelled = || {
            let reason = closed.reason.clone();
            RunError::permanent(
                "cancelled",
                reason.unwrap_or_else(|| "it was cancelled".to_owned()),
            )
        };
        let failure = match closed.status {
            RunStatus::Cancelled => Some(RunError { kind: FailureKind::Cancelled, ..cancelled() }),
            _ => closed.error.as_deref().cloned(),
        };
        let report = ChildReport {
            token: awaited.token,
            run_id,
            status: closed.status,
            output: closed.output.as_deref().cloned(),
            error: failure,
            adopted: None,
        };
        self.tell(awaited.parent, Command::ReportChild(Box::new(report)));
    }

    /// Starts children that are due, as many as may be under way.
    pub(super) fn start_children(&mut self) {
        while let Some((child, awaited)) = self.children.next_start() {
            let wish = match self.runs.get(&awaited.parent) {
                Some(Slot::Loaded(parent)) => Wish::of(parent, child, awaited.token),
                Some(Slot::Loading { .. } | Slot::Quarantined) | None => None,
            };
            match wish {
                Some(wish) => wish.prepare(&self.context),
                // The parent seeks it when it is taken over, if it still waits for it then.
                None => {
                    self.children.remove(child);
                }
            }
        }
    }

    /// What a child needs was looked up.
    pub(super) fn child_prepared(&mut self, child: RunId, prepared: Result<Box<Start>, Rejection>) {
        let awaited = self.children.get(child).filter(|one| one.stage == Stage::Starting);
        let Some(awaited) = awaited else { return };
        match prepared {
            Ok(start) if self.runs.contains_key(&child) => {
                drop(start);
                // Somebody has asked for it: what is known of it then says how it goes on.
                self.children.remove(child);
                self.seek_children(awaited.parent, vec![(awaited.token, child)]);
            }
            Ok(start) => self.start(start),
            Err(rejection) => {
                self.children.remove(child);
                let report = ChildReport {
                    token: awaited.token,
                    run_id: child,
                    status: RunStatus::Failed,
                    output: None,
                    error: Some(not_started(&rejection)),
                    adopted: None,
                };
                self.tell(awaited.parent, Command::ReportChild(Box::new(report)));
            }
        }
    }
}

/// Why a child could not be started, as an error of it.
fn not_started(rejection: &Rejection) -> RunError {
    let detail = serde_json::to_value(&rejection.problems).ok();
    let detail = detail.filter(|_| !rejection.problems.is_empty()).unwrap_or_default();
    RunError { detail, ..RunError::permanent(&rejection.code, rejection.message.clone()) }
}
