//! The one connection that writes: a batch of appends in one transaction.
//!
//! Every append is checked before its first row is inserted, so a refused one leaves nothing to
//! undo and its neighbours commit.

use std::collections::HashMap;
use std::fs::File;
use std::sync::Arc;

use rusqlite::{CachedStatement, Connection, OptionalExtension, params};

use crate::clock::Clock;
use crate::journal::queue::Committed;
use crate::journal::{
    Append, AppendError, Appended, PayloadHash, Recalled, RecordedEvent, Redaction, redaction,
};

/// Aggregates whose sequence is remembered; beyond that all are forgotten and read again.
const HEADS: usize = 65_536;
/// For how long an answer is kept at least.
const INBOX_KEPT_MICROS: i64 = 25 * 60 * 60 * 1_000_000;
/// Answers that one commit forgets at most.
const INBOX_SLICE: usize = 256;
/// How often it is looked for answers to forget.
const INBOX_EVERY_MICROS: i64 = 60 * 1_000_000;

const INSERT_EVENT: &str = "insert into events (position, event_id, aggregate_type, aggregate_id, \
     sequence, event_type, event_version, workspace_id, recorded_at, metadata, payload) \
     values (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11)";
const LAST_SEQUENCE: &str = "select sequence from events \
     where aggregate_type = ?1 and aggregate_id = ?2 order by sequence desc limit 1";
const RECALL: &str = "select fingerprint, answer, position from inbox where key = ?1";
const INSERT_ANSWER: &str = "insert or ignore into inbox \
     (key, fingerprint, position, kept_at, answer) values (?1, ?2, ?3, ?4, ?5)";
const INSERT_PAYLOAD: &str = "insert or ignore into payloads (hash, bytes) values (?1, ?2)";
const PUT_SNAPSHOT: &str = "insert into snapshots \
     (aggregate_type, aggregate_id, sequence, version, state) values (?1, ?2, ?3, ?4, ?5) \
     on conflict (aggregate_type, aggregate_id) do update set \
     sequence = excluded.sequence, version = excluded.version, state = excluded.state \
     where excluded.sequence >= snapshots.sequence";
const OPEN: &str = "insert into open_aggregates \
     (aggregate_type, aggregate_id, shard, leans_on) values (?1, ?2, ?3, ?4) \
     on conflict (aggregate_type, aggregate_id) do update set leans_on = excluded.leans_on \
     where excluded.leans_on is not null";
const CLOSE: &str = "delete from open_aggregates where aggregate_type = ?1 and aggregate_id = ?2";
const PUT_MARK: &str = "insert into marks (shard, name, until) values (?1, ?2, ?3) \
     on conflict (shard, name) do update set until = excluded.until \
     where excluded.until > marks.until";
/// How many marks are forgotten with each new one, so that no more than that are kept needlessly.
const FORGET_MARKS: &str = "delete from marks where (shard, name) in \
     (select shard, name from marks where until < ?1 order by until limit 2)";
const PAYLOAD: &str = "select payload, payload_sha256 from events \
     where aggregate_type = ?1 and aggregate_id = ?2 and sequence = ?3";
const REDACT: &str = "update events set payload = ?4, payload_sha256 = ?5 \
     where aggregate_type = ?1 and aggregate_id = ?2 and sequence = ?3";
const DROP_SNAPSHOT: &str = "delete from snapshots where aggregate_type = ?1 and aggregate_id = ?2";
const DROP_OLDER_SNAPSHOTS: &str =
    "delete from older_snapshots where aggregate_type = ?1 and aggregate_id = ?2";
const RELEASE: &str = "insert or ignore into released_payloads (hash, since) values (?1, ?2)";
const IS_REFERRED_TO: &str = "delete from released_payloads where hash = ?1";
const DROP_PAYLOAD: &str = "delete from payloads where hash = ?1";
const FORGET_ANSWERS: &str = "delete from inbox where kept_at < ?1 \
     and id in (select id from inbox order by id limit ?2)";

/// No hash of a value.
const PROBE_KEY: &str = "probe";
const PROBE_BYTES: usize = 64 * 1024;
const PROBE: &str = "insert or replace into payloads (hash, bytes) values (?1, zeroblob(?2))";
const UNDO_PROBE: &str = "delete from payloads where hash = ?1";

/// Owns the connection, the lock on the files and what is known of the newest rows.
#[derive(Debug)]
pub(super) struct Writer {
    connection: Connection,
    head: u64,
    heads: HashMap<(Arc<str>, Arc<str>), u64>,
    /// A transaction failed: what is remembered has to be read again.
    stale: bool,
    clock: Arc<dyn Clock>,
    inbox_due: i64,
    _lock: File,
}

