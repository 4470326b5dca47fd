//! A run's history as a fork of it needs it: what it shares, and what it may take over.

use std::sync::Arc;

use chassis::journal::{Journal, ReadError, RecordedEvent};
use domain::ids::{RunId, WorkspaceId};
use domain::limits;
use domain::run::Event;
use domain::run::event::{Adopt, RunStarted};
use domain::run::fork::{Place, Prefix};
use domain::run::replay::Difference;
use protocol::{Rejection, RejectionKind, StateAt};

use super::load::{self, LoadError};
use super::plans::Plans;
use super::{LivePlan, not_found};
use crate::resolve::Resolver;

/// What runs are read from.
#[derive(Clone, Copy)]
pub(crate) struct Sources<'a> {
    pub journal: &'a dyn Journal,
    pub resolver: &'a Resolver,
    pub plans: &'a Plans,
}

/// Up to where a run is read.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Moment {
    Of(StateAt),
    /// What stands in the journal before a position.
    Before(u64),
}

impl Moment {
    fn is_before(self, recorded: &RecordedEvent) -> bool {
        match self {
            Self::Of(at) => at.is_before(recorded.sequence, recorded.recorded_at),
            Self::Before(position) => recorded.position >= position,
        }
    }
}

/// A run up to a moment, and beyond it.
pub(crate) struct History {
    pub workspace_id: WorkspaceId,
    /// How many events there are up to the moment.
    pub events: u64,
    /// The last event that was looked at.
    pub last: u64,
    /// The position of the first event after the moment.
    pub next: Option<u64>,
    /// Where a fork goes on; absent where the run had ended by then.
    pub place: Option<Place>,
    /// The plan that the run followed there.
    pub plan: Arc<LivePlan>,
}

/// Why a history can't be used.
#[derive(Debug, thiserror::Error)]
pub(crate) enum HistoryError {
    #[error(transparent)]
    Load(#[from] LoadError),
    #[error("there is no such run")]
    Missing,
    /// It began after the moment.
    #[error("it began later")]
    Early,
    /// There are more events up to the moment, or larger ones, than one append takes.
    #[error("it is longer than a fork can share")]
    TooLong,
    #[error("content of it was dropped")]
    Archived,
    #[error("event {} is decided otherwise by this engine", .0.sequence)]
    Differs(Box<Difference>),
}

impl HistoryError {
    /// What those are told who asked for a fork of a run.
    pub(crate) fn refusal(&self, run_id: RunId) -> Rejection {
        let (events, mib) = (limits::FORK_EVENTS, limits::FORK_BYTES >> 20);
        match self {
            Self::Missing => not_found(run_id),
            Self::Early => {
                let message =
                    format!("{run_id} began later: fork at a later moment, or at a sequence");
                Rejection::new(RejectionKind::Invalid, "no_such_moment", message).at("/at")
            }
            Self::Archived => {
                let message = format!("{run_id} is archived, and what this takes was dropped");
                Rejection::new(RejectionKind::Gone, "run_archived", message)
            }
            Self::Load(error) => error.refusal(),
            Self::TooLong => {
                let message = format!(
                    "a fork shares at most {events} events of {mib} MiB: fork at an earlier one"
                );
                Rejection::new(RejectionKind::Conflict, "fork_too_long", message).at("/at")
            }
            Self::Differs(difference) => {
                let sequence = difference.sequence;
                let message = format!(
                    "this engine decides event {sequence} of the run otherwise than it is recorded: \
                     fork at an earlier one"
                );
                Rejection::new(RejectionKind::Conflict, "fork_history_differs", message).at("/at")
            }
        }
    }
}

impl From<ReadError> for HistoryError {
    fn from(error: ReadError) -> Self {
        Self::Load(error.into())
    }
}

const PAGE: usize = 500;

/// Reads a run up to a moment, and on to the event `until` for what may be adopted.
pub(crate) async fn read(
    sources: Sources<'_>,
    run_id: RunId,
    at: Moment,
    until: u64,
    adopt: Adopt,
) -> Result<History, HistoryError> {
    let mut pages = Pages::of(sources, run_id);
    // Kept for as long as they aren't too many: else they are read a second time.
    let (mut kept, mut bytes) = (Some(Vec::new()), 0);
    let (mut events, mut plans, mut workspace_id) = (0, Vec::new(), None);
    let (mut beyond, mut next, mut shares) = (Vec::new(), None, 0);
    while beyond.is_empty() {
        let page = pages.next().await?;
        if page.is_empty() {
            break;
        }
        for (recorded, event) in page {
            if workspace_id.is_none() {
                workspace_id = Some(load::workspace_of(&recorded)?);
            }
            if !beyond.is_empty() || at.is_before(&recorded) {
                next = next.or(Some(recorded.position));
                beyond.push((event, recorded.recorded_at));
                continue;
            }
            if let Event::RunStarted(started) = &event {
                shares = started.forked_from.map_or(0, |forked| forked.sequence);
            }
            events += 1;
            bytes += recorded.payload.len();
            if let Some(plan) = followed_from(sources, &event).await? {
                plans.push((events, plan));
            }
            if let Some(kept) = &mut kept {
                kept.push((event, recorded.recorded_at));
            }
        }
        if events > limits::FORK_EVENTS || bytes > limits::FORK_BYTES {
            return Err(HistoryError::TooLong);
        }
        if events > limits::FORK_EVENTS_AT_ONCE || bytes > limits::FORK_BYTES_AT_ONCE {
            kept = None;
        }
    }
    let workspace_id = workspace_id.ok_or(HistoryError::Missing)?;
    if shares >= pages.sequence {
        let id = run_id.to_string();
        if sources.journal.load("run", &id, shares, 1).await?.is_empty() {
            // What it shares isn't all there yet.
            return Err(HistoryError::Missing);
        }
    }
    let (Some((_, first)), Some((_, plan))) = (plans.first(), plans.last()) else {
        return Err(HistoryError::Early);
    };
    let mut last = 0;
    let mut prefix = match &kept {
        Some(_) => Prefix::new(&first.plan, events, adopt),
        None => Prefix::long(&first.plan, events, adopt),
    };
    let mut again = Pages::of(sources, run_id);
    let mut shared = kept.unwrap_or_default();
    while last < events {
        if shared.is_empty() {
            let page = again.next().await?.into_iter();
            shared.extend(page.map(|(recorded, event)| (event, recorded.recorded_at)));
        }
        let before = last;
        for (event, at) in shared.drain(..) {
            if last == events {
                break;
            }
            last += 1;
            if let Some((_, plan)) = plans.iter().find(|(from, _)| *from == last) {
                prefix.follow(&plan.plan);
            }
            prefix.take(event, at).map_err(HistoryError::Differs)?;
        }
        if last == before {
            return Err(HistoryError::Missing);
        }
    }
    'pages: loop {
        for (event, at) in beyond {
            if last >= until || !prefix.take(event, at).map_err(HistoryError::Differs)? {
                break 'pages;
            }
            last += 1;
        }
        let page = pages.next().await?;
        if page.is_empty() {
            break;
        }
        beyond = page.into_iter().map(|(recorded, event)| (event, recorded.recorded_at)).collect();
    }
    let place = prefix.place();
    let plan = Arc::clone(plan);
    Ok(History { workspace_id, events, last, next, place, plan })
}

