//! Opening: the lock file, the migrations, the connections, and what must hold before a write.

use std::fs::{File, TryLockError};
use std::path::{Path, PathBuf};
use std::time::Duration;

use rusqlite::{Connection, OpenFlags, OptionalExtension};
use sqlx::ConnectOptions;
use sqlx::migrate::{MigrateError, Migrator};
use sqlx::sqlite::{
    SqliteConnectOptions, SqliteJournalMode, SqlitePool, SqlitePoolOptions, SqliteSynchronous,
};
use uuid::Uuid;

use super::SqliteOptions;
use super::writer::Writer;
use crate::private;

/// The shape of the tables that this code writes.
const SCHEMA: u32 = 1;
const BUSY_TIMEOUT: Duration = Duration::from_secs(5);
const READERS: u32 = 4;
/// SQLite's own limit.
const MAX_PAGES: u32 = u32::MAX - 1;
/// Positions at the end that are checked for gaps; readers check all that they read.
const CHECKED_AT_OPEN: u64 = 1_000;

static MIGRATIONS: Migrator = sqlx::migrate!("../migrations/sqlite/journal");

/// Why a journal can't be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    #[error(
        "{path} is in use by another process: stop that one, or give this one another data folder"
    )]
    InUse { path: PathBuf },
    #[error("{path} can't be opened: {source}")]
    Io { path: PathBuf, source: std::io::Error },
    #[error("{path} can't be opened: {source}")]
    Sqlite { path: PathBuf, source: rusqlite::Error },
    #[error("{path} can't be opened: {source}")]
    Connect { path: PathBuf, source: sqlx::Error },
    #[error("the tables of {path} can't be brought up to date: {source}")]
    Migrate { path: PathBuf, source: MigrateError },
    /// SQLite didn't take a setting that durability depends on.
    #[error("{path} runs with {setting}={found}, and needs {wanted}: is it on a local disk?")]
    Setting { path: PathBuf, setting: &'static str, found: String, wanted: &'static str },
    #[error("{path} was written by a newer version: schema {found}, this one knows {SCHEMA}")]
    Newer { path: PathBuf, found: u32 },
    #[error("{path} is damaged: {what}; restore it from a backup")]
    Damaged { path: PathBuf, what: String },
}

/// An open journal, before its thread runs.
pub(super) struct Opened {
    pub(super) writer: Writer,
    /// For the thread that makes the checkpoints.
    pub(super) beside: Connection,
    pub(super) epoch: u32,
    pub(super) pool: SqlitePool,
}

/// Opens everything; the lock lives as long as the writer.
pub(super) async fn open(path: &Path, options: &SqliteOptions) -> Result<Opened, OpenError> {
    let owned = path.to_path_buf();
    let lock = blocking(path, move || lock(&owned)).await?;
    migrate(path).await?;
    let owned = path.to_path_buf();
    let (clock, max_bytes) = (options.clock.clone(), options.max_bytes);
    let (writer, beside, epoch) = blocking(path, move || {
        let connection = connect(&owned, max_bytes)?;
        assert_settings(&connection, &owned)?;
        let created_at = clock.now().timestamp_micros();
        let epoch = identify(&connection, &owned, created_at)?;
        let head = check_positions(&connection, &owned)?;
        let beside = connect(&owned, max_bytes)?;
        Ok((Writer::new(connection, lock, head, clock), beside, epoch))
    })
    .await?;
    Ok(Opened { writer, beside, epoch, pool: pool(path) })
}

async fn blocking<T: Send + 'static>(
    path: &Path,
    work: impl FnOnce() -> Result<T, OpenError> + Send + 'static,
) -> Result<T, OpenError> {
    tokio::task::spawn_blocking(work).await.unwrap_or_else(|error| {
        Err(OpenError::Io { path: path.into(), source: std::io::Error::other(error) })
    })
}

/// Locks a file beside the database. The system frees it when the process ends, however it does.
fn lock(path: &Path) -> Result<File, OpenError> {
    let failed = |source| OpenError::Io { path: path.into(), source };
    if let Some(folder) = path.parent().filter(|folder| !folder.as_os_str().is_empty()) {
        private::folder(folder).map_err(failed)?;
    }
    let mut name = path.as_os_str().to_owned();
    name.push(".lock");
    let file = private::file(name.as_ref()).map_err(failed)?;
    drop(private::file(path).map_err(failed)?);
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => Err(OpenError::InUse { path: path.into() }),
        Err(TryLockError::Error(source)) => Err(failed(source)),
    }
}

