//! The feed: the newest committed events in memory, and the signal that there are more.
//!
//! A storage publishes what it has committed; tails share the events instead of reading them
//! again. What has left the ring is read from the storage.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::watch;

use super::RecordedEvent;

/// Bounds of the ring.
#[derive(Debug, Clone, Copy)]
pub struct FeedLimits {
    /// Events that are kept.
    pub events: usize,
    /// Bytes of events that are kept.
    pub bytes: usize,
}

impl Default for FeedLimits {
    fn default() -> Self {
        Self { events: 16 * 1024, bytes: 16 * 1024 * 1024 }
    }
}

/// How far the journal is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Head {
    pub(super) position: u64,
    /// Nothing more will come.
    pub(super) closed: bool,
}

/// Recently committed events of one journal.
#[derive(Debug)]
pub struct Feed {
    limits: FeedLimits,
    ring: Mutex<Ring>,
    head: watch::Sender<Head>,
}

#[derive(Debug, Default)]
struct Ring {
    /// Without gaps.
    events: VecDeque<Arc<RecordedEvent>>,
    bytes: usize,
}

impl Feed {
    /// An empty feed of a journal whose newest event is at `head`.
    pub fn new(head: u64, limits: FeedLimits) -> Self {
        let head = watch::Sender::new(Head { position: head, closed: false });
        Self { limits, ring: Mutex::default(), head }
    }

    /// The position of the newest committed event.
    pub fn head(&self) -> u64 {
        self.head.borrow().position
    }

    /// Whether there is a tail.
    pub(super) fn is_followed(&self) -> bool {
        self.head.receiver_count() > 0
    }

    /// Takes committed events in position order, but for those that it knows, and wakes the tails.
    /// Events that don't follow the last one make the ring start again, so that it never hides a
    /// gap.
    pub fn publish(&self, events: Vec<Arc<RecordedEvent>>) {
        self.extend(&mut self.lock(), events);
    }

    /// The same, unless there are events before these that the feed hasn't got: then it takes
    /// nothing, and the answer is no.
    pub(super) fn follow(&self, events: Vec<Arc<RecordedEvent>>) -> bool {
        let mut ring = self.lock();
        let first = events.first().map_or(0, |event| event.position);
        if first > self.head() + 1 {
            return false;
        }
        self.extend(&mut ring, events);
        true
    }

    /// Goes on at a position without the events up to it: tails read them from the storage.
    pub(super) fn skip_to(&self, position: u64) {
        let mut ring = self.lock();
        if position > self.head() {
            *ring = Ring::default();
            self.head.send_modify(|head| head.position = position);
        }
    }

    /// The ring's lock also keeps publishers from overtaking each other with the head.
    fn extend(&self, ring: &mut Ring, events: Vec<Arc<RecordedEvent>>) {
        let known = self.head();
        let Some(last) = events.last().map(|event| event.position).filter(|last| *last > known)
        else {
            return;
        };
        for event in events.into_iter().filter(|event| event.position > known) {
            if ring.events.back().is_some_and(|back| back.position + 1 != event.position) {
                *ring = Ring::default();
            }
            ring.bytes += event.size();
            ring.events.push_back(event);
        }
        while ring.events.len() > self.limits.events || ring.bytes > self.limits.bytes {
            let Some(event) = ring.events.pop_front() else {
                break;
            };
            ring.bytes -= event.size();
        }
        self.head.send_modify(|head| head.position = last);
    }

    /// Says that nothing more will come.
    pub fn close(&self) {
        self.head.send_modify(|head| head.closed = true);
    }

    /// At most `limit` events after a position, or nothing where the ring begins later.
    pub(super) fn recent(&self, after: u64, limit: usize) -> Option<Vec<Arc<RecordedEvent>>> {
        let ring = self.lock();
        let first = ring.events.front()?.position;
        let skip = usize::try_from((after + 1).checked_sub(first)?).ok()?;
        if skip >= ring.events.len() {
            return None;
        }
        Some(ring.events.range(skip..).take(limit).cloned().collect())
    }

    pub(super) fn watch(&self) -> watch::Receiver<Head> {
        self.head.subscribe()
    }

    fn lock(&self) -> MutexGuard<'_, Ring> {
        self.ring.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use chrono::DateTime;
    use uuid::Uuid;

    use super::*;

    fn events(positions: std::ops::RangeInclusive<u64>) -> Vec<Arc<RecordedEvent>> {
        let event = |position| RecordedEvent {
            position,
            id: Uuid::nil(),
            aggregate_type: "thing".into(),
            aggregate_id: "a".into(),
            sequence: position,
            event_type: "thing.changed".into(),
            event_version: 1,
            workspace_id: "ws".into(),
            payload: Bytes::new(),
            metadata: Bytes::new(),
            recorded_at: DateTime::UNIX_EPOCH,
            redacted: None,
        };
        positions.map(|position| Arc::new(event(position))).collect()
    }

    fn recent(feed: &Feed, after: u64) -> Option<Vec<u64>> {
        let events = feed.recent(after, 100)?;
        Some(events.iter().map(|event| event.position).collect())
    }

    #[test]
    fn what_comes_from_two_sides_is_taken_once() {
        let feed = Feed::new(0, FeedLimits::default());
        assert!(feed.follow(events(1..=3)));
        feed.publish(events(2..=5));
        feed.publish(events(1..=4));
        assert!(feed.follow(events(6..=6)));
        assert_eq!(recent(&feed, 0), Some((1..=6).collect()));
        assert_eq!(feed.head(), 6);
    }

    #[test]
    fn what_follows_a_gap_has_to_wait() {
        let feed = Feed::new(0, FeedLimits::default());
        feed.publish(events(1..=2));
        assert!(!feed.follow(events(4..=5)), "3 is missing");
        assert_eq!((feed.head(), recent(&feed, 0)), (2, Some(vec![1, 2])));
        feed.publish(events(3..=5));
        assert_eq!(recent(&feed, 1), Some(vec![2, 3, 4, 5]));
    }

    #[test]
    fn the_ring_never_hides_a_gap() {
        let feed = Feed::new(0, FeedLimits::default());
        feed.publish(events(1..=3));
        feed.publish(events(5..=6));
        assert_eq!((recent(&feed, 3), recent(&feed, 4)), (None, Some(vec![5, 6])));
        feed.skip_to(9);
        assert_eq!((feed.head(), recent(&feed, 5)), (9, None));
        feed.skip_to(7);
        assert!(feed.follow(events(10..=10)));
        assert_eq!((feed.head(), recent(&feed, 9)), (10, Some(vec![10])));
    }
}
