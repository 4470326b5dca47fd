//! Times at which something is due, one for each of its kind: a worker's runs, also those that
//! aren't in memory, its queues, and the rates of its keys.

use std::collections::{BTreeSet, HashMap};
use std::hash::Hash;

use chrono::{DateTime, Utc};

/// One entry each: the time at which it is due.
#[derive(Debug)]
pub(super) struct Timers<K> {
    by_time: BTreeSet<(DateTime<Utc>, K)>,
    by_key: HashMap<K, DateTime<Utc>>,
}

impl<K> Default for Timers<K> {
    fn default() -> Self {
        Self { by_time: BTreeSet::new(), by_key: HashMap::new() }
    }
}

impl<K: Ord + Hash + Clone> Timers<K> {
    /// Sets one's time, or takes it off.
    pub(super) fn set(&mut self, key: K, due: Option<DateTime<Utc>>) {
        let before = match due {
            Some(due) => self.by_key.insert(key.clone(), due),
            None => self.by_key.remove(&key),
        };
        if before == due {
            return;
        }
        let mut entry = (before.unwrap_or_default(), key);
        if before.is_some() {
            self.by_time.remove(&entry);
        }
        if let Some(due) = due {
            entry.0 = due;
            self.by_time.insert(entry);
        }
    }

    /// The time of one.
    pub(super) fn get(&self, key: &K) -> Option<DateTime<Utc>> {
        self.by_key.get(key).copied()
    }

    /// Takes off all but these.
    pub(super) fn retain(&mut self, stays: impl Fn(&K) -> bool) {
        self.by_key.retain(|key, _| stays(key));
        self.by_time.retain(|(_, key)| stays(key));
    }

    /// When the next one is due.
    pub(super) fn next(&self) -> Option<DateTime<Utc>> {
        self.by_time.first().map(|(due, _)| *due)
    }

    /// Takes off one that is due.
    pub(super) fn pop_due(&mut self, now: DateTime<Utc>) -> Option<K> {
        if self.next()? > now {
            return None;
        }
        let (_, key) = self.by_time.pop_first()?;
        self.by_key.remove(&key);
        Some(key)
    }
}

#[cfg(test)]
mod tests {
    use domain::ids::RunId;
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
