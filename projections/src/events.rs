//! Events as readers see them: pages of history, and streams of history and then live events.
//!
//! Values that moved out of an event are put back in up to 1 MiB an event; above that, the envelope
//! keeps their `{"$ref": "<hash>"}`.

use std::sync::Arc;

use async_trait::async_trait;
use chassis::journal::{Journal, ReadError, RecordedEvent};
use domain::codec;
use domain::ids::EventId;
use domain::resource::Kind;
use domain::{experiment, trigger};
use futures::stream::{self, BoxStream, StreamExt};
use protocol::{Cursor, EventEnvelope, EventFilter, EventPage, Events, Rejection, RejectionKind};
use serde_json::Value;

use crate::histories::Past;
use crate::payload::Blobs;
use crate::{Projections, refusal, resources, runs};

mod follower;
mod origins;

use follower::Follower;
pub(crate) use follower::Portion;
pub(crate) use origins::Origins;

/// Events of a page.
const PAGE_EVENTS: u32 = 1_000;
/// Events that one page looks at before it answers with what it has.
const SCAN_EVENTS: usize = 20_000;
/// Bytes of events after which a page ends, whatever its limit. With one more event, and as JSON, a
/// page stays far below the 16 MiB that a bus carries.
const PAGE_BYTES: usize = 8 * 1024 * 1024;
/// Bytes of moved values that are put back into one envelope.
pub(crate) const SHOWN_BYTES: usize = 1024 * 1024;
/// Bytes of an envelope beside its event's.
const ENVELOPE_BYTES: usize = 512;

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
        let (mut items, mut bytes, mut position) = (Vec::new(), 0, position.max(after));
        for event in &found {
            let shown = self.shown(event, SHOWN_BYTES).await?;
            bytes += shown.bytes;
            if bytes > PAGE_BYTES && !items.is_empty() {
                position = event.position - 1;
                break;
            }
            items.push(shown.envelope);
        }
        Ok(EventPage { items, cursor: self.cursor(position), more: position < head })
    }

    async fn follow(
        &self,
        filter: EventFilter,
        after: Option<Cursor>,
    ) -> Result<BoxStream<'static, Result<EventEnvelope, Rejection>>, Rejection> {
        let portions = self.portions(filter, after, Portion::ONE).await?;
        let singly = portions.flat_map(|portion| {
            stream::iter(match portion {
                Ok(events) => events.into_iter().map(Ok).collect(),
                Err(rejection) => vec![Err(rejection)],
            })
        });
        Ok(singly.boxed())
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

    /// Like [`Events::follow`], in portions of what is there, of at least one event each.
    pub(crate) async fn portions(
        &self,
        mut filter: EventFilter,
        after: Option<Cursor>,
        portion: Portion,
    ) -> Result<BoxStream<'static, Result<Vec<EventEnvelope>, Rejection>>, Rejection> {
        // What is recorded of a run elsewhere has its id too.
        if let Some(Aggregate { aggregate_type, .. }) = aggregate(&filter) {
            filter.aggregate_type = Some(aggregate_type);
        }
        let head = self.journal.head().await.map_err(refusal::journal)?;
        let after = self.position_of(after, head)?;
        let (journal, origins) = (Arc::clone(&self.journal), Arc::clone(&self.origins));
        let most_lag = self.config.reader_lag_events;
        let sources = follower::Sources { journal, origins };
        let follower = Follower::start(sources, filter, after, head, most_lag, portion).await?;
        Ok(follower.stream())
    }

    async fn wanted(&self, filter: &EventFilter, event: &RecordedEvent) -> Result<bool, Rejection> {
        wanted(self.journal.as_ref(), &self.origins, filter, event).await
    }

    pub(crate) async fn shown(
        &self,
        event: &RecordedEvent,
        put_back: usize,
    ) -> Result<Shown, Rejection> {
        shown(self.journal.as_ref(), self.journal.epoch(), event, put_back).await
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
                if self.wanted(filter, &event).await? {
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
                if self.wanted(filter, &event).await? {
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
        match prefix {
            "run" => Some(runs::AGGREGATE),
            "trg" => Some(trigger::AGGREGATE),
            "exp" => Some(experiment::AGGREGATE),
            _ => kind.map(Kind::as_str),
        }
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

/// Whether an event is wanted; what needs the journal is asked last.
async fn wanted(
    journal: &dyn Journal,
    origins: &Origins,
    filter: &EventFilter,
    event: &RecordedEvent,
) -> Result<bool, Rejection> {
    if !wants(filter, event) {
        return Ok(false);
    }
    if !filter.labels.is_empty() && !origins::has_labels(&event.aggregate_type) {
        return Ok(false);
    }
    if filter.project_id.is_none() && filter.workflow_id.is_none() && filter.labels.is_empty() {
        return Ok(true);
    }
    origins.fits(journal, filter, event).await.map_err(refusal::journal)
}

fn wants(filter: &EventFilter, event: &RecordedEvent) -> bool {
    let fits = |wanted: &Option<String>, is: &str| wanted.as_deref().is_none_or(|w| w == is);
    fits(&filter.workspace_id, &event.workspace_id)
        && fits(&filter.aggregate_type, &event.aggregate_type)
        && fits(&filter.aggregate_id, &event.aggregate_id)
        && fits(&filter.event_type, &event.event_type)
}

/// An event as readers see it.
pub(crate) struct Shown {
    pub(crate) envelope: EventEnvelope,
    /// Bytes that it takes, roughly.
    pub(crate) bytes: usize,
}

/// Shows an event, with its moved values put back where they have no more than so many bytes.
pub(crate) async fn shown(
    past: &(impl Past + ?Sized),
    epoch: u32,
    event: &RecordedEvent,
    put_back: usize,
) -> Result<Shown, Rejection> {
    let what = format!("the event at position {}", event.position);
    let (payload, blob_bytes) = payload(past, event, put_back).await.map_err(refusal::journal)?;
    let mut payload = payload.map_err(|error| refusal::damaged(&what, &error))?;
    hide_secrets(event, &mut payload);
    let metadata = if event.metadata.is_empty() {
        Value::Null
    } else {
        serde_json::from_slice(&event.metadata).map_err(|e| refusal::damaged(&what, &e))?
    };
    let envelope = EventEnvelope {
        id: EventId::new(event.id).to_string(),
        position: event.position,
        cursor: Cursor { epoch, position: event.position },
        aggregate_type: event.aggregate_type.to_string(),
        aggregate_id: event.aggregate_id.to_string(),
        sequence: event.sequence,
        event_type: event.event_type.to_string(),
        event_version: event.event_version,
        workspace_id: event.workspace_id.to_string(),
        dropped: event.redacted.is_some(),
        payload,
        metadata,
        recorded_at: event.recorded_at,
    };
    Ok(Shown { envelope, bytes: event.size() + blob_bytes + ENVELOPE_BYTES })
}

/// A payload, and the bytes of what was put back into it.
async fn payload(
    past: &(impl Past + ?Sized),
    event: &RecordedEvent,
    put_back: usize,
) -> Result<(Result<Value, codec::DecodeError>, usize), ReadError> {
    if put_back == 0 {
        return Ok((codec::shown(&event.payload, &|_| None), 0));
    }
    let blobs = Blobs::fetch(past, [event.payload.as_ref()]).await?;
    let bytes = Some(blobs.size()).filter(|bytes| *bytes <= put_back);
    let found = |hash: &str| if bytes.is_some() { blobs.get(hash) } else { None };
    Ok((codec::shown(&event.payload, &found), bytes.unwrap_or(0)))
}

/// Whether readers see a payload as it is stored, byte for byte.
pub(crate) fn is_shown_as_stored(event: &RecordedEvent) -> bool {
    &*event.aggregate_type != Kind::ApiKey.as_str() && codec::is_plain(&event.payload)
}

fn hide_secrets(event: &RecordedEvent, payload: &mut Value) {
    if &*event.aggregate_type == Kind::ApiKey.as_str()
        && let Some(spec) = payload.pointer_mut("/spec/spec")
    {
        resources::hide_secrets(Kind::ApiKey, spec);
    }
}
