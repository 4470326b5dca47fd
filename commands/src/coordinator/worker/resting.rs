//! Very large runs give way: while other runs go on, a run of thousands of tokens rests between its
//! appends, so that it takes a share of the process, the journal and the workers, and not all that
//! there is.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use domain::ids::RunId;
use tokio::time::Instant;

use super::{Slot, Worker};

/// Tokens of a run from which on it gives way.
const LARGE: usize = 1_000;
/// How long after its last append a run of fewer tokens counts as going on.
const BESIDE: Duration = Duration::from_millis(100);
/// A rest as a multiple of the append before it: a third of the time is the large run's.
const REST: u32 = 2;
/// The longest rest. A command to the run waits for as long.
const REST_AT_MOST: Duration = Duration::from_millis(40);

/// When a run that gives way to nobody last went on, for all workers of a process.
#[derive(Debug)]
pub(in crate::coordinator) struct Others {
    began: Instant,
    /// Milliseconds after `began`; 0 where none has.
    last: AtomicU64,
}

impl Default for Others {
    fn default() -> Self {
        Self { began: Instant::now(), last: AtomicU64::new(0) }
    }
}

impl Others {
    fn now(&self) -> u64 {
        self.began.elapsed().as_millis() as u64 + 1
    }

    fn went_on(&self) {
        self.last.store(self.now(), Ordering::Relaxed);
    }

    fn go_on(&self) -> bool {
        let last = self.last.load(Ordering::Relaxed);
        last > 0 && self.now().saturating_sub(last) <= BESIDE.as_millis() as u64
    }
}

/// The runs of a worker that rest. There are few: each of them is very large.
#[derive(Debug, Default)]
pub(super) struct Rests(HashMap<RunId, Instant>);

impl Rests {
    pub(super) fn is_resting(&self, run_id: RunId) -> bool {
        self.0.contains_key(&run_id)
    }

    /// How long until the next rest is over.
    pub(super) fn until_due(&self) -> Duration {
        let due = self.0.values().min();
        due.map_or(Duration::MAX, |due| due.saturating_duration_since(Instant::now()))
    }

    /// Those whose rest is over.
    pub(super) fn over(&mut self) -> Vec<RunId> {
        if self.0.is_empty() {
            return Vec::new();
        }
        let now = Instant::now();
        self.0.extract_if(|_, until| *until <= now).map(|(run_id, _)| run_id).collect()
    }
}

impl Worker {
    /// A run has appended, which took so long: it rests where it is to give way.
    pub(super) fn rest(&mut self, run_id: RunId, took: Duration) {
        let Some(Slot::Loaded(actor)) = self.runs.get(&run_id) else { return };
        let others = &self.context.others;
        if actor.run.live().is_none_or(|live| live.tokens.len() < LARGE) {
            others.went_on();
        } else if others.go_on() {
            self.rests.0.insert(run_id, Instant::now() + (took * REST).min(REST_AT_MOST));
        }
    }
}
