//! Accesses that are recorded: who looked at the audit log, who took history out of the store, who
//! was refused what, and which secrets were read for webhooks.
//!
//! Each is an aggregate of one event, so that no writer waits for another. Reads of the log that
//! one actor makes within a minute are one: their id follows from the three. Refusals and secrets
//! come counted: what is the same within a minute is told once, and then once more with its number.

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::ids::{AccessId, CommandId, Name, WorkflowId, WorkspaceId};

/// The aggregate type in the journal.
pub const AGGREGATE: &str = "access";
/// Bytes of the filter of a recorded read.
pub const FILTER_BYTES: usize = 4_000;

/// How often something happened, and when.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Times {
    /// At least 1.
    pub count: u64,
    pub first_at: DateTime<Utc>,
    pub last_at: DateTime<Utc>,
}

/// What somebody was refused.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Refusal {
    /// The code of the error.
    pub code: String,
    /// Why, where the answer doesn't tell it: `no_key`, `not_a_key`, `unknown_key`, `wrong_secret`,
    /// `revoked` or `expired`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// The method of HTTP.
    pub method: String,
    /// The template of the path, as `/api/v1/runs/{id}/cancel`.
    pub route: String,
    /// The id in the path: what it was to be done to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub target: Option<String>,
    /// The API key that was named by somebody who isn't known to have it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key: Option<String>,
    #[serde(flatten)]
    pub times: Times,
}

/// Secrets that signatures of webhooks were checked with.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct WebhookSecrets {
    pub workflow_id: WorkflowId,
    /// The name of its trigger.
    pub trigger: Name,
    /// The environment variables of the process that hold them.
    pub names: Vec<String>,
    #[serde(flatten)]
    pub times: Times,
}

/// What isn't told apart any more within a minute.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Crowd {
    /// Refusals of callers who were signed in.
    Refusals,
    /// Refusals of all others.
    RefusalsOfStrangers,
    /// Commands of callers who were signed in that couldn't be carried out.
    RefusedCommands,
    /// Commands of all others.
    RefusedCommandsOfStrangers,
    WebhookSecrets,
}

/// A recorded access. `type` is the journal's event type; the rest is its payload.
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
    /// Somebody was refused something.
    AccessRefused(Box<Refusal>),
    /// Secrets of a webhook's trigger were read.
    WebhookSecretsUsed(Box<WebhookSecrets>),
    /// There was more of a sort within a minute than is told apart.
    AccessesLeftOut {
        of: Crowd,
        #[serde(flatten)]
        times: Times,
    },
}

impl Event {
    /// Every event type of a recorded access.
    pub const TYPES: [&'static str; 5] = [
        "audit_read",
        "audit_exported",
        "access_refused",
        "webhook_secrets_used",
        "accesses_left_out",
    ];

    /// The journal's event type.
    pub const fn event_type(&self) -> &'static str {
        match self {
            Self::AuditRead { .. } => "audit_read",
            Self::AuditExported { .. } => "audit_exported",
            Self::AccessRefused(_) => "access_refused",
            Self::WebhookSecretsUsed(_) => "webhook_secrets_used",
            Self::AccessesLeftOut { .. } => "accesses_left_out",
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
            Self::AuditExported { .. }
            | Self::AccessRefused(_)
            | Self::WebhookSecretsUsed(_)
            | Self::AccessesLeftOut { .. } => AccessId::new(command.bits()),
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
