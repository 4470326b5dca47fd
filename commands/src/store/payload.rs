//! Events as the journal takes and gives them, with the values that stand apart from them.

use std::collections::HashMap;
use std::sync::Arc;

use chassis::clock::Clock;
use chassis::journal::{Journal, NewEvent, Payload, ReadError, RecordedEvent};
use domain::codec::{self, Encoded, Stored};
use domain::ids::WorkspaceId;
use domain::resource::{self, Event};

use crate::store::Fault;

/// Events that are loaded at a time.
const PAGE: usize = 500;

/// A new event of a type and a version, and the values that moved out of it.
pub(crate) fn new_event(
    clock: &dyn Clock,
    event_type: impl Into<Arc<str>>,
    event_version: u32,
    encoded: Encoded,
) -> (NewEvent, Vec<Payload>) {
    let Encoded { payload, blobs } = encoded;
    let event = NewEvent {
        id: clock.uuid_v7(),
        event_type: event_type.into(),
        event_version,
        payload: payload.into(),
        recorded_at: None,
    };
    let value =
        |(hash, bytes): (String, Vec<u8>)| Payload { hash: hash.into(), bytes: bytes.into() };
    (event, blobs.into_iter().map(value).collect())
}

/// The values that a stored payload refers to.
pub(crate) async fn values(
    journal: &dyn Journal,
    stored: &[u8],
) -> Result<Vec<Payload>, ReadError> {
    let hashes: Vec<Arc<str>> = codec::refs(stored).into_iter().map(Arc::from).collect();
    match hashes.is_empty() {
        true => Ok(Vec::new()),
        false => journal.payloads(&hashes).await,
    }
}

/// A resource's event as it is stored.
pub(crate) fn encode(event: &Event, workspace: &str) -> Result<Encoded, Fault> {
    let workspace: WorkspaceId =
        workspace.parse().map_err(|error| Fault::Damaged(format!("{error}")))?;
    storable(event)?;
    codec::encode(event, workspace).map_err(refused)
}

/// Refuses what the journal couldn't give back as it was written.
fn storable(event: &Event) -> Result<(), Fault> {
    let mut value =
        serde_json::to_value(event).map_err(|error| Fault::Damaged(error.to_string()))?;
    codec::normalise(&mut value).map_err(refused)
}

fn refused(error: codec::EncodeError) -> Fault {
    Fault::Refused(resource::Error::Invalid { pointer: String::new(), message: error.to_string() })
}

/// The events of a resource after a sequence, in order.
pub(crate) async fn history(
    journal: &dyn Journal,
    aggregate_type: &str,
    aggregate_id: &str,
    after: u64,
) -> Result<Vec<(RecordedEvent, Event)>, Fault> {
    let mut events = Vec::new();
    let mut last = after;
    loop {
        let rows =
            journal.load(aggregate_type, aggregate_id, last, PAGE).await.map_err(Fault::Read)?;
        let full = rows.len() == PAGE;
        for row in rows {
            if row.sequence != last + 1 {
                let message = format!("{aggregate_id} lacks its event {}", last + 1);
                return Err(Fault::Damaged(message));
            }
            last = row.sequence;
            let event = decode(journal, &row).await?;
            events.push((row, event));
        }
        if !full {
            return Ok(events);
        }
    }
}

/// The event of a resource with one sequence.
pub(crate) async fn event(
    journal: &dyn Journal,
    aggregate_type: &str,
    aggregate_id: &str,
    sequence: u64,
) -> Result<Option<Event>, Fault> {
    let Some(after) = sequence.checked_sub(1) else {
        return Ok(None);
    };
    let rows = journal.load(aggregate_type, aggregate_id, after, 1).await.map_err(Fault::Read)?;
    match rows.first() {
        Some(row) => decode(journal, row).await.map(Some),
        None => Ok(None),
    }
}

/// An event of any family, stored values fetched.
pub(crate) async fn decode<E: Stored>(
    journal: &dyn Journal,
    row: &RecordedEvent,
) -> Result<E, Fault> {
    let values = values(journal, &row.payload).await.map_err(Fault::Read)?;
    let values: HashMap<_, _> = values.into_iter().map(|one| (one.hash, one.bytes)).collect();
    let blobs = |hash: &str| values.get(hash).map(|bytes| bytes.to_vec());
    codec::decode(&row.event_type, row.event_version, &row.payload, &blobs)
        .map_err(|error| Fault::Damaged(format!("position {}: {error}", row.position)))
}
