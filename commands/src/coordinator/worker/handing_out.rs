//! Attempts that go to workers, as long as the queue to them has room.

use std::time::Duration;

use super::{Context, Slot, Worker};
use crate::coordinator::actor::Queued;

/// How long a queue that is full is left alone, unless something else happens.
const PAUSE: Duration = Duration::from_millis(10);

impl Context {
    /// Whether the queue takes the next run's turn. What is in flight has room in it; but so has
    /// what nobody waits for any more until it is taken out, which takes long where the queue's
    /// other end is stuck.
    fn has_room(&self) -> bool {
        self.tasks.depth() < self.tasks_waiting
    }
}

impl Worker {
    /// Hands attempts to workers, run by run.
    pub(super) fn hand_out(&mut self) {
        let is_queued = self.context.queue.is_some();
        self.waits_for_room = false;
        loop {
            if !self.context.has_room() {
                self.waits_for_room = self.dispatch.has_turns();
                break;
            }
            let Some((run_id, turn)) = self.dispatch.next_turn() else { break };
            for (token, attempt) in turn {
                let task = match self.runs.get_mut(&run_id) {
                    // Handed out when the run is resumed.
                    Some(Slot::Loaded(actor)) if actor.holds_back() => None,
                    Some(Slot::Loaded(actor)) => {
                        if actor.must_record(token, attempt) {
                            actor.queue.push_back(Queued::HandOut { token, attempt });
                            self.turns.push(run_id);
                            None
                        } else {
                            let task = actor.task(token, attempt);
                            if let (Some(Ok(task)), true) = (&task, is_queued) {
                                actor.awaits_fetch(task);
                            }
                            task
                        }
                    }
                    Some(Slot::Loading { .. } | Slot::Quarantined) | None => None,
                };
                match task {
                    Some(Ok(task)) => {
                        // It has room for a turn of each worker, unless it is closed for good.
                        if self.context.tasks.try_send(task).is_err() {
                            self.dispatch.back(run_id, token, attempt);
                        }
                    }
                    Some(Err(outcome)) => self.outcome(*outcome, None),
                    None => self.dispatch.back(run_id, token, attempt),
                }
            }
        }
        if !self.turns.is_empty() {
            self.take_turns();
        }
        self.gauges.in_flight.set(self.dispatch.in_flight() as f64);
    }

    /// How long nothing is to be handed out.
    pub(super) const fn until_room(&self) -> Duration {
        if self.waits_for_room { PAUSE } else { Duration::MAX }
    }
}
