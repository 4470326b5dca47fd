//! The journal: one append-only log of events for every aggregate.
//!
//! Positions are contiguous and in commit order. One committer takes the appends of many
//! aggregates into one transaction; an append with a wrong expected sequence is refused alone.
//! This module knows no business noun: events are type names, numbers and bytes.

use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use chrono::{DateTime, Utc};
use uuid::Uuid;

mod columns;
pub mod conformance;
mod fault;
pub mod feed;
mod ids;
pub mod postgres;
mod queue;
mod redaction;
mod snapshots;
pub mod sqlite;
pub mod tail;

pub use ids::{all_ids, leaning_ids, open_ids};
pub use postgres::{PostgresJournal, PostgresOptions};
pub use redaction::{MAX_REDACTED_PER_APPEND, PayloadHash, Redacted, Redaction};
pub use sqlite::{OpenError, SqliteJournal, SqliteOptions};
pub use tail::{Tail, TailError};

/// An event to append.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewEvent {
    pub id: Uuid,
    pub event_type: Arc<str>,
    pub event_version: u32,
    /// Canonical JSON (RFC 8785).
    pub payload: Bytes,
    /// When it was recorded, where that is another time than the append's: an event that happened
    /// to another aggregate before.
    pub recorded_at: Option<DateTime<Utc>>,
}

/// Events of one aggregate that are appended together or not at all, with what goes with them. By
/// default nothing goes with them, and the aggregate is one that anybody may write.
#[derive(Debug, Clone, Default)]
pub struct Append {
    pub aggregate_type: Arc<str>,
    pub aggregate_id: Arc<str>,
    /// The sequence of the last event that the writer has seen; 0 for a new aggregate.
    pub expected_sequence: u64,
    pub workspace_id: Arc<str>,
    /// JSON, the same for all events of the append.
    pub metadata: Bytes,
    /// When the writer decided; stored with every event that has no time of its own.
    pub recorded_at: DateTime<Utc>,
    /// At least one, at most [`MAX_EVENTS_PER_APPEND`].
    pub events: Vec<NewEvent>,
    /// Answers of commands, stored in the same transaction.
    pub inbox: Vec<InboxEntry>,
    /// Content-addressed values that the events refer to.
    pub payloads: Vec<Payload>,
    /// Whether the aggregate still owes work after this append: `Some(true)` puts it on the list
    /// that [`Journal::open_aggregates`] answers, `Some(false)` takes it off.
    pub open: Option<bool>,
    /// An aggregate of whatever shard that this one leans on for as long as it is on that list:
    /// see [`Journal::leaning`]. Only with `open: Some(true)`.
    pub leans_on: Option<Arc<str>>,
    /// The aggregate's state after the events, where the writer wants it kept.
    pub snapshot: Option<Snapshot>,
    /// A name that means something until a time, stored in the same transaction.
    pub mark: Option<Mark>,
    /// Other payloads for events of another aggregate that are there.
    pub redaction: Option<Redaction>,
    /// The shard that the aggregate belongs to; 0 where its kind isn't spread over shards. The list
    /// of open aggregates and marks are kept by shard.
    pub shard: u16,
    /// The epoch under which the writer owns the shard. The append is refused where the shard has
    /// another one by now. `None` for aggregates that anybody may write.
    pub epoch: Option<u64>,
}

/// Events that one append may hold.
pub const MAX_EVENTS_PER_APPEND: usize = 10_000;
/// Bytes of events that one append may hold.
pub const MAX_BYTES_PER_APPEND: usize = 16 * 1024 * 1024;
/// Bytes of payloads, answers and snapshot that one append may hold beside its events.
pub const MAX_ATTACHED_BYTES_PER_APPEND: usize = 64 * 1024 * 1024;

impl Append {
    /// When an event of it was recorded, as it will be read back: storages keep microseconds.
    pub fn recorded_at(&self, event: &NewEvent) -> DateTime<Utc> {
        let at = event.recorded_at.unwrap_or(self.recorded_at);
        DateTime::from_timestamp_micros(at.timestamp_micros()).unwrap_or(at)
    }