impl Writer {
    pub(super) fn new(
        connection: Connection,
        lock: File,
        head: u64,
        clock: Arc<dyn Clock>,
    ) -> Self {
        let heads = HashMap::new();
        Self { connection, head, heads, stale: false, clock, inbox_due: i64::MIN, _lock: lock }
    }

    /// The newest committed position.
    pub(super) fn head(&self) -> u64 {
        self.head
    }

    /// Writes a batch durably, or nothing of it.
    pub(super) fn commit<'a>(
        &mut self,
        appends: impl Iterator<Item = &'a Append>,
    ) -> rusqlite::Result<Committed> {
        if self.stale {
            self.head = newest_position(&self.connection)?;
            self.stale = false;
        }
        let done = self.transact(appends);
        if done.is_err() {
            self.stale = true;
            self.heads.clear();
            if !self.connection.is_autocommit()
                && let Err(error) = self.connection.execute_batch("rollback")
            {
                tracing::error!(%error, "rolling back a batch failed");
            }
        }
        done
    }

    /// Writes as much as a large value takes, durably, and deletes it again.
    pub(super) fn probe(&self) -> rusqlite::Result<()> {
        self.connection.execute(PROBE, params![PROBE_KEY, PROBE_BYTES])?;
        self.connection.execute(UNDO_PROBE, [PROBE_KEY])?;
        Ok(())
    }

    fn transact<'a>(
        &mut self,
        appends: impl Iterator<Item = &'a Append>,
    ) -> rusqlite::Result<Committed> {
        if self.heads.len() > HEADS {
            self.heads.clear();
        }
        let now = self.clock.now().timestamp_micros();
        self.connection.prepare_cached("begin immediate")?.execute([])?;
        let mut batch = Batch {
            connection: &self.connection,
            insert_event: self.connection.prepare_cached(INSERT_EVENT)?,
            heads: &mut self.heads,
            head: self.head,
            now,
            done: Committed::default(),
        };
        for append in appends {
            let verdict = batch.append(append)?;
            batch.done.verdicts.push(verdict);
        }
        let Batch { head, done, .. } = batch;
        if now >= self.inbox_due {
            let forgotten = self
                .connection
                .prepare_cached(FORGET_ANSWERS)?
                .execute(params![now - INBOX_KEPT_MICROS, INBOX_SLICE])?;
            // A full slice means that there is more to forget: go on with the next commit.
            let wait = if forgotten == INBOX_SLICE { 0 } else { INBOX_EVERY_MICROS };
            self.inbox_due = now.saturating_add(wait);
        }
        self.connection.prepare_cached("commit")?.execute([])?;
        self.head = head;
        Ok(done)
    }
}

fn newest_position(connection: &Connection) -> rusqlite::Result<u64> {
    let sql = "select position from events order by position desc limit 1";
    Ok(connection.query_row(sql, [], |row| row.get(0)).optional()?.unwrap_or(0))
}

/// A transaction in the making.
struct Batch<'w> {
    connection: &'w Connection,
    insert_event: CachedStatement<'w>,
    heads: &'w mut HashMap<(Arc<str>, Arc<str>), u64>,
    head: u64,
    now: i64,
    done: Committed,
}

