//! Queries: filters, pages, and what they answer.

use chrono::{DateTime, Utc};
use domain::resource::Kind;
use serde::{Deserialize, Serialize};

use crate::event::{Cursor, EventEnvelope};
use crate::view::{RunStatus, WaitKind};

/// A page of a list, newest first unless the list says otherwise.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Page<T> {
    pub items: Vec<T>,
    /// Opaque; absent on the last page.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next_cursor: Option<String>,
}

/// Which page.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct PageRequest {
    /// 1 to 200.
    pub limit: u32,
    /// From the page before; bound to the filter that it was made with.
    pub cursor: Option<String>,
    /// Wait (at most 2 s) until the read model has reached this journal position.
    pub min_position: Option<u64>,
}

impl Default for PageRequest {
    fn default() -> Self {
        Self { limit: 50, cursor: None, min_position: None }
    }
}

/// Which resources, of one workspace.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ResourceFilter {
    pub kind: Kind,
    pub project_id: Option<String>,
    pub name: Option<String>,
    /// Archived ones too.
    pub archived: bool,
}

/// Which runs, of one workspace.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct RunFilter {
    pub project_id: Option<String>,
    pub workflow_id: Option<String>,
    /// Children of this run.
    pub parent: Option<String>,
    /// The definition's name.
    pub definition: Option<String>,
    pub status: Vec<RunStatus>,
    /// `key=value`; all must hold.
    pub labels: Vec<(String, String)>,
    pub started_after: Option<DateTime<Utc>>,
    pub started_before: Option<DateTime<Utc>>,
    /// Any of these, among what the run waits for.
    pub waiting_on: Vec<WaitKind>,
    /// As the runs were at this time; those that were started later are left out.
    pub as_of: Option<DateTime<Utc>>,
    /// Part of the run's id, its definition's name or its error message.
    pub q: Option<String>,
    /// Only runs that an experiment made, with those below them, or only others.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub of_experiment: Option<bool>,
}

/// Events in the order of position.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct EventPage {
    pub items: Vec<EventEnvelope>,
    /// Where to go on; always there, so that a reader can wait at the end of the history.
    pub cursor: Cursor,
    /// Whether more was there when the page was made.
    pub more: bool,
}

/// A moment of a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum StateAt {
    /// After the last event.
    Latest,
    /// After the event with this sequence.
    Sequence(u64),
    /// After the last event recorded up to this time.
    Time(DateTime<Utc>),
}

/// Why a text isn't a [`StateAt`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error(
    "write a sequence of the run, 1 or more, as in 12, or an rfc 3339 time, as in \
     2026-01-31T12:00:00Z"
)]
pub struct InvalidMoment;

impl std::str::FromStr for StateAt {
    type Err = InvalidMoment;
    fn from_str(text: &str) -> Result<Self, InvalidMoment> {
        let time = || DateTime::parse_from_rfc3339(text).map(|time| Self::Time(time.to_utc()));
        text.parse().map(Self::Sequence).or_else(|_| time()).map_err(|_| InvalidMoment)
    }
}

impl StateAt {
    /// The last event that is asked for, where it is by its sequence.
    pub const fn sequence(self) -> Option<u64> {
        match self {
            Self::Sequence(sequence) => Some(sequence),
            Self::Latest | Self::Time(_) => None,
        }
    }

    /// Whether an event comes after the moment.
    pub fn is_before(self, sequence: u64, recorded_at: DateTime<Utc>) -> bool {
        match self {
            Self::Latest => false,
            Self::Sequence(last) => sequence > last,
            Self::Time(time) => recorded_at > time,
        }
    }
}
