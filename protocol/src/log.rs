//! The log store: what the processes of a platform warned of, as its readers see it.

use std::fmt;
use std::str::FromStr;

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

/// Something that a process told.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct LogRecord {
    /// 32 hexadecimal digits.
    pub id: String,
    pub at: DateTime<Utc>,
    /// `error`, `warn`, `info`, `debug` or `trace`.
    #[schema(value_type = String)]
    pub level: LogLevel,
    /// What told it: `gateway`, `commands`, `projections` or `executor`; of what they share, the
    /// roles of the process with `+` between.
    pub role: String,
    /// The process.
    pub instance: String,
    /// The module.
    pub target: String,
    /// At most 2 KiB.
    pub message: String,
    /// The workspace that it is about.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub workspace_id: Option<String>,
    /// The run that it is about.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub run_id: Option<String>,
    /// The trace of the request that it is about, or that started the run.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub trace_id: Option<String>,
    /// What else is told: at most 32 members and 8 KiB, texts of at most 1 KiB.
    #[serde(default, skip_serializing_if = "Map::is_empty")]
    #[schema(value_type = Object)]
    pub fields: Map<String, Value>,
}

/// How much a record matters; the order is from the least to the most.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LogLevel {
    Trace,
    Debug,
    Info,
    Warn,
    Error,
}

impl LogLevel {
    /// All of them, in order.
    pub const ALL: [Self; 5] = [Self::Trace, Self::Debug, Self::Info, Self::Warn, Self::Error];

    /// The text in JSON.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Trace => "trace",
            Self::Debug => "debug",
            Self::Info => "info",
            Self::Warn => "warn",
            Self::Error => "error",
        }
    }
}

impl fmt::Display for LogLevel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

/// Why a text isn't a [`LogLevel`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("use error, warn, info, debug or trace")]
pub struct InvalidLogLevel;

impl FromStr for LogLevel {
    type Err = InvalidLogLevel;
    fn from_str(text: &str) -> Result<Self, InvalidLogLevel> {
        Self::ALL.into_iter().find(|level| level.as_str() == text).ok_or(InvalidLogLevel)
    }
}

/// Which records. Absent fields don't narrow.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct LogFilter {
    /// Of this level and above.
    pub level: Option<LogLevel>,
    pub role: Option<String>,
    pub run_id: Option<String>,
    /// With `run_id`: about any run of its tree.
    pub tree: bool,
    pub trace_id: Option<String>,
    /// From this time on.
    pub from: Option<DateTime<Utc>>,
    /// Before this time.
    pub to: Option<DateTime<Utc>>,
    /// Part of the message or the fields, whatever the case.
    pub q: Option<String>,
}
