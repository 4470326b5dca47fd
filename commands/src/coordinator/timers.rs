//! The timers of a worker's runs: which run is due next, also of runs that aren't in memory.

use std::collections::{BTreeSet, HashMap};

use chrono::{DateTime, Utc};
use domain::ids::RunId;
use protocol::shard_of;

/// One entry a run: the time at which it wants to be woken.
#[derive(Debug, Default)]
pub(super) struct Timers {
    by_time: BTreeSet<(DateTime<Utc>, RunId)>,
    by_run: HashMap<RunId, DateTime<Utc>>,
}

impl Timers {
    /// Sets a run's next time, or takes it off.
    pub(super) fn set(&mut self, run_id: RunId, due: Option<DateTime<Utc>>) {
        let before = match due {
            Some(due) => self.by_run.insert(run_id, due),
            None => self.by_run.remove(&run_id),
        };
        if before == due {
            return;
        }
        if let Some(before) = before {
            self.by_time.remove(&(before, run_id));
        }
        if let Some(due) = due {
            self.by_time.insert((due, run_id));
        }
    }

    /// Takes off all runs of a shard.
    pub(super) fn forget_shard(&mut self, shard: u16) {
        self.by_run.retain(|run_id, _| shard_of(*run_id) != shard);
        self.by_time.retain(|(_, run_id)| shard_of(*run_id) != shard);
    }

    /// When the next run is due.
    pub(super) fn next(&self) -> Option<DateTime<Utc>> {
        self.by_time.first().map(|(due, _)| *due)
    }

    /// Takes off one run that is due.
    pub(super) fn pop_due(&mut self, now: DateTime<Utc>) -> Option<RunId> {
        let (due, run_id) = *self.by_time.first()?;
        if due > now {
            return None;
        }
        self.set(run_id, None);
        Some(run_id)
    }
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::*;

    #[test]
    fn runs_come_in_the_order_of_their_times_and_only_once() {
        let at = |second| DateTime::from_timestamp(second, 0).expect("in range");
        let run = |number| RunId::new(Uuid::from_u128(number));
        let mut timers = Timers::default();
        timers.set(run(1), Some(at(30)));
        timers.set(run(2), Some(at(20)));
        timers.set(run(1), Some(at(10)));
        timers.set(run(3), Some(at(15)));
        timers.set(run(3), None);
        assert_eq!(timers.next(), Some(at(10)));
        assert_eq!(timers.pop_due(at(9)), None);
        assert_eq!(timers.pop_due(at(20)), Some(run(1)));
        assert_eq!(timers.pop_due(at(20)), Some(run(2)));
        assert_eq!(timers.pop_due(at(99)), None);
        assert_eq!(timers.next(), None);
    }
}
