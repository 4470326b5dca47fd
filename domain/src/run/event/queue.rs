//! Admission as events hold it: what a run's start goes by, why it waits, and when it may go.

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};

use crate::definition::Overflow;
use crate::ids::WorkflowId;
use crate::rate::Rate;
use crate::span::Span;

/// What the admission of a run goes by, evaluated over its input when it was started. Runs of one
/// definition with the same key, whatever their versions, share a queue.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Admission {
    /// The value of the key that the definition counts its runs by, as a text; absent where it gives
    /// none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key: Option<String>,
    /// How many runs with the key may go on at the same time; absent where any number may.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub limit: Option<u32>,
    #[serde(default, skip_serializing_if = "Overflow::is_queue")]
    pub then: Overflow,
    /// How many may begin in a period; absent where any number may.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rate: Option<Rate>,
    #[serde(default, skip_serializing_if = "is_zero")]
    pub priority: i32,
    /// The place in the queue, smallest first: when it was started, moved forward by its priority.
    pub rank: DateTime<Utc>,
}

fn is_zero(number: &i32) -> bool {
    *number == 0
}

impl Admission {
    /// Why a run waits behind so many: for a place, where that is what it lacks, or for the time at
    /// which the next one may begin.
    pub fn reason(
        &self,
        ahead: u64,
        has_room: bool,
        not_before: Option<DateTime<Utc>>,
    ) -> QueueReason {
        let key = self.key.clone();
        match (self.limit, &self.rate) {
            (limit, Some(Rate { limit: rate, period, .. })) if has_room || limit.is_none() => {
                let (limit, period) = (*rate, *period);
                QueueReason::RateLimit { key, limit, period, ahead, not_before }
            }
            (limit, _) => QueueReason::Concurrency { key, limit: limit.unwrap_or_default(), ahead },
        }
    }
}

/// What a start is dropped over.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Dropped {
    /// As many runs go on as may.
    Concurrency,
    /// It comes sooner than the rate allows.
    RateLimit,
}

impl Dropped {
    /// The code of the run's end.
    pub const fn code(self) -> &'static str {
        match self {
            Self::Concurrency => "concurrency_dropped",
            Self::RateLimit => "rate_limit_dropped",
        }
    }

    /// What a code means.
    pub fn of_code(code: &str) -> Option<Self> {
        [Self::Concurrency, Self::RateLimit].into_iter().find(|one| one.code() == code)
    }
}

/// Why a run waits for its admission.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "reason", rename_all = "snake_case")]
pub enum QueueReason {
    /// As many runs with its key go on as may, or others have come before it.
    Concurrency {
        #[serde(default, skip_serializing_if = "Option::is_none")]
        key: Option<String>,
        limit: u32,
        /// How many runs of the queue were ahead of it at that moment, counted up to
        /// [`crate::limits::AHEAD_COUNTED`] where it didn't come last.
        ahead: u64,
    },
    /// As many runs with its key have begun in the period as may, or others have come before it.
    RateLimit {
        #[serde(default, skip_serializing_if = "Option::is_none")]
        key: Option<String>,
        limit: u32,
        period: Span,
        /// As above.
        ahead: u64,
        /// When it may begin at the earliest, as it stood at that moment.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        not_before: Option<DateTime<Utc>>,
    },
    /// Its workflow is paused.
    WorkflowPaused { workflow_id: WorkflowId },
}
