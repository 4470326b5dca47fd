//! The file of the read tables: one writer, a pool of readers, and the checkpoints.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use chassis::journal::{Journal, ReadError, RecordedEvent};
use sqlx::migrate::Migrator;
use sqlx::sqlite::{
    SqliteConnectOptions, SqliteJournalMode, SqlitePool, SqlitePoolOptions, SqliteSynchronous,
};
use sqlx::{Connection, SqliteConnection};
use tokio::sync::Mutex;

use crate::projection::{FoldError, Projection};

static MIGRATIONS: Migrator = sqlx::migrate!("../migrations/sqlite/views");

const BUSY_TIMEOUT: Duration = Duration::from_secs(5);

/// Events without a change of rows after which the checkpoint is stored all the same.
const IDLE_EVENTS: u64 = 1_000;

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
}

/// Why the read tables can't be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    #[error("{path} can't be opened: {source}")]
    Storage { path: PathBuf, source: sqlx::Error },
    #[error(
        "{path} was written by a newer release or is damaged ({source}): delete it, it is made again"
    )]
    Migration { path: PathBuf, source: sqlx::migrate::MigrateError },
    #[error("{path} was folded from another journal: delete it, it is made again")]
    AnotherStore { path: PathBuf },
    #[error(transparent)]
    Journal(#[from] ReadError),
    #[error("a projection is missing from the list of projections")]
    NoProjection,
}

pub(crate) struct Store {
    path: PathBuf,
    epoch: u32,
    readers: SqlitePool,
    writer: Mutex<SqliteConnection>,
}

impl Store {
    pub(crate) async fn open(path: &Path, epoch: u32, readers: u32) -> Result<Self, OpenError> {
        let failed = |source| OpenError::Storage { path: path.to_owned(), source };
        chassis::private::file(path).map_err(|error| failed(sqlx::Error::Io(error)))?;
        let options = SqliteConnectOptions::new()
            .filename(path)
            .create_if_missing(true)
            .journal_mode(SqliteJournalMode::Wal)
            .synchronous(SqliteSynchronous::Normal)
            .busy_timeout(BUSY_TIMEOUT);
        let mut writer = SqliteConnection::connect_with(&options).await.map_err(failed)?;
        MIGRATIONS
            .run_direct(&mut writer)
            .await
            .map_err(|source| OpenError::Migration { path: path.to_owned(), source })?;
        let readers = SqlitePoolOptions::new()
            .max_connections(readers.max(1))
            .connect_with(options.read_only(true).create_if_missing(false))
            .await
            .map_err(failed)?;
        Ok(Self { path: path.to_owned(), epoch, readers, writer: Mutex::new(writer) })
    }

    /// Closes the file, with everything in it and nothing beside it.
    pub(crate) async fn close(self) -> Result<(), sqlx::Error> {
        self.readers.close().await;
        self.writer.into_inner().close().await
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    pub(crate) fn epoch(&self) -> u32 {
        self.epoch
    }

    pub(crate) fn readers(&self) -> &SqlitePool {
        &self.readers
    }

    pub(crate) fn writer(&self) -> &Mutex<SqliteConnection> {
        &self.writer
    }

    /// Makes sure that a projection has a checkpoint, and answers its position. Rows of another
    /// version of the fold are dropped: the projection starts over.
    pub(crate) async fn enlist(
        &self,
        projection: &dyn Projection,
        head: u64,
    ) -> Result<u64, OpenError> {
        let failed = |source| OpenError::Storage { path: self.path.clone(), source };
        let mut writer = self.writer.lock().await;
        let row: Option<(i64, i64, i64)> = sqlx::query_as(
            "select version, epoch, position from checkpoints where projection = $1",
        )
        .bind(projection.name())
        .fetch_optional(&mut *writer)
        .await
        .map_err(failed)?;
        if let Some((version, epoch, position)) = row {
            let position = position.unsigned_abs();
            if epoch != i64::from(self.epoch) || position > head {
                return Err(OpenError::AnotherStore { path: self.path.clone() });
            }
            if version == projection.version() {
                return Ok(position);
            }
        }
        let mut transaction = writer.begin().await.map_err(failed)?;
        for (table, _) in projection.tables() {
            let sql = format!("delete from {table}");
            sqlx::query(&sql).execute(&mut *transaction).await.map_err(failed)?;
        }
        let sql = "insert into checkpoints (projection, version, epoch, position) \
                   values ($1, $2, $3, 0) on conflict (projection) \
                   do update set version = excluded.version, position = 0";
        sqlx::query(sql)
            .bind(projection.name())
            .bind(projection.version())
            .bind(i64::from(self.epoch))
            .execute(&mut *transaction)
            .await
            .map_err(failed)?;
        transaction.commit().await.map_err(failed)?;
        Ok(0)
    }

    /// Applies a batch and moves the checkpoint to its last event, both or neither. Events that
    /// have been seen are ignored. Events that change no row move the checkpoint in storage only
    /// now and then: reading them again changes no row either.
    pub(crate) async fn apply(
        &self,
        writer: &mut SqliteConnection,
        projection: &dyn Projection,
        journal: &dyn Journal,
        mark: Mark,
        batch: &[Arc<RecordedEvent>],
    ) -> Result<Mark, FoldError> {
        let from = mark.position;
        let seen = batch.partition_point(|event| event.position <= from);
        let fresh = &batch[seen..];
        let Some(last) = fresh.last() else { return Ok(mark) };
        for (event, expected) in fresh.iter().zip(from + 1..) {
            if event.position != expected {
                return Err(FoldError::Gap { expected, found: event.position });
            }
        }
        let concerned: Vec<&RecordedEvent> = fresh
            .iter()
            .filter(|event| projection.concerns(&event.aggregate_type))
            .map(AsRef::as_ref)
            .collect();
        if concerned.is_empty() && last.position - mark.stored < IDLE_EVENTS {
            return Ok(Mark { position: last.position, ..mark });
        }
        let mut transaction = writer.begin().await?;
        if !concerned.is_empty() {
            projection.apply(&mut transaction, journal, &concerned).await?;
        }
        let sql = "update checkpoints set position = $1 where projection = $2 and position = $3";
        let moved = sqlx::query(sql)
            .bind(last.position.cast_signed())
            .bind(projection.name())
            .bind(mark.stored.cast_signed())
            .execute(&mut *transaction)
            .await?;
        if moved.rows_affected() != 1 {
            transaction.rollback().await?;
            return Err(FoldError::NotAlone {
                projection: projection.name(),
                expected: mark.stored,
            });
        }
        transaction.commit().await?;
        Ok(Mark { position: last.position, stored: last.position })
    }
}
