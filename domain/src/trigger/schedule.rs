//! When a schedule is due: cron patterns in a time zone, and fixed distances.
//!
//! Patterns are read by croner; what a pattern means where clocks are set is decided here. A
//! pattern with fixed times of the day fires once for each of them: right after the gap where
//! clocks are put forward over it, and at the first of two where they are put back. A pattern with
//! `*` or a step in its seconds, minutes or hours goes by what the clock shows: it skips the gap,
//! and fires in both passes.

use chrono::{DateTime, Datelike, NaiveDateTime, Offset, TimeDelta, TimeZone, Utc};
use chrono_tz::Tz;
use croner::parser::{CronParser, Seconds, Year};
use croner::{Cron, JobType};

use super::ScheduleSpec;
use crate::limits;

/// A compiled schedule.
#[derive(Debug, Clone)]
pub struct Schedule(Times);

#[derive(Debug, Clone)]
enum Times {
    Cron { pattern: Box<Cron>, zone: Tz, is_fixed: bool },
    Every { seconds: i64 },
}

/// Why a spec is no schedule.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct InvalidSchedule {
    /// The member that is to blame.
    pub member: &'static str,
    pub message: String,
}

/// Wall times that are looked at for one time of a pattern with fixed times. More than the seconds
/// of the longest overlap, of which each may be named.
const LOOKS: usize = 4 * 3_600;
/// Parts between two changes of a zone's clock that are looked at for one time: beyond 100 years.
const PARTS: usize = 400;

impl Schedule {
    /// Compiles a schedule.
    ///
    /// # Errors
    /// Where the pattern can't be read or never comes, the zone isn't known, or not exactly one of
    /// `cron` and `every` is there.
    pub fn compile(spec: &ScheduleSpec) -> Result<Self, InvalidSchedule> {
        let invalid =
            |member, message: &str| InvalidSchedule { member, message: message.to_owned() };
        match (&spec.cron, spec.every) {
            (Some(cron), None) => Self::cron(cron, spec.time_zone.as_deref()),
            (None, Some(every)) => {
                if spec.time_zone.is_some() {
                    return Err(invalid("time_zone", "a time zone belongs to cron, not to every"));
                }
                let (seconds, rest) = (every.as_millis() / 1_000, every.as_millis() % 1_000);
                let seconds =
                    i64::try_from(seconds).ok().filter(|seconds| *seconds > 0 && rest == 0);
                let wrong = || invalid("every", "must be whole seconds, at least 1s");
                seconds.map(|seconds| Self(Times::Every { seconds })).ok_or_else(wrong)
            }
            (Some(_), Some(_)) => Err(invalid("every", "give either cron or every")),
            (None, None) => Err(invalid("cron", "give either cron or every")),
        }
    }

    fn cron(text: &str, zone: Option<&str>) -> Result<Self, InvalidSchedule> {
        let invalid = |member, message| InvalidSchedule { member, message };
        let zone = zone.unwrap_or("UTC");
        let zone: Tz = zone.parse().map_err(|_| {
            let zone: String = zone.chars().take(80).collect();
            let message = format!("{zone:?} is no time zone; use an IANA name, as Europe/Berlin");
            invalid("time_zone", message)
        })?;
        if text.len() > limits::CRON_BYTES || !text.is_ascii() {
            let message = format!("must be ascii, of at most {} bytes", limits::CRON_BYTES);
            return Err(invalid("cron", message));
        }
        let parser =
            CronParser::builder().seconds(Seconds::Optional).year(Year::Disallowed).build();
        let pattern = parser.parse(text).map_err(|error| {
            let help =
                "write minute, hour, day of month, month and day of week, as in 0 9 * * mon-fri";
            invalid("cron", format!("no cron pattern: {error}; {help}"))
        })?;
        let is_fixed = pattern.determine_job_type() == JobType::FixedTime;
        let schedule = Self(Times::Cron { pattern: Box::new(pattern), zone, is_fixed });
        match schedule.next_after(DateTime::UNIX_EPOCH) {
            Some(_) => Ok(schedule),
            None => {
                Err(invalid("cron", "no day has these numbers: it would never fire".to_owned()))
            }
        }
    }

