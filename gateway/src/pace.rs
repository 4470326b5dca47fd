//! What has happened, told again at a pace: events of a run spaced as they were recorded.
//!
//! History is read in small pages, and nothing is held between them: while it waits, a replay costs
//! a timer and the events of one page. After the last event that there is it goes on live.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use chrono::{DateTime, Utc};
use futures::stream::{self, BoxStream, StreamExt as _};
use protocol::{Cursor, EventEnvelope, EventFilter, Events, Rejection, Speed};
use tokio::time::Instant;

/// The longest wait between two events, whatever lies between them.
pub(crate) const LONGEST: Duration = Duration::from_secs(10);
/// Events that are read at once.
const PAGE: u32 = 32;

/// A replay.
struct Replay {
    events: Arc<dyn Events>,
    filter: EventFilter,
    after: Option<Cursor>,
    speed: Speed,
    /// Only events of this type are waited for; the others pass at once.
    only: Option<String>,
    /// Read, and not told yet.
    ready: VecDeque<EventEnvelope>,
    /// When the last event was recorded, and when it was told.
    last: Option<(DateTime<Utc>, Instant)>,
    /// What follows on the history.
    live: Option<BoxStream<'static, Result<EventEnvelope, Rejection>>>,
    is_over: bool,
}

/// Events after a cursor: history at a pace, and then live ones. `only` where the reader is shown
/// no others than those of a type.
pub(crate) fn replayed(
    events: Arc<dyn Events>,
    filter: EventFilter,
    after: Option<Cursor>,
    speed: Speed,
    only: Option<String>,
) -> BoxStream<'static, Result<EventEnvelope, Rejection>> {
    let (ready, last, live, is_over) = (VecDeque::new(), None, None, false);
    let replay = Replay { events, filter, after, speed, only, ready, last, live, is_over };
    let next = |mut replay: Replay| async move {
        if replay.is_over {
            return None;
        }
        let event = replay.next().await.transpose()?;
        replay.is_over = event.is_err();
        Some((event, replay))
    };
    stream::unfold(replay, next).boxed()
}

impl Replay {
    async fn next(&mut self) -> Result<Option<EventEnvelope>, Rejection> {
        loop {
            if let Some(live) = &mut self.live {
                return live.next().await.transpose();
            }
            if let Some(event) = self.ready.pop_front() {
                if self.only.as_ref().is_none_or(|only| *only == event.event_type) {
                    self.wait_for(event.recorded_at).await;
                }
                return Ok(Some(event));
            }
            let page = self.events.page(self.filter.clone(), self.after, PAGE).await?;
            self.after = Some(page.cursor);
            if page.items.is_empty() && !page.more {
                self.live = Some(self.events.follow(self.filter.clone(), self.after).await?);
            }
            self.ready = page.items.into();
        }
    }

    /// Waits as long as it took from the last event to this one, at the replay's speed.
    async fn wait_for(&mut self, recorded_at: DateTime<Utc>) {
        if let Some((last, told)) = self.last {
            let gap = (recorded_at - last).to_std().unwrap_or_default();
            tokio::time::sleep_until(told + self.speed.of(gap).min(LONGEST)).await;
        }
        self.last = Some((recorded_at, Instant::now()));
    }
}
