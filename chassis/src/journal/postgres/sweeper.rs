//! The sweeper: forgets answers of commands that are older than anybody may ask for, and marks
//! whose time is over.

use std::time::Duration;

use sqlx::PgPool;
use tokio::sync::watch;

/// How often it is looked for what to forget; also the wait after a failure.
const EVERY: Duration = Duration::from_secs(60);
/// Rows that one statement forgets at most.
const SLICE: i64 = 1_000;
/// Answers are kept for 25 hours, an hour longer than promised. The oldest are those with the
/// lowest positions; what another process forgets at this moment is left to it.
const FORGET: &str = "delete from inbox where key in (\
     select oldest.key from (\
         select key, kept_at from inbox order by position limit $1 for update skip locked) oldest \
     where oldest.kept_at < now() - interval '25 hours')";
/// What another process forgets or renews at this moment is left alone.
const FORGET_MARKS: &str = "delete from marks where (shard, name) in (\
     select past.shard, past.name from marks past where past.until < now() \
     order by past.until limit $1 for update skip locked)";

/// Sweeps until nothing more is committed.
pub(super) async fn run(pool: PgPool, mut committed: watch::Receiver<u64>) {
    let swept = async {
        loop {
            if let Err(error) = sweep(&pool).await {
                tracing::warn!(%error, "forgetting old rows failed, and is tried again");
            }
            tokio::time::sleep(EVERY).await;
        }
    };
    tokio::select! {
        _ = committed.wait_for(|_| false) => {}
        () = swept => {}
    }
}

async fn sweep(pool: &PgPool) -> Result<(), sqlx::Error> {
    for forget in [FORGET, FORGET_MARKS] {
        let mut forgotten = u64::MAX;
        while forgotten >= SLICE.unsigned_abs() {
            forgotten = sqlx::query(forget).bind(SLICE).execute(pool).await?.rows_affected();
        }
    }
    Ok(())
}
