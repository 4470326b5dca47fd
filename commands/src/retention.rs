//! Archiving: content of runs that have ended is dropped, part by part, and recorded with each
//! part.
//!
//! What is recorded and what is dropped are one append, so that a process may end at any moment:
//! events from the beginning on are dropped, and those after them aren't. A run that isn't done
//! with is on the journal's list of open aggregates, and is gone on with where it was left.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;

use async_trait::async_trait;
use bytes::Bytes;
use chassis::clock::Clock;
use chassis::journal::{Append, InboxEntry, Journal, ReadError, Redacted, Redaction};
use chassis::shards::Ownership;
use domain::codec;
use domain::ids::{RunId, WorkspaceId};
use domain::retention::{
    AGGREGATE, Archive, Dropped, Event, Keep, Proof, Retained, SLICE, remains,
};
use domain::run;
use domain::run::event::RunStarted;
use protocol::{Receipt, Rejection, RejectionKind, RunDropped, shard_of};
use tokio::sync::Mutex;

use crate::coordinator::{LoadError, decode, not_owner, refused, unavailable, values_of};
use crate::store::inbox::{self, Remembered};
use crate::store::payload;

mod hold;
mod kin;
mod sweep;
mod values;

/// Ids and events that are read at once.
const PAGE: usize = 1_000;
/// The aggregate type of runs.
const RUN: &str = "run";
/// Who archives what projects don't want to keep.
const ACTOR: &str = "retention";
/// Code of the refusal of what can't be read.
const UNREADABLE: &str = "stored_data_unreadable";

/// Who archives runs of the shards that this process owns.
pub(crate) struct Archivist {
    pub(crate) journal: Arc<dyn Journal>,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) ownership: Ownership,
    /// The workspace of what is about none.
    pub(crate) workspace_id: WorkspaceId,
    /// Where runs are written to before they are dropped, as projects want it.
    pub(crate) archives: Option<Arc<dyn Archives>>,
    /// What is held and what is dropped is decided one after the other.
    pub(crate) decisions: Mutex<()>,
    /// How many runs were released, so that the sweep comes back to them.
    pub(crate) releases: AtomicU64,
}

/// Where runs are written to.
#[async_trait]
pub trait Archives: Send + Sync {
    /// Writes all of a run whose last event this is, as a bundle, and reads it there. What is
    /// answered is durable. One that is there already is answered for.
    ///
    /// # Errors
    /// Where it can't be written or read, in words for whoever runs the platform.
    async fn write(&self, run_id: RunId, sequence: u64) -> Result<Archive, String>;
}

/// A run that has ended.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Ended {
    pub(crate) run_id: RunId,
    pub(crate) workspace_id: WorkspaceId,
    /// Its last event.
    pub(crate) sequence: u64,
}

/// What is to be done with it, and for whom.
pub(crate) struct Asked {
    pub(crate) keep: Keep,
    pub(crate) archive: Option<Archive>,
    /// Only say what would be dropped.
    pub(crate) dry_run: bool,
    pub(crate) metadata: Bytes,
    pub(crate) remembered: Option<Remembered>,
}

/// A part of a run's events, and what becomes of them.
struct Part {
    dropped: Dropped,
    redacted: Vec<Redacted>,
    /// Values that its events don't refer to any more.
    released: Vec<Arc<str>>,
}

impl Archivist {
    /// Drops what isn't to be kept of a run; what was dropped before isn't dropped again.
    ///
    /// # Errors
    /// `run_needed` where a run that goes on needs it, `run_held` where a hold keeps it, and what
    /// the journal says.
    pub(crate) async fn archive(&self, ended: &Ended, asked: Asked) -> Result<Receipt, Rejection> {
        let Ended { run_id, sequence, .. } = *ended;
        let shard = shard_of(run_id);
        let epoch = self.ownership.borrow().epochs.get(&shard).copied();
        let epoch = epoch.ok_or_else(not_owner)?;
        let id: Arc<str> = run_id.to_string().into();
        let (retained, mut version) = self.retained(&id).await?;
        let mut sum = RunDropped {
            run_id: id.to_string(),
            keep: retained.keep.unwrap_or(Keep::Full),
            events: sequence,
            dropped: 0,
            bytes: 0,
            dry_run: asked.dry_run,
            position: 0,
        };
        let Some(keep) = retained.next(asked.keep) else {
            return Ok(self.receipt(&id, version, 0, sum));
        };
        let kin = self.kin(run_id).await?;
        // What was begun has lost its use already.
        if retained.upto == 0 {
            self.unneeded(&kin).await?;
        }
        sum.keep = keep;
        let (mut upto, mut position) = (retained.upto, 0);
        while upto < sequence {
            let _decided = self.decisions.lock().await;
            self.free(&kin).await?;
            let part = self.part(ended, &id, keep, upto, asked.archive.clone()).await?;
            upto = part.dropped.last;
            sum.dropped += part.dropped.events;
            sum.bytes += part.dropped.bytes;
            if asked.dry_run {
                continue;
            }
            let is_last = upto >= sequence;
            let answer = self.receipt(&id, version + 1, 0, sum.clone());
            let append = self.append(ended, &id, (version, shard, epoch), part, is_last, &asked);
            let append = Append { inbox: remember(&asked, is_last, &answer), ..append? };
            let appended = self.journal.append(append).await.map_err(|error| refused(&error))?;
            (version, position) = (appended.last_sequence, appended.last_position);
        }
        Ok(self.receipt(&id, version, position, sum))
    }

