//! Which of a schedule's times start a run now.

use std::collections::VecDeque;

use chrono::{DateTime, TimeDelta, Utc};

use super::{Missed, Schedule};
use crate::limits;

/// How late a time may be come to before it counts as missed: long enough for another process to
/// take over.
pub const LATE: TimeDelta = TimeDelta::minutes(1);

/// What is to be done by now.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Due {
    /// The times that start a run, in order.
    pub start: Vec<DateTime<Utc>>,
    /// The first and the last of the times that were missed and start none.
    pub missed: Option<(DateTime<Utc>, DateTime<Utc>)>,
}

/// The times after one that is done with, up to now.
pub fn due(schedule: &Schedule, missed: Missed, done: DateTime<Utc>, now: DateTime<Utc>) -> Due {
    let Some(first) = schedule.next_after(done).filter(|first| *first <= now) else {
        return Due::default();
    };
    let late = now - LATE;
    let mut due = Due::default();
    if first <= late {
        let kept = match missed {
            Missed::Skip => 0,
            Missed::One => 1,
            Missed::All => limits::MISSED,
        };
        let mut times = latest(schedule, done, late, kept + 1);
        if times.len() > kept {
            due.missed = times.pop_front().map(|last| (first, last));
        }
        due.start.extend(times);
    }
    due.start.extend(latest(schedule, done.max(late), now, limits::MISSED));
    due
}

/// The latest times after one and up to another, so many at most, in order.
fn latest(
    schedule: &Schedule,
    after: DateTime<Utc>,
    last: DateTime<Utc>,
    count: usize,
) -> VecDeque<DateTime<Utc>> {
    let mut back = TimeDelta::minutes(1);
    loop {
        let from = last.checked_sub_signed(back).unwrap_or(after).max(after);
        let mut times = VecDeque::new();
        let mut time = schedule.next_after(from);
        while let Some(at) = time.filter(|at| *at <= last) {
            if times.len() == count {
                times.pop_front();
            }
            times.push_back(at);
            time = schedule.next_after(at);
        }
        if times.len() == count || from <= after {
            return times;
        }
        back = back * 2;
    }
}
