//! An experiment's events: how it stands by them, and what is added.

use chassis::clock::Clock;
use chassis::journal::{Append, Appended, Journal, ReadError};
use chrono::{DateTime, Utc};
use domain::codec;
use domain::experiment::{AGGREGATE, Event, State};
use domain::ids::{ExperimentId, WorkspaceId};
use protocol::{Receipt, Rejection, RejectionKind, shard_of_experiment};

use super::{internal, progress};
use crate::coordinator::unavailable;
use crate::store::{Fault, payload};

/// Events that are loaded at a time.
const PAGE: usize = 500;

/// An experiment's folded events, and where they end.
pub(super) struct Log {
    pub(super) state: State,
    pub(super) sequence: u64,
    position: u64,
    at: DateTime<Utc>,
}

impl Log {
    pub(super) async fn load(journal: &dyn Journal, id: ExperimentId) -> Result<Self, Rejection> {
        let mut log =
            Self { state: State::default(), sequence: 0, position: 0, at: DateTime::UNIX_EPOCH };
        let id = id.to_string();
        loop {
            let rows = journal.load(AGGREGATE, &id, log.sequence, PAGE).await.map_err(away)?;
            for row in &rows {
                let event: Event = payload::decode(journal, row).await.map_err(unreadable)?;
                log.state.evolve(&event);
                (log.sequence, log.position, log.at) =
                    (row.sequence, row.position, row.recorded_at);
            }
            if rows.len() < PAGE {
                return Ok(log);
            }
        }
    }

    /// The append of events that were decided on what is here, under an epoch of its shard.
    pub(super) fn append(
        &self,
        clock: &dyn Clock,
        (id, epoch): (ExperimentId, u64),
        workspace_id: WorkspaceId,
        events: &[Event],
    ) -> Result<Append, Rejection> {
        let (mut new_events, mut payloads) = (Vec::with_capacity(events.len()), Vec::new());
        let mut after = self.state.clone();
        for event in events {
            after.evolve(event);
            let encoded = codec::encode(event, workspace_id).map_err(|error| {
                Rejection::new(RejectionKind::Invalid, "unstorable", error.to_string())
            })?;
            let (name, version) = (event.event_type(), event.event_version());
            let (event, values) = payload::new_event(clock, name, version, encoded);
            new_events.push(event);
            payloads.extend(values);
        }
        Ok(Append {
            aggregate_type: AGGREGATE.into(),
            aggregate_id: id.to_string().into(),
            expected_sequence: self.sequence,
            workspace_id: workspace_id.to_string().into(),
            recorded_at: clock.now(),
            events: new_events,
            payloads,
            open: Some(after.is_open()),
            shard: shard_of_experiment(id),
            epoch: (epoch > 0).then_some(epoch),
            ..Append::default()
        })
    }

    /// Folds what was appended.
    pub(super) fn wrote(&mut self, events: &[Event], appended: &Appended, at: DateTime<Utc>) {
        events.iter().for_each(|event| self.state.evolve(event));
        (self.sequence, self.position, self.at) =
            (appended.last_sequence, appended.last_position, at);
    }

    pub(super) fn receipt(&self, id: ExperimentId, created: bool) -> Receipt {
        let begun = self.state.begun();
        Receipt {
            id: id.to_string(),
            version: self.sequence,
            position: self.position,
            created,
            at: self.at,
            experiment: begun.map(|begun| progress(begun, self.position)),
            ..Receipt::default()
        }
    }
}

pub(super) fn away(error: ReadError) -> Rejection {
    unreadable(Fault::Read(error))
}

fn unreadable(fault: Fault) -> Rejection {
    match fault {
        Fault::Read(ReadError::Unavailable(_)) => {
            unavailable("the journal is unavailable, try again")
        }
        fault => {
            tracing::error!(reason = ?fault, "an experiment can't be read");
            internal("the experiment's events can't be read, the log says where they are damaged")
        }
    }
}
