//! Rates: how many runs with the same key begin in a period.
//!
//! The algorithm is the generic cell rate algorithm in its form of virtual scheduling (ITU-T
//! I.371, annex A), the token bucket with one number to keep. Starts are spread evenly: each one
//! takes a slot of `period / limit`, and no two slots of a key overlap. A slot may lie ahead of the
//! clock by `burst - 1` slots, so that as many may begin at once after a quiet time. Hence:
//!
//! - in no stretch of time as long as the period do more than `limit + burst - 1` runs begin;
//! - where the newest slot is over, the key is as if nobody had ever begun: nothing has to be kept.

use chrono::{DateTime, TimeDelta, Utc};
use serde::{Deserialize, Serialize};

use crate::definition::Excess;
use crate::span::Span;

mod book;
#[cfg(test)]
mod tests;

pub use book::Book;

/// How many runs with the same key may begin, as a run's first event holds it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rate {
    pub limit: u32,
    pub period: Span,
    /// How many may begin at once; at most the limit.
    #[serde(default = "one", skip_serializing_if = "is_one")]
    pub burst: u32,
    #[serde(default, skip_serializing_if = "Excess::is_queue")]
    pub then: Excess,
    /// When the slot ends that the run took with its start. One that waited takes it with its
    /// admission.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub until: Option<DateTime<Utc>>,
}

const fn one() -> u32 {
    1
}

const fn is_one(number: &u32) -> bool {
    *number == 1
}

/// What is decided one after the other stands in the journal within this time, in any order; and by
/// so much a clock may be put back without that being noticed.
const SETTLED: TimeDelta = TimeDelta::minutes(1);

impl Rate {
    /// The length of one slot, in whole microseconds: rounded up, so that the limit holds.
    pub fn slot(&self) -> TimeDelta {
        let micros = self.period.as_millis().saturating_mul(1_000);
        let slot = micros.div_ceil(u64::from(self.limit.max(1)));
        TimeDelta::microseconds(i64::try_from(slot).unwrap_or(i64::MAX))
    }

    /// How far the newest slot may end ahead of the clock.
    pub fn reach(&self) -> TimeDelta {
        self.slot() * i32::try_from(self.burst.max(1)).unwrap_or(i32::MAX)
    }
}

/// The slots that runs of a key have taken: when the newest one ends, if that isn't long ago.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Slots(pub Option<DateTime<Utc>>);

impl Slots {
    /// When the next run may begin: now, or later.
    ///
    /// A slot never ends further ahead than a burst reaches. One that ends much further was taken by
    /// another version's rate, or by a clock that has been put back since: it is cut, so that nobody
    /// waits longer for it than two bursts and a little.
    pub fn opens_at(&mut self, rate: &Rate, now: DateTime<Utc>) -> DateTime<Utc> {
        let is_cut = |end: &DateTime<Utc>| *end > now + rate.reach() * 2 + SETTLED;
        if self.0.as_ref().is_some_and(is_cut) {
            self.0 = Some(now + rate.reach());
        }
        let ready = self.0.map(|end| end + rate.slot() - rate.reach());
        ready.map_or(now, |ready| ready.max(now))
    }

    /// When a run may begin that comes after so many others, if all of them begin as early as they
    /// may; `None` beyond what times can say.
    pub fn opens_after(
        &mut self,
        others: u64,
        rate: &Rate,
        now: DateTime<Utc>,
    ) -> Option<DateTime<Utc>> {
        let opens_at = self.opens_at(rate, now);
        let end = self.0.map_or(now, |end| end.max(now));
        let others = rate.slot().checked_mul(i32::try_from(others).ok()?)?;
        Some(opens_at.max(end.checked_add_signed(others)? + rate.slot() - rate.reach()))
    }

    /// Takes a slot now; `None` where it is too early. Gives when the slot ends.
    pub fn take(&mut self, rate: &Rate, now: DateTime<Utc>) -> Option<DateTime<Utc>> {
        if self.opens_at(rate, now) > now {
            return None;
        }
        let end = self.0.map_or(now, |end| end.max(now)) + rate.slot();
        self.0 = Some(end);
        Some(end)
    }
}