    /// Bytes of its events as they are stored.
    pub fn event_bytes(&self) -> usize {
        let each = self.aggregate_type.len()
            + self.aggregate_id.len()
            + self.workspace_id.len()
            + self.metadata.len();
        self.events.iter().map(|event| each + event.event_type.len() + event.payload.len()).sum()
    }

    /// Bytes of all of it.
    pub fn bytes(&self) -> usize {
        self.event_bytes() + self.attached_bytes()
    }

    /// Bytes of what goes with its events.
    pub fn attached_bytes(&self) -> usize {
        let payloads = self.payloads.iter().map(|payload| payload.hash.len() + payload.bytes.len());
        let answers = self
            .inbox
            .iter()
            .map(|entry| entry.key.len() + entry.fingerprint.len() + entry.answer.len());
        let snapshot = self.snapshot.as_ref().map_or(0, |snapshot| snapshot.state.len());
        let mark = self.mark.as_ref().map_or(0, |mark| mark.name.len());
        let leans_on = self.leans_on.as_ref().map_or(0, |id| id.len());
        let redaction = self.redaction.as_ref().map_or(0, Redaction::bytes);
        let rest = snapshot + mark + leans_on + redaction;
        payloads.sum::<usize>() + answers.sum::<usize>() + rest
    }

    /// Refuses what is over a limit, before anything is queued or written.
    pub fn check_limits(&self) -> Result<(), AppendError> {
        let redacted = self.redaction.as_ref().map_or(0, Redaction::count);
        let fits = (1..=MAX_EVENTS_PER_APPEND).contains(&self.events.len())
            && redacted <= MAX_REDACTED_PER_APPEND
            && self.event_bytes() <= MAX_BYTES_PER_APPEND
            && self.attached_bytes() <= MAX_ATTACHED_BYTES_PER_APPEND;
        if fits { Ok(()) } else { Err(AppendError::TooLarge) }
    }
}

/// The answer of a command, found again by its key for at least 24 hours.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InboxEntry {
    /// Scoped by the caller: `<workspace>/<idempotency key>`.
    pub key: String,
    /// Hash of what was asked.
    pub fingerprint: String,
    /// The answer, as the caller encodes it. `{position}` is unknown before the commit: it is
    /// [`Recalled::position`].
    pub answer: Bytes,
}

/// An [`InboxEntry`] as it was stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Recalled {
    pub fingerprint: String,
    pub answer: Bytes,
    /// The position of the last event of its append.
    pub position: u64,
}

/// A value by the hash of its content.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Payload {
    pub hash: Arc<str>,
    pub bytes: Bytes,
}

/// A name that means something until a time, and nothing from then on: it is forgotten. Of two
/// marks of one name in a shard the later time stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mark {
    /// Few bytes: it is a key of a table.
    pub name: Arc<str>,
    /// In whole microseconds.
    pub until: DateTime<Utc>,
}

/// An aggregate's state at a sequence. Derived: it may be dropped at any time.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Snapshot {
    pub sequence: u64,
    /// Version of the state's shape; another one is not used.
    pub version: u32,
    pub state: Bytes,
}

/// A moment of an aggregate.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Until {
    /// After the event with this sequence.
    Sequence(u64),
    /// After the last event that was recorded up to this time.
    Time(DateTime<Utc>),
}

/// Where an append ended up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Appended {
    pub first_position: u64,
    pub last_position: u64,
    pub last_sequence: u64,
}

/// An event as it is stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RecordedEvent {
    pub position: u64,
    pub id: Uuid,
    pub aggregate_type: Arc<str>,
    pub aggregate_id: Arc<str>,
    pub sequence: u64,
    pub event_type: Arc<str>,
    pub event_version: u32,
    pub workspace_id: Arc<str>,
    pub payload: Bytes,
    pub metadata: Bytes,
    pub recorded_at: DateTime<Utc>,
    /// What its payload was when it was written, where another one stands there now.
    pub redacted: Option<PayloadHash>,
}

