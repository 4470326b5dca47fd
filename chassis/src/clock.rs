//! Time and ids, so that tests can hold them still.

use std::fmt;
use std::sync::atomic::{AtomicI64, Ordering};

use chrono::{DateTime, TimeDelta, Utc};
use uuid::{NoContext, Timestamp, Uuid};

mod database;

pub use database::{DatabaseClock, Reading};

/// Where the time comes from.
pub trait Clock: Send + Sync + fmt::Debug {
    /// Now, in whole microseconds (what the storages keep).
    fn now(&self) -> DateTime<Utc>;

    /// A new time-ordered id.
    fn uuid_v7(&self) -> Uuid {
        let now = self.now();
        let seconds = u64::try_from(now.timestamp()).unwrap_or(0);
        Uuid::new_v7(Timestamp::from_unix(NoContext, seconds, now.timestamp_subsec_nanos()))
    }
}

/// The machine's clock. It never goes backwards within its life.
#[derive(Debug)]
pub struct SystemClock {
    latest_micros: AtomicI64,
}

impl SystemClock {
    /// A clock that begins with the machine's time.
    pub const fn new() -> Self {
        Self { latest_micros: AtomicI64::new(i64::MIN) }
    }
}

impl Default for SystemClock {
    fn default() -> Self {
        Self::new()
    }
}

impl Clock for SystemClock {
    fn now(&self) -> DateTime<Utc> {
        let now = Utc::now().timestamp_micros();
        let latest = self.latest_micros.fetch_max(now, Ordering::AcqRel);
        from_micros(now.max(latest))
    }

    /// Ids of one process also grow within a millisecond.
    fn uuid_v7(&self) -> Uuid {
        Uuid::now_v7()
    }
}

/// A clock that stands still until it is moved.
#[derive(Debug)]
pub struct ManualClock {
    micros: AtomicI64,
}

impl ManualClock {
    /// A clock that stands at a time.
    pub fn new(at: DateTime<Utc>) -> Self {
        Self { micros: AtomicI64::new(at.timestamp_micros()) }
    }

    /// Moves the clock, backwards too.
    pub fn advance(&self, by: TimeDelta) {
        self.micros.fetch_add(by.num_microseconds().unwrap_or(i64::MAX), Ordering::AcqRel);
    }

    /// Puts the clock at a time.
    pub fn set(&self, at: DateTime<Utc>) {
        self.micros.store(at.timestamp_micros(), Ordering::Release);
    }
}

impl Clock for ManualClock {
    fn now(&self) -> DateTime<Utc> {
        from_micros(self.micros.load(Ordering::Acquire))
    }
}

fn from_micros(micros: i64) -> DateTime<Utc> {
    DateTime::from_timestamp_micros(micros).unwrap_or(DateTime::UNIX_EPOCH)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn system_clock_never_goes_backwards() {
        let clock = SystemClock::new();
        let ahead = Utc::now() + TimeDelta::hours(1);
        clock.latest_micros.store(ahead.timestamp_micros(), Ordering::Release);
        assert_eq!(clock.now().timestamp_micros(), ahead.timestamp_micros());
    }

    #[test]
    fn ids_of_the_system_clock_grow() {
        let clock = SystemClock::new();
        let ids: Vec<Uuid> = (0..1_000).map(|_| clock.uuid_v7()).collect();
        assert!(ids.is_sorted_by(|a, b| a < b));
    }

    #[test]
    fn manual_clock_gives_ids_of_its_own_time() {
        let at = DateTime::from_timestamp_millis(1_700_000_000_123).expect("a valid time");
        let clock = ManualClock::new(at);
        clock.advance(TimeDelta::milliseconds(2));
        assert_eq!(clock.now(), at + TimeDelta::milliseconds(2));
        let stamp = clock.uuid_v7().get_timestamp().expect("a v7 id carries its time");
        assert_eq!(stamp.to_unix(), (1_700_000_000, 125_000_000));
    }
}
