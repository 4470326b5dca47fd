//! The audit chain as its readers see it.

use domain::audit::SignedHead;
use serde::{Deserialize, Serialize};

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
