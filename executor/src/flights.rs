//! What is under way on this worker, so that it can be given up where nobody waits for it any more.

use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use domain::ids::RunId;
use metrics::Gauge;
use protocol::task::{Abandoned, Task};
use tokio_util::sync::CancellationToken;

/// Abandoned tokens and runs that are remembered: their tasks may still come.
const OVER: usize = 16_384;
/// Stands for all tokens of a run; they are counted from 1.
const ALL: u64 = 0;

/// Every task that is under way.
#[derive(Clone, Default)]
pub(crate) struct Flights(Arc<Mutex<Inner>>);

#[derive(Default)]
struct Inner {
    by_run: HashMap<RunId, HashMap<u64, CancellationToken>>,
    over: HashSet<(RunId, u64)>,
    /// The same, the oldest first.
    in_order: VecDeque<(RunId, u64)>,
}

impl Inner {
    fn is_over(&self, run_id: RunId, token: u64) -> bool {
        self.over.contains(&(run_id, ALL)) || self.over.contains(&(run_id, token))
    }

    fn remember(&mut self, run_id: RunId, token: u64) {
        if !self.over.insert((run_id, token)) {
            return;
        }
        self.in_order.push_back((run_id, token));
        if self.in_order.len() > OVER
            && let Some(oldest) = self.in_order.pop_front()
        {
            self.over.remove(&oldest);
        }
    }
}

impl Flights {
    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A task is under way for as long as what is returned lives; `None` where nobody waits
    /// for it any more.
    pub(crate) fn begin(&self, task: &Task, in_flight: &Gauge) -> Option<Flight> {
        let mut inner = self.lock();
        if inner.is_over(task.run_id, task.token) {
            return None;
        }
        let given_up = CancellationToken::new();
        let tokens = inner.by_run.entry(task.run_id).or_default();
        tokens.insert(task.token, given_up.clone());
        drop(inner);
        in_flight.increment(1.0);
        let (run_id, token, in_flight) = (task.run_id, task.token, in_flight.clone());
        Some(Flight { flights: self.clone(), run_id, token, given_up, in_flight })
    }

    /// Gives up what is under way of some work; answers how many tasks that is.
    pub(crate) fn give_up(&self, work: &Abandoned) -> usize {
        let mut inner = self.lock();
        if work.tokens.is_empty() {
            inner.remember(work.run_id, ALL);
        }
        work.tokens.iter().for_each(|token| inner.remember(work.run_id, *token));
        let Some(tokens) = inner.by_run.get(&work.run_id) else { return 0 };
        let is_meant = |token: &u64| work.tokens.is_empty() || work.tokens.contains(token);
        let meant = tokens.iter().filter(|(token, _)| is_meant(token));
        meant.map(|(_, given_up)| given_up.cancel()).count()
    }
}

/// A task that is under way.
pub(crate) struct Flight {
    flights: Flights,
    run_id: RunId,
    token: u64,
    given_up: CancellationToken,
    in_flight: Gauge,
}

impl Flight {
    /// Does the work; nothing where it was given up.
    pub(crate) async fn perform<T>(&self, work: impl Future<Output = T>) -> Option<T> {
        self.given_up.run_until_cancelled(work).await
    }
}

impl Drop for Flight {
    fn drop(&mut self) {
        self.in_flight.decrement(1.0);
        let mut inner = self.flights.lock();
        if let Some(tokens) = inner.by_run.get_mut(&self.run_id) {
            tokens.remove(&self.token);
            if tokens.is_empty() {
                inner.by_run.remove(&self.run_id);
            }
        }
    }
}
