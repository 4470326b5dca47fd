//! Reads, over a small pool of read-only connections.

use std::collections::HashSet;
use std::sync::Arc;

use async_trait::async_trait;
use chrono::{DateTime, Utc};
use futures::TryStreamExt;
use sqlx::sqlite::{SqlitePool, SqliteRow};
use sqlx::{Row, Sqlite, query::Query, query::QueryScalar, sqlite::SqliteArguments};
use uuid::Uuid;

use crate::journal::columns::{signed, snapshot, unsigned, written};
use crate::journal::snapshots::SNAPSHOT_UNTIL;
use crate::journal::tail::Pages;
use crate::journal::{
    Mark, Payload, PayloadHash, ReadError, Recalled, RecordedEvent, Sieve, Snapshot, Sought, Until,
    Written,
};

/// Bytes after which a page for a tail ends.
const PAGE_BYTES: usize = 4 * 1024 * 1024;

const READ: &str = "select position, event_id, aggregate_type, aggregate_id, sequence, \
     event_type, event_version, workspace_id, recorded_at, metadata, payload, \
     payload_sha256 \
     from events where position > $1 order by position limit $2";
const LOAD: &str = "select position, event_id, aggregate_type, aggregate_id, sequence, \
     event_type, event_version, workspace_id, recorded_at, metadata, payload, \
     payload_sha256 \
     from events where aggregate_type = $1 and aggregate_id = $2 and sequence > $3 \
     order by sequence limit $4";
const LOAD_SOME: &str = "select position, event_id, aggregate_type, aggregate_id, sequence, \
     event_type, event_version, workspace_id, recorded_at, metadata, payload, \
     payload_sha256 \
     from events where aggregate_type = $1 and aggregate_id = $2 and sequence > $3 \
     and (event_type not in (select value from json_each($5)) \
     or payload_sha256 is not null";

#[derive(Debug)]
pub(super) struct Reader {
    pool: SqlitePool,
}

impl Reader {
    pub(super) fn new(pool: SqlitePool) -> Self {
        Self { pool }
    }

    pub(super) async fn close(&self) {
        self.pool.close().await;
    }

    pub(super) async fn read(
        &self,
        after: u64,
        limit: usize,
    ) -> Result<Vec<RecordedEvent>, ReadError> {
        let query = sqlx::query(READ).bind(signed(after)).bind(signed(limit as u64));
        let events = self.events(query, usize::MAX).await?;
        dense(&events, after, "position", |event| event.position)?;
        Ok(events)
    }

    pub(super) async fn load(
        &self,
        aggregate_type: &str,
        aggregate_id: &str,
        after: u64,
        limit: usize,
    ) -> Result<Vec<RecordedEvent>, ReadError> {
        let query = sqlx::query(LOAD)
            .bind(aggregate_type)
            .bind(aggregate_id)
            .bind(signed(after))
            .bind(signed(limit as u64));
        let events = self.events(query, usize::MAX).await?;
        dense(&events, after, aggregate_id, |event| event.sequence)?;
        Ok(events)
    }

    pub(super) async fn load_some(
        &self,
        aggregate_type: &str,
        aggregate_id: &str,
        after: u64,
        limit: usize,
        sieve: Sieve<'_>,
    ) -> Result<Vec<RecordedEvent>, ReadError> {
        let mut sql = LOAD_SOME.to_owned();
        for number in 0..sieve.mentions.len() {
            sql.push_str(&format!(" or instr(payload, ${}) > 0", 6 + number));
        }
        sql.push_str(") order by sequence limit $4");
        let mut query = sqlx::query(&sql)
            .bind(aggregate_type)
            .bind(aggregate_id)
            .bind(signed(after))
            .bind(signed(limit as u64))
            .bind(serde_json::json!(sieve.seldom).to_string());
        for text in sieve.mentions {
            query = query.bind(text.as_bytes());
        }
        self.events(query, usize::MAX).await
    }

    pub(super) async fn snapshot(
        &self,
        aggregate_type: &str,
        aggregate_id: &str,
        version: u32,
    ) -> Result<Option<Snapshot>, ReadError> {
        let row: Option<(i64, Vec<u8>)> = sqlx::query_as(
            "select sequence, state from snapshots \
             where aggregate_type = $1 and aggregate_id = $2 and version = $3",
        )
        .bind(aggregate_type)
        .bind(aggregate_id)
        .bind(version)
        .fetch_optional(&self.pool)
        .await
        .map_err(failed)?;
        row.map(|row| snapshot(row, version)).transpose()
    }

    pub(super) async fn snapshot_until(
        &self,
        aggregate_type: &str,
        aggregate_id: &str,
        version: u32,
        until: Until,
    ) -> Result<Option<Snapshot>, ReadError> {
        let (sequence, time) = until.bounds();
        let query = sqlx::query_as(SNAPSHOT_UNTIL)
            .bind(aggregate_type)
            .bind(aggregate_id)
            .bind(version)
            .bind(signed(sequence))
            .bind(time.map(|time| time.timestamp_micros()));
        let row: Option<(i64, Vec<u8>)> = query.fetch_optional(&self.pool).await.map_err(failed)?;
        row.map(|row| snapshot(row, version)).transpose()
    }