impl Batch<'_> {
    /// Inserts one append, or says why not. An error spoils the whole transaction.
    fn append(&mut self, append: &Append) -> rusqlite::Result<Result<Appended, AppendError>> {
        if let Err(refused) = append.check_limits() {
            return Ok(Err(refused));
        }
        for entry in &append.inbox {
            if let Some(recalled) = self.recall(&entry.key)? {
                return Ok(Err(AppendError::Duplicate(recalled)));
            }
        }
        let key = (Arc::clone(&append.aggregate_type), Arc::clone(&append.aggregate_id));
        let last = match self.heads.get(&key) {
            Some(last) => *last,
            None => self.last_sequence(append)?,
        };
        if last != append.expected_sequence {
            self.heads.insert(key, last);
            return Ok(Err(AppendError::Conflict {
                aggregate_id: Arc::clone(&append.aggregate_id),
                expected: append.expected_sequence,
            }));
        }
        let first_position = self.head + 1;
        let last_sequence = self.insert_events(append, last)?;
        self.heads.insert(key, last_sequence);
        self.insert_rest(append, last_sequence)?;
        Ok(Ok(Appended { first_position, last_position: self.head, last_sequence }))
    }

    fn recall(&self, key: &str) -> rusqlite::Result<Option<Recalled>> {
        let mut statement = self.connection.prepare_cached(RECALL)?;
        let recalled = statement.query_row([key], |row| {
            Ok(Recalled {
                fingerprint: row.get(0)?,
                answer: row.get::<_, Vec<u8>>(1)?.into(),
                position: row.get(2)?,
            })
        });
        recalled.optional()
    }

    fn last_sequence(&self, append: &Append) -> rusqlite::Result<u64> {
        let mut statement = self.connection.prepare_cached(LAST_SEQUENCE)?;
        let last = statement
            .query_row([&append.aggregate_type, &append.aggregate_id], |row| row.get(0))
            .optional()?;
        Ok(last.unwrap_or(0))
    }

    fn insert_events(&mut self, append: &Append, last: u64) -> rusqlite::Result<u64> {
        let mut sequence = last;
        self.done.events.reserve(append.events.len());
        for event in &append.events {
            self.head += 1;
            sequence += 1;
            let recorded_at = append.recorded_at(event);
            self.insert_event.execute(params![
                self.head,
                event.id.as_bytes().as_slice(),
                &*append.aggregate_type,
                &*append.aggregate_id,
                sequence,
                &*event.event_type,
                event.event_version,
                &*append.workspace_id,
                recorded_at.timestamp_micros(),
                &*append.metadata,
                &*event.payload,
            ])?;
            self.done.events.push(Arc::new(RecordedEvent {
                position: self.head,
                id: event.id,
                aggregate_type: Arc::clone(&append.aggregate_type),
                aggregate_id: Arc::clone(&append.aggregate_id),
                sequence,
                event_type: Arc::clone(&event.event_type),
                event_version: event.event_version,
                workspace_id: Arc::clone(&append.workspace_id),
                payload: event.payload.clone(),
                metadata: append.metadata.clone(),
                recorded_at,
                redacted: None,
            }));
        }
        Ok(sequence)
    }

    fn insert_rest(&self, append: &Append, last_sequence: u64) -> rusqlite::Result<()> {
        let (kind, id) = (&*append.aggregate_type, &*append.aggregate_id);
        for entry in &append.inbox {
            self.connection.prepare_cached(INSERT_ANSWER)?.execute(params![
                entry.key,
                entry.fingerprint,
                self.head,
                self.now,
                &*entry.answer,
            ])?;
        }
        for payload in &append.payloads {
            self.connection
                .prepare_cached(INSERT_PAYLOAD)?
                .execute(params![&*payload.hash, &*payload.bytes])?;
        }
        if let Some(open) = append.open {
            if open {
                let mut statement = self.connection.prepare_cached(OPEN)?;
                statement.execute(params![kind, id, append.shard, append.leans_on.as_deref()])?;
            } else {
                self.connection.prepare_cached(CLOSE)?.execute(params![kind, id])?;
            }
        }
        if let Some(mark) = &append.mark {
            let until = mark.until.timestamp_micros();
            self.connection.prepare_cached(FORGET_MARKS)?.execute([self.now])?;
            let mut statement = self.connection.prepare_cached(PUT_MARK)?;
            statement.execute(params![append.shard, &*mark.name, until])?;
        }
        if let Some(redaction) = &append.redaction {
            self.redact(redaction, append.recorded_at.timestamp_micros())?;
        }
        if let Some(snapshot) = &append.snapshot {
            if snapshot.sequence == last_sequence {
                self.connection.prepare_cached(PUT_SNAPSHOT)?.execute(params![
                    kind,
                    id,
                    snapshot.sequence,
                    snapshot.version,
                    &*snapshot.state,
                ])?;
            } else {
                // Kept, it would hide events from the next load; it is only a shortcut.
                let (aggregate_id, sequence) = (id, snapshot.sequence);
                tracing::warn!(aggregate_id, sequence, last_sequence, "dropped a wrong snapshot");
            }
        }
        Ok(())
    }

    fn redact(&self, redaction: &Redaction, at: i64) -> rusqlite::Result<()> {
        let (kind, id) = (&*redaction.aggregate_type, &*redaction.aggregate_id);
        let mut stored = self.connection.prepare_cached(PAYLOAD)?;
        let mut redact = self.connection.prepare_cached(REDACT)?;
        for event in &redaction.events {
            let sequence = event.sequence;
            let original = stored.query_row(params![kind, id, sequence], |row| {
                let known: Option<PayloadHash> = row.get(1)?;
                known.map_or_else(|| Ok(redaction::hash(&row.get::<_, Vec<u8>>(0)?)), Ok)
            });
            if let Some(original) = original.optional()? {
                redact.execute(params![kind, id, sequence, &*event.payload, original])?;
            }
        }
        for drop in [DROP_SNAPSHOT, DROP_OLDER_SNAPSHOTS] {
            self.connection.prepare_cached(drop)?.execute([kind, id])?;
        }
        for hash in &redaction.released {
            self.connection.prepare_cached(RELEASE)?.execute(params![&**hash, at])?;
        }
        for hash in &redaction.referred {
            self.connection.prepare_cached(IS_REFERRED_TO)?.execute([&**hash])?;
        }
        for hash in &redaction.dropped {
            let released = self.connection.prepare_cached(IS_REFERRED_TO)?.execute([&**hash])?;
            if released > 0 {
                self.connection.prepare_cached(DROP_PAYLOAD)?.execute([&**hash])?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
