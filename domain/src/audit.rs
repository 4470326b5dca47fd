//! The audit chain: a hash over all of a journal's history, and heads of it that are signed.
//!
//! Events are taken in order of position. Each has an *entry*, canonical JSON (RFC 8785) of all
//! that the journal says of it, with its payload and its metadata by their SHA-256. An entry's
//! SHA-256 is its *leaf*. The chain starts at the hash of the text `wonder-audit-1:<epoch>` (the
//! store's epoch as 8 hexadecimal digits) and goes on as `SHA-256(chain ‖ leaf)`. So the chain at a
//! position commits to every byte of every event up to there, and to their order, while an event
//! whose payload is gone can still be followed by its entry.
//!
//! A head is signed with Ed25519 (RFC 8032). What is signed is the canonical JSON of
//! `{"epoch":…,"format":"wonder-audit-1","hash":…,"position":…,"signed_at":…}`.

use std::fmt;
use std::str::FromStr;

use chrono::{DateTime, SecondsFormat, Utc};
use data_encoding::{BASE64, HEXLOWER};
use ed25519_dalek::pkcs8::spki::der::pem::LineEnding;
use ed25519_dalek::pkcs8::{DecodePrivateKey, DecodePublicKey, EncodePrivateKey, EncodePublicKey};
use ed25519_dalek::{Signature, Signer, SigningKey, VerifyingKey};
use serde::{Deserialize, Serialize, Serializer};
use serde_json::json;
use sha2::{Digest, Sha256};
use uuid::Uuid;

pub mod bundle;

#[cfg(test)]
mod tests;

/// Names the rules above.
pub const FORMAT: &str = "wonder-audit-1";

/// A SHA-256.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Hash(pub [u8; 32]);

impl Hash {
    fn of(bytes: impl AsRef<[u8]>) -> Self {
        Self(Sha256::digest(bytes).into())
    }

    /// Its first 6 bytes, in 8 characters of base64: enough to say which leaf isn't what it was,
    /// never to say that one is.
    pub fn mark(&self) -> String {
        BASE64.encode(&self.0[..6])
    }
}

impl fmt::Display for Hash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&HEXLOWER.encode(&self.0))
    }
}

impl Serialize for Hash {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl fmt::Debug for Hash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for Hash {
    type Err = NotAHash;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let bytes = HEXLOWER.decode(text.as_bytes()).map_err(|_| NotAHash)?;
        bytes.try_into().map(Self).map_err(|_| NotAHash)
    }
}

/// A text that isn't 64 hexadecimal digits in lower case.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a SHA-256 is written with 64 hexadecimal digits in lower case")]
pub struct NotAHash;

/// An event as the journal has it.
#[derive(Debug, Clone, Copy)]
pub struct Recorded<'a> {
    pub position: u64,
    pub event_id: Uuid,
    pub recorded_at: DateTime<Utc>,
    pub aggregate_type: &'a str,
    pub aggregate_id: &'a str,
    pub sequence: u64,
    pub event_type: &'a str,
    pub event_version: u32,
    pub workspace_id: &'a str,
    pub metadata: &'a [u8],
    pub payload: Payload<'a>,
}

/// The payload of an event.
#[derive(Debug, Clone, Copy)]
pub enum Payload<'a> {
    /// As it was written.
    Whole(&'a [u8]),
    /// Another one stands there: the SHA-256 of what was written.
    Dropped([u8; 32]),
}

impl Payload<'_> {
    fn hash(&self) -> Hash {
        match self {
            Self::Whole(bytes) => Hash::of(bytes),
            Self::Dropped(hash) => Hash(*hash),
        }
    }
}

impl Recorded<'_> {
    /// Its entry: what the chain commits to of it.
    pub fn entry(&self) -> Vec<u8> {
        let entry = Entry {
            aggregate_id: self.aggregate_id,
            aggregate_type: self.aggregate_type,
            event_id: self.event_id,
            metadata_sha256: Hash::of(self.metadata),
            payload_sha256: self.payload.hash(),
            position: self.position,
            recorded_at: &self.recorded_at.to_rfc3339_opts(SecondsFormat::Micros, true),
            sequence: self.sequence,
            event_type: self.event_type,
            version: self.event_version,
            workspace_id: self.workspace_id,
        };
        // Texts and numbers always have a JSON form.
        serde_json::to_vec(&entry).unwrap_or_default()
    }

    /// Its leaf.
    pub fn leaf(&self) -> Hash {
        Hash::of(self.entry())
    }
}

/// The members stand in the order of their names, and are texts and integers alone, so that serde's
/// form is the canonical one.
#[derive(Serialize)]
struct Entry<'a> {
    aggregate_id: &'a str,
    aggregate_type: &'a str,
    event_id: Uuid,
    metadata_sha256: Hash,
    payload_sha256: Hash,
    position: u64,
    recorded_at: &'a str,
    sequence: u64,
    #[serde(rename = "type")]
    event_type: &'a str,
    version: u32,
    workspace_id: &'a str,
}

