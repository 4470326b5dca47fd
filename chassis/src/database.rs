//! The PostgreSQL database: one pool for a process, and its migrations.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use sqlx::migrate::Migrator;
use sqlx::postgres::{PgConnectOptions, PgPoolOptions};
use sqlx::{ConnectOptions, Connection, PgConnection, PgPool, Row};

/// The oldest server that will do, as PostgreSQL numbers it.
const OLDEST: i32 = 150_000;
/// Connections that stand beside the pool: the journal's committer, and the keeper of shards.
const BESIDE_POOL: u32 = 2;
/// After how long without use a connection is tried before it is lent.
const TRIED_AFTER: Duration = Duration::from_secs(1);
/// Names the lock under which the schema is made. Any number will do, if it is always the same.
const MIGRATION_LOCK: i64 = 0x0077_6f6e_6465_7201;

/// What every connection runs with. The order of positions needs that each statement sees what was
/// committed before it; durability, that an answer comes after the commit is on disk; and a client
/// that has stopped half-way must not hold locks for long. Plans are made for the size that a table
/// has: kept ones would outlive an empty table's.
const SETTINGS: [(&str, &str); 9] = [
    ("search_path", "wonder"),
    ("default_transaction_isolation", "read\\ committed"),
    ("synchronous_commit", "on"),
    ("statement_timeout", "30s"),
    ("lock_timeout", "5s"),
    ("idle_in_transaction_session_timeout", "10s"),
    ("plan_cache_mode", "force_custom_plan"),
    ("jit", "off"),
    ("tcp_keepalives_idle", "10"),
];

static MIGRATIONS: Migrator = sqlx::migrate!("../migrations/postgres");

/// How the database is used.
#[derive(Debug, Clone)]
pub struct DatabaseOptions {
    /// `postgres://user:password@host:port/name`, and what libpq knows as parameters: `?sslmode=`
    /// `verify-full` and so on.
    pub url: String,
    /// Connections of this process at most, and at least 3. Two of them are kept from the pool: the
    /// journal's committer and the keeper of shards must never wait for one.
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
    #[error("the database is damaged: {what}; restore it from a backup")]
    Damaged { what: String },
}

/// A pool of connections. Clones share it.
#[derive(Debug, Clone)]
pub struct Database {
    pool: PgPool,
    options: Arc<PgConnectOptions>,
    connect_timeout: Duration,
    made: Arc<AtomicU64>,
}

impl Database {
    /// Connects and checks version and settings.
    pub async fn connect(options: &DatabaseOptions) -> Result<Self, DatabaseError> {
        let connect: PgConnectOptions = options.url.parse().map_err(DatabaseError::Unreachable)?;
        let connect =
            connect.application_name(&options.name).options(SETTINGS).disable_statement_logging();
        let made = Arc::new(AtomicU64::new(0));
        let pool = PgPoolOptions::new()
            .max_connections(options.connections.saturating_sub(BESIDE_POOL).max(1))
            .acquire_timeout(options.connect_timeout)
            // A round trip for each use is too much: what came back in order is in order.
            .test_before_acquire(false)
            .before_acquire(|connection, state| {
                Box::pin(async move {
                    Ok(state.idle_for < TRIED_AFTER || connection.ping().await.is_ok())
                })
            })
            .after_connect({
                let made = Arc::clone(&made);
                move |_, _| {
                    made.fetch_add(1, Ordering::AcqRel);
                    Box::pin(std::future::ready(Ok(())))
                }
            })
            .connect_lazy_with(connect.clone());
        let connect_timeout = options.connect_timeout;
        let database = Self { pool, options: Arc::new(connect), connect_timeout, made };
        database.check().await?;
        Ok(database)
    }

    /// Brings the tables up to date. Any number of processes may do it at once.
    pub async fn migrate(&self) -> Result<(), DatabaseError> {
        let mut connection = self.dedicated().await.map_err(DatabaseError::Unreachable)?;
        // Another process may take its time, and so may a migration of a large table.
        let lock = format!("select pg_advisory_lock({MIGRATION_LOCK})");
        let prepare = [
            "set statement_timeout = 0",
            "set lock_timeout = 0",
            &lock,
            "create schema if not exists wonder",
        ];
        for sql in prepare {
            let done = sqlx::query(sql).execute(&mut connection).await;
            done.map_err(DatabaseError::Unreachable)?;
        }
        MIGRATIONS.run_direct(&mut connection).await?;
        connection.close().await.map_err(DatabaseError::Unreachable)
    }

    /// Closes the connections, those under way when they are done.
    pub async fn close(&self) {
        self.pool.close().await;
    }

    /// Connections of the pool that were made so far, lost ones among them.
    pub fn connections_made(&self) -> u64 {
        self.made.load(Ordering::Acquire)
    }

    /// The connections. A transaction must be owned by a task that nobody drops halfway.
    pub const fn pool(&self) -> &PgPool {
        &self.pool
    }

    /// A connection of one's own beside the pool, for who must never wait for one.
    pub(crate) async fn dedicated(&self) -> Result<PgConnection, sqlx::Error> {
        let connecting = self.options.connect();
        tokio::time::timeout(self.connect_timeout, connecting)
            .await
            .unwrap_or(Err(sqlx::Error::PoolTimedOut))
    }

    async fn check(&self) -> Result<(), DatabaseError> {
        let settings = sqlx::query(
            "select current_setting('server_version_num')::integer, \
             current_setting('server_version'), current_setting('fsync'), \
             current_setting('full_page_writes'), current_setting('synchronous_commit')",
        );
        let row = settings.fetch_one(&self.pool).await.map_err(DatabaseError::Unreachable)?;
        let version: i32 = row.try_get(0).map_err(DatabaseError::Unreachable)?;
        let text = |index: usize| -> Result<String, DatabaseError> {
            row.try_get(index).map_err(DatabaseError::Unreachable)
        };
        if version < OLDEST {
            return Err(DatabaseError::TooOld { found: text(1)? });
        }
        for (index, setting) in
            ["fsync", "full_page_writes", "synchronous_commit"].iter().enumerate()
        {
            let found = text(index + 2)?;
            if found != "on" {
                return Err(DatabaseError::Setting { setting, found, wanted: "on" });
            }
        }
        Ok(())
    }
}
