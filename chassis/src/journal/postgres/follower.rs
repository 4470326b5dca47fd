//! The follower: one reader of new events for all tails of the process.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{Notify, watch};

use super::reader::Reader;
use crate::journal::ReadError;
use crate::journal::fault::Fault;
use crate::journal::feed::Feed;
use crate::journal::queue::CloseOnDrop;

/// Events of one look. A process that is further behind than that goes on with the newest ones.
const LOOK_EVENTS: usize = 2_000;
/// Between two looks while there is news. Each look, and what projections make of it, has a price
/// that hardly depends on how much it finds.
const PACE: Duration = Duration::from_millis(10);
/// Between two looks when the last one failed.
const RETRY: Duration = Duration::from_millis(500);
/// How long the last look may take, when the journal is closed.
const LAST_LOOK: Duration = Duration::from_secs(2);

/// Looks for news when it is woken, and regularly: whoever wakes it may fail to.
pub(super) struct Follower {
    pub(super) feed: Arc<Feed>,
    pub(super) reader: Arc<Reader>,
    pub(super) news: Arc<Notify>,
    /// Its end means that nothing more is committed here.
    pub(super) committed: watch::Receiver<u64>,
    pub(super) fault: Arc<Fault>,
    pub(super) poll: Duration,
}

impl Follower {
    pub(super) async fn run(self) {
        let feed = CloseOnDrop(Arc::clone(&self.feed));
        let mut ended = self.committed.clone();
        let ended = ended.wait_for(|_| false);
        tokio::pin!(ended);
        let mut wait = self.poll;
        loop {
            tokio::select! {
                _ = &mut ended => break,
                () = self.news.notified() => {}
                () = tokio::time::sleep(wait) => {}
            }
            if !feed.0.is_followed() {
                continue;
            }
            let looked = self.look().await;
            if let Err(error) = &looked
                && self.fault.set(error.to_string().into())
            {
                tracing::error!(%error, "following the journal failed, and is tried again");
            }
            wait = if looked.is_err() { RETRY.max(self.poll) } else { self.poll };
            tokio::select! {
                _ = &mut ended => break,
                () = tokio::time::sleep(PACE) => {}
            }
        }
        // Tails get what this process has committed before they end.
        let last = *self.committed.borrow();
        while feed.0.head() < last {
            let looked = tokio::time::timeout(LAST_LOOK, self.look()).await;
            if !matches!(looked, Ok(Ok(()))) {
                break;
            }
        }
    }

    /// Publishes what is new.
    async fn look(&self) -> Result<(), ReadError> {
        loop {
            let page = match self.reader.newest(self.feed.head(), LOOK_EVENTS).await {
                Ok(page) => page,
                // Tails find the damage by themselves, and stop where it is.
                Err(ReadError::Damaged(_)) => {
                    self.feed.skip_to(self.reader.head().await?);
                    return Ok(());
                }
                Err(error) => return Err(error),
            };
            self.feed.publish(page.events.into_iter().map(Arc::new).collect());
            if !page.more {
                return Ok(());
            }
        }
    }
}
