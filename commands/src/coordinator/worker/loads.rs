//! Loads of runs: so many at a time, and those that failed again after a while. There may be as many
//! to come as runs are open, so each is no more than an id until its turn.

use std::collections::VecDeque;
use std::time::Duration;

use domain::ids::RunId;
use tokio::time::Instant;

/// How long a failed load waits before it is tried again.
const AGAIN: Duration = Duration::from_millis(500);

/// See the module.
#[derive(Debug)]
pub(super) struct Loads {
    limit: usize,
    under_way: usize,
    /// Runs and the epochs of their shards, in the order of their turns.
    due: VecDeque<(RunId, u64)>,
    /// The same, in the order of their times.
    again: VecDeque<(Instant, RunId, u64)>,
}

impl Loads {
    pub(super) const fn new(limit: usize) -> Self {
        Self { limit, under_way: 0, due: VecDeque::new(), again: VecDeque::new() }
    }

    /// A run that somebody asks for comes before those that nobody does.
    pub(super) fn ask(&mut self, run_id: RunId, epoch: u64) {
        self.due.push_front((run_id, epoch));
    }

    /// A run that is taken up.
    pub(super) fn take_up(&mut self, run_id: RunId, epoch: u64) {
        self.due.push_back((run_id, epoch));
    }

    /// A run that couldn't be loaded, or whose memory can't be trusted.
    pub(super) fn again(&mut self, run_id: RunId, epoch: u64) {
        self.again.push_back((Instant::now() + AGAIN, run_id, epoch));
    }

    /// A load has come to its end.
    pub(super) fn ended(&mut self) {
        self.under_way -= 1;
    }

    /// The next to be begun; it is under way then.
    pub(super) fn next(&mut self) -> Option<(RunId, u64)> {
        let now = Instant::now();
        while let Some((_, run_id, epoch)) = self.again.front().copied().filter(|one| one.0 <= now)
        {
            self.again.pop_front();
            self.due.push_back((run_id, epoch));
        }
        if self.under_way >= self.limit {
            return None;
        }
        let next = self.due.pop_front()?;
        self.under_way += 1;
        Some(next)
    }

    /// How long there is nothing to be begun.
    pub(super) fn until_due(&self) -> Duration {
        let first = self.again.front().map(|(due, ..)| due.duration_since(Instant::now()));
        first.unwrap_or(Duration::MAX)
    }
}