    pub(super) async fn recall(&self, key: &str) -> Result<Option<Recalled>, ReadError> {
        let row: Option<(String, Vec<u8>, i64)> =
            sqlx::query_as("select fingerprint, answer, position from inbox where key = $1")
                .bind(key)
                .fetch_optional(&self.pool)
                .await
                .map_err(failed)?;
        row.map(|(fingerprint, answer, position)| {
            Ok(Recalled { fingerprint, answer: answer.into(), position: unsigned(position)? })
        })
        .transpose()
    }

    pub(super) async fn payloads(&self, hashes: &[Arc<str>]) -> Result<Vec<Payload>, ReadError> {
        let mut payloads = Vec::with_capacity(hashes.len());
        for hash in hashes {
            let bytes: Option<Vec<u8>> =
                sqlx::query_scalar("select bytes from payloads where hash = $1")
                    .bind(&**hash)
                    .fetch_optional(&self.pool)
                    .await
                    .map_err(failed)?;
            let Some(bytes) = bytes else {
                return Err(ReadError::Damaged(format!("payload {hash} is missing").into()));
            };
            payloads.push(Payload { hash: Arc::clone(hash), bytes: bytes.into() });
        }
        Ok(payloads)
    }

    /// The texts of a query's only column.
    async fn texts<'q>(
        &self,
        query: QueryScalar<'q, Sqlite, String, SqliteArguments<'q>>,
    ) -> Result<Vec<Arc<str>>, ReadError> {
        let texts = query.fetch_all(&self.pool).await.map_err(failed)?;
        Ok(texts.into_iter().map(Arc::from).collect())
    }

    pub(super) async fn open_aggregates(
        &self,
        aggregate_type: &str,
        shard: u16,
        after_id: &str,
        limit: usize,
    ) -> Result<Vec<Arc<str>>, ReadError> {
        let query = sqlx::query_scalar(
            "select aggregate_id from open_aggregates \
             where aggregate_type = $1 and shard = $2 and aggregate_id > $3 \
             order by aggregate_id limit $4",
        )
        .bind(aggregate_type)
        .bind(shard)
        .bind(after_id)
        .bind(signed(limit as u64));
        self.texts(query).await
    }

    pub(super) async fn leaning(
        &self,
        aggregate_type: &str,
        on: &str,
        after_id: &str,
        limit: usize,
    ) -> Result<Vec<Arc<str>>, ReadError> {
        let query = sqlx::query_scalar(
            "select aggregate_id from open_aggregates \
             where leans_on = $1 and aggregate_type = $2 and aggregate_id > $3 \
             order by aggregate_id limit $4",
        )
        .bind(on)
        .bind(aggregate_type)
        .bind(after_id)
        .bind(signed(limit as u64));
        self.texts(query).await
    }

    pub(super) async fn marks(
        &self,
        shard: u16,
        after_name: &str,
        limit: usize,
    ) -> Result<Vec<Mark>, ReadError> {
        let rows: Vec<(String, i64)> = sqlx::query_as(
            "select name, until from marks where shard = $1 and name > $2 order by name limit $3",
        )
        .bind(shard)
        .bind(after_name)
        .bind(signed(limit as u64))
        .fetch_all(&self.pool)
        .await
        .map_err(failed)?;
        let mark = |(name, until): (String, i64)| {
            let until = DateTime::from_timestamp_micros(until).ok_or_else(|| {
                ReadError::Damaged(format!("the mark {name} has the time {until}").into())
            })?;
            Ok(Mark { name: name.into(), until })
        };
        rows.into_iter().map(mark).collect()
    }

    pub(super) async fn aggregates(
        &self,
        aggregate_type: &str,
        after_id: &str,
        limit: usize,
    ) -> Result<Vec<Arc<str>>, ReadError> {
        let query = sqlx::query_scalar(
            "select aggregate_id from events \
             where aggregate_type = $1 and aggregate_id > $2 and sequence = 1 \
             order by aggregate_id limit $3",
        )
        .bind(aggregate_type)
        .bind(after_id)
        .bind(signed(limit as u64));
        self.texts(query).await
    }

    pub(super) async fn released(
        &self,
        until: DateTime<Utc>,
        limit: usize,
    ) -> Result<Vec<Arc<str>>, ReadError> {
        let query = sqlx::query_scalar(
            "select hash from released_payloads where since <= $1 order by hash limit $2",
        )
        .bind(until.timestamp_micros())
        .bind(signed(limit as u64));
        self.texts(query).await
    }

    pub(super) async fn seek(&self, sought: Sought<'_>) -> Result<Vec<Written>, ReadError> {
        let query = sqlx::query_as(
            "select position, aggregate_type, aggregate_id from events as found \
             where position > $1 and position <= $2 and aggregate_type = $3 \
             and event_type in (select value from json_each($4)) \
             and not exists (select 1 from events as namesake \
                 where namesake.aggregate_type = $5 \
                 and namesake.aggregate_id = found.aggregate_id and namesake.sequence = 1) \
             order by position",
        )
        .bind(signed(sought.after))
        .bind(signed(sought.through))
        .bind(sought.aggregate_type)
        .bind(serde_json::json!(sought.event_types).to_string())
        .bind(sought.without);
        let rows: Vec<(i64, String, String)> = query.fetch_all(&self.pool).await.map_err(failed)?;
        rows.into_iter().map(written).collect()
    }

    /// Rows of events until a number of bytes is reached.
    async fn events<'q>(
        &self,
        query: Query<'q, Sqlite, SqliteArguments<'q>>,
        bytes: usize,
    ) -> Result<Vec<RecordedEvent>, ReadError> {
        let mut rows = query.fetch(&self.pool);
        let mut names = Names::default();
        let mut events: Vec<RecordedEvent> = Vec::new();
        let mut taken = 0;
        while let Some(row) = rows.try_next().await.map_err(failed)? {
            let event = event(&row, &mut names)?;
            taken += event.size();
            events.push(event);
            if taken >= bytes {
                break;
            }
        }
        Ok(events)
    }
}

