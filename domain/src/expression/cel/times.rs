//! Timestamps and durations: read from texts, taken apart, in UTC only.

use chrono::{DateTime, Datelike, TimeDelta, Timelike, Utc};

use super::EvalError;
use super::function::Function;
use super::value::Val;

/// `timestamp(x)` and `duration(x)`; `None` where the value's type can't become one.
pub(super) fn parse<'a>(function: Function, value: &Val<'a>) -> Option<Result<Val<'a>, EvalError>> {
    Some(match (function, value) {
        (Function::Timestamp, Val::Time(time)) => Ok(Val::Time(*time)),
        (Function::Timestamp, Val::Int(seconds)) => DateTime::from_timestamp(*seconds, 0)
            .map(Val::Time)
            .ok_or_else(|| unreadable("a timestamp", &seconds.to_string())),
        (Function::Timestamp, Val::Text(text)) => DateTime::parse_from_rfc3339(text.as_str())
            .map(|time| Val::Time(time.with_timezone(&Utc)))
            .map_err(|_| unreadable("an RFC 3339 time, as in 2026-01-31T12:00:00Z", text.as_str())),
        (Function::Duration, Val::Span(span)) => Ok(Val::Span(*span)),
        (Function::Duration, Val::Text(text)) => span(text.as_str())
            .map(Val::Span)
            .ok_or_else(|| unreadable("a duration, as in 1h30m or 1.5s", text.as_str())),
        _ => return None,
    })
}

fn unreadable(what: &str, text: &str) -> EvalError {
    let text: String = text.chars().take(40).collect();
    EvalError::new("invalid_argument", format!("{text:?} is not {what}"))
}

/// `1h30m`, `1.5s`, `20ms`, `-90s`, `7d`.
fn span(text: &str) -> Option<TimeDelta> {
    const UNITS: [(&str, f64); 7] = [
        ("ns", 1.0),
        ("us", 1e3),
        ("ms", 1e6),
        ("s", 1e9),
        ("m", 60e9),
        ("h", 3_600e9),
        ("d", 86_400e9),
    ];
    let (negative, mut rest) = match text.strip_prefix('-') {
        Some(rest) => (true, rest),
        None => (false, text),
    };
    if rest.is_empty() {
        return None;
    }
    let mut nanos = 0_f64;
    while !rest.is_empty() {
        let digits = rest.bytes().take_while(|b| b.is_ascii_digit() || *b == b'.').count();
        let number: f64 = rest[..digits].parse().ok()?;
        rest = &rest[digits..];
        let letters = rest.bytes().take_while(u8::is_ascii_alphabetic).count();
        let (_, factor) = UNITS.iter().find(|(unit, _)| *unit == &rest[..letters])?;
        rest = &rest[letters..];
        nanos += number * factor;
    }
    // Beyond this a 64-bit count of nanoseconds ends (292 years).
    if nanos >= 9.2e18 {
        return None;
    }
    let span = TimeDelta::nanoseconds(nanos.round() as i64);
    Some(if negative { -span } else { span })
}

/// One part of a timestamp or duration, by the names that CEL has for them.
pub(super) fn part<'a>(function: Function, value: &Val<'a>) -> Option<Result<Val<'a>, EvalError>> {
    let number = match value {
        Val::Time(time) => match function {
            Function::FullYear => i64::from(time.year()),
            Function::Month => i64::from(time.month0()),
            Function::Date => i64::from(time.day()),
            Function::DayOfMonth => i64::from(time.day0()),
            Function::DayOfWeek => i64::from(time.weekday().num_days_from_sunday()),
            Function::DayOfYear => i64::from(time.ordinal0()),
            Function::Hours => i64::from(time.hour()),
            Function::Minutes => i64::from(time.minute()),
            Function::Seconds => i64::from(time.second()),
            Function::Milliseconds => i64::from(time.timestamp_subsec_millis()),
            _ => return None,
        },
        Val::Span(span) => match function {
            Function::Hours => span.num_hours(),
            Function::Minutes => span.num_minutes(),
            Function::Seconds => span.num_seconds(),
            Function::Milliseconds => span.num_milliseconds(),
            _ => return None,
        },
        _ => return None,
    };
    Some(Ok(Val::Int(number)))
}
