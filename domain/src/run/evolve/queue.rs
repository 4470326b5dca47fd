//! How a queue's decisions change a run.

use chrono::{DateTime, Utc};

use crate::run::event::QueueReason;
use crate::run::state::{InQueue, Live, Phase, Timer};

impl Live {
    pub(super) fn enqueue(&mut self, reason: &QueueReason) {
        let since = self.in_queue.as_ref().map_or(self.at, |in_queue| in_queue.since);
        self.in_queue = Some(InQueue { since, reason: reason.clone() });
    }

    /// The run begins, or a fork goes on: what it works at it has come to only now, and its timers
    /// have as much time left as they had.
    pub(super) fn admit(&mut self, deadline: Option<DateTime<Utc>>) {
        let Some(in_queue) = self.in_queue.take() else { return };
        for token in self.tokens.values_mut() {
            if matches!(token.phase, Phase::Working { .. }) {
                token.since = self.at;
            }
        }
        // From its pause on they stand still because of that.
        let until = self.pause.as_ref().map_or(self.at, |pause| pause.since);
        self.postpone(until - in_queue.since, |timer| !matches!(timer, Timer::Retry(_)));
        self.timers.extend(deadline.map(|deadline| (deadline, Timer::Run)));
    }
}
