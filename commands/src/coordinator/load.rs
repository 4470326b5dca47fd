//! Loading a run: its snapshot, the events after it, and the plan that it was started with.

use std::collections::HashMap;
use std::sync::Arc;

use chassis::clock::Clock;
use chassis::journal::{Journal, ReadError, RecordedEvent};
use chrono::{DateTime, Utc};
use domain::codec::{self, DecodeError};
use domain::ids::{InvalidId, RunId, WorkspaceId};
use domain::run::event::{DefinitionRef, Pin};
use domain::run::{Event, Run, STATE_VERSION};
use protocol::{Rejection, RejectionKind};

use super::actor::Taken;
use super::forking;
use super::history::{HistoryError, Sources};
use super::parts;
use super::plans::{LivePlan, Plans};
use super::refusal::unavailable;
use crate::resolve::Resolver;
use crate::store::payload;

/// A run as its journal has it; `None` where there is no such run.
pub(super) type Loaded = Option<Box<Taken>>;

/// Why a run couldn't be loaded.
#[derive(Debug, thiserror::Error)]
pub(crate) enum LoadError {
    #[error(transparent)]
    Read(#[from] ReadError),
    #[error("event {sequence} can't be read: {source}")]
    Event { sequence: u64, source: DecodeError },
    #[error("event {found} stands where event {expected} should")]
    Gap { expected: u64, found: u64 },
    #[error("its definition can't be loaded: {0}")]
    Definition(Rejection),
}

impl LoadError {
    /// What those are told who wait for the run: whether to try again, or to look at the store.
    pub(crate) fn refusal(&self) -> Rejection {
        match self {
            Self::Read(ReadError::Unavailable(_)) | Self::Definition(_) => {
                unavailable("the run can't be loaded at the moment, try again")
            }
            Self::Read(ReadError::Damaged(_)) | Self::Event { .. } | Self::Gap { .. } => {
                let message = "the run's history can't be read, the log says where it is damaged";
                Rejection::new(RejectionKind::Internal, "stored_data_unreadable", message)
            }
        }
    }
}

const PAGE: usize = 1_000;

/// A run's events folded up to the last.
pub(crate) struct Folded {
    pub workspace_id: WorkspaceId,
    pub run: Run,
    pub sequence: u64,
    snapshot_at: u64,
    position: u64,
    recorded_at: DateTime<Utc>,
}

impl Folded {
    /// Whether it is a run: what a fork shares may not be all there yet.
    fn is_whole(&self) -> bool {
        let shares = self.run.header().and_then(|header| header.shares);
        shares.is_none_or(|shares| self.sequence > shares)
    }
}

/// Folds a run from its snapshot on; `None` where there is no such run, or a fork that isn't whole.
pub(crate) async fn fold(
    journal: &dyn Journal,
    run_id: RunId,
) -> Result<Option<Folded>, LoadError> {
    let folded = fold_all(journal, run_id).await?;
    Ok(folded.map(|(folded, _)| folded).filter(Folded::is_whole))
}

/// The same of whatever there is, with the last event.
async fn fold_all(
    journal: &dyn Journal,
    run_id: RunId,
) -> Result<Option<(Folded, RecordedEvent)>, LoadError> {
    let id = run_id.to_string();
    let snapshot = journal.snapshot("run", &id, STATE_VERSION).await?;
    let kept = snapshot.and_then(|one| match serde_json::from_slice(&one.state) {
        Ok(run) => Some((one.sequence, run)),
        Err(error) => {
            tracing::warn!(%run_id, %error, "a snapshot can't be read, folding from the start");
            None
        }
    });
    // One event before the snapshot's end is read too: it tells workspace, position and time.
    let (mut run, mut folded, mut sequence) = match kept {
        Some((sequence, run)) => (run, sequence, sequence.saturating_sub(1)),
        None => (Run::default(), 0, 0),
    };
    let snapshot_at = folded;
    let mut last: Option<RecordedEvent> = None;
    loop {
        let page = journal.load("run", &id, sequence, PAGE).await?;
        let is_last = page.len() < PAGE;
        for recorded in page {
            if recorded.sequence != sequence + 1 {
                return Err(LoadError::Gap { expected: sequence + 1, found: recorded.sequence });
            }
            sequence = recorded.sequence;
            if sequence > folded {
                let event = decode(journal, &recorded).await?;
                run.evolve(&event, recorded.recorded_at);
                folded = sequence;
            }
            last = Some(recorded);
        }
        if is_last {
            break;
        }
    }
    let Some(last) = last else { return Ok(None) };
    let workspace_id = workspace_of(&last)?;
    let (position, recorded_at) = (last.position, last.recorded_at);
    let folded = Folded { workspace_id, run, sequence, snapshot_at, position, recorded_at };
    Ok(Some((folded, last)))
}

pub(super) fn workspace_of(recorded: &RecordedEvent) -> Result<WorkspaceId, ReadError> {
    let damaged = |error: InvalidId| ReadError::Damaged(error.to_string().into());
    recorded.workspace_id.parse().map_err(damaged)
}

/// Loads a run by its id, under an epoch of its shard.
pub(super) async fn load(
    journal: &dyn Journal,
    clock: &dyn Clock,
    resolver: &Resolver,
    plans: &Plans,
    run_id: RunId,
    epoch: u64,
) -> Result<Loaded, LoadError> {
    let Some((folded, last)) = fold_all(journal, run_id).await? else { return Ok(None) };
    if !folded.is_whole() {
        // The copy of a child is its parent's to go on with.
        if folded.run.live().is_some_and(|live| live.header.parent.is_none()) {
            parts::give_up(journal, clock, run_id, &last, epoch).await?;
        }
        return Ok(None);
    }
    let Folded { workspace_id, run, sequence, snapshot_at, position, recorded_at } = folded;
    let Some(header) = run.header() else { return Ok(None) };
    let plan = plan_of(resolver, plans, &header.definition, &header.pins).await?;
    let sources = Sources { journal, resolver, plans };
    let adoption = match forking::adoption(sources, &run, &plan).await {
        Ok(adoption) => adoption.map(Box::new),
        Err(HistoryError::Load(error)) => return Err(error),
        // Then all that it asks for is done, but for what an experiment doesn't do.
        Err(error) => {
            tracing::warn!(%run_id, %error, "nothing can be adopted of the run that was forked");
            header.experiment.as_ref().map(|_| Box::default())
        }
    };
    let tasks_in_flight =
        resolver.tasks_in_flight_per_run(header.project_id).await.map_err(LoadError::Definition)?;
    let standing = resolver.standing(header.workflow_id).await.map_err(LoadError::Definition)?;
    Ok(Some(Box::new(Taken {
        run_id,
        epoch,
        workspace_id,
        run,
        plan,
        adoption,
        tasks_in_flight,
        standing,
        sequence,
        snapshot_at,
        position,
        recorded_at,
    })))
}

/// The plan that a run follows, with what its references were resolved to.
pub(super) async fn plan_of(
    resolver: &Resolver,
    plans: &Plans,
    reference: &DefinitionRef,
    pins: &[Pin],
) -> Result<Arc<LivePlan>, LoadError> {
    let definition = resolver.definition_by_id(reference.id, Some(reference.version)).await;
    let definition = definition.map_err(LoadError::Definition)?;
    let resolved =
        resolver.resolved(&definition.spec, Some(pins)).await.map_err(LoadError::Definition)?;
    plans
        .get(reference, &definition.spec.definition, &resolved)
        .map_err(|problems| LoadError::Definition(crate::service::invalid_definition(problems)))
}

/// The values that stand apart from an event, by their hashes.
pub(crate) async fn values_of(
    journal: &dyn Journal,
    recorded: &RecordedEvent,
) -> Result<HashMap<Arc<str>, Vec<u8>>, ReadError> {
    let values = payload::values(journal, &recorded.payload).await?;
    Ok(values.into_iter().map(|one| (one.hash, one.bytes.to_vec())).collect())
}

pub(crate) async fn decode(
    journal: &dyn Journal,
    recorded: &RecordedEvent,
) -> Result<Event, LoadError> {
    let blobs = values_of(journal, recorded).await?;
    codec::decode(&recorded.event_type, recorded.event_version, &recorded.payload, &|hash| {
        blobs.get(hash).cloned()
    })
    .map_err(|source| LoadError::Event { sequence: recorded.sequence, source })
}
