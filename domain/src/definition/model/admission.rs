//! How many runs of a definition go on at the same time, and how many begin in a period.

use serde::{Deserialize, Serialize};

use crate::span::Span;

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

/// At most `limit` runs with the same key begin in a period. See [`crate::rate`].
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RateLimitSpec {
    /// `${…}` over `input`; absent counts all runs of the definition. The same as that of
    /// `concurrency`, where the definition has both.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key: Option<String>,
    pub limit: u32,
    pub period: Span,
    /// How many may begin at once; 1 where nothing is said.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub burst: Option<u32>,
    #[serde(default, skip_serializing_if = "Excess::is_queue")]
    pub then: Excess,
}

/// What becomes of a run that is started sooner than the rate allows.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Excess {
    /// It waits for its turn.
    #[default]
    Queue,
    /// It ends at once, as cancelled.
    Drop,
}

impl Excess {
    /// Whether it is the default.
    pub const fn is_queue(&self) -> bool {
        matches!(self, Self::Queue)
    }
}
