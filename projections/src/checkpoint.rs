//! How far each projection is: a row that moves in the transaction that writes the rows of events.
//!
//! It moves by compare-and-set, and first in its transaction: of two who fold at once the second
//! waits for the first and then finds that it isn't alone, before it has written anything.

use std::cmp::Ordering;
use std::sync::Arc;

use chassis::journal::{Journal, RecordedEvent};
use protocol::event::{ends_parts, is_part};
use sqlx::FromRow;

use crate::projection::{FoldError, Projection};
use crate::store::dialect::Dialect;
use crate::store::sql::{Connection, Session, Statement, Transaction, sql};

/// Events without a change of rows after which the checkpoint is stored all the same.
const IDLE_EVENTS: u64 = 1_000;
/// Bytes of events after which a transaction takes no more of a batch.
const TRANSACTION_BYTES: usize = 8 * 1024 * 1024;
/// Events of a fork that are taken at once when it is whole.
const PART: usize = 1_000;

/// How far a projection is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Mark {
    /// The last event that its rows know.
    pub(crate) position: u64,
    /// What its stored checkpoint says; no event of concern lies between the two.
    pub(crate) stored: u64,
}

impl Mark {
    pub(crate) const fn at(position: u64) -> Self {
        Self { position, stored: position }
    }

    /// The position that rows have whose checkpoint is found at `stored`.
    pub(crate) fn with_stored(self, stored: u64) -> u64 {
        if self.stored <= stored { self.position.max(stored) } else { stored }
    }
}

/// A checkpoint as it is stored.
#[derive(Debug, Clone, FromRow)]
pub(crate) struct Stored {
    pub(crate) projection: String,
    version: i64,
    epoch: i64,
    position: i64,
}

impl Stored {
    /// All of them.
    pub(crate) fn query() -> Statement {
        sql("select projection, version, epoch, position from checkpoints")
    }

    /// Whether it means what its owner means by it.
    pub(crate) fn is_of(&self, checkpoint: Checkpoint) -> bool {
        self.epoch == i64::from(checkpoint.epoch) && self.version == checkpoint.version
    }

    /// Its position in the journal of an epoch.
    pub(crate) fn position_in(&self, epoch: u32) -> u64 {
        if self.epoch == i64::from(epoch) { self.position.unsigned_abs() } else { 0 }
    }
}

/// A projection of a journal: what its checkpoint must say for its rows to be usable.
#[derive(Clone, Copy)]
pub(crate) struct Fold<'a> {
    pub(crate) projection: &'a dyn Projection,
    pub(crate) journal: &'a dyn Journal,
}

/// What a projection finds when it begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Enlisted {
    /// Its rows, up to a position.
    At(u64),
    /// Rows of another journal, in a file.
    Foreign,
    /// Rows of an older release's fold, in a database.
    Older,
    /// Rows of a newer release's fold, in a database, which this one must not touch.
    Newer,
}

/// The stored position of a projection, whose checkpoint nobody else moves before the transaction
/// ends.
pub(crate) async fn locked(
    session: &mut Session<'_>,
    name: &str,
) -> Result<Option<Stored>, sqlx::Error> {
    let query = format!(
        "select projection, version, epoch, position from checkpoints where projection = $1{}",
        session.dialect().for_update()
    );
    session.row(sql(query).bind(name)).await
}

