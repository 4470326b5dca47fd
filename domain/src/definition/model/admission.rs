//! How many runs of a definition go on at the same time.

use serde::{Deserialize, Serialize};

/// At most `limit` runs with the same key go on at the same time.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ConcurrencySpec {
    /// `${…}` over `input`; absent counts all runs of the definition.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key: Option<String>,
    pub limit: u32,
    #[serde(default, skip_serializing_if = "Overflow::is_queue")]
    pub then: Overflow,
}

/// What becomes of a run that is started while as many go on as may.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Overflow {
    /// It waits for its turn.
    #[default]
    Queue,
    /// It ends at once, as cancelled.
    Drop,
    /// It takes the place of the oldest one, which is cancelled.
    CancelOldest,
}

impl Overflow {
    /// Whether it is the default.
    pub const fn is_queue(&self) -> bool {
        matches!(self, Self::Queue)
    }
}
