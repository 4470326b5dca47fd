//! A run at any moment of its history, by the engine's own fold.

use std::ops::ControlFlow;

use chassis::journal::{RecordedEvent, Until};
use chrono::{DateTime, Utc};
use domain::codec;
use domain::ids::{RunId, WorkspaceId};
use domain::retention;
use domain::run::event::RunStarted;
use domain::run::{Event, Run, RunStatus, STATE_VERSION};
use protocol::{Rejection, RejectionKind, RunState, StateAt};

use crate::histories::Histories;
use crate::payload::Blobs;
use crate::refusal;
use crate::runs::AGGREGATE;

/// Events of a run that are read at once.
pub(crate) const PAGE_EVENTS: usize = 500;
/// Records of what was dropped of a run that are looked through.
const RETENTION_EVENTS: usize = 2_500;

/// A run at a moment.
pub(crate) struct Folded {
    pub(crate) run: Run,
    pub(crate) status: RunStatus,
    /// The last event that is in it, and when it was recorded.
    pub(crate) sequence: u64,
    pub(crate) at: DateTime<Utc>,
}

impl Histories<'_> {
    /// A run of a workspace at a moment.
    ///
    /// # Errors
    /// Where the run isn't there or hasn't what is asked for, and where events can't be read.
    pub async fn run_at(
        &self,
        workspace_id: WorkspaceId,
        run_id: RunId,
        at: StateAt,
    ) -> Result<RunState, Rejection> {
        let Folded { run, status, sequence, at } = self.folded(workspace_id, run_id, at).await?;
        let id = run_id.to_string();
        let state = serde_json::to_value(&run).map_err(|error| refusal::damaged(&id, &error))?;
        Ok(RunState { run_id: id, sequence, at, status, state })
    }

    /// A run of a workspace after each of its events, until `take` breaks off: it gets the event's
    /// type and the state after it.
    ///
    /// # Errors
    /// Where the run isn't there, and where events can't be read.
    pub async fn steps(
        &self,
        workspace_id: WorkspaceId,
        run_id: RunId,
        mut take: impl FnMut(&str, &RunState) -> bool + Send,
    ) -> Result<(), Rejection> {
        let id = run_id.to_string();
        self.first_event(workspace_id, &id).await?;
        let mut run = Run::default();
        let read = self.each_event(&id, 0, |recorded, event| {
            let (sequence, at) = (recorded.sequence, recorded.recorded_at);
            run.evolve(&event, at);
            let status = run.status().unwrap_or(RunStatus::Running);
            let state = match serde_json::to_value(&run) {
                Ok(state) => RunState { run_id: id.clone(), sequence, at, status, state },
                Err(error) => return ControlFlow::Break(Err(refusal::damaged(&id, &error))),
            };
            match take(&recorded.event_type, &state) {
                true => ControlFlow::Continue(()),
                false => ControlFlow::Break(Ok(())),
            }
        });
        read.await?.unwrap_or(Ok(()))
    }

    /// A run of a workspace, folded up to a moment: from the newest snapshot that is kept and isn't
    /// later, else from its first event.
    pub(crate) async fn folded(
        &self,
        workspace_id: WorkspaceId,
        run_id: RunId,
        at: StateAt,
    ) -> Result<Folded, Rejection> {
        let id = run_id.to_string();
        let first = self.first_event(workspace_id, &id).await?;
        self.reached(&id, at, first.recorded_at).await
    }

    /// The same of a run that is there and has begun then.
    pub(crate) async fn reached(
        &self,
        id: &str,
        at: StateAt,
        started: DateTime<Utc>,
    ) -> Result<Folded, Rejection> {
        let (mut run, sequence) = self.start_from(id, at).await?;
        let mut moment = None;
        if sequence > 0 {
            let last = self.run_events(id, sequence - 1, 1).await?.pop();
            moment = last.map(|event| event.recorded_at);
        }
        let rest = self.each_event_until(id, sequence, at, |_, recorded_at, event| {
            run.evolve(event, recorded_at);
            moment = Some(recorded_at);
        });
        let sequence = rest.await?;
        let out_of_range = at.sequence().is_some_and(|wanted| wanted != sequence);
        let (Some(status), Some(moment), false) = (run.status(), moment, out_of_range) else {
            return Err(no_such_moment(id, sequence, started));
        };
        Ok(Folded { run, status, sequence, at: moment })
    }

    /// Reads a run's events up to a moment, from the first one on: their sequences and times. Answers
    /// the last sequence.
    pub(crate) async fn walk(
        &self,
        id: &str,
        at: StateAt,
        started: DateTime<Utc>,
        take: impl FnMut(u64, DateTime<Utc>, &Event) + Send,
    ) -> Result<u64, Rejection> {
        let sequence = self.each_event_until(id, 0, at, take).await?;
        let out_of_range = at.sequence().is_some_and(|wanted| wanted != sequence);
        if sequence == 0 || out_of_range {
            return Err(no_such_moment(id, sequence, started));
        }
        Ok(sequence)
    }

    /// The same after a sequence, which is answered where no event comes after it.
    pub(crate) async fn each_event_until(
        &self,
        id: &str,
        after: u64,
        at: StateAt,
        mut take: impl FnMut(u64, DateTime<Utc>, &Event) + Send,
    ) -> Result<u64, Rejection> {
        let mut last = after;
        let read = self.each_event(id, after, |recorded, event| {
            if at.is_before(recorded.sequence, recorded.recorded_at) {
                return ControlFlow::Break(());
            }
            last = recorded.sequence;
            take(last, recorded.recorded_at, &event);
            ControlFlow::Continue(())
        });
        read.await?;
        Ok(last)
    }

    /// Reads a run's events after a sequence, one by one, until `take` breaks off; answers with what.
    pub(crate) async fn each_event<B: Send>(
        &self,
        id: &str,
        mut after: u64,
        mut take: impl FnMut(&RecordedEvent, Event) -> ControlFlow<B> + Send,
    ) -> Result<Option<B>, Rejection> {
        loop {
            let page = self.run_events(id, after, PAGE_EVENTS).await?;
            for (recorded, event) in self.decoded(&page).await? {
                after = recorded.sequence;
                if let ControlFlow::Break(with) = take(recorded, event) {
                    return Ok(Some(with));
                }
            }
            if page.len() < PAGE_EVENTS {
                return Ok(None);
            }
        }
    }

    /// A run's first event. Another workspace's run isn't there.
    pub(crate) async fn first_event(
        &self,
        workspace_id: WorkspaceId,
        id: &str,
    ) -> Result<RecordedEvent, Rejection> {
        let first = self.run_events(id, 0, 1).await?.pop();
        let is_own = |event: &RecordedEvent| *event.workspace_id == workspace_id.to_string();
        first.filter(is_own).ok_or_else(|| refusal::not_found("run", id))
    }

    /// What a run was started with, by its first event. Another workspace's run isn't there.
    pub(crate) async fn run_started(
        &self,
        workspace_id: WorkspaceId,
        id: &str,
    ) -> Result<Box<RunStarted>, Rejection> {
        let first = self.first_event(workspace_id, id).await?;
        match self.decoded(std::slice::from_ref(&first)).await?.pop() {
            Some((_, Event::RunStarted(started))) => Ok(started),
            _ => Err(refusal::damaged(id, &"its first event is another one")),
        }
    }

    pub(crate) async fn run_events(
        &self,
        id: &str,
        after: u64,
        limit: usize,
    ) -> Result<Vec<RecordedEvent>, Rejection> {
        self.past.load(AGGREGATE, id, after, limit).await.map_err(refusal::journal)
    }

    /// The refusal of what needs content of a run that was dropped.
    pub(crate) async fn archived(&self, id: &str) -> Rejection {
        let log = self.past.load(retention::AGGREGATE, id, 0, RETENTION_EVENTS).await;
        let archives = log.iter().flatten().filter_map(|recorded| {
            let (name, version) = (&recorded.event_type, recorded.event_version);
            let event = codec::decode(name, version, &recorded.payload, &|_| None);
            event.ok().and_then(|event: retention::Event| event.dropped()?.0.archive.clone())
        });
        let whole = archives.last().map_or_else(String::new, |archive| {
            format!(": all of it was written to {:?} before", archive.location)
        });
        let message = format!("{id} is archived, and what this takes was dropped{whole}");
        Rejection::new(RejectionKind::Gone, "run_archived", message)
    }

    /// Refuses events whose content was dropped.
    pub(crate) async fn have_content(&self, events: &[RecordedEvent]) -> Result<(), Rejection> {
        match events.iter().find(|event| event.redacted.is_some()) {
            Some(dropped) if !self.takes_remains => Err(self.archived(&dropped.aggregate_id).await),
            _ => Ok(()),
        }
    }

    pub(crate) async fn decoded_one(&self, event: &RecordedEvent) -> Result<Event, Rejection> {
        let decoded = self.decoded(std::slice::from_ref(event)).await?.pop();
        let absent = || refusal::damaged(&event.aggregate_id, &"an event isn't there");
        decoded.map(|(_, event)| event).ok_or_else(absent)
    }

    pub(crate) async fn decoded<'a>(
        &self,
        events: &'a [RecordedEvent],
    ) -> Result<Vec<(&'a RecordedEvent, Event)>, Rejection> {
        self.have_content(events).await?;
        let stored = events.iter().map(|event| event.payload.as_ref());
        let blobs = Blobs::fetch(self.past, stored).await.map_err(refusal::journal)?;
        let decode = |recorded: &'a RecordedEvent| {
            let (name, version) = (&recorded.event_type, recorded.event_version);
            codec::decode(name, version, &recorded.payload, &|hash| blobs.get(hash))
                .map(|event| (recorded, event))
                .map_err(|error| {
                    refusal::damaged(&format!("the event at {}", recorded.position), &error)
                })
        };
        events.iter().map(decode).collect()
    }

    /// The newest state that is kept and isn't later.
    pub(crate) async fn start_from(&self, id: &str, at: StateAt) -> Result<(Run, u64), Rejection> {
        let until = match at {
            StateAt::Latest => None,
            StateAt::Sequence(sequence) => Some(Until::Sequence(sequence)),
            StateAt::Time(time) => Some(Until::Time(time)),
        };
        let snapshot = self.past.snapshot(AGGREGATE, id, STATE_VERSION, until).await;
        let run = snapshot.map_err(refusal::journal)?.and_then(|snapshot| {
            let sequence = snapshot.sequence;
            match serde_json::from_slice(&snapshot.state) {
                Ok(run) => Some((run, sequence)),
                Err(error) => {
                    tracing::warn!(run_id = id, sequence, %error, "snapshot can't be read");
                    None
                }
            }
        });
        Ok(run.unwrap_or_default())
    }
}

pub(crate) fn no_such_moment(id: &str, last: u64, started: DateTime<Utc>) -> Rejection {
    let message = if last == 0 {
        format!("{id} began at {started}: ask for a later moment, from sequence 1 on")
    } else {
        format!("{id} has {last} events so far: ask for a sequence from 1 to {last}")
    };
    Rejection::new(RejectionKind::Invalid, "no_such_moment", message)
}