impl RecordedEvent {
    /// Bytes that the event takes in memory, roughly.
    pub fn size(&self) -> usize {
        size_of::<Self>() + self.payload.len() + self.metadata.len() + self.aggregate_id.len()
    }
}

/// An aggregate that was written: see [`Journal::written_elsewhere`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Written {
    pub position: u64,
    pub aggregate_type: Arc<str>,
    pub aggregate_id: Arc<str>,
}

/// Events that are looked for: see [`Journal::seek`].
#[derive(Debug, Clone, Copy)]
pub struct Sought<'a> {
    pub aggregate_type: &'a str,
    /// Of one of these types.
    pub event_types: &'a [&'a str],
    /// Not of aggregates of which there is a namesake of this type.
    pub without: &'a str,
    /// After this position, and up to the other: what lies between them bounds the work.
    pub after: u64,
    pub through: u64,
}

/// Events of an aggregate that something is made of: all, but those of types of which few are, unless
/// they tell of it.
#[derive(Debug, Clone, Copy, Default)]
pub struct Sieve<'a> {
    /// The types of which few events are of concern.
    pub seldom: &'a [&'a str],
    /// Those of them whose payload has one of these texts in it, as it is stored.
    pub mentions: &'a [&'a str],
}

impl Sieve<'_> {
    /// Whether an event is one of them. One whose payload was replaced always is.
    pub fn takes(&self, event: &RecordedEvent) -> bool {
        let has = |text: &&str| {
            let payload = &event.payload;
            payload.windows(text.len().max(1)).any(|part| part == text.as_bytes())
        };
        !self.seldom.contains(&&*event.event_type)
            || event.redacted.is_some()
            || self.mentions.iter().any(has)
    }
}

/// Why an append wrote nothing.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AppendError {
    /// Another writer was faster; load again.
    #[error("{aggregate_id} has moved on: its sequence is not {expected}")]
    Conflict { aggregate_id: Arc<str>, expected: u64 },
    /// The writer doesn't own the shard any more: another one may write its aggregates.
    #[error("shard {shard} is owned under another epoch")]
    Fenced { shard: u16 },
    /// The command's key is in the inbox already.
    #[error("the command was done before")]
    Duplicate(Recalled),
    /// Over [`MAX_EVENTS_PER_APPEND`], [`MAX_BYTES_PER_APPEND`] or another limit, or without an
    /// event.
    #[error(
        "an append must hold 1 to {MAX_EVENTS_PER_APPEND} events of at most {MAX_BYTES_PER_APPEND} bytes"
    )]
    TooLarge,
    /// The storage is full.
    #[error("the journal's storage is full")]
    Full,
    /// The storage failed or is closed; whether the events were written is unknown only where a
    /// commit itself failed: load again before going on.
    #[error("the journal is unavailable: {0}")]
    Unavailable(Arc<str>),
}

/// Why a read failed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ReadError {
    #[error("the journal is unavailable: {0}")]
    Unavailable(Arc<str>),
    /// A row that can't be what was written.
    #[error("the journal is damaged: {0}")]
    Damaged(Arc<str>),
}

