//! What this worker holds: a delivery for each attempt that has no outcome at the server yet.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use chassis::bus::Delivery;
use domain::ids::RunId;
use protocol::remote::AttemptId;
use protocol::task::{Failure, Outcome, OutcomeResult, Task};

/// What tells one attempt from all others.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct Attempt {
    pub(super) run_id: RunId,
    pub(super) token: u64,
    pub(super) attempt: u32,
}

impl From<&Task> for Attempt {
    fn from(task: &Task) -> Self {
        Self { run_id: task.run_id, token: task.token, attempt: task.attempt }
    }
}

impl From<&Outcome> for Attempt {
    fn from(outcome: &Outcome) -> Self {
        Self { run_id: outcome.run_id, token: outcome.token, attempt: outcome.attempt }
    }
}

impl Attempt {
    /// The attempt that a message's subject names (`protocol::remote::task_subject`).
    pub(super) fn of_subject(subject: &str) -> Option<Self> {
        let mut parts = subject.rsplit('.');
        let attempt = parts.next()?.parse().ok()?;
        let token = parts.next()?.parse().ok()?;
        let run_id = parts.next()?.parse().ok()?;
        Some(Self { run_id, token, attempt })
    }

    /// Its outcome where it isn't performed.
    pub(super) fn failed(self, failure: Failure) -> Outcome {
        Outcome {
            run_id: self.run_id,
            token: self.token,
            attempt: self.attempt,
            result: OutcomeResult::Failure(failure),
            duration_ms: 0,
            secrets: Vec::new(),
        }
    }
}

/// Deliveries of one attempt that are kept; a message that comes again and again leaves no more.
const KEPT: usize = 4;

/// See the head of the file. An attempt may have come more than once: as a message that was
/// delivered again, or as two messages.
#[derive(Default)]
pub(super) struct Held(Mutex<HashMap<Attempt, One>>);

#[derive(Default)]
struct One {
    deliveries: Vec<Arc<Delivery>>,
    /// The attempt must not be made twice.
    once: bool,
}

impl Held {
    fn lock(&self) -> MutexGuard<'_, HashMap<Attempt, One>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Keeps a delivery of an attempt; false where the attempt was held already.
    pub(super) fn keep(&self, attempt: Attempt, delivery: Delivery) -> bool {
        let mut held = self.lock();
        let One { deliveries, .. } = held.entry(attempt).or_default();
        let is_new = deliveries.is_empty();
        if deliveries.len() == KEPT {
            deliveries.remove(0);
        }
        deliveries.push(Arc::new(delivery));
        is_new
    }

    /// Notes that an attempt must not be made twice.
    pub(super) fn once(&self, attempt: Attempt) {
        if let Some(one) = self.lock().get_mut(&attempt) {
            one.once = true;
        }
    }

    /// Its deliveries, which aren't held any more; none where it wasn't.
    pub(super) fn release(&self, attempt: Attempt) -> Vec<Arc<Delivery>> {
        self.lock().remove(&attempt).map(|one| one.deliveries).unwrap_or_default()
    }

    /// The attempts that must not be made twice.
    pub(super) fn all_once(&self) -> Vec<Attempt> {
        let held = self.lock();
        held.iter().filter(|(_, one)| one.once).map(|(attempt, _)| *attempt).collect()
    }

    pub(super) fn all(&self) -> Vec<Arc<Delivery>> {
        self.lock().values().flat_map(|one| &one.deliveries).cloned().collect()
    }

    /// Answers which of some attempts are held ([`protocol::remote::tasks_held`]); nothing where none
    /// is.
    pub(super) fn among(&self, asked: &[u8]) -> Option<Bytes> {
        let asked: Vec<AttemptId> = match serde_json::from_slice(asked) {
            Ok(asked) => asked,
            Err(error) => {
                tracing::warn!(%error, "a question for what is held can't be read");
                return None;
            }
        };
        let held = self.lock();
        let is_held = |&&(run_id, token, attempt): &&AttemptId| {
            held.contains_key(&Attempt { run_id, token, attempt })
        };
        let among: Vec<_> = asked.iter().filter(is_held).collect();
        if among.is_empty() { None } else { serde_json::to_vec(&among).ok().map(Bytes::from) }
    }

    pub(super) fn attempts(&self) -> Vec<Attempt> {
        self.lock().keys().copied().collect()
    }
}

#[cfg(test)]
mod tests {
    use protocol::remote::task_subject;

    use super::*;

    #[test]
    fn a_question_is_answered_where_something_of_it_is_held() {
        let held = Held::default();
        let asked = [1, 2, 3].map(|token| (RunId::derived("", "a run"), token, 1));
        let question = serde_json::to_vec(&asked).expect("it has a json form");
        assert_eq!(held.among(&question), None);
        let (run_id, token, attempt) = asked[1];
        for attempt in [attempt, attempt + 1] {
            held.lock().insert(Attempt { run_id, token, attempt }, One::default());
        }
        let answer = held.among(&question).expect("one is held");
        let answer: Vec<AttemptId> = serde_json::from_slice(&answer).expect("it can be read");
        assert_eq!(answer, [asked[1]]);
        assert_eq!(held.among(b"what?"), None);
    }

    #[test]
    fn a_subject_tells_the_attempt() {
        let run_id = RunId::derived("", "a run");
        let told = Attempt::of_subject(&task_subject("default", run_id, 7, 2));
        assert_eq!(told, Some(Attempt { run_id, token: 7, attempt: 2 }));
        for other in ["", "tasks.default.run_x.7.2", "tasks.default.7.2", "tasks.default"] {
            assert_eq!(Attempt::of_subject(other), None, "{other}");
        }
    }
}
