//! Events as readers see them: pages of history, and streams of history and then live events.
//!
//! A stream is pulled: it holds one batch at most and reads on when its reader does, so a slow
//! reader costs the writer nothing. One that was live and falls too far behind is dropped with
//! its cursor. Values that moved out of an event are put back in up to 1 MiB an event; above
//! that, the envelope keeps their `{"$ref": "<hash>"}`.

use std::collections::VecDeque;
use std::sync::Arc;

use async_trait::async_trait;
use chassis::journal::{Journal, ReadError, RecordedEvent, Tail, TailError};
use domain::codec;
use domain::ids::EventId;
use domain::resource::Kind;
use futures::stream::{self, BoxStream, StreamExt};
use protocol::{Cursor, EventEnvelope, EventFilter, EventPage, Events, Rejection, RejectionKind};
use serde_json::Value;

use crate::payload::Blobs;
use crate::{Projections, refusal, resources, runs};

/// Events of a page.
const PAGE_EVENTS: u32 = 1_000;
/// Events that one page looks at before it answers with what it has.
const SCAN_EVENTS: usize = 20_000;
/// Events that a stream takes at once.
const STREAM_EVENTS: usize = 256;
/// Bytes of moved values that are put back into one envelope.
const SHOWN_BYTES: usize = 1024 * 1024;

#[async_trait]
impl Events for Projections {
    async fn page(
        &self,
        filter: EventFilter,
        after: Option<Cursor>,
        limit: u32,
    ) -> Result<EventPage, Rejection> {
        if !(1..=PAGE_EVENTS).contains(&limit) {
            return Err(refusal::limit(PAGE_EVENTS));
        }
        let head = self.journal.head().await.map_err(refusal::journal)?;
        let after = self.position_of(after, head)?;
        let limit = limit as usize;
        let (found, position) = match aggregate(&filter) {
            Some(aggregate) => self.page_of(&aggregate, &filter, after, head, limit).await?,
            None => self.page_of_all(&filter, after, limit).await?,
        };
        let mut items = Vec::with_capacity(found.len());
        for event in &found {
            items.push(self.envelope(event).await?);
        }
        let more = position < head;
        Ok(EventPage { items, cursor: self.cursor(position.max(after)), more })
    }

    async fn follow(
        &self,
        filter: EventFilter,
        after: Option<Cursor>,
    ) -> Result<BoxStream<'static, Result<EventEnvelope, Rejection>>, Rejection> {
        let head = self.journal.head().await.map_err(refusal::journal)?;
        let after = self.position_of(after, head)?;
        let mut follower = Follower {
            journal: Arc::clone(&self.journal),
            most_lag: self.config.reader_lag_events,
            history: None,
            tail: self.journal.tail(after),
            position: after,
            head,
            live: false,
            ready: VecDeque::new(),
            filter,
            ended: false,
        };
        if let Some(aggregate) = aggregate(&follower.filter)
            && after < head
        {
            let sequence = aggregate.sequence_at(self.journal.as_ref(), after).await?;
            // The history ends at the head of this moment, and the tail goes on right there.
            follower.history = Some(History { aggregate, sequence, until: head });
            follower.tail = self.journal.tail(head);
        }
        Ok(stream::unfold(follower, Follower::step).boxed())
    }

    async fn head(&self) -> Result<Cursor, Rejection> {
        Ok(self.cursor(self.journal.head().await.map_err(refusal::journal)?))
    }
}

impl Projections {
    fn cursor(&self, position: u64) -> Cursor {
        Cursor { epoch: self.journal.epoch(), position }
    }

    fn position_of(&self, cursor: Option<Cursor>, head: u64) -> Result<u64, Rejection> {
        let Some(cursor) = cursor else { return Ok(0) };
        if cursor.epoch != self.journal.epoch() {
            let message = "the cursor is of another store: start again without one";
            let kind = RejectionKind::Conflict;
            return Err(Rejection::new(kind, "cursor_of_another_store", message));
        }
        if cursor.position > head {
            let message = format!(
                "the cursor {cursor} lies beyond the last event: pass one on as it was given"
            );
            return Err(Rejection::new(RejectionKind::Malformed, "invalid_cursor", message));
        }
        Ok(cursor.position)
    }

    async fn envelope(&self, event: &RecordedEvent) -> Result<EventEnvelope, Rejection> {
        envelope(self.journal.as_ref(), event).await
    }