/// A journal in some storage. The conformance tests hold for every implementation.
#[async_trait]
pub trait Journal: Send + Sync + 'static {
    /// Appends; the events are durable when this returns.
    async fn append(&self, append: Append) -> Result<Appended, AppendError>;

    /// An aggregate's events after a sequence, in order, at most `limit`.
    async fn load(
        &self,
        aggregate_type: &str,
        aggregate_id: &str,
        after_sequence: u64,
        limit: usize,
    ) -> Result<Vec<RecordedEvent>, ReadError>;

    /// The same of those that a sieve takes. Others may be among them.
    async fn load_some(
        &self,
        aggregate_type: &str,
        aggregate_id: &str,
        after_sequence: u64,
        limit: usize,
        sieve: Sieve<'_>,
    ) -> Result<Vec<RecordedEvent>, ReadError> {
        let _ = sieve;
        self.load(aggregate_type, aggregate_id, after_sequence, limit).await
    }

    /// All events after a position, in order, at most `limit`.
    async fn read(
        &self,
        after_position: u64,
        limit: usize,
    ) -> Result<Vec<RecordedEvent>, ReadError>;

    /// The newest snapshot of an aggregate with this version of its shape.
    async fn snapshot(
        &self,
        aggregate_type: &str,
        aggregate_id: &str,
        version: u32,
    ) -> Result<Option<Snapshot>, ReadError>;

    /// The newest one that is kept and isn't later than a moment. Of those that newer ones have
    /// replaced, some are.
    async fn snapshot_until(
        &self,
        aggregate_type: &str,
        aggregate_id: &str,
        version: u32,
        until: Until,
    ) -> Result<Option<Snapshot>, ReadError>;

    /// A command's answer, if it was done in the last 24 hours (or longer ago and still kept).
    async fn recall(&self, key: &str) -> Result<Option<Recalled>, ReadError>;

    /// Content-addressed values; a hash that isn't there is an error.
    async fn payloads(&self, hashes: &[Arc<str>]) -> Result<Vec<Payload>, ReadError>;

    /// Ids of a shard's aggregates that still owe work, in order, after an id, at most `limit`.
    async fn open_aggregates(
        &self,
        aggregate_type: &str,
        shard: u16,
        after_id: &str,
        limit: usize,
    ) -> Result<Vec<Arc<str>>, ReadError>;

    /// Ids of aggregates of a type on that list, of all shards, that lean on one, in order, after an
    /// id, at most `limit`: see [`Append::leans_on`].
    async fn leaning(
        &self,
        aggregate_type: &str,
        on: &str,
        after_id: &str,
        limit: usize,
    ) -> Result<Vec<Arc<str>>, ReadError>;

    /// A shard's marks, in the order of names, after a name, at most `limit`. Some may be over.
    async fn marks(
        &self,
        shard: u16,
        after_name: &str,
        limit: usize,
    ) -> Result<Vec<Mark>, ReadError>;

    /// Ids of all aggregates of a type, in order, after an id, at most `limit`. For types of which
    /// there are few: it walks over all of their events.
    async fn aggregates(
        &self,
        aggregate_type: &str,
        after_id: &str,
        limit: usize,
    ) -> Result<Vec<Arc<str>>, ReadError>;

    /// Hashes of values that were noted as released up to a time, in order, at most `limit`: see
    /// [`Redaction::released`].
    async fn released(
        &self,
        until: DateTime<Utc>,
        limit: usize,
    ) -> Result<Vec<Arc<str>>, ReadError>;

    /// Aggregates with events that are looked for, in order of their positions. Walks over all
    /// events between both.
    async fn seek(&self, sought: Sought<'_>) -> Result<Vec<Written>, ReadError>;

    /// The position of the newest event, 0 in an empty journal.
    async fn head(&self) -> Result<u64, ReadError>;

    /// The store's random number: another one means another history.
    fn epoch(&self) -> u32;

    /// Names of aggregates (type, id and the position of the event) that anybody has written after
    /// a position, without those of one type, in order of position, at most 1,000. For what is kept
    /// in memory of aggregates that other processes write too; a journal with one writer has none.
    async fn written_elsewhere(
        &self,
        after_position: u64,
        without_type: &str,
    ) -> Result<Vec<Written>, ReadError> {
        let _ = (after_position, without_type);
        Ok(Vec::new())
    }

    /// Why the last write failed, while that still stands: readiness must fail. Asking may set off
    /// a small write that tries whether it works again, at most one a second.
    fn fault(&self) -> Option<Arc<str>> {
        None
    }

    /// A reader of committed events that wakes within a millisecond of a commit.
    fn tail(&self, after_position: u64) -> Tail;
}
