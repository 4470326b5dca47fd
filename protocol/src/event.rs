//! Events as readers see them: one envelope and one cursor for pages, live streams and replay.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use chrono::{DateTime, Utc};
use domain::codec;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_json::Value;

/// An event of the journal.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct EventEnvelope {
    /// `evt_…`.
    pub id: String,
    /// Its place in the whole journal: 1, 2, 3 …, without a gap.
    pub position: u64,
    /// `<store epoch>:<position>`.
    #[schema(value_type = String)]
    pub cursor: Cursor,
    /// `run`, `workflow`, `project` …
    pub aggregate_type: String,
    /// `run_…` and so on.
    pub aggregate_id: String,
    /// Its place in its aggregate: 1, 2, 3 …
    pub sequence: u64,
    /// `run_started`, `task_succeeded` …
    pub event_type: String,
    pub event_version: u32,
    pub workspace_id: String,
    /// What its payload tells of the work was dropped: this is the rest of it.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub dropped: bool,
    #[schema(value_type = Object)]
    pub payload: Value,
    /// `actor`, `origin`, `command_id`, `traceparent`, `engine_version`, and of a run's outcomes the
    /// `secrets` that attempts were given, where known.
    #[schema(value_type = Object)]
    pub metadata: Value,
    pub recorded_at: DateTime<Utc>,
}

/// The secrets that an attempt was given, by their names, as the metadata of its outcome tells them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SecretsUsed {
    pub token: u64,
    pub attempt: u32,
    pub names: Vec<String>,
}

impl SecretsUsed {
    /// Bytes that it takes, roughly.
    pub fn bytes(&self) -> usize {
        const AROUND: usize = 40;
        self.names.iter().map(|name| name.len() + 3).sum::<usize>() + AROUND
    }
}

/// Whether the metadata of an event tells of secrets. Cheap: it is asked of every outcome.
pub fn tells_of_secrets(metadata: &[u8]) -> bool {
    codec::mentions(metadata, "\"secrets\":")
}

/// What the metadata of few events says of them.
#[derive(Default, Deserialize)]
#[serde(default)]
struct Marks {
    shared: u64,
    part: bool,
    whole: bool,
    quiet: bool,
}

/// The marks of an event whose metadata, as it is stored, has one of them. Cheap where it hasn't.
fn marked(metadata: &[u8], member: &str) -> Option<Marks> {
    let found = codec::mentions(metadata, member).then(|| serde_json::from_slice(metadata));
    found?.ok()
}

/// Whether an event, by its metadata as it is stored, is shared with the run that its run was forked
/// from: it happened there, and has been told of then.
pub fn is_shared(metadata: &[u8], sequence: u64) -> bool {
    marked(metadata, "\"shared\":").is_some_and(|marks| sequence <= marks.shared)
}

/// Whether an event belongs to the past of a fork that isn't whole yet: it counts once the fork is
/// there, and until then there is no such run.
pub fn is_part(metadata: &[u8]) -> bool {
    marked(metadata, "\"part\":").is_some_and(|marks| marks.part)
}

/// Whether an event is the one by which a fork is there whose past was written in parts before.
pub fn ends_parts(metadata: &[u8], sequence: u64) -> bool {
    marked(metadata, "\"whole\":").is_some_and(|marks| marks.whole && marks.shared + 1 == sequence)
}

/// Whether an event is told to nobody outside of its run, by its metadata as it is stored: it is of
/// an experiment that emits nothing.
pub fn is_quiet(metadata: &[u8]) -> bool {
    marked(metadata, "\"quiet\":").is_some_and(|marks| marks.quiet)
}

/// Where a reader stands: after the event at this position of this store.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Cursor {
    /// Random number of the store; another one means another history.
    pub epoch: u32,
    pub position: u64,
}

/// Why a text isn't a [`Cursor`].
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not a cursor: pass one on as it was given, `<epoch>:<position>`")]
pub struct InvalidCursor(pub String);

impl fmt::Display for Cursor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:08x}:{}", self.epoch, self.position)
    }
}

impl FromStr for Cursor {
    type Err = InvalidCursor;
    fn from_str(text: &str) -> Result<Self, InvalidCursor> {
        let invalid = || InvalidCursor(text.chars().take(40).collect());
        let (epoch, position) = text.split_once(':').ok_or_else(invalid)?;
        let cursor = Self {
            epoch: u32::from_str_radix(epoch, 16).map_err(|_| invalid())?,
            position: position.parse().map_err(|_| invalid())?,
        };
        // Numbers can be written in other ways, as with a sign; cursors are not.
        if cursor.to_string() == text { Ok(cursor) } else { Err(invalid()) }
    }
}

