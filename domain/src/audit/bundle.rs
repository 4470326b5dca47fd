//! A bundle: a part of history with all that proves it, to be checked without the store.
//!
//! Lines of JSON, each an object with one member that says what the line is:
//!
//! - `manifest`, first: which part of which store, and the chain before it;
//! - `event`: an event's entry as the chain takes it, with payload and metadata as they are stored,
//!   and the mark that it was sealed with;
//! - `leaf`: an event of which only its leaf is told, since it is another workspace's;
//! - `head`: a signed head, after the event that it is about;
//! - `end`, last: the chain there, how many lines there were, and the SHA-256 of all bytes before
//!   this line; signed.
//!
//! The heads tie the bundle to what was signed when history happened. The end's signature says that
//! the bundle is as the store gave it out, so that also what isn't in the chain, as the manifest,
//! can't be altered.

use chrono::{DateTime, Utc};
use data_encoding::BASE64;
use ed25519_dalek::{Signature, Signer};
use serde::{Deserialize, Serialize};
use serde_json::json;
use serde_json::value::RawValue;
use sha2::{Digest, Sha256};

use super::{AuditKey, AuditPublicKey, Chain, Entry, Hash, Payload, Recorded, SignedHead};

mod verify;

#[cfg(test)]
mod tests;

pub use verify::{Finding, Verified, Verifier};

/// Names the rules above.
pub const BUNDLE_FORMAT: &str = "wonder-audit-bundle-1";
/// Bytes of a line: an event with its payload, which an append bounds.
pub const LINE_BYTES: usize = 64 * 1024 * 1024;

/// Which part of which store a bundle has.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Manifest {
    /// [`BUNDLE_FORMAT`].
    pub format: String,
    /// The store's epoch: 8 hexadecimal digits.
    pub epoch: String,
    /// Events of other workspaces are leaves; absent where all are told.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub workspace_id: Option<String>,
    /// The chain before the first event.
    pub start: Place,
    /// The position of the last event.
    pub to: u64,
    /// The first position that was asked for; what is before it is there to reach a signed head.
    pub from: u64,
    pub exported_at: DateTime<Utc>,
    pub exported_by: String,
    /// The key that signs heads, in PEM, as the store says. Who checks has it from elsewhere.
    pub public_key: String,
}

/// The chain at a position.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Place {
    /// 0 before the first event.
    pub position: u64,
    /// 64 hexadecimal digits.
    pub hash: String,
}

impl From<&Chain> for Place {
    fn from(chain: &Chain) -> Self {
        Self { position: chain.position, hash: chain.hash.to_string() }
    }
}

/// A line.
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
enum Line<'a> {
    Manifest(Manifest),
    #[serde(borrow)]
    Event(EventLine<'a>),
    Leaf(LeafLine),
    Head(SignedHead),
    End(End),
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct EventLine<'a> {
    #[serde(borrow)]
    entry: &'a RawValue,
    /// See [`Hash::mark`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    mark: Option<String>,
    #[serde(borrow)]
    metadata: Stored<'a>,
    /// Its content was dropped from the store.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    dropped: bool,
    /// Absent where it was dropped, and of an API key, whose events hold the hash of its secret.
    #[serde(borrow, default, skip_serializing_if = "Option::is_none")]
    payload: Option<Stored<'a>>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct LeafLine {
    position: u64,
    leaf: String,
}

/// Bytes as they are stored.
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Stored<'a> {
    #[serde(borrow)]
    Json(&'a RawValue),
    /// Of what can't stand in a line as it is.
    Base64(String),
}

impl<'a> Stored<'a> {
    fn of(bytes: &'a [u8]) -> Self {
        let is_one_line = !bytes.iter().any(|byte| matches!(byte, b'\n' | b'\r'));
        match serde_json::from_slice::<&RawValue>(bytes) {
            // Without the space around it, a value isn't the same bytes.
            Ok(json) if is_one_line && json.get().len() == bytes.len() => Self::Json(json),
            _ => Self::Base64(BASE64.encode(bytes)),
        }
    }

    /// The SHA-256 of the bytes; `None` where they can't be read.
    fn hash(&self) -> Option<Hash> {
        match self {
            Self::Json(json) => Some(Hash::of(json.get())),
            Self::Base64(text) => BASE64.decode(text.as_bytes()).ok().map(Hash::of),
        }
    }
}

/// The last line.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct End {
    signed: Signed,
    key_id: String,
    /// Base64 of the signature of the canonical JSON of the members of `signed`, and `format`.
    signature: String,
}

/// What the end's signature is about.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Signed {
    position: u64,
    hash: String,
    events: u64,
    leaves: u64,
    /// Of all bytes before the line of the end, in 64 hexadecimal digits.
    sha256: String,
}

