//! Our journal as a cqrs-es repository: a commit is one append, and says where it ended up.

use std::sync::Arc;

use bytes::Bytes;
use chassis::clock::Clock;
use chassis::journal::{Append, AppendError, InboxEntry, Journal};
use chrono::{DateTime, Utc};
use cqrs_es::Aggregate;
use cqrs_es::persist::{
    PersistedEventRepository, PersistenceError, ReplayStream, SerializedEvent, SerializedSnapshot,
};
use domain::resource::Event;
use protocol::command::Receipt;
use serde_json::{Value, json};

use crate::store::inbox::{self, Remembered};
use crate::store::{Fault, Seen, Trace, Writes, payload, postgres};

/// The journal for one execution of one command.
pub(crate) struct Repository {
    writes: Writes,
    pub(crate) journal: Arc<dyn Journal>,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) workspace_id: Arc<str>,
    /// See [`crate::store::metadata`].
    pub(crate) metadata: Bytes,
    pub(crate) at: DateTime<Utc>,
    /// Under which key the answer is kept.
    pub(crate) remembered: Remembered,
    trace: Arc<Trace>,
}

impl Repository {
    /// A repository for one execution.
    pub(crate) fn new(
        writes: Writes,
        journal: Arc<dyn Journal>,
        clock: Arc<dyn Clock>,
        workspace_id: Arc<str>,
        metadata: Bytes,
        at: DateTime<Utc>,
        remembered: Remembered,
    ) -> Self {
        let trace = Arc::default();
        Self { writes, journal, clock, workspace_id, metadata, at, remembered, trace }
    }

    pub(super) fn trace(&self) -> Arc<Trace> {
        Arc::clone(&self.trace)
    }

    fn append_of<A: Aggregate>(&self, events: &[SerializedEvent]) -> Result<Append, Fault> {
        let (Some(first), Some(last)) = (events.first(), events.last()) else {
            return Err(Fault::Append(AppendError::TooLarge));
        };
        let mut payloads = Vec::new();
        let mut new_events = Vec::with_capacity(events.len());
        for event in events {
            let event: Event = serde_json::from_value(event.payload.clone())
                .map_err(|error| Fault::Damaged(error.to_string()))?;
            let encoded = payload::encode(&event, &self.workspace_id)?;
            let (name, version) = (event.event_type(), event.event_version());
            let (new, values) = payload::new_event(&*self.clock, name, version, encoded);
            payloads.extend(values);
            new_events.push(new);
        }
        let receipt = Receipt {
            id: last.aggregate_id.clone(),
            version: last.sequence as u64,
            position: 0,
            created: self.trace.decided.get().is_some_and(|decided| decided.created),
            at: self.at,
            ..Receipt::default()
        };
        Ok(Append {
            aggregate_type: A::TYPE.into(),
            aggregate_id: first.aggregate_id.as_str().into(),
            expected_sequence: first.sequence as u64 - 1,
            workspace_id: Arc::clone(&self.workspace_id),
            metadata: self.metadata.clone(),
            recorded_at: self.at,
            events: new_events,
            inbox: vec![InboxEntry {
                key: self.remembered.key.clone(),
                fingerprint: self.remembered.fingerprint.clone(),
                answer: inbox::encode(&receipt),
            }],
            payloads,
            ..Append::default()
        })
    }
}

impl PersistedEventRepository for Repository {
    async fn get_events<A: Aggregate>(
        &self,
        aggregate_id: &str,
    ) -> Result<Vec<SerializedEvent>, PersistenceError> {
        let history =
            payload::history(&*self.journal, A::TYPE, aggregate_id, 0).await.map_err(failed)?;
        let seen =
            history.iter().map(|(row, _)| Seen { position: row.position, at: row.recorded_at });
        // One execution loads once; a second load would see the same or conflict on commit.
        let _ = self.trace.seen.set(seen.collect());
        history
            .into_iter()
            .map(|(row, event)| {
                Ok(SerializedEvent::new(
                    aggregate_id.to_owned(),
                    usize::try_from(row.sequence).unwrap_or(usize::MAX),
                    A::TYPE.to_owned(),
                    event.event_type().to_owned(),
                    event.event_version().to_string(),
                    serde_json::to_value(&event)?,
                    json!({}),
                ))
            })
            .collect()
    }

    async fn get_last_events<A: Aggregate>(
        &self,
        aggregate_id: &str,
        last_sequence: usize,
    ) -> Result<Vec<SerializedEvent>, PersistenceError> {
        let mut events = self.get_events::<A>(aggregate_id).await?;
        events.retain(|event| event.sequence > last_sequence);
        Ok(events)
    }

    /// There are none: the plain event store doesn't ask.
    async fn get_snapshot<A: Aggregate>(
        &self,
        _aggregate_id: &str,
    ) -> Result<Option<SerializedSnapshot>, PersistenceError> {
        Ok(None)
    }

    async fn persist<A: Aggregate>(
        &self,
        events: &[SerializedEvent],
        _snapshot_update: Option<(String, Value, usize)>,
    ) -> Result<(), PersistenceError> {
        if events.is_empty() {
            return Ok(());
        }
        let append = self.append_of::<A>(events).map_err(failed)?;
        let appended = match &self.writes {
            Writes::Journal => self.journal.append(append).await,
            Writes::Postgres(journal) => postgres::persist::<A>(journal, append).await,
        };
        match appended {
            Ok(appended) => {
                let _ = self.trace.appended.set(appended.last_position);
                Ok(())
            }
            Err(AppendError::Conflict { .. }) => Err(PersistenceError::OptimisticLockError),
            Err(AppendError::Duplicate(recalled)) => {
                let _ = self.trace.duplicate.set(recalled);
                Err(PersistenceError::OptimisticLockError)
            }
            Err(error) => Err(failed(Fault::Append(error))),
        }
    }

    async fn stream_events<A: Aggregate>(
        &self,
        aggregate_id: &str,
    ) -> Result<ReplayStream, PersistenceError> {
        let events = self.get_events::<A>(aggregate_id).await?;
        let (mut feed, stream) = ReplayStream::new(events.len().max(1));
        for event in events {
            feed.push(Ok(event)).await?;
        }
        Ok(stream)
    }

    /// Refused: readers of all events follow the journal by position.
    async fn stream_all_events<A: Aggregate>(&self) -> Result<ReplayStream, PersistenceError> {
        let message = "all events are read from the journal by position";
        Err(failed(Fault::Damaged(message.to_owned())))
    }
}

fn failed(fault: Fault) -> PersistenceError {
    PersistenceError::ConnectionError(Box::new(fault))
}
