//! The PostgreSQL database: one pool for a process, and its migrations.

use std::time::Duration;

use sqlx::PgPool;

/// How the database is used.
#[derive(Debug, Clone)]
pub struct DatabaseOptions {
    /// `postgres://user:password@host:port/name`.
    pub url: String,
    /// Connections of this process at most.
    pub connections: u32,
    /// What the database shows of this process.
    pub name: String,
    /// How long a connection may take before the database counts as away.
    pub connect_timeout: Duration,
}

/// Why the database can't be used.
#[derive(Debug, thiserror::Error)]
pub enum DatabaseError {
    #[error("the database can't be reached: {0}")]
    Unreachable(sqlx::Error),
    #[error("the database's tables can't be brought up to date: {0}")]
    Migrate(#[from] sqlx::migrate::MigrateError),
    #[error("the database is set to {setting} = {found}, and must be {wanted}")]
    Setting { setting: &'static str, found: String, wanted: &'static str },
    #[error("the database has {found}, and PostgreSQL 15 or later is needed")]
    TooOld { found: String },
}

/// A pool of connections. Clones share it.
#[derive(Debug, Clone)]
pub struct Database {
    pool: PgPool,
}

impl Database {
    /// Connects and checks version and settings.
    pub async fn connect(options: &DatabaseOptions) -> Result<Self, DatabaseError> {
        unimplemented!("{options:?}")
    }

    /// Brings the tables up to date. Any number of processes may do it at once.
    pub async fn migrate(&self) -> Result<(), DatabaseError> {
        unimplemented!()
    }

    /// The connections. A transaction must be owned by a task that nobody drops halfway.
    pub const fn pool(&self) -> &PgPool {
        &self.pool
    }
}
