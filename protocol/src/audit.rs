//! The audit log, who did what, and the audit chain, as their readers see them.

use chrono::{DateTime, Utc};
use domain::audit::SignedHead;
use domain::ids::WorkspaceId;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::command::Origin;
use crate::comparison::DefinitionChange;

/// What somebody did.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct AuditEntry {
    /// The event that records it: `evt_…`.
    pub id: String,
    /// Its position in the journal.
    pub position: u64,
    pub at: DateTime<Utc>,
    /// Who: an API key (`key_…`), `administrator`, `dev`, `trigger`, `system`, or `unknown` where
    /// the event doesn't say.
    pub actor: String,
    /// What: the kind of the resource, a dot, and a verb, as `workflow.revised` or `run.started`.
    pub action: String,
    /// `done`, `failed` of what was tried and came to nothing, or `refused`.
    #[schema(value_type = String)]
    pub result: AuditResult,
    pub resource_type: String,
    pub resource_id: String,
    /// The run that it happened to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub run_id: Option<String>,
    pub workspace_id: String,
    /// From where, as the edge saw it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub origin: Option<Origin>,
    /// The command that did it: `cmd_…`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub command_id: Option<String>,
    /// The trace of the request: the `x-request-id` of its answer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub trace_id: Option<String>,
    /// What of the resource is another than before, at most 50 places; secrets are left out, and
    /// a value above 1,000 bytes is shown as `{"left_out_bytes": n}`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub changes: Vec<DefinitionChange>,
    /// How many there are beyond those.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub changes_left_out: u64,
    /// More about what was done: a reason, a decision, the definition that a run follows …
    #[serde(default, skip_serializing_if = "Map::is_empty")]
    #[schema(value_type = Object)]
    pub details: Map<String, Value>,
}

fn is_zero(number: &u64) -> bool {
    *number == 0
}

/// What came of what somebody did.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum AuditResult {
    Done,
    Failed,
    Refused,
}

impl AuditResult {
    /// The text in JSON.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Done => "done",
            Self::Failed => "failed",
            Self::Refused => "refused",
        }
    }
}

/// Which entries, of one workspace. Absent fields don't narrow.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct AuditFilter {
    pub actor: Option<String>,
    pub action: Option<String>,
    pub resource_type: Option<String>,
    pub resource_id: Option<String>,
    pub run_id: Option<String>,
    pub result: Option<AuditResult>,
    /// From this time on.
    pub after: Option<DateTime<Utc>>,
    /// Before this time.
    pub before: Option<DateTime<Utc>>,
}

/// Which part of history to export, for whom.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ExportAudit {
    /// The workspace whose events are told; all, where it is absent.
    pub workspace_id: Option<WorkspaceId>,
    /// The first position, from 1; the bundle begins at the signed head before it.
    pub from: Option<u64>,
    /// The last position; the bundle ends at the first signed head from there on. Absent means up
    /// to the newest one.
    pub to: Option<u64>,
    pub at: DateTime<Utc>,
    pub by: String,
}

/// Signed heads of the audit chain, in order of position.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct AuditHeads {
    pub items: Vec<AuditHead>,
    /// For the next page as `after`; absent where there is no further one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next_after: Option<u64>,
    /// The key that heads are signed with now, in PEM (SubjectPublicKeyInfo, Ed25519); absent where
    /// none are.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub public_key: Option<String>,
}

/// The audit chain at a position, signed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct AuditHead {
    /// The store's epoch: 8 hexadecimal digits.
    pub epoch: String,
    /// The last event that it covers.
    pub position: u64,
    /// The chain there: a SHA-256 in 64 hexadecimal digits.
    pub hash: String,
    /// RFC 3339 in UTC, with microseconds.
    pub signed_at: String,
    /// The first 16 hexadecimal digits of the SHA-256 of the public key's 32 bytes.
    pub key_id: String,
    /// Base64 of the Ed25519 signature of the canonical JSON (RFC 8785) of
    /// `{"epoch":…,"format":"wonder-audit-1","hash":…,"position":…,"signed_at":…}`.
    pub signature: String,
}

impl From<SignedHead> for AuditHead {
    fn from(head: SignedHead) -> Self {
        let SignedHead { epoch, position, hash, signed_at, key_id, signature } = head;
        Self { epoch, position, hash, signed_at, key_id, signature }
    }
}
