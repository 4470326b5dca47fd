//! Chance, from one seed, and the troubles that it has made.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use uuid::Uuid;

/// A stream of numbers (SplitMix64, by Steele, Lea and Flood); clones draw from the same one.
#[derive(Debug, Clone)]
pub(super) struct Chance(Arc<Mutex<u64>>);

impl Chance {
    pub(super) fn new(seed: u64) -> Self {
        Self(Arc::new(Mutex::new(seed)))
    }

    pub(super) fn draw(&self) -> u64 {
        let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        *state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        mixed(*state)
    }

    /// A number below a bound (at least 1).
    pub(super) fn below(&self, bound: u64) -> u64 {
        self.draw() % bound
    }

    /// True once in so many times.
    pub(super) fn one_in(&self, times: u64) -> bool {
        self.below(times) == 0
    }

    /// A time up to a longest one; most are much shorter, since small faults are the many.
    pub(super) fn up_to(&self, longest: Duration) -> Duration {
        let shift = self.below(6);
        let micros = u64::try_from(longest.as_micros()).unwrap_or(u64::MAX) >> shift;
        Duration::from_micros(self.below(micros.max(1)))
    }

    pub(super) fn uuid(&self) -> Uuid {
        Uuid::from_u128(u128::from(self.draw()) << 64 | u128::from(self.draw()))
    }

    pub(super) fn pick<'a, T>(&self, from: &'a [T]) -> Option<&'a T> {
        from.get(usize::try_from(self.below(from.len().max(1) as u64)).unwrap_or(0))
    }
}

/// How often each trouble has come, by its name.
#[derive(Debug, Default)]
pub(super) struct Troubles(Mutex<BTreeMap<&'static str, u64>>);

impl Troubles {
    pub(super) fn note(&self, trouble: &'static str) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner).entry(trouble).or_default() += 1;
    }

    pub(super) fn all(&self) -> BTreeMap<&'static str, u64> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// The same number, well mixed.
pub(super) const fn mixed(number: u64) -> u64 {
    let number = (number ^ (number >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let number = (number ^ (number >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    number ^ (number >> 31)
}
