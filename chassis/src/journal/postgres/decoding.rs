//! Rows of the database as what the journal speaks of.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use bytes::Bytes;
use sqlx::Row;
use sqlx::postgres::PgRow;

use crate::journal::columns::unsigned;
use crate::journal::queue::{Committed, Request};
use crate::journal::{
    Append, AppendError, Appended, PayloadHash, ReadError, Recalled, RecordedEvent,
};

/// What the rows of `append_events` mean for the appends of the batch.
pub(super) fn committed(batch: &[Request], rows: &[PgRow]) -> Result<Committed, sqlx::Error> {
    let mut head = None;
    let mut refused = HashMap::new();
    for row in rows {
        let number: i32 = row.try_get(0)?;
        match row.try_get(1)? {
            "after" => head = Some(row.try_get::<i64, _>(2)?.unsigned_abs()),
            verdict => {
                let index = usize::try_from(number - 1).unwrap_or(usize::MAX);
                let request = batch.get(index).ok_or_else(|| unknown(verdict))?;
                refused.insert(index, refusal(&request.append, verdict, row)?);
            }
        }
    }
    let mut head = head.ok_or_else(|| unknown("nothing"))?;
    let mut done = Committed::default();
    for (index, request) in batch.iter().enumerate() {
        let verdict = match refused.remove(&index) {
            Some(refused) => Err(refused),
            None => Ok(appended(&request.append, &mut head, &mut done.events)),
        };
        done.verdicts.push(verdict);
    }
    Ok(done)
}

fn refusal(append: &Append, verdict: &str, row: &PgRow) -> Result<AppendError, sqlx::Error> {
    match verdict {
        "conflict" => Ok(AppendError::Conflict {
            aggregate_id: Arc::clone(&append.aggregate_id),
            expected: append.expected_sequence,
        }),
        "fenced" => Ok(AppendError::Fenced { shard: append.shard }),
        "duplicate" => Ok(AppendError::Duplicate(Recalled {
            position: row.try_get::<i64, _>(2)?.unsigned_abs(),
            fingerprint: row.try_get(3)?,
            answer: row.try_get::<Vec<u8>, _>(4)?.into(),
        })),
        other => Err(unknown(other)),
    }
}

/// The events of an append as they will be read back.
fn appended(append: &Append, head: &mut u64, events: &mut Vec<Arc<RecordedEvent>>) -> Appended {
    let (first_position, mut sequence) = (*head + 1, append.expected_sequence);
    for event in &append.events {
        *head += 1;
        sequence += 1;
        events.push(Arc::new(RecordedEvent {
            position: *head,
            id: event.id,
            aggregate_type: Arc::clone(&append.aggregate_type),
            aggregate_id: Arc::clone(&append.aggregate_id),
            sequence,
            event_type: Arc::clone(&event.event_type),
            event_version: event.event_version,
            workspace_id: Arc::clone(&append.workspace_id),
            payload: event.payload.clone(),
            metadata: append.metadata.clone(),
            recorded_at: append.recorded_at(event),
            redacted: None,
        }));
    }
    Appended { first_position, last_position: *head, last_sequence: sequence }
}

/// Columns of an event, in the order that [`event`] takes them.
pub(super) const EVENT: &str = "position, event_id, aggregate_type, aggregate_id, sequence, \
     event_type, event_version, workspace_id, recorded_at, metadata, payload, \
     payload_sha256";

/// Names that come again and again within a page, each allocated once.
#[derive(Default)]
pub(super) struct Names(HashSet<Arc<str>>);

impl Names {
    pub(super) fn get(&mut self, name: &str) -> Arc<str> {
        if let Some(known) = self.0.get(name) {
            return Arc::clone(known);
        }
        let name: Arc<str> = name.into();
        self.0.insert(Arc::clone(&name));
        name
    }
}

pub(super) fn event(row: &PgRow, names: &mut Names) -> Result<RecordedEvent, ReadError> {
    let position = unsigned(row.try_get(0).map_err(failed)?)?;
    let mut decode = || -> Result<RecordedEvent, sqlx::Error> {
        let version: &str = row.try_get(6)?;
        Ok(RecordedEvent {
            position,
            id: row.try_get(1)?,
            aggregate_type: names.get(row.try_get(2)?),
            aggregate_id: names.get(row.try_get(3)?),
            sequence: row.try_get::<i64, _>(4)?.unsigned_abs(),
            event_type: names.get(row.try_get(5)?),
            event_version: version.parse().map_err(|error| decoding("event_version", error))?,
            workspace_id: names.get(row.try_get(7)?),
            recorded_at: row.try_get(8)?,
            metadata: json(row, 9)?,
            payload: json(row, 10)?,
            redacted: redacted(row)?,
        })
    };
    decode().map_err(|error| ReadError::Damaged(format!("event {position}: {error}").into()))
}

fn redacted(row: &PgRow) -> Result<Option<PayloadHash>, sqlx::Error> {
    let hash: Option<&[u8]> = row.try_get(11)?;
    hash.map(PayloadHash::try_from).transpose().map_err(|error| decoding("payload_sha256", error))
}

/// The bytes as they were written.
fn json(row: &PgRow, index: usize) -> Result<Bytes, sqlx::Error> {
    let value = row.try_get_raw(index)?;
    value.as_bytes().map(Bytes::copy_from_slice).map_err(|error| decoding("json", error))
}

fn decoding(index: &str, source: impl Into<sqlx::error::BoxDynError>) -> sqlx::Error {
    sqlx::Error::ColumnDecode { index: index.into(), source: source.into() }
}

fn unknown(verdict: &str) -> sqlx::Error {
    decoding("verdict", format!("{verdict} is unknown"))
}

pub(super) fn failed(error: sqlx::Error) -> ReadError {
    let message: Arc<str> = error.to_string().into();
    let damaged = match &error {
        sqlx::Error::ColumnDecode { .. } | sqlx::Error::Decode(_) => true,
        // Data or index corrupted.
        sqlx::Error::Database(error) => {
            error.code().is_some_and(|code| matches!(&*code, "XX001" | "XX002"))
        }
        _ => false,
    };
    if damaged { ReadError::Damaged(message) } else { ReadError::Unavailable(message) }
}