impl Serialize for Cursor {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Cursor {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = std::borrow::Cow::<'de, str>::deserialize(deserializer)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

/// How fast a replay goes: 1 is as it was, 10 is ten times as fast. 0.01 to 10,000.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Speed(f64);

/// Why a text isn't a [`Speed`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("write a number from 0.01 to 10000, as in 10 for ten times as fast")]
pub struct InvalidSpeed;

impl Speed {
    /// How long a time takes at this speed.
    pub fn of(self, time: Duration) -> Duration {
        // Not more than a hundred times as long, which only the longest of all times can't be.
        Duration::try_from_secs_f64(time.as_secs_f64() / self.0).unwrap_or(Duration::MAX)
    }
}

impl fmt::Display for Speed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl FromStr for Speed {
    type Err = InvalidSpeed;
    fn from_str(text: &str) -> Result<Self, InvalidSpeed> {
        let speed = text.parse().ok().filter(|speed| (0.01..=10_000.0).contains(speed));
        speed.map(Self).ok_or(InvalidSpeed)
    }
}

/// Which events a reader wants. Absent fields don't narrow.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct EventFilter {
    pub workspace_id: Option<String>,
    pub aggregate_type: Option<String>,
    pub aggregate_id: Option<String>,
    pub event_type: Option<String>,
    /// Of runs and things of this project, and of this workflow, which the first event of each
    /// says.
    pub project_id: Option<String>,
    pub workflow_id: Option<String>,
    /// Of runs that have all of these labels, by key and value, which their first events say.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub labels: Vec<(String, String)>,
}

impl EventFilter {
    /// Whether an event is wanted, as far as it says itself: not of what project, workflow or
    /// labels it is.
    pub fn holds(&self, event: &EventEnvelope) -> bool {
        let fits = |wanted: &Option<String>, is: &str| wanted.as_deref().is_none_or(|w| w == is);
        fits(&self.workspace_id, &event.workspace_id)
            && fits(&self.aggregate_type, &event.aggregate_type)
            && fits(&self.aggregate_id, &event.aggregate_id)
            && fits(&self.event_type, &event.event_type)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hostile_text_is_a_cursor_as_it_was_given_or_refused() {
        let valid = ["0000002a:0", "ffffffff:18446744073709551615", "00abcdef:12"];
        graphs::holds(1_000, graphs::hostile_text(&valid), |text| match text.parse::<Cursor>() {
            Ok(cursor) => assert_eq!(cursor.to_string(), text),
            Err(InvalidCursor(shown)) => assert!(text.starts_with(&shown)),
        });
    }

    #[test]
    fn what_a_fork_shares_is_marked_up_to_a_sequence() {
        let metadata = br#"{"actor":"ann","shared":3}"#;
        assert!(is_shared(metadata, 1) && is_shared(metadata, 3) && !is_shared(metadata, 4));
        let part = br#"{"actor":"ann","shared":3,"part":true}"#;
        assert!(is_part(part) && !is_part(metadata) && !ends_parts(part, 4));
        let whole = br#"{"actor":"ann","shared":3,"whole":true}"#;
        let ends = [1, 3, 4, 5].map(|sequence| ends_parts(whole, sequence));
        assert!(!is_part(whole) && ends == [false, false, true, false]);
        for plain in [&br#"{"actor":"\"shared\":9"}"#[..], b"{}", b"", br#"{"shared":}"#] {
            assert!(!is_shared(plain, 1) && !is_part(plain) && !ends_parts(plain, 1));
        }
    }

    #[test]
    fn what_is_told_to_nobody_is_marked() {
        assert!(is_quiet(br#"{"actor":"coordinator","quiet":true}"#));
        for told in [&br#"{"actor":"\"quiet\":true"}"#[..], br#"{"quiet":false}"#, b"{}", b""] {
            assert!(!is_quiet(told));
        }
    }

    #[test]
    fn a_speed_is_a_positive_number_within_bounds() {
        let of = |text: &str| text.parse::<Speed>().map(|speed| speed.of(Duration::from_secs(8)));
        assert_eq!(of("1"), Ok(Duration::from_secs(8)));
        assert_eq!(of("0.5"), Ok(Duration::from_secs(16)));
        assert_eq!(of("4e0"), Ok(Duration::from_secs(2)));
        assert!(of("0.01").is_ok() && of("10000").is_ok());
        for bad in ["", "0", "-1", "nan", "inf", "0.009", "10000.1", "x", "1x", " 1"] {
            assert_eq!(of(bad), Err(InvalidSpeed), "{bad}");
        }
        let slowest: Speed = "0.01".parse().expect("a speed");
        assert_eq!(slowest.of(Duration::MAX), Duration::MAX);
    }

    #[test]
    fn a_cursor_has_one_text() {
        assert_eq!("0000002a:7".parse(), Ok(Cursor { epoch: 42, position: 7 }));
        for bad in [
            "",
            ":",
            "2a:7",
            "+000002a:7",
            "0000002A:7",
            "0000002a:+7",
            "0000002a:07",
            "0000002a: 7",
        ] {
            assert!(bad.parse::<Cursor>().is_err(), "{bad}");
        }
    }
}