async fn migrate(path: &Path) -> Result<(), OpenError> {
    let failed = |source| OpenError::Connect { path: path.into(), source };
    let mut connection = SqliteConnectOptions::new()
        .filename(path)
        .create_if_missing(true)
        .journal_mode(SqliteJournalMode::Wal)
        .synchronous(SqliteSynchronous::Full)
        .busy_timeout(BUSY_TIMEOUT)
        .connect()
        .await
        .map_err(failed)?;
    MIGRATIONS
        .run_direct(&mut connection)
        .await
        .map_err(|source| OpenError::Migrate { path: path.into(), source })?;
    sqlx::Connection::close(connection).await.map_err(failed)
}

/// The log is moved into the database beside the commits; a commit that finds it larger than 32 MB
/// does what is left.
fn connect(path: &Path, max_bytes: u64) -> Result<Connection, OpenError> {
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let open = || {
        let connection = Connection::open_with_flags(path, flags)?;
        connection.busy_timeout(BUSY_TIMEOUT)?;
        connection.set_prepared_statement_cache_capacity(32);
        connection.execute_batch(
            "pragma journal_mode = wal;
             pragma synchronous = full;
             pragma foreign_keys = on;
             pragma trusted_schema = off;
             pragma cache_size = -32768;
             pragma temp_store = memory;
             pragma wal_autocheckpoint = 8000;
             pragma journal_size_limit = 67108864;",
        )?;
        let page: u64 = connection.pragma_query_value(None, "page_size", |row| row.get(0))?;
        // SQLite clamps it, and never goes below what the file has already.
        let pages = u32::try_from(max_bytes / page).unwrap_or(u32::MAX).min(MAX_PAGES);
        connection.pragma_update_and_check(None, "max_page_count", pages, |_| Ok(()))?;
        Ok(connection)
    };
    open().map_err(|source| OpenError::Sqlite { path: path.into(), source })
}

fn assert_settings(connection: &Connection, path: &Path) -> Result<(), OpenError> {
    let wanted = [("journal_mode", "wal"), ("synchronous", "2"), ("foreign_keys", "1")];
    for (setting, wanted) in wanted {
        let found = connection
            .pragma_query_value(None, setting, |row| {
                let value: rusqlite::types::Value = row.get(0)?;
                Ok(match value {
                    rusqlite::types::Value::Integer(number) => number.to_string(),
                    rusqlite::types::Value::Text(text) => text,
                    other => format!("{other:?}"),
                })
            })
            .map_err(|source| OpenError::Sqlite { path: path.into(), source })?;
        if found != wanted {
            return Err(OpenError::Setting { path: path.into(), setting, found, wanted });
        }
    }
    Ok(())
}

/// Reads the store's epoch, and gives it one when it is new.
fn identify(connection: &Connection, path: &Path, created_at: i64) -> Result<u32, OpenError> {
    let failed = |source| OpenError::Sqlite { path: path.into(), source };
    let fresh = Uuid::new_v4().as_fields().0;
    connection
        .execute(
            "insert into store (id, epoch, schema, created_at) values (1, ?1, ?2, ?3)
             on conflict (id) do nothing",
            rusqlite::params![fresh, SCHEMA, created_at],
        )
        .map_err(failed)?;
    let (epoch, schema): (u32, u32) = connection
        .query_row("select epoch, schema from store", [], |row| Ok((row.get(0)?, row.get(1)?)))
        .map_err(failed)?;
    if schema > SCHEMA {
        return Err(OpenError::Newer { path: path.into(), found: schema });
    }
    Ok(epoch)
}

/// The newest position, after a look at both ends of the table.
fn check_positions(connection: &Connection, path: &Path) -> Result<u64, OpenError> {
    let failed = |source| OpenError::Sqlite { path: path.into(), source };
    let end = |sql: &str| {
        let row = connection.query_row(sql, [], |row| row.get::<_, i64>(0)).optional();
        row.map_err(failed).map(Option::unwrap_or_default)
    };
    let head = end("select position from events order by position desc limit 1")?;
    let first = end("select position from events order by position limit 1")?;
    let checked = head.min(CHECKED_AT_OPEN.cast_signed());
    let found: i64 = connection
        .query_row("select count(*) from events where position > ?1", [head - checked], |row| {
            row.get(0)
        })
        .map_err(failed)?;
    if found != checked || first != head.min(1) {
        let what = format!("positions up to {head} have a gap");
        return Err(OpenError::Damaged { path: path.into(), what });
    }
    Ok(head.unsigned_abs())
}

/// Connects when first used. Readers never checkpoint: that is the writer's.
fn pool(path: &Path) -> SqlitePool {
    let options = SqliteConnectOptions::new()
        .filename(path)
        .read_only(true)
        .busy_timeout(BUSY_TIMEOUT)
        .pragma("query_only", "on")
        .pragma("wal_autocheckpoint", "0")
        .pragma("cache_size", "-8192")
        .pragma("mmap_size", "268435456")
        .disable_statement_logging();
    SqlitePoolOptions::new()
        .max_connections(READERS)
        .acquire_timeout(Duration::from_secs(30))
        .test_before_acquire(false)
        .connect_lazy_with(options)
}
