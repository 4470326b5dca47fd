//! The database's clock, carried on between readings by the monotonic one.

use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::{Duration, Instant};

use chrono::{DateTime, Utc};
use sqlx::PgPool;
use uuid::{ContextV7, Timestamp, Uuid};

use super::{Clock, from_micros};
use crate::database::{Database, DatabaseError};

/// How often the database is asked. Clocks drift apart by some 50 microseconds a second.
const EVERY: Duration = Duration::from_secs(10);
/// Answers that one look asks for. The quickest one says most exactly what the time was.
const READINGS: usize = 3;
/// A correction that is worth a word.
const JUMP_MICROS: u64 = 1_000_000;

/// What the database's clock said, and between which moments here.
#[derive(Debug, Clone, Copy)]
pub struct Reading {
    /// Before it was asked.
    pub asked: Instant,
    /// After it answered.
    pub answered: Instant,
    pub time: DateTime<Utc>,
}

/// The database's clock, which all processes share. The machine's wall clock isn't looked at, so it
/// may jump as it likes. It never goes backwards within its life.
#[derive(Debug)]
pub struct DatabaseClock {
    /// Where the monotonic clock is counted from.
    origin: Instant,
    /// What the database's clock would have said at the origin.
    offset_micros: AtomicI64,
    latest_micros: AtomicI64,
    ids: Mutex<ContextV7>,
}

impl DatabaseClock {
    /// Asks the database for the time, now and regularly as long as the clock lives.
    pub async fn start(database: &Database) -> Result<Arc<Self>, DatabaseError> {
        let pool = database.pool().clone();
        let first = quickest(&pool).await.map_err(DatabaseError::Unreachable)?;
        let clock = Arc::new(Self::new(first));
        tokio::spawn(follow(Arc::downgrade(&clock), pool));
        Ok(clock)
    }

    /// A clock that goes by a reading until there is another one.
    pub fn new(first: Reading) -> Self {
        let half = first.answered.duration_since(first.asked) / 2;
        Self {
            origin: first.asked,
            offset_micros: AtomicI64::new(first.time.timestamp_micros() - micros(half)),
            latest_micros: AtomicI64::new(i64::MIN),
            ids: Mutex::new(ContextV7::new()),
        }
    }

    /// Corrects the clock as far as a reading contradicts it: the database told the time somewhere
    /// between the question and the answer.
    pub fn correct(&self, reading: Reading) {
        let time = reading.time.timestamp_micros();
        let least = time - self.elapsed_micros(reading.answered);
        let most = time - self.elapsed_micros(reading.asked);
        let known = self.offset_micros.load(Ordering::Acquire);
        let offset = known.clamp(least, most);
        if offset.abs_diff(known) >= JUMP_MICROS {
            tracing::warn!(by_micros = offset - known, "the database's clock has jumped");
        }
        self.offset_micros.store(offset, Ordering::Release);
    }

    /// The time at a moment, if none was told that is later.
    pub fn at(&self, moment: Instant) -> DateTime<Utc> {
        let offset = self.offset_micros.load(Ordering::Acquire);
        let time = offset.saturating_add(self.elapsed_micros(moment));
        let latest = self.latest_micros.fetch_max(time, Ordering::AcqRel);
        from_micros(time.max(latest))
    }

    fn elapsed_micros(&self, moment: Instant) -> i64 {
        micros(moment.saturating_duration_since(self.origin))
    }
}

impl Clock for DatabaseClock {
    fn now(&self) -> DateTime<Utc> {
        self.at(Instant::now())
    }

    /// Ids of one process also grow within a millisecond.
    fn uuid_v7(&self) -> Uuid {
        let ids = self.ids.lock().unwrap_or_else(PoisonError::into_inner);
        let now = self.now();
        let seconds = u64::try_from(now.timestamp()).unwrap_or(0);
        Uuid::new_v7(Timestamp::from_unix(&*ids, seconds, now.timestamp_subsec_nanos()))
    }
}

fn micros(duration: Duration) -> i64 {
    i64::try_from(duration.as_micros()).unwrap_or(i64::MAX)
}

