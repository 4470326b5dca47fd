//! Very large runs give way: while other runs go on, a run of thousands of tokens rests between its
//! appends, so that it takes a share of the process, the journal and the workers, and not all that
//! there is.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use domain::ids::RunId;
use tokio::time::Instant;

use super::{Slot, Worker};

/// Tokens of a run from which on it gives way.
const LARGE: usize = 1_000;
/// How long after its last append a run of fewer tokens counts as going on.
const BESIDE: Duration = Duration::from_millis(100);
/// A rest as a multiple of the append before it: a quarter of the time is the large run's.
const REST: u32 = 3;
/// The longest rest. A command to the run waits for as long.
const REST_AT_MOST: Duration = Duration::from_millis(40);

/// The run that last went on and gives way to nobody, for all workers of a process.
#[derive(Debug, Default)]
pub(in crate::coordinator) struct Others(Mutex<Option<(RunId, Instant)>>);

impl Others {
    fn went_on(&self, run_id: RunId) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some((run_id, Instant::now()));
    }

    /// Whether somebody else goes on: a run that grows large was small itself just before.
    fn go_on_beside(&self, run_id: RunId) -> bool {
        let last = *self.0.lock().unwrap_or_else(PoisonError::into_inner);
        last.is_some_and(|(other, at)| other != run_id && at.elapsed() <= BESIDE)
    }
}

/// The runs of a worker that rest. There are few: each of them is very large.
#[derive(Debug, Default)]
pub(super) struct Rests(HashMap<RunId, Instant>);

impl Rests {
    /// After an append that took so long; answers for how long.
    fn begin(&mut self, run_id: RunId, took: Duration) -> Duration {
        let rest = (took * REST).min(REST_AT_MOST);
        self.0.insert(run_id, Instant::now() + rest);
        metrics::counter!("wonder_run_rests_total").increment(1);
        rest
    }

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
        let Some(Slot::Loaded(actor)) = self.runs.get_mut(&run_id) else { return };
        let others = &self.context.others;
        actor.last_append = took;
        if actor.run.live().is_none_or(|live| live.tokens.len() < LARGE) {
            others.went_on(run_id);
        } else if others.go_on_beside(run_id) {
            actor.last_append += self.rests.begin(run_id, took);
        }
    }
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::*;

    fn run(number: u128) -> RunId {
        RunId::new(Uuid::from_u128(number))
    }

    #[tokio::test(start_paused = true)]
    async fn a_rest_is_three_times_the_append_up_to_a_limit() {
        let mut rests = Rests::default();
        assert_eq!((rests.until_due(), rests.over()), (Duration::MAX, Vec::new()));
        rests.begin(run(1), Duration::from_millis(3));
        rests.begin(run(2), Duration::from_secs(5));
        assert_eq!(rests.until_due(), Duration::from_millis(9));
        tokio::time::advance(Duration::from_millis(9)).await;
        assert_eq!(rests.over(), [run(1)]);
        assert!(!rests.is_resting(run(1)) && rests.is_resting(run(2)));
        tokio::time::advance(REST_AT_MOST - Duration::from_millis(9)).await;
        assert_eq!(rests.over(), [run(2)]);
    }

    #[tokio::test(start_paused = true)]
    async fn others_go_on_for_a_moment_and_nobody_is_beside_itself() {
        let others = Others::default();
        assert!(!others.go_on_beside(run(1)));
        others.went_on(run(1));
        assert!(!others.go_on_beside(run(1)) && others.go_on_beside(run(2)));
        tokio::time::advance(BESIDE + Duration::from_millis(1)).await;
        assert!(!others.go_on_beside(run(2)));
    }
}
