//! The past of a fork that is too long to be written with its beginning: it is copied before that,
//! part by part, so that nobody else waits for it, and memory holds one part at a time.
//!
//! What is copied is no run yet: nothing of it is loaded, owed, listed or counted before the fork
//! begins ([`Live::is_its_own`]). A copy that was broken off is gone on with by whoever wants the
//! same fork again (a request that is repeated, a parent that starts its child), and else it ends
//! with [`give_up`].
//!
//! [`Live::is_its_own`]: domain::run::state::Live::is_its_own

use std::sync::Arc;

use bytes::Bytes;
use chassis::clock::Clock;
use chassis::journal::{Append, AppendError, Journal, NewEvent, RecordedEvent};
use chrono::{DateTime, TimeDelta};
use domain::codec;
use domain::ids::{RunId, WorkspaceId};
use domain::run::Event;
use domain::run::event::RunStarted;
use protocol::{Rejection, RejectionKind};

use super::actor::{event_type, run_type};
use super::load::{LoadError, decode, workspace_of};
use super::refusal::refused;
use crate::store::{metadata, payload};

/// Events of a part, and bytes of them and of what stands apart from them, at most: one event may
/// have more.
const EVENTS: usize = 500;
const BYTES: usize = 1024 * 1024;
const ATTACHED_BYTES: usize = 8 * 1024 * 1024;
/// The type of the event that ends a copy.
const GIVEN_UP: &str = "run_cancelled";
/// How long nothing may have been added to a copy that is still gone on with.
const ABANDONED: TimeDelta = TimeDelta::minutes(10);

/// A copy to be made.
pub(crate) struct Copying<'a> {
    pub journal: &'a dyn Journal,
    pub clock: &'a dyn Clock,
    pub workspace_id: WorkspaceId,
    /// The run whose past it is.
    pub from: RunId,
    /// The fork, and its first event.
    pub run_id: RunId,
    pub started: &'a RunStarted,
    /// How many events are shared.
    pub shared: u64,
    /// Of the fork's beginning.
    pub metadata: &'a Bytes,
    /// The epoch of the fork's shard.
    pub epoch: Option<u64>,
}

impl Copying<'_> {
    /// Copies what isn't there yet.
    ///
    /// # Errors
    /// The journal's own. What was copied stays, and is gone on with.
    pub(crate) async fn copy(&self) -> Result<(), Rejection> {
        let (from, id) = (self.from.to_string(), Arc::from(self.run_id.to_string()));
        let mut written = self.written(&id).await.map_err(|error| unreadable(error.into()))?;
        if written > 0 {
            self.check_same(&id, written).await?;
        }
        while written < self.shared {
            let page = self.journal.load("run", &from, written, EVENTS).await;
            let page = page.map_err(|error| unreadable(error.into()))?;
            let left = usize::try_from(self.shared - written).unwrap_or(EVENTS);
            let append = self.part(&id, written, page.into_iter().take(left)).await?;
            let copied = append.events.len() as u64;
            if copied == 0 {
                return Err(gone(self.from));
            }
            self.journal.append(append).await.map_err(|error| refused(&error))?;
            written += copied;
        }
        Ok(())
    }

    /// How many of the fork's events are there.
    async fn written(&self, id: &str) -> Result<u64, chassis::journal::ReadError> {
        let (mut least, mut most) = (0, self.shared);
        while least < most {
            let middle = least.midpoint(most);
            match self.journal.load("run", id, middle, 1).await?.is_empty() {
                true => most = middle,
                false => least = middle + 1,
            }
        }
        Ok(least)
    }

    /// Whether what is there is of the same fork, and goes on.
    async fn check_same(&self, id: &str, written: u64) -> Result<(), Rejection> {
        let first = self.journal.load("run", id, 0, 1).await;
        let first = first.map_err(|error| unreadable(error.into()))?;
        let last = self.journal.load("run", id, written - 1, 1).await;
        let last = last.map_err(|error| unreadable(error.into()))?;
        let shared = match first.first() {
            Some(first) => match decode(self.journal, first).await.map_err(unreadable)? {
                Event::RunStarted(started) => started.forked_from.map(|from| from.sequence),
                _ => None,
            },
            None => None,
        };
        let is_given_up = last.iter().any(|last| &*last.event_type == GIVEN_UP);
        if shared == Some(self.shared) && !is_given_up {
            return Ok(());
        }
        let message = "the run went on while it was forked: fork it again";
        Err(Rejection::new(RejectionKind::Conflict, super::CONFLICT, message))
    }

    /// The next events, as they are stored, with what stands apart from them.
    async fn part(
        &self,
        id: &Arc<str>,
        written: u64,
        page: impl Iterator<Item = RecordedEvent> + Send,
    ) -> Result<Append, Rejection> {
        let (mut events, mut payloads) = (Vec::new(), Vec::new());
        let (mut bytes, mut attached) = (0, 0);
        for recorded in page {
            if recorded.redacted.is_some() {
                return Err(gone(self.from));
            }
            let recorded_at = Some(recorded.recorded_at);
            let (event, apart) = if recorded.sequence == 1 {
                let first = Event::RunStarted(Box::new(self.started.clone()));
                let encoded = codec::encode(&first, self.workspace_id).map_err(|error| {
                    let message = format!("the events can't be stored: {error}");
                    Rejection::new(RejectionKind::Invalid, "unstorable", message)
                })?;
                let (name, version) = (event_type(&first), first.event_version());
                let (first, apart) = payload::new_event(self.clock, name, version, encoded);
                (NewEvent { recorded_at, ..first }, apart)
            } else {
                let apart = payload::values(self.journal, &recorded.payload).await;
                let RecordedEvent { event_type, event_version, payload, .. } = recorded;
                let id = self.clock.uuid_v7();
                let event = NewEvent { id, event_type, event_version, payload, recorded_at };
                (event, apart.map_err(|error| unreadable(error.into()))?)
            };
            bytes += event.payload.len();
            attached += apart.iter().map(|payload| payload.bytes.len()).sum::<usize>();
            if !events.is_empty() && (bytes > BYTES || attached > ATTACHED_BYTES) {
                break;
            }
            events.push(event);
            payloads.extend(apart);
        }
        Ok(Append {
            aggregate_type: run_type(),
            aggregate_id: Arc::clone(id),
            expected_sequence: written,
            workspace_id: Arc::from(self.workspace_id.to_string()),
            metadata: metadata::part(self.metadata),
            recorded_at: self.clock.now(),
            events,
            payloads,
            // Whoever takes the shard over finds it.
            open: (written == 0).then_some(true),
            leans_on: (written == 0).then(|| self.from.to_string().into()),
            shard: protocol::shard_of(self.run_id),
            epoch: self.epoch,
            ..Append::default()
        })
    }
}