    fn receipt(&self, id: &str, version: u64, position: u64, dropped: RunDropped) -> Receipt {
        Receipt {
            id: id.to_owned(),
            version,
            position,
            at: self.clock.now(),
            dropped: Some(Box::new(dropped)),
            ..Receipt::default()
        }
    }

    /// What was dropped of a run before, and the last event that records it.
    pub(crate) async fn retained(&self, id: &str) -> Result<(Retained, u64), Rejection> {
        let (mut retained, mut last) = (Retained::default(), 0);
        loop {
            let page = self.journal.load(AGGREGATE, id, last, PAGE).await.map_err(away)?;
            for recorded in &page {
                let (event_type, version) = (&recorded.event_type, recorded.event_version);
                let event: Event = codec::decode(event_type, version, &recorded.payload, &|_| None)
                    .map_err(|error| damaged(&error))?;
                retained.evolve(&event);
                last = recorded.sequence;
            }
            if page.len() < PAGE {
                return Ok((retained, last));
            }
        }
    }

    async fn beginning(&self, run_id: RunId) -> Result<RunStarted, Rejection> {
        let first = self.journal.load(RUN, &run_id.to_string(), 0, 1).await.map_err(away)?;
        let first = first.first().ok_or_else(|| damaged(&"a run without an event"))?;
        match decode(&*self.journal, first).await {
            Ok(run::Event::RunStarted(started)) => Ok(*started),
            Ok(_) => Err(damaged(&"a run without a beginning")),
            Err(LoadError::Read(error)) => Err(away(error)),
            Err(error) => Err(damaged(&error)),
        }
    }

    /// What becomes of the events after one.
    async fn part(
        &self,
        ended: &Ended,
        id: &str,
        keep: Keep,
        after: u64,
        archive: Option<Archive>,
    ) -> Result<Part, Rejection> {
        let limit = SLICE.min(ended.sequence - after);
        let limit = usize::try_from(limit).unwrap_or(usize::MAX);
        let events = self.journal.load(RUN, id, after, limit).await.map_err(away)?;
        if events.len() != limit {
            return Err(damaged(&"events of a run are missing"));
        }
        let (mut proof, mut bytes, mut redacted) = (Proof::default(), 0, Vec::new());
        let mut released = BTreeSet::new();
        for event in &events {
            let blobs = values_of(&*self.journal, event).await.map_err(away)?;
            let blob = |hash: &str| blobs.get(hash).cloned();
            match remains(&event.event_type, &event.payload, keep, &blob) {
                Ok(None) => proof.take(&event.payload),
                Ok(Some(rest)) => {
                    proof.take(&rest);
                    let left = codec::refs(&rest);
                    let goes = |hash: &Arc<str>| left.iter().all(|stays| **stays != **hash);
                    released.extend(blobs.into_keys().filter(goes));
                    bytes += event.payload.len().saturating_sub(rest.len()) as u64;
                    redacted.push(Redacted { sequence: event.sequence, payload: rest.into() });
                }
                Err(error) => return Err(damaged(&error)),
            }
        }
        let dropped = Dropped {
            run_id: ended.run_id,
            keep,
            first: after + 1,
            last: after + events.len() as u64,
            events: redacted.len() as u64,
            bytes,
            sha256: proof.finish(),
            archive,
        };
        Ok(Part { dropped, redacted, released: released.into_iter().collect() })
    }

    fn append(
        &self,
        ended: &Ended,
        id: &Arc<str>,
        (version, shard, epoch): (u64, u16, u64),
        part: Part,
        is_last: bool,
        asked: &Asked,
    ) -> Result<Append, Rejection> {
        let Part { dropped, redacted, released } = part;
        let is_only = is_last && dropped.first == 1;
        let event = match is_last {
            true => Event::RunArchived(Box::new(dropped)),
            false => Event::RunThinned(Box::new(dropped)),
        };
        let encoded = codec::encode(&event, ended.workspace_id).map_err(|error| damaged(&error))?;
        let (name, of) = (event.event_type(), event.event_version());
        let (event, payloads) = payload::new_event(&*self.clock, name, of, encoded);
        let redaction = Redaction {
            aggregate_type: RUN.into(),
            aggregate_id: Arc::clone(id),
            events: redacted,
            released,
            ..Redaction::default()
        };
        Ok(Append {
            aggregate_type: AGGREGATE.into(),
            aggregate_id: Arc::clone(id),
            expected_sequence: version,
            workspace_id: ended.workspace_id.to_string().into(),
            metadata: asked.metadata.clone(),
            recorded_at: self.clock.now(),
            events: vec![event],
            payloads,
            open: (!is_only).then_some(!is_last),
            redaction: Some(redaction),
            shard,
            epoch: (epoch > 0).then_some(epoch),
            ..Append::default()
        })
    }
}

/// The answer that a repetition of the command gets, with the last part.
fn remember(asked: &Asked, is_last: bool, answer: &Receipt) -> Vec<InboxEntry> {
    let remembered = asked.remembered.iter().filter(|_| is_last);
    let entry = |remembered: &Remembered| InboxEntry {
        key: remembered.key.clone(),
        fingerprint: remembered.fingerprint.clone(),
        answer: inbox::encode(answer),
    };
    remembered.map(entry).collect()
}

fn away(error: ReadError) -> Rejection {
    match error {
        ReadError::Unavailable(_) => unavailable("the journal is unavailable, try again"),
        ReadError::Damaged(reason) => damaged(&reason),
    }
}

fn damaged(reason: &dyn std::fmt::Display) -> Rejection {
    tracing::error!(%reason, "a run can't be archived");
    let message = "the run's history can't be read, the log says where it is damaged";
    Rejection::new(RejectionKind::Internal, UNREADABLE, message)
}

#[cfg(test)]
mod tests;
