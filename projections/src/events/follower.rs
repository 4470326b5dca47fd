//! A stream of events: history and then live ones.
//!
//! It is pulled: it holds one batch at most and reads on when its reader does, so a slow reader
//! costs the writer nothing. One that was live and falls too far behind is dropped with its
//! cursor.

use std::collections::VecDeque;
use std::sync::Arc;

use chassis::journal::{Journal, RecordedEvent, Tail, TailError};
use futures::stream::{self, BoxStream, StreamExt};
use protocol::{Cursor, EventEnvelope, EventFilter, Rejection, RejectionKind};

use super::{Aggregate, Origins, SHOWN_BYTES, aggregate, shown, wanted};
use crate::refusal;

/// Events that a stream takes at once.
const STREAM_EVENTS: usize = 256;

/// How much of a stream is handed on at once, where it is there.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Portion {
    pub(crate) events: usize,
    /// After so many bytes a portion ends.
    pub(crate) bytes: usize,
}

impl Portion {
    pub(crate) const ONE: Self = Self { events: 1, bytes: 0 };
}

/// What a stream reads.
pub(super) struct Sources {
    pub(super) journal: Arc<dyn Journal>,
    pub(super) origins: Arc<Origins>,
}

/// A stream's place.
pub(super) struct Follower {
    journal: Arc<dyn Journal>,
    origins: Arc<Origins>,
    filter: EventFilter,
    most_lag: u64,
    portion: Portion,
    /// What is left of one aggregate's history, before the tail takes over.
    history: Option<History>,
    tail: Tail,
    /// Events up to here were handed on, or are not wanted.
    position: u64,
    /// The same, once `ready` is handed on.
    looked_at: u64,
    /// The journal's head when it was last looked at.
    head: u64,
    /// It has once been at the journal's head.
    live: bool,
    ready: VecDeque<Arc<RecordedEvent>>,
    ended: bool,
}

struct History {
    aggregate: Aggregate,
    sequence: u64,
    until: u64,
}

impl Follower {
    pub(super) async fn start(
        sources: Sources,
        filter: EventFilter,
        after: u64,
        head: u64,
        most_lag: u64,
        portion: Portion,
    ) -> Result<Self, Rejection> {
        let Sources { journal, origins } = sources;
        let mut history = None;
        let mut tail = journal.tail(after);
        if let Some(aggregate) = aggregate(&filter)
            && after < head
        {
            let sequence = aggregate.sequence_at(journal.as_ref(), after).await?;
            // The history ends at the head of this moment, and the tail goes on right there.
            history = Some(History { aggregate, sequence, until: head });
            tail = journal.tail(head);
        }
        Ok(Self {
            journal,
            origins,
            filter,
            most_lag,
            portion,
            history,
            tail,
            position: after,
            looked_at: after,
            head,
            live: false,
            ready: VecDeque::new(),
            ended: false,
        })
    }

    pub(super) fn stream(self) -> BoxStream<'static, Result<Vec<EventEnvelope>, Rejection>> {
        stream::unfold(self, Self::step).boxed()
    }

    async fn step(mut self) -> Option<(Result<Vec<EventEnvelope>, Rejection>, Self)> {
        if self.ended {
            return None;
        }
        match self.next().await {
            Ok(portion) if portion.is_empty() => None,
            Ok(portion) => Some((Ok(portion), self)),
            Err(rejection) => {
                self.ended = true;
                Some((Err(rejection), self))
            }
        }
    }

    /// The next portion; an empty one at the end.
    async fn next(&mut self) -> Result<Vec<EventEnvelope>, Rejection> {
        loop {
            if !self.ready.is_empty() {
                return self.hand_on().await;
            }
            self.position = self.looked_at;
            self.refuse_if_slow()?;
            if self.history.is_some() {
                self.read_history().await?;
                continue;
            }
            let events = match self.tail.next(STREAM_EVENTS).await {
                Ok(events) => events,
                Err(TailError::Closed) => return Ok(Vec::new()),
                Err(TailError::Read(error)) => return Err(refusal::journal(error)),
                Err(error @ TailError::Gap { .. }) => {
                    return Err(refusal::damaged("the journal", &error));
                }
            };
            if let Some(last) = events.last() {
                self.looked_at = last.position;
            }
            for event in events {
                if self.wants(&event).await? {
                    self.ready.push_back(event);
                }
            }
        }
    }

    /// What is ready, as much as a portion holds.
    async fn hand_on(&mut self) -> Result<Vec<EventEnvelope>, Rejection> {
        let (mut portion, mut bytes) = (Vec::new(), 0);
        while portion.len() < self.portion.events.max(1)
            && (portion.is_empty() || bytes < self.portion.bytes)
            && let Some(event) = self.ready.front()
        {
            let (journal, epoch) = (self.journal.as_ref(), self.journal.epoch());
            let shown = shown(journal, epoch, event, SHOWN_BYTES).await?;
            self.position = event.position;
            self.live |= event.position >= self.head;
            self.ready.pop_front();
            bytes += shown.bytes;
            portion.push(shown.envelope);
        }
        Ok(portion)
    }

    async fn read_history(&mut self) -> Result<(), Rejection> {
        let Some(history) = &mut self.history else { return Ok(()) };
        let journal = self.journal.as_ref();
        let events = history.aggregate.load(journal, history.sequence, STREAM_EVENTS).await?;
        let mut is_last = events.len() < STREAM_EVENTS;
        for event in events {
            if event.position > history.until {
                is_last = true;
                break;
            }
            history.sequence = event.sequence;
            self.looked_at = event.position;
            if wanted(journal, &self.origins, &self.filter, &event).await? {
                self.ready.push_back(Arc::new(event));
            }
        }
        if is_last {
            self.looked_at = history.until;
            self.history = None;
        }
        Ok(())
    }

    async fn wants(&self, event: &RecordedEvent) -> Result<bool, Rejection> {
        wanted(self.journal.as_ref(), &self.origins, &self.filter, event).await
    }

    /// Called when nothing is ready. The lag is what the tail knows: asking the journal would cost
    /// a query for every stream and commit.
    fn refuse_if_slow(&mut self) -> Result<(), Rejection> {
        self.head = self.tail.position() + self.tail.lag();
        let lag = self.head.saturating_sub(self.position);
        self.live |= lag == 0 && self.history.is_none();
        if !self.live || lag <= self.most_lag {
            return Ok(());
        }
        let cursor = Cursor { epoch: self.journal.epoch(), position: self.position };
        let message = format!("the reader is {lag} events behind, connect again after {cursor}");
        Err(Rejection::new(RejectionKind::Overloaded, "reader_too_slow", message))
    }
}
