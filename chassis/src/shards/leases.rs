//! Leases as the database has them.

use std::time::Duration;

use sqlx::{Connection, PgConnection};
use uuid::Uuid;

use super::{Owned, ShardsOptions};
use crate::database::Database;

const KEEP: &str = "select shard, epoch, share, late from keep_shards($1, $2, $3, $4, $5)";
const RELEASE: &str = "update shards s set owner = null, expires_at = null \
     from unnest($2::integer[], $3::bigint[]) as r (shard, epoch) \
     where s.shard = r.shard and s.epoch = r.epoch and s.owner = $1";
const LEAVE: &str = "with gone as (delete from owners where member = $1) \
     update shards set owner = null, expires_at = null where owner = $1";

/// What a round has found.
#[derive(Debug, Default)]
pub(super) struct Kept {
    pub(super) owned: Owned,
    /// Shards that are this member's share; 0 where that isn't known, since it owns none.
    pub(super) share: usize,
    /// Shards that were taken from an owner that is late.
    pub(super) overtaken: u64,
}

/// A member of the owners, on a connection of its own: it must never wait for one of the pool's.
pub(super) struct Leases {
    database: Database,
    connection: Option<PgConnection>,
    member: Uuid,
    name: String,
    ttl: Duration,
}

impl Leases {
    /// Under a new id: what an earlier life of this process has held is not its own.
    pub(super) async fn join(
        database: &Database,
        options: &ShardsOptions,
    ) -> Result<Self, sqlx::Error> {
        let mut connection = database.dedicated().await?;
        sqlx::query(
            "insert into shards (shard) select generate_series(0, $1 - 1) on conflict do nothing",
        )
        .bind(i32::from(options.count))
        .execute(&mut connection)
        .await?;
        Ok(Self {
            database: database.clone(),
            connection: Some(connection),
            member: Uuid::new_v4(),
            name: options.name.clone(),
            ttl: options.ttl,
        })
    }

    /// Renews what is held, and takes what is free of the share. A dropped call loses the
    /// connection, and what it took is taken again by the next one.
    pub(super) async fn keep(&mut self, held: &Owned) -> Result<Kept, sqlx::Error> {
        let mut connection = self.take().await?;
        let (shards, epochs) = arrays(held);
        let rows: Vec<(i32, i64, i32, bool)> = sqlx::query_as(KEEP)
            .bind(self.member)
            .bind(&self.name)
            .bind(self.ttl)
            .bind(shards)
            .bind(epochs)
            .fetch_all(&mut connection)
            .await?;
        self.connection = Some(connection);
        let mut kept = Kept::default();
        for (shard, epoch, share, late) in rows {
            let shard = u16::try_from(shard).map_err(out_of_range)?;
            kept.owned.epochs.insert(shard, epoch.unsigned_abs());
            kept.share = usize::try_from(share).map_err(out_of_range)?;
            kept.overtaken += u64::from(late);
        }
        Ok(kept)
    }

    /// Makes shards free for others.
    pub(super) async fn release(&mut self, surplus: &Owned) -> Result<(), sqlx::Error> {
        let mut connection = self.take().await?;
        let (shards, epochs) = arrays(surplus);
        sqlx::query(RELEASE)
            .bind(self.member)
            .bind(shards)
            .bind(epochs)
            .execute(&mut connection)
            .await?;
        self.connection = Some(connection);
        Ok(())
    }

    /// Makes everything free, and is no member any more.
    pub(super) async fn leave(mut self) -> Result<(), sqlx::Error> {
        let mut connection = self.take().await?;
        sqlx::query(LEAVE).bind(self.member).execute(&mut connection).await?;
        connection.close().await
    }

    async fn take(&mut self) -> Result<PgConnection, sqlx::Error> {
        match self.connection.take() {
            Some(connection) => Ok(connection),
            None => self.database.dedicated().await,
        }
    }
}

fn arrays(shards: &Owned) -> (Vec<i32>, Vec<i64>) {
    let signed = |epoch: u64| i64::try_from(epoch).unwrap_or(i64::MAX);
    shards.epochs.iter().map(|(shard, epoch)| (i32::from(*shard), signed(*epoch))).unzip()
}

fn out_of_range(error: std::num::TryFromIntError) -> sqlx::Error {
    sqlx::Error::Decode(error.into())
}
