//! Reads, over the database's pool.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use chrono::{DateTime, Utc};
use futures::TryStreamExt;
use sqlx::postgres::PgArguments;
use sqlx::query::{Query, QueryScalar};
use sqlx::{PgPool, Postgres};

use super::decoding::{EVENT, Names, event, failed};
use crate::database::DatabaseError;
use crate::journal::columns::{signed, snapshot, unsigned, written};
use crate::journal::snapshots::SNAPSHOT_UNTIL;
use crate::journal::tail::Pages;
use crate::journal::{
    Mark, Payload, ReadError, Recalled, RecordedEvent, Sieve, Snapshot, Sought, Until, Written,
};

/// Bytes after which a page for tails ends, as they are stored and as they are read.
const PAGE_BYTES: usize = 4 * 1024 * 1024;
/// Positions at the end that are checked for gaps at opening; readers check all that they read.
const CHECKED_AT_OPEN: i64 = 1_000;
/// How long the database may take for an answer before it counts as away.
const TIMEOUT: Duration = Duration::from_secs(35);

#[derive(Debug)]
pub(super) struct Reader {
    pool: PgPool,
    load: String,
    read: String,
    page: String,
    newest: String,
}

/// Events in a row, and whether there may be more.
#[derive(Debug, Default)]
pub(super) struct Page {
    pub(super) events: Vec<RecordedEvent>,
    pub(super) more: bool,
}

impl Reader {
    pub(super) fn new(pool: PgPool) -> Self {
        // What ends a page has to be decided over there: all that is sent has to be received.
        let page = |after: &str| {
            format!(
                "select {EVENT} from (select *, sum(pg_column_size(payload)) \
                 over (order by position rows unbounded preceding) as upto \
                 from events where position > {after} order by position limit $2) page \
                 where upto - pg_column_size(payload) < {PAGE_BYTES} order by position"
            )
        };
        Self {
            pool,
            load: format!(
                "select {EVENT} from events where aggregate_type = $1 and aggregate_id = $2 \
                 and sequence > $3 order by sequence limit $4"
            ),
            read: format!(
                "select {EVENT} from events where position > $1 order by position limit $2"
            ),
            page: page("$1"),
            newest: page("greatest($1, (select h.position from journal_head h) - $2)"),
        }
    }

    /// The store's epoch and its newest position, after a look at both ends of the table.
    pub(super) async fn identify(&self) -> Result<(u32, u64), DatabaseError> {
        let sql = "select s.epoch, h.position, \
             coalesce((select e.position from events e order by e.position desc limit 1), 0), \
             coalesce((select e.position from events e order by e.position limit 1), 0), \
             (select count(*) from events e where e.position > h.position - $1) \
             from store s, journal_head h";
        let (epoch, head, last, first, counted): (i64, i64, i64, i64, i64) = sqlx::query_as(sql)
            .bind(CHECKED_AT_OPEN)
            .fetch_one(&self.pool)
            .await
            .map_err(DatabaseError::Unreachable)?;
        if last != head || first != head.min(1) || counted != head.min(CHECKED_AT_OPEN) {
            let what = format!("positions up to {head} have a gap");
            return Err(DatabaseError::Damaged { what });
        }
        let epoch = u32::try_from(epoch)
            .map_err(|_| DatabaseError::Damaged { what: format!("its epoch is {epoch}") })?;
        Ok((epoch, head.unsigned_abs()))
    }

    pub(super) async fn head(&self) -> Result<u64, ReadError> {
        let sql = "select position from journal_head";
        unsigned(within(sqlx::query_scalar(sql).fetch_one(&self.pool)).await?)
    }

    pub(super) async fn read(
        &self,
        after: u64,
        limit: usize,
    ) -> Result<Vec<RecordedEvent>, ReadError> {
        let query = sqlx::query(&self.read).bind(signed(after)).bind(signed(limit as u64));
        let events = self.events(query, usize::MAX).await?;
        dense(&events, after, "position", |event| event.position)?;
        Ok(events)
    }

    /// Events after a position, or the newest `limit` where there are more than that: a reader that
    /// is further behind finds the rest by itself.
    pub(super) async fn newest(&self, after: u64, limit: usize) -> Result<Page, ReadError> {
        let query = sqlx::query(&self.newest).bind(signed(after)).bind(signed(limit as u64));
        let events = self.events(query, PAGE_BYTES).await?;
        let bytes: usize = events.iter().map(RecordedEvent::size).sum();
        // Less than a page where it ended by the bytes that are stored.
        let more = events.len() >= limit || bytes >= PAGE_BYTES / 2;
        Ok(Page { events, more })
    }

    pub(super) async fn load(
        &self,
        aggregate_type: &str,
        aggregate_id: &str,
        after: u64,
        limit: usize,
    ) -> Result<Vec<RecordedEvent>, ReadError> {
        let query = sqlx::query(&self.load)
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
        let mut sql = format!(
            "select {EVENT} from events where aggregate_type = $1 and aggregate_id = $2 \
             and sequence > $3 and (event_type <> all($5) or payload_sha256 is not null"
        );
        for number in 0..sieve.mentions.len() {
            sql.push_str(&format!(" or strpos(payload::text, ${}) > 0", 6 + number));
        }
        sql.push_str(") order by sequence limit $4");
        let seldom: Vec<String> = sieve.seldom.iter().map(|name| (*name).to_owned()).collect();
        let mut query = sqlx::query(&sql)
            .bind(aggregate_type)
            .bind(aggregate_id)
            .bind(signed(after))
            .bind(signed(limit as u64))
            .bind(seldom);
        for text in sieve.mentions {
            query = query.bind(*text);
        }
        self.events(query, usize::MAX).await
    }

