//! The keeper: a task that asks the database every now and then, and says what is owned.

use std::sync::Arc;
use std::time::Duration;

use metrics::{counter, gauge};
use tokio::sync::{Notify, watch};
use tokio::time::{Instant, sleep_until, timeout, timeout_at};
use tokio_util::sync::CancellationToken;

use super::leases::{Kept, Leases};
use super::{Owned, ShardsOptions};

/// How long leaving may take; the leases run out all the same.
const LEAVING: Duration = Duration::from_secs(3);
/// Between a round that failed and the next one.
const RETRY: Duration = Duration::from_millis(200);

pub(super) struct Keeper {
    leases: Leases,
    owned: OwnsUntilDropped,
    released: Arc<Notify>,
    /// How long what is owned may be believed in, without a word from the database.
    trust: Duration,
    renew: Duration,
    /// When what is owned is given up, unless it is renewed.
    deadline: Instant,
    failing: bool,
}

/// Whatever ends the keeper ends its ownership.
struct OwnsUntilDropped(Arc<watch::Sender<Arc<Owned>>>);

impl Drop for OwnsUntilDropped {
    fn drop(&mut self) {
        self.0.send_replace(Arc::default());
        gauge!("wonder_shards_owned").set(0.0);
    }
}

impl Keeper {
    pub(super) fn new(
        leases: Leases,
        owned: Arc<watch::Sender<Arc<Owned>>>,
        released: Arc<Notify>,
        options: &ShardsOptions,
    ) -> Self {
        let (trust, renew) = (options.ttl * 2 / 3, options.renew.min(options.ttl / 3));
        let deadline = Instant::now() + trust;
        let owned = OwnsUntilDropped(owned);
        Self { leases, owned, released, trust, renew, deadline, failing: false }
    }

    /// Goes on until it is to leave.
    pub(super) async fn run(mut self, look: Arc<Notify>, leave: CancellationToken) {
        let mut next = Instant::now() + self.renew;
        loop {
            tokio::select! {
                biased;
                () = leave.cancelled() => break,
                () = sleep_until(self.deadline), if self.owns() => {
                    self.give_up();
                    continue;
                }
                () = look.notified() => {}
                () = sleep_until(next) => {}
            }
            let begun = Instant::now();
            self.round().await;
            next = if self.failing { Instant::now() + RETRY } else { begun + self.renew };
        }
        drop(self.owned);
        match timeout(LEAVING, self.leases.leave()).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => tracing::warn!(%error, "handing the shards over failed"),
            Err(_) => tracing::warn!("handing the shards over took too long"),
        }
    }

    /// One round with the database. It ends at the deadline: what isn't confirmed by then is to be
    /// given up.
    pub(super) async fn round(&mut self) {
        let held = Arc::clone(&self.owned.0.borrow());
        // The lease begins when the database hears of it, which is later.
        let begun = Instant::now();
        let patience =
            if held.epochs.is_empty() { begun + self.trust } else { self.deadline.max(begun) };
        let kept = match timeout_at(patience, self.leases.keep(&held)).await {
            Ok(Ok(kept)) => kept,
            Ok(Err(error)) => return self.fail(&error.to_string()),
            Err(_) => return self.fail("the database doesn't answer"),
        };
        self.failing = false;
        self.deadline = begun + self.trust;
        counter!("wonder_shard_takeovers_total").increment(kept.overtaken);
        let surplus = self.publish(kept, &held);
        if surplus.epochs.is_empty() {
            return;
        }
        // Nobody here writes under them any more; in the worst case they run out.
        match timeout_at(self.deadline, self.leases.release(&surplus)).await {
            Ok(Ok(())) => self.released.notify_one(),
            Ok(Err(error)) => self.fail(&error.to_string()),
            Err(_) => self.fail("the database doesn't answer"),
        }
    }

    /// Says what is owned: what was kept and taken, without what is more than the share, and
    /// without what was lost during the round. Answers what is more than the share.
    fn publish(&self, kept: Kept, held: &Owned) -> Owned {
        let Kept { mut owned, share, .. } = kept;
        let mut surplus = Owned::default();
        while owned.epochs.len() > share
            && let Some((shard, epoch)) = owned.epochs.pop_last()
        {
            surplus.epochs.insert(shard, epoch);
        }
        self.owned.0.send_if_modified(|known| {
            owned.epochs.retain(|shard, epoch| {
                let was_held = held.epochs.get(shard) == Some(epoch);
                !was_held || known.epochs.get(shard) == Some(epoch)
            });
            let changed = **known != owned;
            if changed {
                tracing::info!(shards = owned.epochs.len(), "other shards are owned");
                *known = Arc::new(owned);
            }
            gauge!("wonder_shards_owned").set(known.epochs.len() as f64);
            changed
        });
        surplus
    }

    fn fail(&mut self, error: &str) {
        if !self.failing {
            tracing::warn!(error, "renewing shards failed, and is tried again");
        }
        self.failing = true;
    }

    fn owns(&self) -> bool {
        !self.owned.0.borrow().epochs.is_empty()
    }

    fn give_up(&self) {
        tracing::warn!("shards could not be renewed in time, and are given up");
        gauge!("wonder_shards_owned").set(0.0);
        self.owned.0.send_replace(Arc::default());
    }
}
