//! Pauses: nothing goes to workers and timers stand still, until the run is resumed. A run that has
//! too many events is suspended: it is paused for good, and not ended, since what it did is there.

use super::Decider;
use crate::ids::WorkflowId;
use crate::limits;
use crate::run::error::Refusal;
use crate::run::event::{Event, QueueReason};
use crate::run::state::Live;

impl Decider<'_> {
    pub(super) fn pause(&mut self, reason: Option<&String>) -> Result<(), Refusal> {
        if self.run.is_paused() {
            return Err(Refusal::AlreadyPaused);
        }
        let (by_parent, by_workflow) = (false, false);
        self.emit(Event::RunPaused { reason: reason.cloned(), by_parent, by_workflow });
        Ok(())
    }

    pub(super) fn is_suspended(&self) -> bool {
        self.live().is_some_and(Live::is_suspended)
    }

    /// Pauses a run that has come to the limit of its events. Work that is on workers is taken from
    /// them, and nothing more begins.
    pub(super) fn suspend(&mut self) {
        if self.is_suspended() && !self.run.is_paused() {
            let limit = limits::EVENTS_PER_RUN;
            let reason = Some(format!("the run has {limit} events, as many as it may: cancel it"));
            let (by_parent, by_workflow) = (false, false);
            self.emit(Event::RunPaused { reason, by_parent, by_workflow });
        }
    }

    pub(super) fn resume(&mut self) -> Result<(), Refusal> {
        if self.is_suspended() {
            return Err(Refusal::TooManyEvents { limit: limits::EVENTS_PER_RUN });
        }
        let pause = self.live().and_then(|live| live.pause.as_ref());
        if pause.is_some_and(|pause| pause.by_workflow) {
            return Err(Refusal::WorkflowPaused);
        }
        self.go_on()
    }

    /// Follows a workflow that was paused or goes on. A run that was paused otherwise stays so; one
    /// that waits for its admission goes on waiting, for this reason or for its turn.
    pub(super) fn follow_workflow(
        &mut self,
        workflow_id: WorkflowId,
        is_paused: bool,
        ahead: u64,
    ) -> Result<(), Refusal> {
        let follows = |live: &&Live| live.may_follow_workflow(is_paused) && !live.is_suspended();
        let Some(live) = self.live().filter(follows) else { return Ok(()) };
        match (&live.in_queue, &live.header.admission) {
            (Some(_), _) if is_paused => {
                self.emit(Event::RunQueued(QueueReason::WorkflowPaused { workflow_id }));
            }
            (Some(_), Some(admission)) => {
                self.emit(Event::RunQueued(admission.reason(ahead, false, None)));
            }
            (Some(_), None) => self.admit(None),
            (None, _) if is_paused => {
                let (by_parent, by_workflow) = (false, true);
                self.emit(Event::RunPaused { reason: None, by_parent, by_workflow });
            }
            (None, _) => return self.go_on(),
        }
        Ok(())
    }

    /// Everything that is owed is to be handed out; who hands it out knows what is on workers.
    pub(super) fn go_on(&mut self) -> Result<(), Refusal> {
        if !self.run.is_paused() {
            return Err(Refusal::NotPaused);
        }
        self.emit(Event::RunResumed {});
        let owed = self.run.owed(self.plan);
        self.decision.dispatch.extend(owed.attempts);
        self.decision.advance |= owed.advance;
        self.wake();
        Ok(())
    }
}
