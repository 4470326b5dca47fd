//! Who owns which shard: leases in the database, judged by its clock.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::{Notify, watch};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::database::{Database, DatabaseError};

mod keeper;
mod leases;

use keeper::Keeper;
use leases::Leases;

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
    /// After how long without renewal a lease is free for others, by the database's clock. After
    /// two thirds of it the owner gives up by itself, by its own.
    pub ttl: Duration,
    /// How often leases are renewed, and free ones looked for; at most a third of `ttl`.
    pub renew: Duration,
    /// What the others see of this owner.
    pub name: String,
}

impl ShardsOptions {
    /// So many shards, of which a silent owner's are free after 6 seconds.
    pub fn new(count: u16, name: impl Into<String>) -> Self {
        let (ttl, renew) = (Duration::from_secs(6), Duration::from_secs(2));
        Self { count, ttl, renew, name: name.into() }
    }
}

/// Keeps this process's leases: takes its fair share of the shards, renews, gives up what it can't
/// renew, hands shards over when others join.
///
/// Dropped, it owns nothing any more, and its leases run out; [`Shards::leave`] hands them over at
/// once.
pub struct Shards {
    owned: Arc<watch::Sender<Arc<Owned>>>,
    look: Arc<Notify>,
    released: Arc<Notify>,
    leave: CancellationToken,
    keeper: Mutex<Option<JoinHandle<()>>>,
}

impl fmt::Debug for Shards {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Shards").field("owned", &self.owned.borrow()).finish_non_exhaustive()
    }
}

impl Shards {
    /// Joins the owners, and takes what is free of the fair share.
    pub async fn join(database: &Database, options: ShardsOptions) -> Result<Self, DatabaseError> {
        let leases = Leases::join(database, &options).await.map_err(DatabaseError::Unreachable)?;
        let owned = Arc::new(watch::Sender::new(Arc::default()));
        let (look, leave) = (Arc::new(Notify::new()), CancellationToken::new());
        let released = Arc::new(Notify::new());
        let mut keeper = Keeper::new(leases, Arc::clone(&owned), Arc::clone(&released), &options);
        keeper.round().await;
        let keeper = tokio::spawn(keeper.run(Arc::clone(&look), leave.clone()));
        Ok(Self { owned, look, released, leave, keeper: Mutex::new(Some(keeper)) })
    }

    /// What is owned.
    pub fn owned(&self) -> Ownership {
        self.owned.subscribe()
    }

    /// An append under this epoch was refused: the shard has another owner.
    pub fn lost(&self, shard: u16, epoch: u64) {
        let lost = self.owned.send_if_modified(|owned| {
            let held = owned.epochs.get(&shard) == Some(&epoch);
            if held {
                Arc::make_mut(owned).epochs.remove(&shard);
            }
            held
        });
        if lost {
            tracing::warn!(shard, epoch, "a shard has another owner");
            self.look();
        }
    }

    /// Shards may be free: look now.
    pub fn look(&self) {
        self.look.notify_one();
    }

    /// Waits until some shards are handed over to others, who may look now. One waiter.
    pub async fn released(&self) {
        self.released.notified().await;
    }

    /// Hands all shards over at once. Call it when nothing is written under them any more.
    pub async fn leave(&self) {
        self.leave.cancel();
        let keeper = self.take_keeper();
        if let Some(keeper) = keeper
            && let Err(error) = keeper.await
        {
            tracing::error!(%error, "the keeper of shards has failed");
        }
    }

    fn take_keeper(&self) -> Option<JoinHandle<()>> {
        self.keeper.lock().unwrap_or_else(PoisonError::into_inner).take()
    }
}

impl Drop for Shards {
    fn drop(&mut self) {
        if let Some(keeper) = self.take_keeper() {
            self.owned.send_replace(Arc::default());
            keeper.abort();
        }
    }
}
