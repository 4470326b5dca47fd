//! Resources' events on PostgreSQL, written by postgres-es.
//!
//! Its rows come without a position; the events table's trigger gives them one under the head lock,
//! and moves what belongs elsewhere out of the metadata: the event's id, workspace and time into
//! columns, the answer to keep into the inbox. So a commit of postgres-es is one append, as ours.

use std::sync::Arc;

use chassis::journal::{Append, AppendError, Appended, Journal, PostgresJournal, RecordedEvent};
use cqrs_es::Aggregate;
use cqrs_es::persist::{PersistedEventRepository, PersistenceError, SerializedEvent};
use postgres_es::PostgresEventRepository;
use serde_json::{Map, Value};

/// Where the events of resources are written.
#[derive(Clone)]
pub enum Writes {
    /// By the journal itself.
    Journal,
    /// By postgres-es, into this journal's table.
    Postgres(Arc<PostgresJournal>),
}

/// Has an append of one resource written by postgres-es.
pub(super) async fn persist<A: Aggregate>(
    journal: &PostgresJournal,
    mut append: Append,
) -> Result<Appended, AppendError> {
    append.check_limits()?;
    // Stored under their hash, so that it does no harm where the events then aren't written.
    journal.keep(std::mem::take(&mut append.payloads)).await?;
    let events = serialized::<A>(&append)?;
    let repository = PostgresEventRepository::new(journal.database().pool().clone());
    match repository.persist::<A>(&events, None).await {
        Ok(()) => appended::<A>(journal, &append).await,
        Err(PersistenceError::OptimisticLockError) => Err(AppendError::Conflict {
            aggregate_id: append.aggregate_id,
            expected: append.expected_sequence,
        }),
        Err(error) => Err(AppendError::Unavailable(error.to_string().into())),
    }
}

/// The rows, in the form of cqrs-es.
fn serialized<A: Aggregate>(append: &Append) -> Result<Vec<SerializedEvent>, AppendError> {
    let parsed = |bytes: &[u8]| -> Result<Value, AppendError> {
        serde_json::from_slice(bytes)
            .map_err(|error| AppendError::Unavailable(error.to_string().into()))
    };
    let common: Map<String, Value> = match parsed(&append.metadata)? {
        Value::Object(members) => members,
        _ => Map::new(),
    };
    let mut rows = Vec::with_capacity(append.events.len());
    for (event, sequence) in append.events.iter().zip(append.expected_sequence + 1..) {
        let mut metadata = common.clone();
        let mut set = |key: &str, value: String| metadata.insert(key.to_owned(), value.into());
        set("event_id", event.id.to_string());
        set("workspace_id", append.workspace_id.to_string());
        set("recorded_at", append.recorded_at.to_rfc3339());
        if sequence == append.expected_sequence + append.events.len() as u64
            && let Some(entry) = append.inbox.first()
        {
            set("inbox_key", entry.key.clone());
            set("inbox_fingerprint", entry.fingerprint.clone());
            set("inbox_answer", String::from_utf8_lossy(&entry.answer).into_owned());
        }
        rows.push(SerializedEvent::new(
            append.aggregate_id.to_string(),
            usize::try_from(sequence).unwrap_or(usize::MAX),
            A::TYPE.to_owned(),
            event.event_type.to_string(),
            event.event_version.to_string(),
            parsed(&event.payload)?,
            Value::Object(metadata),
        ));
    }
    Ok(rows)
}

/// Where the events ended up: postgres-es doesn't say.
async fn appended<A: Aggregate>(
    journal: &PostgresJournal,
    append: &Append,
) -> Result<Appended, AppendError> {
    let written =
        journal.load(A::TYPE, &append.aggregate_id, append.expected_sequence, append.events.len());
    let written = written.await.map_err(|error| AppendError::Unavailable(error.to_string().into()));
    let written: Vec<RecordedEvent> = written?;
    match (written.first(), written.last()) {
        (Some(first), Some(last)) => {
            journal.hear(last.position);
            Ok(Appended {
                first_position: first.position,
                last_position: last.position,
                last_sequence: last.sequence,
            })
        }
        _ => Err(AppendError::Unavailable("the events can't be found after their commit".into())),
    }
}