async fn quickest(pool: &PgPool) -> Result<Reading, sqlx::Error> {
    let mut connection = pool.acquire().await?;
    let mut quickest: Option<Reading> = None;
    for _ in 0..READINGS {
        let asked = Instant::now();
        let time = sqlx::query_scalar("select clock_timestamp()").fetch_one(&mut *connection);
        let reading = Reading { time: time.await?, asked, answered: Instant::now() };
        let took = |reading: &Reading| reading.answered.duration_since(reading.asked);
        quickest = quickest.filter(|known| took(known) <= took(&reading)).or(Some(reading));
    }
    quickest.ok_or(sqlx::Error::RowNotFound)
}

async fn follow(clock: Weak<DatabaseClock>, pool: PgPool) {
    let mut failing = false;
    loop {
        tokio::time::sleep(EVERY).await;
        // Nobody asks this clock any more.
        if clock.strong_count() == 0 {
            return;
        }
        let reading = quickest(&pool).await;
        match (reading, clock.upgrade()) {
            (Ok(reading), Some(clock)) => {
                clock.correct(reading);
                failing = false;
            }
            (Err(error), _) if !failing => {
                tracing::warn!(%error, "the database's time is unknown, and carried on meanwhile");
                failing = true;
            }
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use chrono::TimeDelta;

    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn time(micros: i64) -> DateTime<Utc> {
        from_micros(1_800_000_000_000_000 + micros)
    }

    /// A clock whose first reading took 200 microseconds, and the moment when it was asked.
    fn clock() -> (DatabaseClock, Instant) {
        let asked = Instant::now();
        let answered = asked + Duration::from_micros(200);
        (DatabaseClock::new(Reading { asked, answered, time: time(100) }), asked)
    }

    #[test]
    fn it_goes_on_with_the_monotonic_clock() {
        let (clock, start) = clock();
        assert_eq!(clock.at(start), time(0));
        assert_eq!(clock.at(start + SECOND), time(1_000_000));
        assert_eq!(clock.at(start + 3_600 * SECOND), time(3_600_000_000));
    }

    #[test]
    fn a_reading_corrects_it_as_far_as_it_contradicts_it() {
        let (clock, start) = clock();
        let read = |seconds: u32, took: u64, time: DateTime<Utc>| {
            let asked = start + seconds * SECOND;
            clock.correct(Reading { asked, answered: asked + Duration::from_micros(took), time });
        };
        // A slow answer, which may have been given at the right time.
        read(10, 50_000, time(10_049_000));
        assert_eq!(clock.at(start + 10 * SECOND), time(10_000_000));
        // A quick one: the clock is behind by at least 300 microseconds.
        read(20, 200, time(20_000_500));
        assert_eq!(clock.at(start + 20 * SECOND), time(20_000_300));
        // It is ahead by at least 100: it is never put back, and stands until its time has come.
        read(30, 200, time(30_000_200));
        assert_eq!(clock.at(start + 30 * SECOND), time(30_000_200));
    }

    #[test]
    fn it_stands_still_rather_than_going_backwards() {
        let (clock, start) = clock();
        let told = clock.at(start + 60 * SECOND);
        let asked = start + 61 * SECOND;
        clock.correct(Reading { asked, answered: asked, time: time(1_000_000) });
        assert_eq!(clock.at(start + 61 * SECOND), told);
        assert_eq!(clock.at(start + 120 * SECOND), told);
        assert_eq!(clock.at(start + 121 * SECOND), told + TimeDelta::seconds(1));
    }

    #[test]
    fn its_ids_grow_within_a_millisecond_and_carry_its_time() {
        let (clock, _) = clock();
        let ids: Vec<Uuid> = (0..1_000).map(|_| clock.uuid_v7()).collect();
        assert!(ids.is_sorted_by(|a, b| a < b));
        let stamp = ids[0].get_timestamp().expect("a v7 id carries its time");
        assert!((1_800_000_000..1_800_000_060).contains(&stamp.to_unix().0));
    }
}
