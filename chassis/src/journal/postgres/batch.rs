//! A batch as the arrays that `append_events` takes, and `append_marked_events` where it has marks.

use std::collections::HashSet;
use std::sync::Arc;

use chrono::{DateTime, Utc};
use sqlx::encode::IsNull;
use sqlx::error::BoxDynError;
use sqlx::postgres::types::Oid;
use sqlx::postgres::{PgArgumentBuffer, PgHasArrayType, PgRow, PgTypeInfo};
use sqlx::{Connection, Encode, PgConnection, Postgres, Row, Type};
use uuid::Uuid;

use crate::journal::columns::signed;
use crate::journal::queue::Request;
use crate::journal::{Append, Redaction};

const APPEND: &str = "select append, verdict, position, fingerprint, answer from append_events(\
     $1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17, $18, $19, $20, \
     $21, $22, $23, $24, $25, $26, $27, $28)";
const REDACT: &str = "select redact_events($1, $2, $3, $4, $5, $6, $7, $8)";
/// Only of what is on the list.
const LEAN: &str = "update open_aggregates o set leans_on = l.leans_on \
     from unnest($1::text[], $2::integer[], $3::text[], $4::text[]) \
         as l (aggregate_type, shard, aggregate_id, leans_on) \
     where o.aggregate_type = l.aggregate_type and o.shard = l.shard \
         and o.aggregate_id = l.aggregate_id";
const APPEND_MARKED: &str = "select append, verdict, position, fingerprint, answer \
     from append_marked_events(\
     $1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17, $18, $19, $20, \
     $21, $22, $23, $24, $25, $26, $27, $28, $29, $30, $31)";

/// Bytes of JSON, which go over as they are.
#[derive(Debug, Clone, Copy)]
struct Json<'a>(&'a [u8]);

impl Type<Postgres> for Json<'_> {
    fn type_info() -> PgTypeInfo {
        PgTypeInfo::with_oid(Oid(114))
    }
}

impl PgHasArrayType for Json<'_> {
    fn array_type_info() -> PgTypeInfo {
        PgTypeInfo::with_oid(Oid(199))
    }
}

impl Encode<'_, Postgres> for Json<'_> {
    fn encode_by_ref(&self, buffer: &mut PgArgumentBuffer) -> Result<IsNull, BoxDynError> {
        buffer.extend_from_slice(self.0);
        Ok(IsNull::No)
    }
}

/// Parallel arrays; appends are numbered from 1.
#[derive(Default)]
pub(super) struct Arrays<'a> {
    appends: Appends<'a>,
    events: Events<'a>,
    inbox: Inbox<'a>,
    payloads: Payloads<'a>,
    snapshots: Snapshots<'a>,
    open: Open,
    marks: Marks<'a>,
    leanings: Vec<(i32, &'a Append, &'a str)>,
    redactions: Vec<(i32, DateTime<Utc>, &'a Redaction)>,
}

#[derive(Default)]
struct Appends<'a> {
    types: Vec<&'a str>,
    ids: Vec<&'a str>,
    expected: Vec<i64>,
    workspaces: Vec<&'a str>,
    metadata: Vec<Json<'a>>,
    /// One for each append, or one for each event where some have a time of their own.
    recorded: Vec<DateTime<Utc>>,
    shards: Vec<i32>,
    epochs: Vec<Option<i64>>,
}

#[derive(Default)]
struct Events<'a> {
    appends: Vec<i32>,
    sequences: Vec<i64>,
    ids: Vec<Uuid>,
    types: Vec<&'a str>,
    versions: Vec<String>,
    payloads: Vec<Json<'a>>,
}

#[derive(Default)]
struct Inbox<'a> {
    appends: Vec<i32>,
    lasts: Vec<i32>,
    keys: Vec<&'a str>,
    fingerprints: Vec<&'a str>,
    answers: Vec<&'a [u8]>,
}

#[derive(Default)]
struct Payloads<'a> {
    appends: Vec<i32>,
    hashes: Vec<&'a str>,
    bytes: Vec<&'a [u8]>,
}

