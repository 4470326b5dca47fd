//! Compensation as events hold it.

use serde::{Deserialize, Serialize};

use super::{Event, RunError, TokenId};

/// See [`Event::CompensationStarted`].
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct CompensationStarted {
    /// On the event's own level, since a large error may stand apart from it.
    #[serde(flatten)]
    pub cause: Cause,
    /// How many completions are to be undone.
    pub total: u64,
}

/// Why a run ends without completing; it ends with that once its work is undone.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "status", rename_all = "snake_case")]
pub enum Cause {
    Failed {
        error: RunError,
    },
    Cancelled {
        #[serde(default, skip_serializing_if = "Option::is_none")]
        reason: Option<String>,
    },
    TimedOut {
        error: RunError,
    },
}

impl Cause {
    /// The status that the run ends with.
    pub const fn status(&self) -> &'static str {
        match self {
            Self::Failed { .. } => "failed",
            Self::Cancelled { .. } => "cancelled",
            Self::TimedOut { .. } => "timed_out",
        }
    }
}

impl From<Cause> for Event {
    fn from(cause: Cause) -> Self {
        match cause {
            Cause::Failed { error } => Self::RunFailed { error },
            Cause::Cancelled { reason } => Self::RunCancelled { reason, code: None },
            Cause::TimedOut { error } => Self::RunTimedOut { error },
        }
    }
}

/// What became of a compensation, so far or in the end.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Compensation {
    /// The completions to be undone.
    pub total: u64,
    pub undone: u64,
    /// Those whose undo failed for good.
    pub failed: u64,
    /// The first of these, at most [`crate::limits::UNDO_FAILURES`].
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub failures: Vec<UndoFailure>,
}

impl Compensation {
    /// Those that no undo has ended of.
    pub const fn remaining(&self) -> u64 {
        self.total.saturating_sub(self.undone + self.failed)
    }
}

/// A completion that could not be undone.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct UndoFailure {
    pub node: String,
    /// The token that had completed the node.
    pub undoes: TokenId,
    /// The token of its undo.
    pub token: TokenId,
    pub code: String,
    /// At most [`crate::limits::UNDO_MESSAGE_CHARS`] of it; the whole stands in `undo_failed`.
    pub message: String,
}
