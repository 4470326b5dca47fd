//! A run that has ended.

use std::sync::Arc;

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::{Header, Run, RunStatus};
use crate::run::event::{Compensation, FailureKind, RunError, Usage};
use crate::run::vars::Vars;

/// A run that has ended.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Closed {
    pub header: Header,
    pub root: Vars,
    pub status: RunStatus,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub output: Option<Arc<Value>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<Box<RunError>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// Why it was cancelled, for programs, where no person or parent has asked for it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub code: Option<String>,
    /// What became of undoing its work, where it did.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub compensation: Option<Box<Compensation>>,
    pub usage: Usage,
    pub ended_at: DateTime<Utc>,
}

impl Closed {
    /// The error of a run that failed, or that was ended for a reason of the engine's own.
    pub fn failure(&self) -> Option<RunError> {
        if let Some(error) = self.error.as_deref() {
            return Some(error.clone());
        }
        let code = self.code.as_deref()?;
        let message = self.reason.clone().unwrap_or_default();
        Some(RunError { kind: FailureKind::Cancelled, ..RunError::permanent(code, message) })
    }
}

impl Run {
    /// The run once it has ended.
    pub fn closed(&self) -> Option<&Closed> {
        match self {
            Self::Closed(closed) => Some(closed),
            Self::NotStarted | Self::Live(_) => None,
        }
    }
}
