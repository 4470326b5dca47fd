//! Rebuilding a projection from the journal beside the live one, and comparing the two.
//!
//! The new rows grow in a file or a schema of their own while the live ones go on. At the end
//! whoever folds waits: the new rows catch up to the live position, are compared there, and take
//! the place of the live ones in one transaction. Queries don't wait.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use chassis::database::Database;
use chassis::journal::{ReadError, RecordedEvent};

use crate::Projections;
use crate::checkpoint::{Fold, Mark, Stored, locked};
use crate::projection::{FoldError, Projection, by_name};
use crate::projector::Projector;
use crate::store::sql::{Connection, Session, sql};
use crate::store::{OpenError, Views, database, file};

/// Events that are applied in one transaction.
const BATCH_EVENTS: usize = 5_000;

/// How far a rebuild is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Progress {
    pub position: u64,
    /// Where it ends, as far as is known now.
    pub target: u64,
}

/// Rebuilt rows against live ones.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Comparison {
    /// The position of both.
    pub position: u64,
    /// The first difference, if there is any.
    pub difference: Option<Difference>,
}

/// A row that isn't the same in both.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Difference {
    pub table: &'static str,
    /// The id of what the row is about.
    pub row: String,
}

/// Why a rebuild ended without effect.
#[derive(Debug, thiserror::Error)]
pub enum RebuildError {
    #[error("there is no projection {0:?}")]
    NoSuchProjection(String),
    #[error("a rebuild is under way already: wait for its end")]
    Busy,
    #[error("the rebuilt rows could not be written: {0}")]
    Open(#[from] OpenError),
    #[error(transparent)]
    Fold(#[from] FoldError),
    #[error("the file of the rebuilt rows can't be removed: {0}")]
    Io(#[from] std::io::Error),
}

impl From<sqlx::Error> for RebuildError {
    fn from(error: sqlx::Error) -> Self {
        Self::Fold(FoldError::Storage(error))
    }
}

impl From<ReadError> for RebuildError {
    fn from(error: ReadError) -> Self {
        Self::Fold(FoldError::Journal(error))
    }
}

impl Projections {
    /// Builds a projection's rows again, compares them with the live ones and puts them in their
    /// place. The live ones are read and written meanwhile. A projection that has stopped goes on
    /// after a restart.
    pub async fn rebuild(
        self: &Arc<Self>,
        name: &str,
        progress: impl FnMut(Progress) + Send + 'static,
    ) -> Result<Comparison, RebuildError> {
        self.in_own_task(name, true, progress).await
    }

    /// Builds a projection's rows again and only compares them with the live ones.
    pub async fn compare(
        self: &Arc<Self>,
        name: &str,
        progress: impl FnMut(Progress) + Send + 'static,
    ) -> Result<Comparison, RebuildError> {
        self.in_own_task(name, false, progress).await
    }

    /// The work owns a transaction, so a caller that goes away must not cut it.
    async fn in_own_task(
        self: &Arc<Self>,
        name: &str,
        swap: bool,
        progress: impl FnMut(Progress) + Send + 'static,
    ) -> Result<Comparison, RebuildError> {
        let projection =
            by_name(name).ok_or_else(|| RebuildError::NoSuchProjection(name.to_owned()))?;
        let this = Arc::clone(self);
        let task = tokio::spawn(async move { this.build(projection, swap, progress).await });
        match task.await {
            Ok(done) => done,
            Err(error) => Err(std::io::Error::other(error).into()),
        }
    }

    async fn build(
        &self,
        projection: Arc<dyn Projection>,
        swap: bool,
        mut progress: impl FnMut(Progress) + Send,
    ) -> Result<Comparison, RebuildError> {
        let _one = self.rebuilding.try_lock().map_err(|_| RebuildError::Busy)?;
        let live = self.projector(projection.name());
        let live = live.ok_or_else(|| RebuildError::NoSuchProjection("it".to_owned()))?;
        let fold = Fold { projection: projection.as_ref(), journal: self.journal.as_ref() };
        let next = match self.store.views() {
            Views::File(path) => {
                let path = beside(path, projection.name());
                remove(&path)?;
                Connection::File(file::connect(&path).await?)
            }
            Views::Database(database) => {
                let connection = database::beside(database).await?;
                Connection::Database(connection.ok_or(RebuildError::Busy)?)
            }
        };
        let mut next = Next { connection: next, mark: Mark::at(0), fold };
        next.empty().await?;
        // Without a lock, up to where the live one was a moment ago; then the little rest.
        loop {
            let target = self.stored(projection.name()).await?;
            if next.mark.position >= target {
                break;
            }
            next.catch_up(target, &mut progress).await?;
        }
        match self.store.views() {
            Views::File(path) => self.finish_in_file(path, live, next, swap, progress).await,
            Views::Database(database) => {
                self.finish_in_database(database, live, next, swap, progress).await
            }
        }
    }

    /// Where the live rows are, as far as it is stored.
    async fn stored(&self, name: &str) -> Result<u64, sqlx::Error> {
        let stored: Vec<Stored> = self.store.readers().rows(Stored::query()).await?;
        let stored = stored.iter().find(|stored| stored.projection == name);
        Ok(stored.map_or(0, |stored| stored.position_in(self.journal.epoch())))
    }

    /// The live projector waits for the writer meanwhile.
    async fn finish_in_file(
        &self,
        views: &Path,
        live: &Projector,
        mut next: Next<'_>,
        swap: bool,
        mut progress: impl FnMut(Progress) + Send,
    ) -> Result<Comparison, RebuildError> {
        let mut writer = self.store.writer().lock().await;
        let writer = writer.as_mut().ok_or(FoldError::NoWriter)?;
        let stored = live.mark().stored;
        next.catch_up(live.position(), &mut progress).await?;
        let Next { connection, mark, fold } = next;
        connection.close().await?;
        let path = beside(views, fold.projection.name());
        let attach = sql("attach database $1 as next").bind(path.to_string_lossy().into_owned());
        writer.session().execute(attach).await?;
        let done = async {
            let mut transaction = writer.begin().await?;
            let difference = finish(&mut transaction.session(), fold, swap, stored).await?;
            transaction.commit().await.map(|()| difference)
        };
        let done = done.await;
        writer.session().execute(sql("detach database next")).await?;
        let difference = done?;
        remove(&path)?;
        Ok(Comparison { position: mark.position, difference })
    }

    /// The live projector, whatever its process, waits for the lock of its checkpoint meanwhile.
    async fn finish_in_database(
        &self,
        database: &Database,
        live: &Projector,
        mut next: Next<'_>,
        swap: bool,
        mut progress: impl FnMut(Progress) + Send,
    ) -> Result<Comparison, RebuildError> {
        let mut connection = Connection::Database(database::for_swapping(database).await?);
        let mut transaction = connection.begin().await?;
        let fold = next.fold;
        let stored = locked(&mut transaction.session(), fold.projection.name()).await?;
        let stored = stored.map_or(0, |stored| stored.position_in(self.journal.epoch()));
        next.catch_up(live.mark().with_stored(stored), &mut progress).await?;
        let difference = finish(&mut transaction.session(), fold, swap, stored).await?;
        transaction.commit().await?;
        let position = next.mark.position;
        next.empty().await?;
        next.connection.close().await?;
        connection.close().await?;
        Ok(Comparison { position, difference })
    }
}

/// The rows that are made anew.
struct Next<'a> {
    connection: Connection,
    mark: Mark,
    fold: Fold<'a>,
}

impl Next<'_> {
    /// Drops what an earlier rebuild may have left.
    async fn empty(&mut self) -> Result<(), sqlx::Error> {
        let mut session = self.connection.session();
        for (table, _) in self.fold.projection.tables() {
            let empty = session.dialect().empty(table);
            session.execute(sql(empty)).await?;
        }
        self.fold.start_over(&mut session).await
    }

    async fn catch_up(
        &mut self,
        target: u64,
        progress: &mut (impl FnMut(Progress) + Send),
    ) -> Result<(), RebuildError> {
        while self.mark.position < target {
            let left = usize::try_from(target - self.mark.position).unwrap_or(BATCH_EVENTS);
            let after = self.mark.position;
            let events = self.fold.journal.read(after, left.min(BATCH_EVENTS)).await?;
            let Some(last) = events.last().map(|event| event.position) else {
                return Err(FoldError::Gap { expected: after + 1, found: target }.into());
            };
            let batch: Vec<Arc<RecordedEvent>> = events.into_iter().map(Arc::new).collect();
            while self.mark.position < last {
                let Self { connection, mark, fold } = self;
                *mark = fold.apply(connection, *mark, &batch, false).await?;
            }
            progress(Progress { position: last, target });
        }
        Ok(())
    }
}

/// Compares, and where it is wanted swaps. The caller owns the transaction.
async fn finish(
    session: &mut Session<'_>,
    fold: Fold<'_>,
    swap: bool,
    stored: u64,
) -> Result<Option<Difference>, sqlx::Error> {
    let (live, next) = session.dialect().live_and_next();
    let mut difference = None;
    for (table, id) in fold.projection.tables() {
        let query = format!(
            "select {id} from (select * from {live}.{table} except \
                select * from {next}.{table}) as gone \
             union all \
             select {id} from (select * from {next}.{table} except \
                select * from {live}.{table}) as come \
             order by 1 limit 1"
        );
        let row: Option<(String,)> = session.row(sql(query)).await?;
        difference = difference.or(row.map(|(row,)| Difference { table, row }));
        if swap {
            session.execute(sql(format!("delete from {live}.{table}"))).await?;
            let insert = format!("insert into {live}.{table} select * from {next}.{table}");
            session.execute(sql(insert)).await?;
        }
    }
    if swap {
        let update = format!(
            "update {live}.checkpoints set version = $1, epoch = $2, position = $3 \
             where projection = $4"
        );
        let update = sql(update)
            .bind(fold.projection.version())
            .bind(i64::from(fold.journal.epoch()))
            .bind(stored.cast_signed())
            .bind(fold.projection.name());
        session.execute(update).await?;
    }
    Ok(difference)
}

fn beside(views: &Path, name: &str) -> PathBuf {
    let mut file = views.file_name().unwrap_or_default().to_owned();
    file.push(format!(".{name}.next"));
    views.with_file_name(file)
}

fn remove(path: &Path) -> std::io::Result<()> {
    for suffix in ["", "-wal", "-shm"] {
        let mut file = path.as_os_str().to_owned();
        file.push(suffix);
        match std::fs::remove_file(&file) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
    }
    Ok(())
}