/// Reads how a run began: of a fork, with what it was given instead.
pub(crate) async fn beginning(
    journal: &dyn Journal,
    run_id: RunId,
) -> Result<(WorkspaceId, RunStarted), HistoryError> {
    let id = run_id.to_string();
    let first = journal.load("run", &id, 0, 1).await?;
    let first = first.first().ok_or(HistoryError::Missing)?;
    if first.redacted.is_some() {
        return Err(HistoryError::Archived);
    }
    let Event::RunStarted(mut started) = load::decode(journal, first).await? else {
        return Err(HistoryError::Missing);
    };
    if let Some(from) = started.forked_from {
        for recorded in journal.load("run", &id, from.sequence, 1).await? {
            if let Event::RunForked(forked) = load::decode(journal, &recorded).await? {
                started.input = forked.input.unwrap_or(started.input);
                started.definition = forked.definition.unwrap_or(started.definition);
            }
        }
    }
    Ok((load::workspace_of(first)?, *started))
}

/// The plan that a run follows from an event on: a fork may follow another one than the run that it
/// was forked from.
async fn followed_from(
    sources: Sources<'_>,
    event: &Event,
) -> Result<Option<Arc<LivePlan>>, HistoryError> {
    let (definition, pins) = match event {
        Event::RunStarted(started) => (&started.definition, &started.pins),
        Event::RunForked(forked) => match &forked.definition {
            Some(definition) => (definition, &forked.pins),
            None => return Ok(None),
        },
        _ => return Ok(None),
    };
    let plan = load::plan_of(sources.resolver, sources.plans, definition, pins).await?;
    Ok(Some(plan))
}

struct Pages<'a> {
    sources: Sources<'a>,
    id: String,
    sequence: u64,
    is_last: bool,
}

impl<'a> Pages<'a> {
    fn of(sources: Sources<'a>, run_id: RunId) -> Self {
        Self { sources, id: run_id.to_string(), sequence: 0, is_last: false }
    }

    /// The next events; none after the last.
    async fn next(&mut self) -> Result<Vec<(RecordedEvent, Event)>, HistoryError> {
        if self.is_last {
            return Ok(Vec::new());
        }
        let journal = self.sources.journal;
        let page = journal.load("run", &self.id, self.sequence, PAGE).await?;
        self.is_last = page.len() < PAGE;
        let mut events = Vec::with_capacity(page.len());
        for recorded in page {
            if recorded.redacted.is_some() {
                return Err(HistoryError::Archived);
            }
            let event = load::decode(journal, &recorded).await?;
            self.sequence = recorded.sequence;
            events.push((recorded, event));
        }
        Ok(events)
    }
}
