//! Redaction: other payloads for events that are there. An event keeps its position, its sequence,
//! its header and its metadata; what its payload was is known by its hash from then on.

use std::sync::Arc;

use bytes::Bytes;
use sha2::{Digest, Sha256};

use super::RecordedEvent;

/// Events whose payload one append may replace.
pub const MAX_REDACTED_PER_APPEND: usize = 1_000;

/// Values that a redaction may be about, for each event that it may be about.
const VALUES_AN_EVENT: usize = 64;

/// The SHA-256 of an event's payload.
pub type PayloadHash = [u8; 32];

/// Other payloads for events of one aggregate, put there in the transaction of an append. Snapshots
/// of the aggregate, which hold what stood there, go with it. Events that aren't there are left
/// out.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Redaction {
    pub aggregate_type: Arc<str>,
    pub aggregate_id: Arc<str>,
    /// At most [`MAX_REDACTED_PER_APPEND`], each once.
    pub events: Vec<Redacted>,
    /// Content-addressed values that these events have referred to and don't any more. They are
    /// noted as released until an append brings them again, as each does that refers to them.
    pub released: Vec<Arc<str>>,
    /// Values that were noted, and are referred to by other events.
    pub referred: Vec<Arc<str>>,
    /// Values that were noted, and that no event refers to: dropped where they are noted still.
    pub dropped: Vec<Arc<str>>,
}

/// What stands in an event from now on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Redacted {
    pub sequence: u64,
    /// JSON.
    pub payload: Bytes,
}

impl Redaction {
    /// Bytes of all of it.
    pub fn bytes(&self) -> usize {
        let payloads = self.events.iter().map(|event| event.payload.len());
        let hashes = self.hashes().map(|hash| hash.len());
        payloads.sum::<usize>() + hashes.sum::<usize>()
    }

    /// How many events and values it is about.
    pub(super) fn count(&self) -> usize {
        self.events.len().max(self.hashes().count() / VALUES_AN_EVENT)
    }

    fn hashes(&self) -> impl Iterator<Item = &Arc<str>> {
        self.released.iter().chain(&self.referred).chain(&self.dropped)
    }
}

/// The SHA-256 of bytes.
pub(super) fn hash(payload: &[u8]) -> PayloadHash {
    Sha256::digest(payload).into()
}

impl RecordedEvent {
    /// The SHA-256 of its payload when it was written.
    pub fn payload_hash(&self) -> PayloadHash {
        self.redacted.unwrap_or_else(|| hash(&self.payload))
    }
}