impl Fold<'_> {
    /// Makes sure that a projection has a checkpoint. In a file, rows of another version of the
    /// fold are dropped, and in a database, which can't be deleted like a file, those of another
    /// journal: then the projection starts over.
    pub(crate) async fn enlist(
        self,
        connection: &mut Connection,
        head: u64,
    ) -> Result<Enlisted, sqlx::Error> {
        let mut transaction = connection.begin().await?;
        let enlisted = self.find(&mut transaction, head).await?;
        match enlisted {
            Some(found) => transaction.rollback().await.map(|()| found),
            None => {
                tracing::info!(projection = self.projection.name(), "projection starts over");
                let mut session = transaction.session();
                if session.dialect() == Dialect::Postgres {
                    session.execute(sql("set local statement_timeout = 0")).await?;
                }
                self.start_over(&mut session).await?;
                transaction.commit().await.map(|()| Enlisted::At(0))
            }
        }
    }

    async fn find(
        self,
        transaction: &mut Transaction<'_>,
        head: u64,
    ) -> Result<Option<Enlisted>, sqlx::Error> {
        let mut session = transaction.session();
        let Some(stored) = locked(&mut session, self.projection.name()).await? else {
            return Ok(None);
        };
        let position = stored.position.unsigned_abs();
        let is_foreign = stored.epoch != i64::from(self.journal.epoch()) || position > head;
        let by_age = stored.version.cmp(&self.projection.version());
        Ok(match (session.dialect(), is_foreign, by_age) {
            (Dialect::Sqlite, true, _) => Some(Enlisted::Foreign),
            (_, false, Ordering::Equal) => Some(Enlisted::At(position)),
            // Processes of two releases share a database for a while.
            (Dialect::Postgres, false, Ordering::Greater) => Some(Enlisted::Newer),
            (Dialect::Postgres, false, Ordering::Less) => Some(Enlisted::Older),
            (Dialect::Postgres, true, _) | (Dialect::Sqlite, false, _) => None,
        })
    }

    /// Drops the rows and sets the checkpoint to 0. The caller owns the transaction, if one is
    /// needed.
    pub(crate) async fn start_over(self, session: &mut Session<'_>) -> Result<(), sqlx::Error> {
        for (table, _) in self.projection.tables() {
            session.execute(sql(format!("delete from {table}"))).await?;
        }
        self.checkpoint().reset(session).await
    }

    /// Applies the beginning of a batch, of a bounded size, and moves the checkpoint to its last
    /// event, both or neither. Events that have been seen are ignored. Events that change no row
    /// move the checkpoint in storage only now and then, or where it is asked to `keep` it: reading
    /// them again changes no row either.
    pub(crate) async fn apply(
        self,
        connection: &mut Connection,
        mark: Mark,
        batch: &[Arc<RecordedEvent>],
        keep: bool,
    ) -> Result<Mark, FoldError> {
        let fresh = bounded(unseen(mark, batch)?);
        let Some(last) = fresh.last() else { return Ok(mark) };
        let concerned: Vec<&RecordedEvent> = fresh
            .iter()
            .filter(|event| self.projection.concerns(event))
            .map(AsRef::as_ref)
            .collect();
        let moved = Mark { position: last.position, ..mark };
        if concerned.is_empty() {
            let idle = last.position - mark.stored >= IDLE_EVENTS;
            return if keep || idle { self.keep(connection, moved).await } else { Ok(moved) };
        }
        let mut transaction = connection.begin().await?;
        let done = self.write(&mut transaction.session(), moved, &concerned).await;
        match done {
            Ok(()) => transaction.commit().await?,
            Err(error) => {
                // At once: a transaction that waits for the connection's next use would hold its
                // locks until then.
                if let Err(error) = transaction.rollback().await {
                    tracing::debug!(%error, "a rollback failed");
                }
                return Err(error);
            }
        }
        Ok(Mark::at(last.position))
    }

    async fn write(
        self,
        session: &mut Session<'_>,
        moved: Mark,
        events: &[&RecordedEvent],
    ) -> Result<(), FoldError> {
        self.checkpoint().move_to(session, moved).await?;
        if !self.projection.waits_for_forks() {
            return self.projection.apply(session, self.journal, events).await;
        }
        let mut due: Vec<&RecordedEvent> = Vec::with_capacity(events.len());
        for event in events.iter().filter(|event| !is_part(&event.metadata)) {
            if ends_parts(&event.metadata, event.sequence) {
                self.write_due(session, &mut due).await?;
                self.write_parts(session, event).await?;
            }
            due.push(event);
        }
        self.write_due(session, &mut due).await
    }

    async fn write_due(
        self,
        session: &mut Session<'_>,
        due: &mut Vec<&RecordedEvent>,
    ) -> Result<(), FoldError> {
        if !due.is_empty() {
            self.projection.apply(session, self.journal, due).await?;
            due.clear();
        }
        Ok(())
    }

    /// What a fork shares that is whole with this event.
    async fn write_parts(
        self,
        session: &mut Session<'_>,
        whole: &RecordedEvent,
    ) -> Result<(), FoldError> {
        let mut after = 0;
        while after + 1 < whole.sequence {
            let left = usize::try_from(whole.sequence - 1 - after).unwrap_or(PART).min(PART);
            let (kind, id) = (&whole.aggregate_type, &whole.aggregate_id);
            let page = self.journal.load(kind, id, after, left).await?;
            let part: Vec<_> = page.iter().collect();
            let Some(last) = part.last() else { break };
            after = last.sequence;
            self.projection.apply(session, self.journal, &part).await?;
        }
        Ok(())
    }

    /// Stores how far a projection is where only events without concern lie in between.
    pub(crate) async fn keep(
        self,
        connection: &mut Connection,
        mark: Mark,
    ) -> Result<Mark, FoldError> {
        self.checkpoint().move_to(&mut connection.session(), mark).await?;
        Ok(Mark::at(mark.position))
    }

    fn checkpoint(self) -> Checkpoint {
        let (projection, epoch) = (self.projection, self.journal.epoch());
        Checkpoint { name: projection.name(), version: projection.version(), epoch }
    }
}

