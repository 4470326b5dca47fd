//! Rebuilding a projection from the journal beside the live one, and comparing the two.
//!
//! The new rows grow in a file of their own while the live ones go on. At the end the live
//! projector waits: the new rows catch up to the live position, are compared there, and take the
//! place of the live ones in one transaction.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use chassis::journal::{ReadError, RecordedEvent};
use futures::FutureExt;
use sqlx::{Connection, SqliteConnection};

use crate::Projections;
use crate::projection::{FoldError, Projection, by_name};
use crate::store::{Mark, OpenError, Store};

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
        let path = beside(self.store.path(), projection.name());
        remove(&path)?;
        let next = Store::open(&path, self.store.epoch(), 1).boxed().await?;
        next.enlist(projection.as_ref(), u64::MAX).boxed().await?;
        let live = self.projector(projection.name());
        let live = live.ok_or_else(|| RebuildError::NoSuchProjection("it".to_owned()))?;
        let mut mark = Mark::at(0);
        // Without the lock, up to where the live one was a moment ago; then the little rest.
        loop {
            let target = live.position();
            if mark.position >= target {
                break;
            }
            mark = self.catch_up(&next, &projection, mark, target, &mut progress).await?;
        }
        let mut writer = self.store.writer().lock().await;
        let target = live.position();
        mark = self.catch_up(&next, &projection, mark, target, &mut progress).await?;
        next.close().await?;
        sqlx::query("attach database $1 as next")
            .bind(path.to_string_lossy().into_owned())
            .execute(&mut *writer)
            .await?;
        let done = finish(&mut writer, projection.as_ref(), swap, mark.position).boxed().await;
        sqlx::query("detach database next").execute(&mut *writer).await?;
        let difference = done?;
        if swap {
            live.moved_to(mark.position);
        }
        drop(writer);
        remove(&path)?;
        Ok(Comparison { position: mark.position, difference })
    }

    async fn catch_up(
        &self,
        next: &Store,
        projection: &Arc<dyn Projection>,
        mut mark: Mark,
        target: u64,
        progress: &mut (impl FnMut(Progress) + Send),
    ) -> Result<Mark, RebuildError> {
        let mut writer = next.writer().lock().await;
        while mark.position < target {
            let left = usize::try_from(target - mark.position).unwrap_or(BATCH_EVENTS);
            let events = self.journal.read(mark.position, left.min(BATCH_EVENTS)).await?;
            if events.is_empty() {
                let (expected, found) = (mark.position + 1, target);
                return Err(FoldError::Gap { expected, found }.into());
            }
            let batch: Vec<Arc<RecordedEvent>> = events.into_iter().map(Arc::new).collect();
            let journal = self.journal.as_ref();
            mark =
                next.apply(&mut writer, projection.as_ref(), journal, mark, &batch).boxed().await?;
            progress(Progress { position: mark.position, target });
        }
        Ok(mark)
    }
}

/// Compares, and where it is wanted swaps, in one transaction.
async fn finish(
    writer: &mut SqliteConnection,
    projection: &dyn Projection,
    swap: bool,
    position: u64,
) -> Result<Option<Difference>, sqlx::Error> {
    let mut transaction = writer.begin().await?;
    let mut difference = None;
    for (table, id) in projection.tables() {
        let sql = format!(
            "select {id} from (select * from main.{table} except select * from next.{table}) \
             union all \
             select {id} from (select * from next.{table} except select * from main.{table}) \
             order by 1 limit 1"
        );
        let row: Option<String> =
            sqlx::query_scalar(&sql).fetch_optional(&mut *transaction).await?;
        difference = difference.or(row.map(|row| Difference { table, row }));
        if swap {
            for sql in [
                format!("delete from main.{table}"),
                format!("insert into main.{table} select * from next.{table}"),
            ] {
                sqlx::query(&sql).execute(&mut *transaction).await?;
            }
        }
    }
    if swap {
        let sql = "update main.checkpoints set position = $1, version = $2 where projection = $3";
        sqlx::query(sql)
            .bind(position.cast_signed())
            .bind(projection.version())
            .bind(projection.name())
            .execute(&mut *transaction)
            .await?;
    }
    transaction.commit().await?;
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