#[derive(Default)]
struct Snapshots<'a> {
    appends: Vec<i32>,
    sequences: Vec<i64>,
    versions: Vec<i64>,
    states: Vec<&'a [u8]>,
}

#[derive(Default)]
struct Open {
    appends: Vec<i32>,
    open: Vec<bool>,
}

#[derive(Default)]
struct Marks<'a> {
    appends: Vec<i32>,
    names: Vec<&'a str>,
    until: Vec<DateTime<Utc>>,
}

impl<'a> Arrays<'a> {
    pub(super) fn new(batch: &'a [Request]) -> Self {
        let mut arrays = Self::default();
        for (number, request) in (1..).zip(batch) {
            arrays.push(number, &request.append);
        }
        let appends = || batch.iter().map(|request| &request.append);
        let events =
            || appends().flat_map(|append| append.events.iter().map(move |one| (append, one)));
        if events().any(|(_, event)| event.recorded_at.is_some()) {
            arrays.appends.recorded =
                events().map(|(append, event)| append.recorded_at(event)).collect();
        }
        arrays
    }

    fn push(&mut self, number: i32, append: &'a Append) {
        self.appends.push(append);
        let mut sequence = signed(append.expected_sequence);
        for event in &append.events {
            sequence = sequence.saturating_add(1);
            self.events.appends.push(number);
            self.events.sequences.push(sequence);
            self.events.ids.push(event.id);
            self.events.types.push(&event.event_type);
            self.events.versions.push(event.event_version.to_string());
            self.events.payloads.push(Json(&event.payload));
        }
        let last = i32::try_from(self.events.appends.len()).unwrap_or(i32::MAX);
        for entry in &append.inbox {
            self.inbox.appends.push(number);
            self.inbox.lasts.push(last);
            self.inbox.keys.push(&entry.key);
            self.inbox.fingerprints.push(&entry.fingerprint);
            self.inbox.answers.push(&entry.answer);
        }
        for payload in &append.payloads {
            self.payloads.appends.push(number);
            self.payloads.hashes.push(&payload.hash);
            self.payloads.bytes.push(&payload.bytes);
        }
        if let Some(snapshot) = &append.snapshot {
            if signed(snapshot.sequence) == sequence {
                self.snapshots.appends.push(number);
                self.snapshots.sequences.push(sequence);
                self.snapshots.versions.push(snapshot.version.into());
                self.snapshots.states.push(&snapshot.state);
            } else {
                // Kept, it would hide events from the next load; it is only a shortcut.
                let (aggregate_id, found) = (&*append.aggregate_id, snapshot.sequence);
                tracing::warn!(aggregate_id, found, sequence, "dropped a wrong snapshot");
            }
        }
        if let Some(open) = append.open {
            self.open.appends.push(number);
            self.open.open.push(open);
        }
        if let Some(mark) = &append.mark {
            self.marks.appends.push(number);
            self.marks.names.push(&mark.name);
            self.marks.until.push(mark.until);
        }
        if let Some(on) = &append.leans_on {
            self.leanings.push((number, append, on));
        }
        if let Some(redaction) = &append.redaction {
            self.redactions.push((number, append.recorded_at, redaction));
        }
    }

    /// Appends the batch, and it is durable when this is back: one round trip, but where what is
    /// rare goes with it.
    pub(super) async fn append(
        &self,
        connection: &mut PgConnection,
    ) -> Result<Vec<PgRow>, sqlx::Error> {
        if self.redactions.is_empty() && self.leanings.is_empty() {
            return self.append_all(connection).await;
        }
        let mut transaction = connection.begin().await?;
        let rows = self.append_all(&mut transaction).await?;
        let mut refused = HashSet::new();
        for row in &rows {
            refused.insert(row.try_get::<i32, _>(0)?);
        }
        let leanings = self.leanings.iter().filter(|(number, ..)| !refused.contains(number));
        lean(&mut transaction, leanings).await?;
        let taken = self.redactions.iter().filter(|(number, ..)| !refused.contains(number));
        for (_, at, redaction) in taken {
            redact(&mut transaction, redaction, *at).await?;
        }
        transaction.commit().await?;
        Ok(rows)
    }

