//! How a queue's decisions change a run.

use chrono::{DateTime, Utc};

use crate::run::event::QueueReason;
use crate::run::state::{InQueue, Live, Timer};

impl Live {
    pub(super) fn enqueue(&mut self, reason: &QueueReason) {
        let since = self.in_queue.as_ref().map_or(self.at, |in_queue| in_queue.since);
        self.in_queue = Some(InQueue { since, reason: reason.clone() });
    }

    /// The run begins: its first token has come to the start node only now.
    pub(super) fn admit(&mut self, deadline: Option<DateTime<Utc>>) {
        if self.in_queue.take().is_none() {
            return;
        }
        for token in self.tokens.values_mut() {
            token.since = self.at;
        }
        self.timers.extend(deadline.map(|deadline| (deadline, Timer::Run)));
    }
}
