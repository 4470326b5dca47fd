//! Failures and what was used up, as events hold them.

use serde::{Deserialize, Serialize};
use serde_json::Value;

/// Why a node, a branch or a run failed.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct RunError {
    /// Stable, `snake_case`.
    pub code: String,
    pub message: String,
    pub kind: FailureKind,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub node: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub attempt: Option<u32>,
    #[serde(default, skip_serializing_if = "Value::is_null")]
    pub detail: Value,
}

impl RunError {
    /// One that won't go away, of no node yet.
    pub fn permanent(code: &str, message: String) -> Self {
        Self {
            code: code.to_owned(),
            message,
            kind: FailureKind::Permanent,
            node: None,
            attempt: None,
            detail: Value::Null,
        }
    }
}

/// What a failure means for retries.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FailureKind {
    /// It may go away: retried as the node says.
    Transient,
    /// It won't go away.
    Permanent,
    /// An attempt took too long: retried as the node says.
    Timeout,
    /// A rule forbids it.
    Policy,
    Cancelled,
}

impl FailureKind {
    /// The text in JSON.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Transient => "transient",
            Self::Permanent => "permanent",
            Self::Timeout => "timeout",
            Self::Policy => "policy",
            Self::Cancelled => "cancelled",
        }
    }

    /// Whether another attempt may help.
    pub const fn is_retryable(self) -> bool {
        matches!(self, Self::Transient | Self::Timeout)
    }
}

/// What was used up. Sums over attempts, failed ones included.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Usage {
    pub input_tokens: u64,
    pub output_tokens: u64,
    /// Millionths of a currency unit.
    pub cost_micros: u64,
}

impl Usage {
    /// Whether nothing was used.
    pub const fn is_empty(&self) -> bool {
        self.input_tokens == 0 && self.output_tokens == 0 && self.cost_micros == 0
    }

    /// Adds another usage, without overflow.
    pub fn add(&mut self, other: &Self) {
        self.input_tokens = self.input_tokens.saturating_add(other.input_tokens);
        self.output_tokens = self.output_tokens.saturating_add(other.output_tokens);
        self.cost_micros = self.cost_micros.saturating_add(other.cost_micros);
    }
}