    /// A page out of one aggregate's events, and the position up to which it has looked.
    async fn page_of(
        &self,
        aggregate: &Aggregate,
        filter: &EventFilter,
        after: u64,
        head: u64,
        limit: usize,
    ) -> Result<(Vec<Arc<RecordedEvent>>, u64), Rejection> {
        let journal = self.journal.as_ref();
        let mut sequence = aggregate.sequence_at(journal, after).await?;
        let (mut found, mut looked_at) = (Vec::new(), 0);
        loop {
            let events = aggregate.load(journal, sequence, PAGE_EVENTS as usize).await?;
            let is_last = events.len() < PAGE_EVENTS as usize;
            for event in events {
                sequence = event.sequence;
                looked_at = event.position;
                if wants(filter, &event) {
                    found.push(Arc::new(event));
                }
                if found.len() == limit {
                    // The aggregate's next event decides whether there is more.
                    let rest = aggregate.load(journal, sequence, 1).await?;
                    let end = if rest.is_empty() { head } else { looked_at };
                    return Ok((found, end.max(looked_at)));
                }
            }
            if is_last {
                return Ok((found, head.max(looked_at)));
            }
        }
    }

    async fn page_of_all(
        &self,
        filter: &EventFilter,
        after: u64,
        limit: usize,
    ) -> Result<(Vec<Arc<RecordedEvent>>, u64), Rejection> {
        let (mut found, mut position, mut scanned) = (Vec::new(), after, 0);
        while scanned < SCAN_EVENTS {
            let asked = PAGE_EVENTS as usize;
            let events = self.journal.read(position, asked).await.map_err(refusal::journal)?;
            if events.is_empty() {
                break;
            }
            for event in events {
                position = event.position;
                scanned += 1;
                if wants(filter, &event) {
                    found.push(Arc::new(event));
                }
                if found.len() == limit {
                    return Ok((found, position));
                }
            }
        }
        Ok((found, position))
    }
}

/// A stream's place.
struct Follower {
    journal: Arc<dyn Journal>,
    filter: EventFilter,
    most_lag: u64,
    /// What is left of one aggregate's history, before the tail takes over.
    history: Option<History>,
    tail: Tail,
    /// The last event that was looked at.
    position: u64,
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
    async fn step(mut self) -> Option<(Result<EventEnvelope, Rejection>, Self)> {
        if self.ended {
            return None;
        }
        match self.next().await {
            Ok(Some(envelope)) => Some((Ok(envelope), self)),
            Ok(None) => None,
            Err(rejection) => {
                self.ended = true;
                Some((Err(rejection), self))
            }
        }
    }

    async fn next(&mut self) -> Result<Option<EventEnvelope>, Rejection> {
        loop {
            self.refuse_if_slow().await?;
            if let Some(event) = self.ready.pop_front() {
                self.position = event.position;
                self.live |= event.position >= self.head;
                return envelope(self.journal.as_ref(), &event).await.map(Some);
            }
            if self.history.is_some() {
                self.read_history().await?;
                continue;
            }
            let events = match self.tail.next(STREAM_EVENTS).await {
                Ok(events) => events,
                Err(TailError::Closed) => return Ok(None),
                Err(TailError::Read(error)) => return Err(refusal::journal(error)),
                Err(error @ TailError::Gap { .. }) => {
                    return Err(refusal::damaged("the journal", &error));
                }
            };
            if let Some(last) = events.last() {
                self.position = last.position;
            }
            let wanted = events.into_iter().filter(|event| wants(&self.filter, event));
            self.ready.extend(wanted);
        }
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
            if wants(&self.filter, &event) {
                self.ready.push_back(Arc::new(event));
            }
        }
        if is_last {
            self.position = history.until;
            self.history = None;
        }
        Ok(())
    }

    async fn refuse_if_slow(&mut self) -> Result<(), Rejection> {
        let head = self.journal.head().await.map_err(refusal::journal)?;
        let read_up_to = self.ready.front().map_or(self.position, |event| event.position - 1);
        let lag = head.saturating_sub(read_up_to);
        self.live |= lag == 0 && self.history.is_none();
        self.head = head;
        if !self.live || lag <= self.most_lag {
            return Ok(());
        }
        let cursor = Cursor { epoch: self.journal.epoch(), position: read_up_to };
        let message = format!("the reader is {lag} events behind, connect again after {cursor}");
        Err(Rejection::new(RejectionKind::Overloaded, "reader_too_slow", message))
    }
}

