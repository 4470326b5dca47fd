//! The writer's last fault: set by a commit that failed, cleared by one that wrote something.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// The least time between two tries whether writing works again.
const PROBE_EVERY: Duration = Duration::from_secs(1);

/// Shared by who writes and those who ask.
#[derive(Debug, Default)]
pub(super) struct Fault {
    /// Whether there is one: a commit that is well looks at this only.
    stands: AtomicBool,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    reason: Option<Arc<str>>,
    probed: Option<Instant>,
}

impl Fault {
    /// Answers whether there was none before.
    pub(super) fn set(&self, reason: Arc<str>) -> bool {
        self.state().reason = Some(reason);
        !self.stands.swap(true, Ordering::AcqRel)
    }

    pub(super) fn clear(&self) {
        if self.stands.swap(false, Ordering::AcqRel) {
            *self.state() = State::default();
            tracing::info!("the journal takes writes again");
        }
    }

    /// The fault that stands, and whether it is time to try again.
    pub(super) fn look(&self) -> Option<(Arc<str>, bool)> {
        if !self.stands.load(Ordering::Acquire) {
            return None;
        }
        let mut state = self.state();
        let reason = state.reason.clone()?;
        let due = state.probed.is_none_or(|probed| probed.elapsed() >= PROBE_EVERY);
        if due {
            state.probed = Some(Instant::now());
        }
        Some((reason, due))
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