impl Signed {
    fn message(&self) -> Vec<u8> {
        let Self { position, hash, events, leaves, sha256 } = self;
        let message = json!({
            "events": events,
            "format": BUNDLE_FORMAT,
            "hash": hash,
            "leaves": leaves,
            "position": position,
            "sha256": sha256,
        });
        serde_json_canonicalizer::to_vec(&message).unwrap_or_default()
    }
}

impl End {
    fn new(signed: Signed, key: &AuditKey) -> Self {
        let signature = BASE64.encode(&key.0.sign(&signed.message()).to_bytes());
        Self { key_id: key.public().id(), signed, signature }
    }

    fn is_signed_by(&self, key: &AuditPublicKey) -> bool {
        let signature = BASE64.decode(self.signature.as_bytes()).ok();
        let signature = signature.and_then(|bytes| Signature::from_slice(&bytes).ok());
        self.key_id == key.id()
            && signature.is_some_and(|signature| {
                key.0.verify_strict(&self.signed.message(), &signature).is_ok()
            })
    }
}

/// Writes a bundle, line by line. What it answers is to be kept in the order of the calls.
#[derive(Debug)]
pub struct Writer {
    chain: Chain,
    events: u64,
    leaves: u64,
    sha: Sha256,
}

impl Writer {
    /// Begins one whose events come after a place of the chain, and answers its first line.
    pub fn begin(manifest: Manifest, start: Chain) -> (Self, String) {
        let mut writer = Self { chain: start, events: 0, leaves: 0, sha: Sha256::new() };
        let line = writer.line(&Line::Manifest(manifest));
        (writer, line)
    }

    /// The position of the last event so far.
    pub const fn position(&self) -> u64 {
        self.chain.position
    }

    /// The next event, with the mark that it was sealed with. Its payload is left out of where it
    /// isn't to be read.
    pub fn event(
        &mut self,
        event: &Recorded<'_>,
        mark: Option<&str>,
        with_payload: bool,
    ) -> String {
        let entry = event.entry();
        self.chain.follow(&Hash::of(&entry));
        self.events += 1;
        // An entry always is JSON.
        let entry = serde_json::from_slice::<&RawValue>(&entry).unwrap_or(RawValue::NULL);
        let metadata = Stored::of(event.metadata);
        let (payload, dropped) = match event.payload {
            Payload::Dropped(_) => (None, true),
            Payload::Whole(_) if !with_payload => (None, false),
            Payload::Whole(bytes) => (Some(Stored::of(bytes)), false),
        };
        let mark = mark.map(str::to_owned);
        self.line(&Line::Event(EventLine { entry, mark, metadata, dropped, payload }))
    }

    /// The next event, of which nothing is told.
    pub fn leaf(&mut self, event: &Recorded<'_>) -> String {
        let leaf = event.leaf();
        self.chain.follow(&leaf);
        self.leaves += 1;
        self.line(&Line::Leaf(LeafLine { position: event.position, leaf: leaf.to_string() }))
    }

    /// A signed head of where the bundle is.
    pub fn head(&mut self, head: SignedHead) -> String {
        self.line(&Line::Head(head))
    }

    /// The last line.
    pub fn end(mut self, key: &AuditKey) -> String {
        let signed = Signed {
            position: self.chain.position,
            hash: self.chain.hash.to_string(),
            events: self.events,
            leaves: self.leaves,
            sha256: Hash(self.sha.clone().finalize().into()).to_string(),
        };
        self.line(&Line::End(End::new(signed, key)))
    }

    fn line(&mut self, line: &Line<'_>) -> String {
        // Texts, numbers and JSON always have a JSON form.
        let mut text = serde_json::to_string(line).unwrap_or_default();
        text.push('\n');
        self.sha.update(&text);
        text
    }
}

/// An entry as it is read back.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct EntryText {
    aggregate_id: String,
    aggregate_type: String,
    event_id: uuid::Uuid,
    metadata_sha256: String,
    payload_sha256: String,
    position: u64,
    recorded_at: String,
    sequence: u64,
    #[serde(rename = "type")]
    event_type: String,
    version: u32,
    workspace_id: String,
}

impl EntryText {
    /// The entry as it is written; `None` where a hash isn't one.
    fn written(&self) -> Option<Vec<u8>> {
        let entry = Entry {
            aggregate_id: &self.aggregate_id,
            aggregate_type: &self.aggregate_type,
            event_id: self.event_id,
            metadata_sha256: self.metadata_sha256.parse().ok()?,
            payload_sha256: self.payload_sha256.parse().ok()?,
            position: self.position,
            recorded_at: &self.recorded_at,
            sequence: self.sequence,
            event_type: &self.event_type,
            version: self.version,
            workspace_id: &self.workspace_id,
        };
        serde_json::to_vec(&entry).ok()
    }
}
