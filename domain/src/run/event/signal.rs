//! Signals as events hold them.

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use serde_json::Value;

/// See [`super::Event::SignalReceived`].
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct SignalReceived {
    /// Its number within the run, from 1.
    pub number: u64,
    pub name: String,
    #[serde(default, skip_serializing_if = "Value::is_null")]
    pub payload: Value,
    pub sent_at: DateTime<Utc>,
    /// It was for a wait that is there now, and none was: it isn't kept for a later one.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub dropped: bool,
}