#[async_trait]
impl Pages for Reader {
    async fn page(&self, after: u64, limit: usize) -> Result<Vec<RecordedEvent>, ReadError> {
        let query = sqlx::query(READ).bind(signed(after)).bind(signed(limit as u64));
        self.events(query, PAGE_BYTES).await
    }
}

/// Names that come again and again within a page, each allocated once.
#[derive(Default)]
struct Names(HashSet<Arc<str>>);

impl Names {
    fn get(&mut self, name: &str) -> Arc<str> {
        if let Some(known) = self.0.get(name) {
            return Arc::clone(known);
        }
        let name: Arc<str> = name.into();
        self.0.insert(Arc::clone(&name));
        name
    }
}

fn event(row: &SqliteRow, names: &mut Names) -> Result<RecordedEvent, ReadError> {
    let position = unsigned(row.try_get(0).map_err(failed)?)?;
    let mut decode = || -> Result<RecordedEvent, sqlx::Error> {
        Ok(RecordedEvent {
            position,
            id: Uuid::from_slice(row.try_get(1)?).map_err(|error| decoding("event_id", error))?,
            aggregate_type: names.get(row.try_get(2)?),
            aggregate_id: names.get(row.try_get(3)?),
            sequence: number(row, 4, "sequence")?,
            event_type: names.get(row.try_get(5)?),
            event_version: number(row, 6, "event_version")?,
            workspace_id: names.get(row.try_get(7)?),
            recorded_at: DateTime::from_timestamp_micros(row.try_get(8)?)
                .ok_or_else(|| decoding("recorded_at", "out of range"))?,
            metadata: row.try_get::<Vec<u8>, _>(9)?.into(),
            payload: row.try_get::<Vec<u8>, _>(10)?.into(),
            redacted: (row.try_get::<Option<&[u8]>, _>(11)?)
                .map(PayloadHash::try_from)
                .transpose()
                .map_err(|error| decoding("payload_sha256", error))?,
        })
    };
    decode().map_err(|error| ReadError::Damaged(format!("event {position}: {error}").into()))
}

fn number<T: TryFrom<i64, Error: Into<sqlx::error::BoxDynError>>>(
    row: &SqliteRow,
    index: usize,
    name: &str,
) -> Result<T, sqlx::Error> {
    T::try_from(row.try_get::<i64, _>(index)?).map_err(|error| decoding(name, error))
}

fn decoding(index: &str, source: impl Into<sqlx::error::BoxDynError>) -> sqlx::Error {
    sqlx::Error::ColumnDecode { index: index.into(), source: source.into() }
}

fn dense(
    events: &[RecordedEvent],
    after: u64,
    what: &str,
    number: impl Fn(&RecordedEvent) -> u64,
) -> Result<(), ReadError> {
    let mut last = after;
    for event in events {
        let found = number(event);
        if found != last + 1 {
            let message = format!("{what}: {} was due and {found} came", last + 1);
            return Err(ReadError::Damaged(message.into()));
        }
        last = found;
    }
    Ok(())
}

fn failed(error: sqlx::Error) -> ReadError {
    let message: Arc<str> = error.to_string().into();
    let damaged = match &error {
        sqlx::Error::ColumnDecode { .. } | sqlx::Error::Decode(_) => true,
        // SQLITE_CORRUPT and SQLITE_NOTADB, whatever the extended code.
        sqlx::Error::Database(error) => error
            .code()
            .and_then(|code| code.parse::<u32>().ok())
            .is_some_and(|code| matches!(code & 0xff, 11 | 26)),
        _ => false,
    };
    if damaged { ReadError::Damaged(message) } else { ReadError::Unavailable(message) }
}