/// Ends a copy that nobody goes on with; it never was a run. `last` is its last event, whose id
/// tells when it was copied.
pub(super) async fn give_up(
    journal: &dyn Journal,
    clock: &dyn Clock,
    run_id: RunId,
    last: &RecordedEvent,
    epoch: u64,
) -> Result<(), LoadError> {
    let now = clock.now();
    let copied_at = last.id.get_timestamp().map_or((0, 0), |at| at.to_unix());
    let copied_at = i64::try_from(copied_at.0).ok().and_then(|at| DateTime::from_timestamp(at, 0));
    if copied_at.is_some_and(|at| now - at < ABANDONED) {
        return Ok(());
    }
    let workspace_id = workspace_of(last)?;
    let event = Event::RunCancelled {
        reason: Some("the fork was given up before it was whole".to_owned()),
        code: Some("fork_given_up".to_owned()),
    };
    let Ok(encoded) = codec::encode(&event, workspace_id) else { return Ok(()) };
    let (name, version) = (event_type(&event), event.event_version());
    let (end, payloads) = payload::new_event(clock, name, version, encoded);
    let append = Append {
        aggregate_type: run_type(),
        aggregate_id: Arc::clone(&last.aggregate_id),
        expected_sequence: last.sequence,
        workspace_id: Arc::clone(&last.workspace_id),
        metadata: last.metadata.clone(),
        recorded_at: now,
        events: vec![end],
        payloads,
        open: Some(false),
        shard: protocol::shard_of(run_id),
        epoch: (epoch > 0).then_some(epoch),
        ..Append::default()
    };
    match journal.append(append).await {
        // Somebody goes on with it after all.
        Ok(_) | Err(AppendError::Conflict { .. }) => Ok(()),
        Err(error) => {
            tracing::warn!(%run_id, %error, "a copy that nobody goes on with can't be ended yet");
            Ok(())
        }
    }
}

fn unreadable(error: LoadError) -> Rejection {
    error.refusal()
}

fn gone(from: RunId) -> Rejection {
    let message = format!("{from} is archived, and what this takes was dropped");
    Rejection::new(RejectionKind::Gone, "run_archived", message)
}