    async fn append_all(&self, connection: &mut PgConnection) -> Result<Vec<PgRow>, sqlx::Error> {
        let is_marked = !self.marks.appends.is_empty();
        let query = sqlx::query(if is_marked { APPEND_MARKED } else { APPEND })
            .bind(&self.appends.types)
            .bind(&self.appends.ids)
            .bind(&self.appends.expected)
            .bind(&self.appends.workspaces)
            .bind(&self.appends.metadata)
            .bind(&self.appends.recorded)
            .bind(&self.appends.shards)
            .bind(&self.appends.epochs)
            .bind(&self.events.appends)
            .bind(&self.events.sequences)
            .bind(&self.events.ids)
            .bind(&self.events.types)
            .bind(&self.events.versions)
            .bind(&self.events.payloads)
            .bind(part(&self.inbox.appends))
            .bind(part(&self.inbox.lasts))
            .bind(part(&self.inbox.keys))
            .bind(part(&self.inbox.fingerprints))
            .bind(part(&self.inbox.answers))
            .bind(part(&self.payloads.appends))
            .bind(part(&self.payloads.hashes))
            .bind(part(&self.payloads.bytes))
            .bind(part(&self.snapshots.appends))
            .bind(part(&self.snapshots.sequences))
            .bind(part(&self.snapshots.versions))
            .bind(part(&self.snapshots.states))
            .bind(part(&self.open.appends))
            .bind(part(&self.open.open));
        let query = if is_marked {
            query.bind(&self.marks.appends).bind(&self.marks.names).bind(&self.marks.until)
        } else {
            query
        };
        // All rows are waited for, since the commit comes after the last of them.
        query.fetch_all(connection).await
    }
}

impl<'a> Appends<'a> {
    fn push(&mut self, append: &'a Append) {
        self.types.push(&append.aggregate_type);
        self.ids.push(&append.aggregate_id);
        self.expected.push(signed(append.expected_sequence));
        self.workspaces.push(&append.workspace_id);
        self.metadata.push(Json(&append.metadata));
        self.recorded.push(append.recorded_at);
        self.shards.push(append.shard.into());
        self.epochs.push(append.epoch.map(signed));
    }
}

async fn lean<'a>(
    connection: &mut PgConnection,
    leanings: impl Iterator<Item = &'a (i32, &'a Append, &'a str)>,
) -> Result<(), sqlx::Error> {
    let (mut types, mut shards) = (Vec::new(), Vec::new());
    let (mut ids, mut on) = (Vec::new(), Vec::new());
    for (_, append, leans_on) in leanings {
        types.push(&*append.aggregate_type);
        shards.push(i32::from(append.shard));
        ids.push(&*append.aggregate_id);
        on.push(*leans_on);
    }
    if !ids.is_empty() {
        let query = sqlx::query(LEAN).bind(types).bind(shards).bind(ids).bind(on);
        query.execute(connection).await?;
    }
    Ok(())
}

async fn redact(
    connection: &mut PgConnection,
    redaction: &Redaction,
    at: DateTime<Utc>,
) -> Result<(), sqlx::Error> {
    let events = &redaction.events;
    sqlx::query(REDACT)
        .bind(vec![&*redaction.aggregate_type; events.len()])
        .bind(vec![&*redaction.aggregate_id; events.len()])
        .bind(events.iter().map(|event| signed(event.sequence)).collect::<Vec<_>>())
        .bind(events.iter().map(|event| Json(&event.payload)).collect::<Vec<_>>())
        .bind(texts(&redaction.released))
        .bind(at)
        .bind(texts(&redaction.referred))
        .bind(texts(&redaction.dropped))
        .execute(connection)
        .await?;
    Ok(())
}

fn texts(hashes: &[Arc<str>]) -> Vec<&str> {
    hashes.iter().map(|hash| &**hash).collect()
}

/// Nothing where it is empty: its statement is skipped then.
fn part<T>(elements: &Vec<T>) -> Option<&Vec<T>> {
    (!elements.is_empty()).then_some(elements)
}
