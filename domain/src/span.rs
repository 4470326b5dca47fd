//! A length of time as people write it: `20ms`, `90s`, `10m`, `36h`, `7d`.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// A length of time in whole milliseconds, at most 5 years.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Span(u64);

/// Why a text isn't a [`Span`].
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "{0:?} is not a duration: write a whole number and a unit, as in 20ms, 90s, 10m, 36h, 7d (at most 5 years)"
)]
pub struct InvalidSpan(pub String);

const UNITS: [(&str, u64); 5] =
    [("ms", 1), ("s", 1_000), ("m", 60_000), ("h", 3_600_000), ("d", 86_400_000)];
const MAX_MS: u64 = 5 * 366 * 86_400_000;

impl Span {
    /// A span of so many milliseconds; more than 5 years is cut there.
    pub const fn from_millis(ms: u64) -> Self {
        Self(if ms > MAX_MS { MAX_MS } else { ms })
    }

    /// The span in milliseconds.
    pub const fn as_millis(self) -> u64 {
        self.0
    }

    /// The span as the standard library's type.
    pub const fn as_duration(self) -> std::time::Duration {
        std::time::Duration::from_millis(self.0)
    }
}

impl FromStr for Span {
    type Err = InvalidSpan;
    fn from_str(text: &str) -> Result<Self, InvalidSpan> {
        let invalid = || InvalidSpan(text.chars().take(40).collect());
        let digits = text.bytes().take_while(u8::is_ascii_digit).count();
        let (number, unit) = text.split_at(digits);
        let number: u64 = number.parse().map_err(|_| invalid())?;
        let (_, factor) = UNITS.iter().find(|(name, _)| *name == unit).ok_or_else(invalid)?;
        number.checked_mul(*factor).filter(|ms| *ms <= MAX_MS).map(Self).ok_or_else(invalid)
    }
}

impl fmt::Display for Span {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (unit, factor) = UNITS
            .iter()
            .rev()
            .find(|(_, factor)| self.0 != 0 && self.0.is_multiple_of(*factor))
            .unwrap_or(&UNITS[0]);
        write!(f, "{}{unit}", self.0 / factor)
    }
}

impl fmt::Debug for Span {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl Serialize for Span {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Span {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = std::borrow::Cow::<'de, str>::deserialize(deserializer)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spans_read_back_as_they_are_written() {
        for text in ["0ms", "20ms", "90s", "10m", "36h", "7d", "1500ms"] {
            let span: Span = text.parse().expect(text);
            assert_eq!(span.to_string().parse(), Ok(span), "{text}");
        }
        assert_eq!("90s".parse::<Span>().map(Span::as_millis), Ok(90_000));
    }

    #[test]
    fn a_hostile_text_is_a_span_or_refused() {
        graphs::holds(1_000, graphs::hostile_text(&["20ms", "90s", "1827d", "0h"]), |text| {
            match text.parse::<Span>() {
                Ok(span) => {
                    assert!(span.as_millis() <= MAX_MS);
                    assert_eq!(span.to_string().parse(), Ok(span));
                }
                Err(InvalidSpan(shown)) => assert!(text.starts_with(&shown)),
            }
        });
    }

    #[test]
    fn a_span_is_at_most_five_years() {
        assert_eq!("1830d".parse::<Span>().map(Span::as_millis), Ok(MAX_MS));
        assert!("1831d".parse::<Span>().is_err());
        assert!(format!("{}ms", MAX_MS + 1).parse::<Span>().is_err());
    }

    #[test]
    fn what_is_not_a_span_is_refused() {
        for bad in ["", "s", "10", "-1s", "1.5s", "1 s", "1w", "99999d", "99999999999999999999s"] {
            assert!(bad.parse::<Span>().is_err(), "{bad}");
        }
    }
}
