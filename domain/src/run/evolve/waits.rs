//! How gates, child runs and pauses change a run.

use std::collections::BTreeSet;
use std::sync::Arc;

use chrono::TimeDelta;

use crate::run::event::{ChildEnded, ChildStarted, GateAnswered, GateClosed, GateOpened};
use crate::run::state::{Gate, Live, Pause, Phase, Timer};

impl Live {
    pub(super) fn open_gate(&mut self, opened: &GateOpened) {
        let gate = Box::new(Gate::opened(opened));
        self.set_phase(opened.token, Phase::Gated { gate });
    }

    pub(super) fn answer_gate(&mut self, answered: &GateAnswered) {
        let token = self.tokens.get_mut(&answered.token);
        if let Some(Phase::Gated { gate }) = token.map(|token| &mut token.phase) {
            gate.answered(answered);
        }
    }

    /// One that was given up is gone with its token already.
    pub(super) fn close_gate(&mut self, closed: &GateClosed) {
        match &closed.error {
            Some(error) => {
                self.set_phase(closed.token, Phase::Failed { error: Box::new(error.clone()) });
            }
            None => self.succeed(closed.token, Some(&closed.result), &closed.writes),
        }
    }

    pub(super) fn await_child(&mut self, started: &ChildStarted) {
        let phase = Phase::AwaitingChild {
            run_id: started.run_id,
            definition: Arc::from(started.definition.as_str()),
            until: started.deadline,
            fork_of: None,
        };
        self.set_phase(started.token, phase);
    }

    pub(super) fn end_child(&mut self, ended: &ChildEnded) {
        match &ended.error {
            Some(error) => {
                self.set_phase(ended.token, Phase::Failed { error: Box::new(error.clone()) });
            }
            None => {
                self.keep_undo(ended.token, ended.undo.as_ref());
                self.succeed(ended.token, Some(&ended.result), &ended.writes);
            }
        }
    }

    pub(super) fn stand_still(
        &mut self,
        reason: Option<String>,
        by_parent: bool,
        by_workflow: bool,
    ) {
        if self.pause.is_none() {
            self.pause = Some(Pause { since: self.at, reason, by_parent, by_workflow });
        }
    }

    /// Every timer is due later by the length of the pause; of a run that waits for its turn, by
    /// the length of that.
    pub(super) fn go_on(&mut self) {
        if let Some(pause) = self.pause.take()
            && self.in_queue.is_none()
        {
            self.postpone(self.at - pause.since, |_| true);
        }
    }

    /// Moves timers by a length.
    pub(super) fn postpone(&mut self, length: TimeDelta, which: impl Fn(Timer) -> bool) {
        let timers = std::mem::take(&mut self.timers).into_iter();
        let (moved, kept): (BTreeSet<_>, _) = timers.partition(|(_, timer)| which(*timer));
        self.timers = kept;
        for (due, timer) in moved {
            let later = due.checked_add_signed(length).unwrap_or(due);
            self.timers.insert((later, timer));
            match timer {
                Timer::Run => {}
                Timer::Join(id) => {
                    if let Some(instance) = self.instances.get_mut(&id) {
                        instance.deadline = Some(later);
                    }
                }
                Timer::Retry(id) | Timer::Wait(id) => {
                    match self.tokens.get_mut(&id).map(|token| &mut token.phase) {
                        Some(Phase::BackingOff { until, .. }) => *until = later,
                        Some(Phase::Waiting { until, .. } | Phase::AwaitingChild { until, .. }) => {
                            *until = Some(later);
                        }
                        Some(Phase::Gated { gate }) => gate.deadline = Some(later),
                        Some(
                            Phase::Working { .. }
                            | Phase::Blocked { .. }
                            | Phase::Succeeded { .. }
                            | Phase::Failed { .. },
                        )
                        | None => {}
                    }
                }
            }
        }
    }
}