/// The aggregate that a filter names.
struct Aggregate {
    aggregate_type: String,
    id: String,
}

fn aggregate(filter: &EventFilter) -> Option<Aggregate> {
    let id = filter.aggregate_id.clone()?;
    let (prefix, _) = id.split_once('_')?;
    let by_prefix = || {
        let kind = Kind::ALL.into_iter().find(|kind| kind.id_prefix() == prefix);
        kind.map(Kind::as_str).or((prefix == runs::AGGREGATE).then_some(runs::AGGREGATE))
    };
    let aggregate_type =
        filter.aggregate_type.clone().or_else(|| by_prefix().map(str::to_owned))?;
    Some(Aggregate { aggregate_type, id })
}

impl Aggregate {
    async fn load(
        &self,
        journal: &dyn Journal,
        after: u64,
        limit: usize,
    ) -> Result<Vec<RecordedEvent>, Rejection> {
        let loaded = journal.load(&self.aggregate_type, &self.id, after, limit).await;
        loaded.map_err(refusal::journal)
    }

    /// The sequence of the aggregate's last event up to a position: positions grow with
    /// sequences, so it is found by halving.
    async fn sequence_at(&self, journal: &dyn Journal, position: u64) -> Result<u64, Rejection> {
        if position == 0 {
            return Ok(0);
        }
        // An aggregate has at most one event per position.
        let (mut known, mut beyond) = (0, position + 1);
        let mut step = 1;
        while known + 1 < beyond {
            let probe = (known + step).min(known + (beyond - known) / 2).max(known + 1);
            let event = self.load(journal, probe - 1, 1).await?.pop();
            match event {
                Some(event) if event.position <= position => {
                    known = probe;
                    step *= 2;
                }
                _ => beyond = probe,
            }
        }
        Ok(known)
    }
}

fn wants(filter: &EventFilter, event: &RecordedEvent) -> bool {
    let fits = |wanted: &Option<String>, is: &str| wanted.as_deref().is_none_or(|w| w == is);
    fits(&filter.workspace_id, &event.workspace_id)
        && fits(&filter.aggregate_type, &event.aggregate_type)
        && fits(&filter.aggregate_id, &event.aggregate_id)
        && fits(&filter.event_type, &event.event_type)
}

async fn envelope(
    journal: &dyn Journal,
    event: &RecordedEvent,
) -> Result<EventEnvelope, Rejection> {
    let what = format!("the event at position {}", event.position);
    let payload = shown(journal, event).await.map_err(refusal::journal)?;
    let mut payload = payload.map_err(|error| refusal::damaged(&what, &error))?;
    hide_secrets(event, &mut payload);
    let metadata = if event.metadata.is_empty() {
        Value::Null
    } else {
        serde_json::from_slice(&event.metadata).map_err(|e| refusal::damaged(&what, &e))?
    };
    Ok(EventEnvelope {
        id: EventId::new(event.id).to_string(),
        position: event.position,
        cursor: Cursor { epoch: journal.epoch(), position: event.position },
        aggregate_type: event.aggregate_type.to_string(),
        aggregate_id: event.aggregate_id.to_string(),
        sequence: event.sequence,
        event_type: event.event_type.to_string(),
        event_version: event.event_version,
        workspace_id: event.workspace_id.to_string(),
        payload,
        metadata,
        recorded_at: event.recorded_at,
    })
}

async fn shown(
    journal: &dyn Journal,
    event: &RecordedEvent,
) -> Result<Result<Value, codec::DecodeError>, ReadError> {
    let blobs = Blobs::fetch(journal, [event.payload.as_ref()]).await?;
    let fits = blobs.size() <= SHOWN_BYTES;
    Ok(codec::shown(&event.payload, &|hash| if fits { blobs.get(hash) } else { None }))
}

fn hide_secrets(event: &RecordedEvent, payload: &mut Value) {
    if &*event.aggregate_type == Kind::ApiKey.as_str()
        && let Some(spec) = payload.pointer_mut("/spec/spec")
    {
        resources::hide_secrets(Kind::ApiKey, spec);
    }
}
