//! Which secrets an attempt was given: noted where one is read, told with the attempt's outcome.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, PoisonError};

use protocol::Outcome;

tokio::task_local! {
    static USED: Used;
}

/// The names of the secrets that an attempt was given.
#[derive(Debug, Clone, Default)]
pub(crate) struct Used(Arc<Mutex<BTreeSet<String>>>);

impl Used {
    /// Performs what belongs to the attempt.
    pub(crate) async fn within<T>(&self, work: impl Future<Output = T>) -> T {
        USED.scope(self.clone(), work).await
    }

    /// The names, in order.
    pub(crate) fn names(&self) -> Vec<String> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).iter().cloned().collect()
    }
}

/// Notes that the attempt under way is given a secret.
pub(crate) fn given(name: &str) {
    let note = |used: &Used| {
        let mut names = used.0.lock().unwrap_or_else(PoisonError::into_inner);
        if names.len() < Outcome::SECRETS {
            names.insert(name.to_owned());
        }
    };
    // Outside of an attempt nothing is read.
    _ = USED.try_with(note);
}
