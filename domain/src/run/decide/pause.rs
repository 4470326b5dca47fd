//! Pauses: nothing goes to workers and timers stand still, until the run is resumed.

use super::Decider;
use crate::run::error::Refusal;
use crate::run::event::Event;

impl Decider<'_> {
    pub(super) fn pause(&mut self, reason: Option<&String>) -> Result<(), Refusal> {
        if self.run.is_paused() {
            return Err(Refusal::AlreadyPaused);
        }
        self.emit(Event::RunPaused { reason: reason.cloned(), by_parent: false });
        Ok(())
    }

    /// Everything that is owed is to be handed out; who hands it out knows what is on workers.
    pub(super) fn resume(&mut self) -> Result<(), Refusal> {
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
