//! Values that stood apart from events: those that nothing refers to any more are dropped.
//!
//! Archiving notes what events of a run have referred to. Others may refer to the same value (a
//! fork, a parent, whoever was given the same), so the journal is looked through from its first
//! event before any is dropped. What is written meanwhile takes the note away from all that it
//! refers to.

use std::collections::BTreeSet;
use std::sync::Arc;

use chassis::journal::{Append, Redaction};
use chrono::{DateTime, Utc};
use domain::codec;
use domain::ids::CommandId;
use domain::retention::{AGGREGATE, Event, VALUES};
use protocol::Rejection;

use super::{Archivist, PAGE, away, damaged};
use crate::coordinator::refused;
use crate::store::metadata::{self, Along};
use crate::store::payload;

/// Values of which it is found out at once whether anything refers to them.
const AT_ONCE: usize = 10_000;

impl Archivist {
    /// Drops values that were let go up to a time, and answers how many. Reads the whole journal
    /// where there are any.
    pub(crate) async fn drop_values(&self, until: DateTime<Utc>) -> Result<usize, Rejection> {
        let released = self.journal.released(until, AT_ONCE).await.map_err(away)?;
        if released.is_empty() {
            return Ok(0);
        }
        let mut unseen: BTreeSet<Arc<str>> = released.iter().cloned().collect();
        let (head, mut position) = (self.journal.head().await.map_err(away)?, 0);
        while position < head && !unseen.is_empty() {
            let page = self.journal.read(position, PAGE).await.map_err(away)?;
            for hash in page.iter().flat_map(|event| codec::refs(&event.payload)) {
                unseen.remove(&*hash);
            }
            let Some(last) = page.last() else { break };
            position = last.position;
        }
        let (dropped, referred): (Vec<_>, Vec<_>) =
            released.into_iter().partition(|hash| unseen.contains(hash));
        let count = dropped.len();
        self.settle(referred, dropped).await?;
        Ok(count)
    }

    async fn settle(
        &self,
        referred: Vec<Arc<str>>,
        dropped: Vec<Arc<str>>,
    ) -> Result<(), Rejection> {
        let event = Event::ValuesDropped { values: dropped.len() as u64 };
        let encoded = codec::encode(&event, self.workspace_id).map_err(|error| damaged(&error))?;
        let (name, of) = (event.event_type(), event.event_version());
        let (event, payloads) = payload::new_event(&*self.clock, name, of, encoded);
        let command_id = CommandId::new(self.clock.uuid_v7());
        let version = self.last_of(VALUES).await?;
        let append = Append {
            aggregate_type: AGGREGATE.into(),
            aggregate_id: VALUES.into(),
            expected_sequence: version,
            workspace_id: self.workspace_id.to_string().into(),
            metadata: metadata::by(super::ACTOR, command_id, Along::default()),
            recorded_at: self.clock.now(),
            events: vec![event],
            payloads,
            redaction: Some(Redaction {
                aggregate_type: AGGREGATE.into(),
                aggregate_id: VALUES.into(),
                referred,
                dropped,
                ..Redaction::default()
            }),
            ..Append::default()
        };
        self.journal.append(append).await.map(drop).map_err(|error| refused(&error))
    }

    async fn last_of(&self, id: &str) -> Result<u64, Rejection> {
        let mut last = 0;
        loop {
            let page = self.journal.load(AGGREGATE, id, last, PAGE).await.map_err(away)?;
            last = page.last().map_or(last, |event| event.sequence);
            if page.len() < PAGE {
                return Ok(last);
            }
        }
    }
}
