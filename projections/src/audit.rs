//! The audit chain: every event of the journal in its order, sealed in blocks, with signed heads.
//!
//! The rules of the chain are [`domain::audit`]'s. The rows are a projection like others: they can
//! be folded again, and then have to be the same, which is a check of the journal. Signed heads are
//! written once; without the key nobody can make them again.

use async_trait::async_trait;
use chassis::journal::{Journal, RecordedEvent};
use domain::audit::{Chain, Payload, Recorded, SignedHead};
use protocol::{AuditHead, AuditHeads, Rejection};
use serde::Serialize;
use sqlx::FromRow;

use crate::projection::{FoldError, Projection};
use crate::store::dialect::Dialect;
use crate::store::sql::{Readers, Session, Statement, sql};
use crate::store::{OpenError, Store, Views};
use crate::{Projections, refusal};

mod export;
pub(crate) mod sign;

pub(crate) const NAME: &str = "audit";
/// Positions of a block.
const BLOCK: u64 = 256;
/// Characters of a mark.
const MARK: usize = 8;

pub(crate) struct Audit;

/// What a block says.
#[derive(Debug, Clone, PartialEq, Eq, FromRow, Serialize)]
struct Row {
    block: String,
    /// The last position of the block that is sealed.
    position: i64,
    hash: String,
    marks: String,
}

impl Row {
    /// The chain at its end.
    fn chain(&self) -> Result<Chain, FoldError> {
        let position = self.position.unsigned_abs();
        let hash = self.hash.parse().map_err(|error| FoldError::Event {
            position,
            reason: format!("the hash of its block is damaged: {error}"),
        })?;
        Ok(Chain { position, hash })
    }

    fn seal(self) -> Result<Seal, Rejection> {
        let damaged = |reason: &dyn std::fmt::Display| {
            refusal::damaged(&format!("the seal of block {}", self.block), reason)
        };
        let block: u64 = self.block.parse().map_err(|error| damaged(&error))?;
        let marks: Vec<String> = (self.marks.as_bytes().chunks(MARK))
            .map(|mark| String::from_utf8_lossy(mark).into_owned())
            .collect();
        let seal = Seal { first: block * BLOCK + 1, marks, hash: self.hash.clone() };
        if seal.marks.is_empty() || seal.last() != self.position.unsigned_abs() {
            return Err(damaged(&"it has another number of marks than of positions"));
        }
        Ok(seal)
    }
}

const COLUMNS: &str = "block, position, hash, marks";

#[async_trait]
impl Projection for Audit {
    fn name(&self) -> &'static str {
        NAME
    }

    fn version(&self) -> i64 {
        1
    }

    fn tables(&self) -> &'static [(&'static str, &'static str)] {
        &[("seals", "block")]
    }

    fn concerns(&self, _event: &RecordedEvent) -> bool {
        true
    }

    async fn apply(
        &self,
        session: &mut Session<'_>,
        journal: &dyn Journal,
        events: &[&RecordedEvent],
    ) -> Result<(), FoldError> {
        let mut newest = newest(session).await?;
        let mut chain = match &newest {
            Some(row) => row.chain()?,
            None => Chain::start(journal.epoch()),
        };
        let mut rows = Vec::new();
        let block_of = |event: &RecordedEvent| event.position.saturating_sub(1) / BLOCK;
        for events in events.chunk_by(|one, next| block_of(one) == block_of(next)) {
            let block = format!("{:016}", chain.position / BLOCK);
            let begun = newest.take().filter(|row| row.block == block);
            let mut marks = begun.map(|row| row.marks).unwrap_or_default();
            for event in events {
                let expected = chain.position + 1;
                if event.position != expected {
                    return Err(FoldError::Gap { expected, found: event.position });
                }
                let leaf = recorded(event).leaf();
                chain.follow(&leaf);
                marks.push_str(&leaf.mark());
            }
            let (position, hash) = (chain.position.cast_signed(), chain.hash.to_string());
            rows.push(Row { block, position, hash, marks });
        }
        // Texts and numbers always have a JSON form.
        let rows = serde_json::to_string(&rows).unwrap_or_default();
        session.execute(sql(keep(session.dialect())).bind(rows)).await?;
        Ok(())
    }
}

fn keep(dialect: Dialect) -> String {
    format!(
        "insert into seals ({COLUMNS}) \
         select change.value ->> 'block', cast(change.value ->> 'position' as bigint), \
            change.value ->> 'hash', change.value ->> 'marks' \
         from {} as change where true \
         on conflict (block) do update set \
            position = excluded.position, hash = excluded.hash, marks = excluded.marks",
        dialect.each("$1")
    )
}

/// An event as the chain takes it.
pub fn recorded(event: &RecordedEvent) -> Recorded<'_> {
    Recorded {
        position: event.position,
        event_id: event.id,
        recorded_at: event.recorded_at,
        aggregate_type: &event.aggregate_type,
        aggregate_id: &event.aggregate_id,
        sequence: event.sequence,
        event_type: &event.event_type,
        event_version: event.event_version,
        workspace_id: &event.workspace_id,
        metadata: &event.metadata,
        payload: match event.redacted {
            None => Payload::Whole(&event.payload),
            Some(hash) => Payload::Dropped(hash),
        },
    }
}

