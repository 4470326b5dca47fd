//! Reads that are recorded: who looked at the audit log, and who took history out of the store.
//!
//! Each is an aggregate of one event, so that no writer waits for another. Reads of the log that one
//! actor makes within a minute are one: their id follows from the three.

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::ids::{AccessId, CommandId, WorkspaceId};

/// The aggregate type in the journal.
pub const AGGREGATE: &str = "access";
/// Bytes of the filter of a recorded read.
pub const FILTER_BYTES: usize = 4_000;

/// A recorded read. `type` is the journal's event type; the rest is its payload.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum Event {
    /// The audit log was read; what follows within the minute isn't recorded again.
    AuditRead {
        /// What the first of them asked for.
        #[serde(default, skip_serializing_if = "Value::is_null")]
        filter: Value,
    },
    /// A part of history was taken out of the store.
    AuditExported {
        /// The first position that was asked for.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        from: Option<u64>,
        /// The last one.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        to: Option<u64>,
        /// Also the events of other workspaces.
        #[serde(default, skip_serializing_if = "std::ops::Not::not")]
        all_workspaces: bool,
    },
}

impl Event {
    /// Every event type of a recorded read.
    pub const TYPES: [&'static str; 2] = ["audit_read", "audit_exported"];

    /// The journal's event type.
    pub const fn event_type(&self) -> &'static str {
        match self {
            Self::AuditRead { .. } => "audit_read",
            Self::AuditExported { .. } => "audit_exported",
        }
    }

    /// The version of the event's payload.
    pub const fn event_version(&self) -> u32 {
        1
    }

    /// Its aggregate: the same for what is recorded once.
    pub fn id(
        &self,
        workspace: WorkspaceId,
        actor: &str,
        command: CommandId,
        at: DateTime<Utc>,
    ) -> AccessId {
        match self {
            Self::AuditRead { .. } => {
                let minute = at.timestamp().div_euclid(60);
                AccessId::derived(&format!("{workspace}/{actor}"), &minute.to_string())
            }
            Self::AuditExported { .. } => AccessId::new(command.bits()),
        }
    }

    /// Without what is too large to be recorded.
    #[must_use]
    pub fn bounded(self) -> Self {
        match self {
            Self::AuditRead { filter } if filter.to_string().len() > FILTER_BYTES => {
                Self::AuditRead { filter: Value::Null }
            }
            other => other,
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;
    use uuid::Uuid;

    use super::*;

    #[test]
    fn reads_of_a_minute_are_one_and_exports_never_are() {
        let [one, two] = [1, 2].map(|bits| CommandId::new(Uuid::from_u128(bits)));
        let workspace = WorkspaceId::new(Uuid::nil());
        let at = |seconds| DateTime::from_timestamp(seconds, 0).expect("a time");
        let read = Event::AuditRead { filter: json!({"actor": "key_1"}) };
        let id = |actor, command, seconds| read.id(workspace, actor, command, at(seconds));
        assert_eq!(id("ann", one, 120), id("ann", two, 179));
        assert_ne!(id("ann", one, 120), id("ann", one, 180));
        assert_ne!(id("ann", one, 120), id("bob", one, 120));
        let exported = Event::AuditExported { from: None, to: None, all_workspaces: false };
        let id = |command| exported.id(workspace, "ann", command, at(120));
        assert_ne!(id(one), id(two));
        assert_eq!(id(one), id(one), "a repetition of the command");
    }

    #[test]
    fn a_filter_that_is_too_long_is_left_out() {
        let read = |text: String| Event::AuditRead { filter: json!({ "actor": text }) }.bounded();
        assert_eq!(read("a".repeat(FILTER_BYTES)), Event::AuditRead { filter: Value::Null });
        assert_ne!(read("a".repeat(100)), Event::AuditRead { filter: Value::Null });
    }
}
