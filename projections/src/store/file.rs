//! The read tables in a file of their own: one writer, and readers beside it.

use std::path::Path;
use std::time::Duration;

use sqlx::migrate::Migrator;
use sqlx::sqlite::{
    SqliteConnectOptions, SqliteJournalMode, SqlitePool, SqlitePoolOptions, SqliteSynchronous,
};
use sqlx::{Connection as _, SqliteConnection};

use super::OpenError;

static MIGRATIONS: Migrator = sqlx::migrate!("../migrations/sqlite/views");

const BUSY_TIMEOUT: Duration = Duration::from_secs(5);

/// Makes the file where it isn't there, and brings its tables up to date.
pub(crate) async fn connect(path: &Path) -> Result<SqliteConnection, OpenError> {
    let failed = |source| OpenError::Storage { path: path.to_owned(), source };
    chassis::private::file(path).map_err(|error| failed(sqlx::Error::Io(error)))?;
    let options = options(path).create_if_missing(true);
    let mut writer = SqliteConnection::connect_with(&options).await.map_err(failed)?;
    MIGRATIONS
        .run_direct(&mut writer)
        .await
        .map_err(|source| OpenError::Migration { path: path.to_owned(), source })?;
    Ok(writer)
}

/// Another connection to a file that is there.
pub(crate) async fn reconnect(path: &Path) -> Result<SqliteConnection, sqlx::Error> {
    SqliteConnection::connect_with(&options(path)).await
}

/// Connections that can't write.
pub(crate) async fn readers(path: &Path, connections: u32) -> Result<SqlitePool, OpenError> {
    SqlitePoolOptions::new()
        .max_connections(connections.max(1))
        // A file doesn't go away.
        .test_before_acquire(false)
        .connect_with(options(path).read_only(true))
        .await
        .map_err(|source| OpenError::Storage { path: path.to_owned(), source })
}

fn options(path: &Path) -> SqliteConnectOptions {
    SqliteConnectOptions::new()
        .filename(path)
        .journal_mode(SqliteJournalMode::Wal)
        .synchronous(SqliteSynchronous::Normal)
        .busy_timeout(BUSY_TIMEOUT)
}
