//! Where the read tables stand: a file with one process, or the database of the journal.

use std::path::{Path, PathBuf};
use std::time::Duration;

use chassis::database::Database;
use chassis::journal::ReadError;
use tokio::sync::Mutex;

pub(crate) mod conditions;
pub(crate) mod database;
pub(crate) mod dialect;
pub(crate) mod file;
pub(crate) mod sql;

use sql::{Connection, Readers, Session, Statement};

/// How long the database may take for a sign of life.
const PING_WITHIN: Duration = Duration::from_secs(5);

/// Where the read tables stand.
#[derive(Debug, Clone)]
pub enum Views {
    /// A SQLite file of their own, which one process opens.
    File(PathBuf),
    /// Tables in the PostgreSQL database that the journal is in, which any number of processes
    /// share: one of them folds, all of them answer.
    Database(Database),
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
    #[error("the read tables of the database can't be read: {0}")]
    Database(sqlx::Error),
    #[error(transparent)]
    Journal(#[from] ReadError),
    #[error("a projection is missing from the list of projections")]
    NoProjection,
}

pub(crate) struct Store {
    views: Views,
    readers: Readers,
    /// What folds write through; nothing while another process folds.
    writer: Mutex<Option<Connection>>,
}

impl Store {
    pub(crate) async fn open(views: Views, readers: u32) -> Result<Self, OpenError> {
        let (readers, writer) = match &views {
            Views::File(path) => {
                let writer = file::connect(path).await?;
                let readers = Readers::File(file::readers(path, readers).await?);
                (readers, Some(Connection::File(writer)))
            }
            Views::Database(database) => (Readers::Database(database.pool().clone()), None),
        };
        Ok(Self { views, readers, writer: Mutex::new(writer) })
    }

    pub(crate) const fn readers(&self) -> &Readers {
        &self.readers
    }

    pub(crate) const fn writer(&self) -> &Mutex<Option<Connection>> {
        &self.writer
    }

    pub(crate) const fn views(&self) -> &Views {
        &self.views
    }

    /// Whether other processes have the same tables.
    pub(crate) const fn is_shared(&self) -> bool {
        matches!(self.views, Views::Database(_))
    }

    /// Connections that were made for readers so far. A database that has crashed forgets what
    /// wasn't synced, and ends all that there were; a file's outlive only their process.
    pub(crate) fn connections_made(&self) -> u64 {
        match &self.views {
            Views::File(_) => 0,
            Views::Database(database) => database.connections_made(),
        }
    }

    /// Whether the writer's connection answers.
    pub(crate) async fn ping(&self) -> bool {
        let mut writer = self.writer.lock().await;
        let Some(connection) = writer.as_mut() else { return false };
        let answer = tokio::time::timeout(PING_WITHIN, connection.ping()).await;
        matches!(answer, Ok(Ok(())))
    }

    /// Gives up the connection of a file whose storage has failed, while nobody else has it. SQLite
    /// and sqlx may not agree then on whether a transaction is open, and what came next would stay
    /// in it, seen by nobody.
    pub(crate) fn give_up(&self, writer: &mut Option<Connection>) {
        if !self.is_shared() {
            *writer = None;
        }
    }

    /// Executes a statement that belongs to no fold. It is whole by itself.
    pub(crate) async fn execute(&self, statement: Statement) -> Result<u64, sqlx::Error> {
        match &self.views {
            Views::File(_) => {
                let mut writer = self.writer.lock().await;
                let connection = writer.as_mut().ok_or(sqlx::Error::WorkerCrashed)?;
                connection.session().execute(statement).await
            }
            Views::Database(database) => {
                let mut connection = database.pool().acquire().await?;
                Session::Database(&mut connection).execute(statement).await
            }
        }
    }

    /// Connects anew to a file whose connection was given up.
    pub(crate) async fn reconnect(&self) -> Result<(), sqlx::Error> {
        if let Views::File(path) = &self.views {
            let mut writer = self.writer.lock().await;
            if writer.is_none() {
                *writer = Some(Connection::File(file::reconnect(path).await?));
            }
        }
        Ok(())
    }

    /// The file, where it is one.
    pub(crate) fn path(&self) -> &Path {
        match &self.views {
            Views::File(path) => path,
            Views::Database(_) => Path::new(""),
        }
    }
}