/// What was sealed of some positions in a row.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Seal {
    /// The first of them.
    pub first: u64,
    /// For each of them the mark of its event's leaf, see [`domain::audit::Hash::mark`].
    pub marks: Vec<String>,
    /// The chain at the last of them.
    pub hash: String,
}

impl Seal {
    /// The last of its positions.
    pub fn last(&self) -> u64 {
        self.first + self.marks.len() as u64 - 1
    }
}

#[derive(FromRow)]
struct HeadRow {
    position: i64,
    hash: String,
    signed_at: String,
    key_id: String,
    signature: String,
}

const HEADS: &str = "select position, hash, signed_at, key_id, signature from signed_heads";

/// The audit chain as the read tables have it, without their projections.
#[derive(Debug, Clone)]
pub struct AuditTrail {
    readers: Readers,
    epoch: u32,
}

impl AuditTrail {
    /// Opens that of a journal with this epoch; `None` where no read tables were made yet.
    ///
    /// # Errors
    /// Where the read tables can't be opened.
    pub async fn open(views: Views, epoch: u32) -> Result<Option<Self>, OpenError> {
        if let Views::File(path) = &views
            && !path.is_file()
        {
            return Ok(None);
        }
        let store = Store::open(views, 1).await?;
        Ok(Some(Self { readers: store.readers().clone(), epoch }))
    }

    /// The first seals that have positions after one, in order, at most `limit`.
    ///
    /// # Errors
    /// Where the rows can't be read, or aren't what was written.
    pub async fn seals(&self, after: u64, limit: u32) -> Result<Vec<Seal>, Rejection> {
        let query =
            sql(format!("select {COLUMNS} from seals where block >= $1 order by block limit $2"));
        let query = query.bind(format!("{:016}", after / BLOCK)).bind(i64::from(limit));
        let rows: Vec<Row> = self.readers.rows(query).await.map_err(refusal::storage)?;
        rows.into_iter().map(Row::seal).collect()
    }

    /// Signed heads after a position, in order, at most `limit`.
    ///
    /// # Errors
    /// Where the rows can't be read.
    pub async fn heads(&self, after: u64, limit: u32) -> Result<Vec<SignedHead>, Rejection> {
        let query = sql(format!("{HEADS} where position > $1 order by position limit $2"));
        self.read_heads(query.bind(after.cast_signed()).bind(i64::from(limit))).await
    }

    /// The newest head that a key has signed.
    async fn newest_head(&self, key_id: &str) -> Result<Option<SignedHead>, Rejection> {
        let query = sql(format!("{HEADS} where key_id = $1 order by position desc limit 1"));
        Ok(self.read_heads(query.bind(key_id)).await?.pop())
    }

    /// Its first head from a position on.
    async fn first_head(&self, key_id: &str, from: u64) -> Result<Option<SignedHead>, Rejection> {
        let query =
            sql(format!("{HEADS} where key_id = $1 and position >= $2 order by position limit 1"));
        Ok(self.read_heads(query.bind(key_id).bind(from.cast_signed())).await?.pop())
    }

    /// Its last head before a position.
    async fn head_before(
        &self,
        key_id: &str,
        before: u64,
    ) -> Result<Option<SignedHead>, Rejection> {
        let query = sql(format!(
            "{HEADS} where key_id = $1 and position < $2 order by position desc limit 1"
        ));
        Ok(self.read_heads(query.bind(key_id).bind(before.cast_signed())).await?.pop())
    }

    async fn read_heads(&self, query: Statement) -> Result<Vec<SignedHead>, Rejection> {
        let rows: Vec<HeadRow> = self.readers.rows(query).await.map_err(refusal::storage)?;
        let heads = rows.into_iter().map(|row| SignedHead {
            epoch: format!("{:08x}", self.epoch),
            position: row.position.unsigned_abs(),
            hash: row.hash,
            signed_at: row.signed_at,
            key_id: row.key_id,
            signature: row.signature,
        });
        Ok(heads.collect())
    }
}

impl Projections {
    /// See [`protocol::AuditQueries::heads`].
    pub(crate) async fn heads_after(
        &self,
        after: u64,
        limit: u32,
    ) -> Result<AuditHeads, Rejection> {
        let limit = limit.clamp(1, 1_000);
        let (readers, epoch) = (self.store.readers().clone(), self.journal.epoch());
        let heads = AuditTrail { readers, epoch }.heads(after, limit).await?;
        let is_full = heads.len() as u64 == u64::from(limit);
        Ok(AuditHeads {
            next_after: heads.last().filter(|_| is_full).map(|head| head.position),
            items: heads.into_iter().map(AuditHead::from).collect(),
            public_key: self.config.audit_key.as_ref().map(|key| key.public().to_pem()),
        })
    }
}

/// The newest block.
async fn newest(session: &mut Session<'_>) -> Result<Option<Row>, sqlx::Error> {
    session.row(sql(format!("select {COLUMNS} from seals order by block desc limit 1"))).await
}
