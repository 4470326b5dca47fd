//! The read tables in the journal's database: connections beside its pool, and who may fold.

use std::time::Duration;

use chassis::database::Database;
use futures::FutureExt;
use futures::future::BoxFuture;
use sqlx::{Connection as _, Executor, PgConnection};

/// How long making a connection may take.
const CONNECT_WITHIN: Duration = Duration::from_secs(5);
/// Names the lock of whoever folds. Any number will do, if it is always the same.
const FOLD_LOCK: i64 = 0x0077_6f6e_6465_7202;
/// Names the lock of whoever rebuilds.
const REBUILD_LOCK: i64 = 0x0077_6f6e_6465_7203;

/// Folds look rows up by their keys, as many as a batch has. Plans are made once in a session,
/// perhaps when the tables are empty, and the planner can't know how many elements a batch has:
/// left to itself it reads the whole table for each batch.
macro_rules! by_key {
    () => {
        "set plan_cache_mode = force_generic_plan; set enable_seqscan = off; \
         set enable_bitmapscan = off; set enable_hashjoin = off; set enable_mergejoin = off; \
         set jit = off; "
    };
}

/// What the folding connection runs with. Its lock is a lease, judged by the server: a process
/// that is frozen or cut off gives no sign of life, and its session ends with its lock. Rows
/// needn't wait for the disk: what a crash takes of them it takes together with their checkpoint.
const FOLDING: &str = concat!(
    "set idle_session_timeout = '5s'; set idle_in_transaction_session_timeout = '5s'; ",
    by_key!(),
    "set synchronous_commit = off"
);

/// What the connection runs with that makes tables beside the live ones.
const BESIDE: &str = concat!(
    "set search_path = wonder_next; set statement_timeout = 0; ",
    by_key!(),
    "set synchronous_commit = off"
);

/// What the connection runs with that compares the two and swaps them.
const SWAPPING: &str = "set statement_timeout = 0; \
    set idle_in_transaction_session_timeout = '60s'";

/// So that a long statement ends with the process that waits for it. Not every system can tell.
const CHECKED: &str = "do $$ begin set client_connection_check_interval = '5s'; \
    exception when others then null; end $$";

/// A connection that may hold the lock of whoever folds. It must be used every second or so.
pub(crate) async fn for_folding(database: &Database) -> Result<PgConnection, sqlx::Error> {
    connect(database, FOLDING).await
}

/// Takes the lock of whoever folds, if nobody else has it.
pub(crate) async fn take_lead(connection: &mut PgConnection) -> Result<bool, sqlx::Error> {
    try_lock(connection, FOLD_LOCK).await
}

/// Gives the lock back.
pub(crate) async fn leave_lead(connection: &mut PgConnection) -> Result<(), sqlx::Error> {
    let unlock = sqlx::query("select pg_advisory_unlock($1)").bind(FOLD_LOCK);
    unlock.execute(connection).boxed().await.map(|_| ())
}

/// A connection whose tables are those beside the live ones, emptied by whoever has its lock;
/// nothing where somebody else rebuilds.
pub(crate) async fn beside(database: &Database) -> Result<Option<PgConnection>, sqlx::Error> {
    let mut connection = connect(database, BESIDE).await?;
    Ok(try_lock(&mut connection, REBUILD_LOCK).await?.then_some(connection))
}

/// A connection for comparing and swapping.
pub(crate) async fn for_swapping(database: &Database) -> Result<PgConnection, sqlx::Error> {
    connect(database, SWAPPING).await
}

async fn connect(database: &Database, settings: &'static str) -> Result<PgConnection, sqlx::Error> {
    let options = database.pool().connect_options();
    let connecting = async move {
        let mut connection = PgConnection::connect_with(&options).await?;
        connection.execute(settings).await?;
        connection.execute(CHECKED).await?;
        Ok(connection)
    };
    let connected = tokio::time::timeout(CONNECT_WITHIN, connecting.boxed()).await;
    connected.unwrap_or(Err(sqlx::Error::PoolTimedOut))
}

fn try_lock(connection: &mut PgConnection, lock: i64) -> BoxFuture<'_, Result<bool, sqlx::Error>> {
    sqlx::query_scalar("select pg_try_advisory_lock($1)").bind(lock).fetch_one(connection).boxed()
}