    pub(super) async fn snapshot(
        &self,
        aggregate_type: &str,
        aggregate_id: &str,
        version: u32,
    ) -> Result<Option<Snapshot>, ReadError> {
        let query = sqlx::query_as(
            "select sequence, state from snapshots \
             where aggregate_type = $1 and aggregate_id = $2 and version = $3",
        )
        .bind(aggregate_type)
        .bind(aggregate_id)
        .bind(i64::from(version));
        let row: Option<(i64, Vec<u8>)> = within(query.fetch_optional(&self.pool)).await?;
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
            .bind(i64::from(version))
            .bind(signed(sequence))
            .bind(time);
        let row: Option<(i64, Vec<u8>)> = within(query.fetch_optional(&self.pool)).await?;
        row.map(|row| snapshot(row, version)).transpose()
    }

    pub(super) async fn recall(&self, key: &str) -> Result<Option<Recalled>, ReadError> {
        let query =
            sqlx::query_as("select fingerprint, answer, position from inbox where key = $1")
                .bind(key);
        let row: Option<(String, Vec<u8>, i64)> = within(query.fetch_optional(&self.pool)).await?;
        row.map(|(fingerprint, answer, position)| {
            Ok(Recalled { fingerprint, answer: answer.into(), position: unsigned(position)? })
        })
        .transpose()
    }

    pub(super) async fn payloads(&self, hashes: &[Arc<str>]) -> Result<Vec<Payload>, ReadError> {
        let mut payloads = Vec::with_capacity(hashes.len());
        for hash in hashes {
            let query =
                sqlx::query_scalar("select bytes from payloads where hash = $1").bind(&**hash);
            let bytes: Option<Vec<u8>> = within(query.fetch_optional(&self.pool)).await?;
            let Some(bytes) = bytes else {
                return Err(ReadError::Damaged(format!("payload {hash} is missing").into()));
            };
            payloads.push(Payload { hash: Arc::clone(hash), bytes: bytes.into() });
        }
        Ok(payloads)
    }

    /// The texts of a query's only column.
    async fn texts(
        &self,
        query: QueryScalar<'_, Postgres, String, PgArguments>,
    ) -> Result<Vec<Arc<str>>, ReadError> {
        let texts = within(query.fetch_all(&self.pool)).await?;
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
        .bind(i32::from(shard))
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
        let query = sqlx::query_as(
            "select name, until from marks where shard = $1 and name > $2 order by name limit $3",
        )
        .bind(i32::from(shard))
        .bind(after_name)
        .bind(signed(limit as u64));
        let rows: Vec<(String, DateTime<Utc>)> = within(query.fetch_all(&self.pool)).await?;
        Ok(rows.into_iter().map(|(name, until)| Mark { name: name.into(), until }).collect())
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

    pub(super) async fn written_elsewhere(
        &self,
        after: u64,
        without_type: &str,
    ) -> Result<Vec<Written>, ReadError> {
        let query = sqlx::query_as(
            "select position, aggregate_type, aggregate_id from written_elsewhere($1, $2)",
        )
        .bind(signed(after))
        .bind(without_type);
        let rows: Vec<(i64, String, String)> = within(query.fetch_all(&self.pool)).await?;
        rows.into_iter().map(written).collect()
    }

    pub(super) async fn released(
        &self,
        until: DateTime<Utc>,
        limit: usize,
    ) -> Result<Vec<Arc<str>>, ReadError> {
        let query = sqlx::query_scalar(
            "select hash from released_payloads where since <= $1 order by hash limit $2",
        )
        .bind(until)
        .bind(signed(limit as u64));
        self.texts(query).await
    }

    pub(super) async fn seek(&self, sought: Sought<'_>) -> Result<Vec<Written>, ReadError> {
        let query = sqlx::query_as(
            "select position, aggregate_type, aggregate_id from events as found \
             where position > $1 and position <= $2 and aggregate_type = $3 \
             and event_type in (select unnest($4::text[])) \
             and not exists (select 1 from events as namesake \
                 where namesake.aggregate_type = $5 \
                 and namesake.aggregate_id = found.aggregate_id and namesake.sequence = 1) \
             order by position",
        )
        .bind(signed(sought.after))
        .bind(signed(sought.through))
        .bind(sought.aggregate_type)
        .bind(sought.event_types)
        .bind(sought.without);
        let rows: Vec<(i64, String, String)> = within(query.fetch_all(&self.pool)).await?;
        rows.into_iter().map(written).collect()
    }

    /// Rows of events until a number of bytes is reached.
    async fn events<'q>(
        &self,
        query: Query<'q, Postgres, PgArguments>,
        bytes: usize,
    ) -> Result<Vec<RecordedEvent>, ReadError> {
        let mut rows = query.fetch(&self.pool);
        let mut names = Names::default();
        let mut events: Vec<RecordedEvent> = Vec::new();
        let mut taken = 0;
        while let Some(row) = within(rows.try_next()).await? {
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
        let query = sqlx::query(&self.page).bind(signed(after)).bind(signed(limit as u64));
        self.events(query, PAGE_BYTES).await
    }
}

/// An answer in time, or the database is away.
async fn within<T>(answer: impl Future<Output = Result<T, sqlx::Error>>) -> Result<T, ReadError> {
    match tokio::time::timeout(TIMEOUT, answer).await {
        Ok(answer) => answer.map_err(failed),
        Err(_) => Err(ReadError::Unavailable("the database doesn't answer".into())),
    }
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
