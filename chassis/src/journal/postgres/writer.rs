//! The one connection that appends: made again whenever it is lost.

use std::sync::Arc;
use std::time::{Duration, Instant};

use sqlx::{Connection, PgConnection};
use tokio::time::error::Elapsed;
use tokio::time::timeout;

use super::batch::Arrays;
use super::decoding;
use crate::database::Database;
use crate::journal::queue::{Committed, Request};

/// How long the database may take for a batch, and how long until it is given up as away.
const SETTINGS: &str = "set statement_timeout = '10s'";
const TIMEOUT: Duration = Duration::from_secs(15);
/// After how long without use the connection is tried before it gets a batch: one that broke in
/// between must not cost a batch.
const TRIED_AFTER: Duration = Duration::from_secs(1);
/// Between two tries to connect: at first, and at most.
const RETRY_FIRST: Duration = Duration::from_millis(50);
const RETRY_MOST: Duration = Duration::from_secs(2);

/// As much as a large value takes, written durably and deleted again. Random, so that it isn't
/// stored as a handful of bytes.
const PROBE: &str = "insert into payloads (hash, bytes) \
     select 'probe', string_agg(uuid_send(gen_random_uuid()), '') from generate_series(1, 4096) \
     on conflict (hash) do update set bytes = excluded.bytes";
const UNDO_PROBE: &str = "delete from payloads where hash = 'probe'";

/// Why a batch was not written.
#[derive(Debug, thiserror::Error)]
pub(super) enum Failure {
    /// One of the appends holds what the database can't store.
    #[error("{0}")]
    Data(Arc<str>),
    #[error("the disk is full")]
    Full,
    /// Whether it was written is unknown where the connection was lost meanwhile.
    #[error("{0}")]
    Away(Arc<str>),
}

impl Failure {
    fn of(error: &sqlx::Error) -> Self {
        let message = error.to_string().into();
        let answer = error.as_database_error();
        let code = answer.and_then(|answer| answer.code());
        match code.as_deref() {
            Some("53100") => Self::Full,
            // The head is behind the events: nobody can append any more.
            _ if answer.and_then(|answer| answer.constraint()) == Some("events_pkey") => {
                Self::Away(message)
            }
            // Data exceptions, violated constraints, and rows too large for an index or a page.
            Some(code) if ["22", "23", "54"].iter().any(|class| code.starts_with(class)) => {
                Self::Data(message)
            }
            _ => match error {
                sqlx::Error::Encode(_) => Self::Data(message),
                _ => Self::Away(message),
            },
        }
    }
}

pub(super) struct Writer {
    database: Database,
    connection: Option<PgConnection>,
    used: Instant,
    retry_at: Instant,
    retry_after: Duration,
}

impl Writer {
    pub(super) async fn connect(database: &Database) -> Result<Self, sqlx::Error> {
        let connection = Some(connect(database).await?);
        let now = Instant::now();
        let database = database.clone();
        Ok(Self { database, connection, used: now, retry_at: now, retry_after: RETRY_FIRST })
    }

    /// Writes a batch durably but for what it refuses, or nothing of it.
    pub(super) async fn commit(&mut self, batch: &[Request]) -> Result<Committed, Failure> {
        let arrays = Arrays::new(batch);
        let mut connection = self.take().await?;
        let done = timeout(TIMEOUT, arrays.append(&mut connection)).await;
        let rows = self.give_back(connection, done).await?;
        let committed = decoding::committed(batch, &rows);
        committed.map_err(|error| Failure::Away(error.to_string().into()))
    }

    /// Tries whether writing works.
    pub(super) async fn probe(&mut self) -> Result<(), Failure> {
        self.retry_at = Instant::now();
        for sql in [PROBE, UNDO_PROBE] {
            let mut connection = self.take().await?;
            let done = timeout(TIMEOUT, sqlx::query(sql).execute(&mut connection)).await;
            self.give_back(connection, done).await?;
        }
        Ok(())
    }

    pub(super) async fn close(self) {
        if let Some(connection) = self.connection {
            timeout(TIMEOUT, connection.close()).await.ok();
        }
    }

    /// Keeps the connection unless it may be broken.
    async fn give_back<T>(
        &mut self,
        mut connection: PgConnection,
        done: Result<Result<T, sqlx::Error>, Elapsed>,
    ) -> Result<T, Failure> {
        let Ok(done) = done else {
            return Err(Failure::Away("the database doesn't answer".into()));
        };
        let usable = match &done {
            Ok(_) => true,
            // An error of the database's own leaves the connection as it is, unless it ends it.
            Err(sqlx::Error::Database(_)) => answers(&mut connection).await,
            Err(_) => false,
        };
        if usable {
            self.connection = Some(connection);
            self.used = Instant::now();
        }
        done.map_err(|error| Failure::of(&error))
    }

    async fn take(&mut self) -> Result<PgConnection, Failure> {
        if let Some(mut connection) = self.connection.take()
            && (self.used.elapsed() < TRIED_AFTER || answers(&mut connection).await)
        {
            return Ok(connection);
        }
        if Instant::now() < self.retry_at {
            return Err(Failure::Away("the database is away".into()));
        }
        match connect(&self.database).await {
            Ok(connection) => {
                self.retry_after = RETRY_FIRST;
                tracing::info!("connected to the journal's database again");
                Ok(connection)
            }
            Err(error) => {
                self.retry_at = Instant::now() + self.retry_after;
                self.retry_after = (self.retry_after * 2).min(RETRY_MOST);
                Err(Failure::Away(error.to_string().into()))
            }
        }
    }
}

async fn answers(connection: &mut PgConnection) -> bool {
    let pong = timeout(TIMEOUT, connection.ping()).await;
    pong.is_ok_and(|pong| pong.is_ok())
}

async fn connect(database: &Database) -> Result<PgConnection, sqlx::Error> {
    let mut connection = database.dedicated().await?;
    sqlx::query(SETTINGS).execute(&mut connection).await?;
    Ok(connection)
}
