//! Who owns which shard: leases in the database, judged by its clock.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;

use crate::database::{Database, DatabaseError};

/// The shards that this process owns, each with the epoch of its ownership (from 1; 0 where nobody
/// else can own it).
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Owned {
    pub epochs: BTreeMap<u16, u64>,
}

/// Where to see what is owned, now and later. The end of the sender means: as it is for good.
pub type Ownership = watch::Receiver<Arc<Owned>>;

/// All shards for good, under epoch 0: for a store that has one process.
pub fn sole_owner(count: u16) -> Ownership {
    let owned = Owned { epochs: (0..count).map(|shard| (shard, 0)).collect() };
    watch::Sender::new(Arc::new(owned)).subscribe()
}

/// How leases are kept.
#[derive(Debug, Clone)]
pub struct ShardsOptions {
    /// Shards of the store; the same in every process.
    pub count: u16,
    /// After how long without renewal a lease is free for others, by the database's clock.
    pub ttl: Duration,
    /// How often leases are renewed, and free ones looked for.
    pub renew: Duration,
    /// What the others see of this owner.
    pub name: String,
}

/// Keeps this process's leases: takes its fair share of the shards, renews, gives up what it can't
/// renew, hands shards over when others join.
pub struct Shards {}

impl Shards {
    /// Joins the owners.
    pub async fn join(database: &Database, options: ShardsOptions) -> Result<Self, DatabaseError> {
        let _ = database;
        unimplemented!("{options:?}")
    }

    /// What is owned.
    pub fn owned(&self) -> Ownership {
        unimplemented!()
    }

    /// An append under this epoch was refused: the shard has another owner.
    pub fn lost(&self, shard: u16, epoch: u64) {
        unimplemented!("{shard}{epoch}")
    }

    /// Shards may be free: look now.
    pub fn look(&self) {
        unimplemented!()
    }

    /// Hands all shards over at once. Call it when nothing is written under them any more.
    pub async fn leave(&self) {
        unimplemented!()
    }
}