    /// The first time after another; `None` where none comes any more.
    pub fn next_after(&self, after: DateTime<Utc>) -> Option<DateTime<Utc>> {
        match &self.0 {
            Times::Every { seconds } => {
                let next = after.timestamp().div_euclid(*seconds).checked_add(1)?;
                DateTime::from_timestamp(next.checked_mul(*seconds)?, 0)
            }
            Times::Cron { pattern, zone, is_fixed } => {
                // A fraction would stay in what is found.
                let after = DateTime::from_timestamp(after.timestamp(), 0)?;
                match is_fixed {
                    true => fixed(pattern, *zone, after),
                    false => shown(pattern, *zone, after),
                }
            }
        }
    }
}

/// The first wall time after another (or at it) that a pattern names.
fn wall(pattern: &Cron, from: NaiveDateTime, inclusive: bool) -> Option<NaiveDateTime> {
    // Beyond, patterns are searched in vain for long.
    let in_reach = (1_900..9_000).contains(&from.year());
    let from = in_reach.then(|| from.and_utc())?;
    pattern.find_next_occurrence(&from, inclusive).ok().map(|found| found.naive_utc())
}

fn local(zone: Tz, at: DateTime<Utc>) -> NaiveDateTime {
    at.with_timezone(&zone).naive_local()
}

/// A pattern with fixed times of the day.
fn fixed(pattern: &Cron, zone: Tz, after: DateTime<Utc>) -> Option<DateTime<Utc>> {
    let mut from = local(zone, after);
    for _ in 0..LOOKS {
        from = wall(pattern, from, false)?;
        let at = match zone.from_local_datetime(&from).earliest() {
            Some(at) => at.to_utc(),
            None => after_gap(zone, from)?,
        };
        if at > after {
            return Some(at);
        }
    }
    None
}

/// The first moment after the gap that a wall time falls into.
fn after_gap(zone: Tz, missing: NaiveDateTime) -> Option<DateTime<Utc>> {
    // The offset before holds a day before: no zone changes twice within a day of a gap.
    let day = TimeDelta::days(1);
    let before = missing.checked_sub_signed(day)?.and_utc();
    change_between(zone, before, before.checked_add_signed(day * 2)?)
}

/// A pattern that goes by what the clock shows.
fn shown(pattern: &Cron, zone: Tz, after: DateTime<Utc>) -> Option<DateTime<Utc>> {
    let (mut from, mut inclusive) = (after, false);
    for _ in 0..PARTS {
        let offset = zone.offset_from_utc_datetime(&from.naive_utc()).fix();
        let wall = wall(pattern, local(zone, from), inclusive)?;
        let at = wall.and_local_timezone(offset).single()?.to_utc();
        match change_between(zone, from, at) {
            None => return Some(at),
            Some(change) => (from, inclusive) = (change, true),
        }
    }
    None
}

/// The first moment after another, up to a last one, at which a zone's offset changes.
fn change_between(zone: Tz, after: DateTime<Utc>, last: DateTime<Utc>) -> Option<DateTime<Utc>> {
    let offset = |at: DateTime<Utc>| zone.offset_from_utc_datetime(&at.naive_utc()).fix();
    let (mut before, known) = (after, offset(after));
    while before < last {
        let next = before.checked_add_signed(TimeDelta::days(1))?.min(last);
        if offset(next) != known {
            let (mut before, mut after) = (before.timestamp(), next.timestamp());
            while after - before > 1 {
                let middle = before.midpoint(after);
                match offset(DateTime::from_timestamp(middle, 0)?) == known {
                    true => before = middle,
                    false => after = middle,
                }
            }
            return DateTime::from_timestamp(after, 0);
        }
        before = next;
    }
    None
}