/// The chain up to a position.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Chain {
    /// 0 before the first event.
    pub position: u64,
    pub hash: Hash,
}

impl Chain {
    /// The chain of a store before its first event.
    pub fn start(epoch: u32) -> Self {
        Self { position: 0, hash: Hash::of(format!("{FORMAT}:{epoch:08x}")) }
    }

    /// Goes on over the next event.
    pub fn follow(&mut self, leaf: &Hash) {
        let mut sha = Sha256::new();
        sha.update(self.hash.0);
        sha.update(leaf.0);
        *self = Self { position: self.position + 1, hash: Hash(sha.finalize().into()) };
    }
}

/// The chain at a position, as somebody with the key saw it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SignedHead {
    /// The store's epoch: 8 hexadecimal digits.
    pub epoch: String,
    /// The last event that it covers.
    pub position: u64,
    /// The chain there: 64 hexadecimal digits.
    pub hash: String,
    /// RFC 3339 in UTC, with microseconds.
    pub signed_at: String,
    /// The first 16 hexadecimal digits of the SHA-256 of the public key's 32 bytes.
    pub key_id: String,
    /// Base64 of the 64 bytes.
    pub signature: String,
}

impl SignedHead {
    fn message(&self) -> Vec<u8> {
        let message = json!({
            "epoch": self.epoch,
            "format": FORMAT,
            "hash": self.hash,
            "position": self.position,
            "signed_at": self.signed_at,
        });
        serde_json_canonicalizer::to_vec(&message).unwrap_or_default()
    }

    /// Where the chain was.
    ///
    /// # Errors
    /// Where the hash isn't one.
    pub fn chain(&self) -> Result<Chain, NotAHash> {
        Ok(Chain { position: self.position, hash: self.hash.parse()? })
    }
}

/// A key that signs heads.
#[derive(Clone)]
pub struct AuditKey(SigningKey);

impl fmt::Debug for AuditKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("AuditKey").field(&self.public().id()).finish()
    }
}

/// A key that can't be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "{what} is not an Ed25519 key in PEM ({reason}): openssl genpkey -algorithm ed25519 makes one"
)]
pub struct NotAKey {
    what: &'static str,
    reason: String,
}

impl AuditKey {
    /// The key with a seed, which must be 32 random bytes.
    pub fn from_seed(seed: &[u8; 32]) -> Self {
        Self(SigningKey::from_bytes(seed))
    }

    /// Reads PEM as `openssl genpkey -algorithm ed25519` writes it (PKCS #8).
    ///
    /// # Errors
    /// Where it is something else.
    pub fn from_pem(pem: &str) -> Result<Self, NotAKey> {
        SigningKey::from_pkcs8_pem(pem)
            .map(Self)
            .map_err(|error| NotAKey { what: "the private key", reason: error.to_string() })
    }

    /// The same the other way.
    pub fn to_pem(&self) -> String {
        // A seed of 32 bytes always has this form.
        self.0.to_pkcs8_pem(LineEnding::LF).map(|pem| pem.to_string()).unwrap_or_default()
    }

    /// What its signatures are checked with.
    pub fn public(&self) -> AuditPublicKey {
        AuditPublicKey(self.0.verifying_key())
    }

    /// Signs a head.
    pub fn sign(&self, epoch: u32, chain: &Chain, at: DateTime<Utc>) -> SignedHead {
        let mut head = SignedHead {
            epoch: format!("{epoch:08x}"),
            position: chain.position,
            hash: chain.hash.to_string(),
            signed_at: at.to_rfc3339_opts(SecondsFormat::Micros, true),
            key_id: self.public().id(),
            signature: String::new(),
        };
        head.signature = BASE64.encode(&self.0.sign(&head.message()).to_bytes());
        head
    }
}

/// A key that checks signatures of heads.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AuditPublicKey(VerifyingKey);

impl AuditPublicKey {
    /// Reads PEM as `openssl pkey -pubout` writes it (SubjectPublicKeyInfo).
    ///
    /// # Errors
    /// Where it is something else.
    pub fn from_pem(pem: &str) -> Result<Self, NotAKey> {
        VerifyingKey::from_public_key_pem(pem)
            .map(Self)
            .map_err(|error| NotAKey { what: "the public key", reason: error.to_string() })
    }

    /// The same the other way.
    pub fn to_pem(&self) -> String {
        // A point always has this form.
        self.0.to_public_key_pem(LineEnding::LF).unwrap_or_default()
    }

    /// Names it, see [`SignedHead::key_id`].
    pub fn id(&self) -> String {
        HEXLOWER.encode(&Hash::of(self.0.as_bytes()).0[..8])
    }

    /// Whether it signed a head, as it is.
    pub fn has_signed(&self, head: &SignedHead) -> bool {
        let signature = BASE64.decode(head.signature.as_bytes()).ok();
        let signature = signature.and_then(|bytes| Signature::from_slice(&bytes).ok());
        head.key_id == self.id()
            && signature
                .is_some_and(|signature| self.0.verify_strict(&head.message(), &signature).is_ok())
    }
}