/// A row of the checkpoints, as its owner knows it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Checkpoint {
    pub(crate) name: &'static str,
    pub(crate) version: i64,
    pub(crate) epoch: u32,
}

impl Checkpoint {
    /// Moves it from where it is stored, or fails where it is elsewhere by now.
    pub(crate) async fn move_to(
        self,
        session: &mut Session<'_>,
        mark: Mark,
    ) -> Result<(), FoldError> {
        let update = sql("update checkpoints set position = $1 where projection = $2 \
                          and position = $3 and version = $4 and epoch = $5");
        let update = update
            .bind(mark.position.cast_signed())
            .bind(self.name)
            .bind(mark.stored.cast_signed())
            .bind(self.version)
            .bind(i64::from(self.epoch));
        if session.execute(update).await? == 1 {
            return Ok(());
        }
        Err(FoldError::NotAlone { projection: self.name, expected: mark.stored })
    }

    /// Makes it where it isn't, or is of another journal, and sets it to 0 then.
    pub(crate) async fn reset(self, session: &mut Session<'_>) -> Result<(), sqlx::Error> {
        let insert = sql("insert into checkpoints (projection, version, epoch, position) \
                          values ($1, $2, $3, 0) on conflict (projection) do update set \
                          version = excluded.version, epoch = excluded.epoch, position = 0");
        let insert = insert.bind(self.name).bind(self.version).bind(i64::from(self.epoch));
        session.execute(insert).await.map(|_| ())
    }
}

/// The part of a batch that comes after a mark, without a gap.
fn unseen(mark: Mark, batch: &[Arc<RecordedEvent>]) -> Result<&[Arc<RecordedEvent>], FoldError> {
    let seen = batch.partition_point(|event| event.position <= mark.position);
    let fresh = &batch[seen..];
    for (event, expected) in fresh.iter().zip(mark.position + 1..) {
        if event.position != expected {
            return Err(FoldError::Gap { expected, found: event.position });
        }
    }
    Ok(fresh)
}

/// As many of them as one transaction takes, and at least one.
fn bounded(events: &[Arc<RecordedEvent>]) -> &[Arc<RecordedEvent>] {
    let mut bytes = 0;
    let fits = events.iter().take_while(|event| {
        let first = bytes == 0;
        bytes += event.size();
        first || bytes <= TRANSACTION_BYTES
    });
    &events[..fits.count()]
}
