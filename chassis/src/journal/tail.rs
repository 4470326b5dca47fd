//! The tail: committed events in position order, for readers that follow the journal.

use std::fmt;
use std::sync::Arc;

use async_trait::async_trait;
use tokio::sync::watch;

use super::feed::{Feed, Head};
use super::{ReadError, RecordedEvent};

/// Events that one page from storage may hold, whatever the reader asks for.
const PAGE_EVENTS: usize = 2_000;

/// Why a tail can't go on.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TailError {
    /// An event is missing. Going on would skip it, so the reader has to stop.
    #[error("the journal has a gap: position {expected} was due and {found} came")]
    Gap { expected: u64, found: u64 },
    /// The journal was closed and everything before that has been read.
    #[error("the journal is closed")]
    Closed,
    #[error(transparent)]
    Read(#[from] ReadError),
}

/// Where a tail finds events that have left memory.
#[async_trait]
pub trait Pages: Send + Sync + 'static {
    /// Events after a position, in order, at most `limit`, and at least one if there is any.
    async fn page(&self, after: u64, limit: usize) -> Result<Vec<RecordedEvent>, ReadError>;
}

/// A reader's place in the journal.
///
/// Cancel-safe: a dropped call of [`Tail::next`] or [`Tail::try_next`] has not moved the place.
pub struct Tail {
    feed: Arc<Feed>,
    pages: Arc<dyn Pages>,
    head: watch::Receiver<Head>,
    position: u64,
}

impl fmt::Debug for Tail {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tail").field("position", &self.position).finish_non_exhaustive()
    }
}

impl Tail {
    /// A tail of the events after a position.
    pub fn new(feed: Arc<Feed>, pages: Arc<dyn Pages>, after: u64) -> Self {
        let head = feed.watch();
        Self { feed, pages, head, position: after }
    }

    /// The position of the last event that was returned.
    pub fn position(&self) -> u64 {
        self.position
    }

    /// Events that are known to be committed after it. Asks nobody.
    pub fn lag(&self) -> u64 {
        self.feed.head().saturating_sub(self.position)
    }

    /// Waits for at least one event and returns at most `limit` (at least 1).
    pub async fn next(&mut self, limit: usize) -> Result<Vec<Arc<RecordedEvent>>, TailError> {
        loop {
            // Seen before the read: a commit between the two makes the wait below return at once.
            let seen = *self.head.borrow_and_update();
            let events = self.try_next(limit).await?;
            if !events.is_empty() {
                return Ok(events);
            }
            if seen.closed {
                return Err(TailError::Closed);
            }
            self.head.changed().await.map_err(|_| TailError::Closed)?;
        }
    }

    /// What is there now, at most `limit` (at least 1), perhaps nothing.
    pub async fn try_next(&mut self, limit: usize) -> Result<Vec<Arc<RecordedEvent>>, TailError> {
        let limit = limit.max(1);
        if self.position >= self.feed.head() {
            return Ok(Vec::new());
        }
        let events = match self.feed.recent(self.position, limit) {
            Some(events) => events,
            None => {
                let page = self.pages.page(self.position, limit.min(PAGE_EVENTS)).await?;
                page.into_iter().map(Arc::new).collect()
            }
        };
        let mut position = self.position;
        for event in &events {
            if event.position != position + 1 {
                return Err(TailError::Gap { expected: position + 1, found: event.position });
            }
            position = event.position;
        }
        self.position = position;
        Ok(events)
    }
}
