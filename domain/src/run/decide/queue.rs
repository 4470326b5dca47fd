//! Admission: a run that may not begin yet stands in a queue. Who may is decided over all runs of a
//! key (see [`crate::queue`]); here it is recorded.

use super::Decider;
use crate::ids::RunId;
use crate::run::error::Refusal;
use crate::run::event::{Event, QueueReason, RunStarted};

impl Decider<'_> {
    /// Starts a run that has to wait.
    pub(super) fn start_in_queue(
        &mut self,
        started: &RunStarted,
        reason: &QueueReason,
    ) -> Result<(), Refusal> {
        self.begin(started, None)?;
        self.emit(Event::RunQueued(reason.clone()));
        Ok(())
    }

    /// Records a start that ends at once, since as many runs go on as may.
    pub(super) fn start_dropped(&mut self, started: &RunStarted) -> Result<(), Refusal> {
        self.begin(started, None)?;
        let limit = started.admission.as_ref().map_or(0, |admission| admission.limit);
        let reason = format!("as many runs with its concurrency key as may go on already: {limit}");
        let code = Some("concurrency_dropped".to_owned());
        self.emit(Event::RunCancelled { reason: Some(reason), code });
        Ok(())
    }

    /// The reason why it waits has become another one.
    pub(super) fn stay_in_queue(&mut self, reason: &QueueReason) {
        let known = self.live().and_then(|live| live.in_queue.as_ref());
        if known.is_some_and(|known| known.reason != *reason) {
            self.emit(Event::RunQueued(reason.clone()));
        }
    }

    /// The run may begin. One that has begun already goes on as it does.
    pub(super) fn admit(&mut self) {
        if !self.run.is_in_queue() {
            return;
        }
        let deadline = self.plan.timeout.map(|timeout| self.after(timeout));
        self.emit(Event::RunAdmitted { deadline });
        self.fresh.push(1);
    }

    /// A newer run takes its place.
    pub(super) fn displace(&mut self, by: RunId) {
        let reason = format!("the run {by} with the same concurrency key takes its place");
        let code = Some("concurrency_replaced".to_owned());
        self.emit(Event::RunCancelled { reason: Some(reason), code });
    }
}
