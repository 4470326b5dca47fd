//! A run's history up to a place, for a fork that goes on from there.
//!
//! Events that were decided together belong together: of a decision that reaches over the place the
//! fork shares none, and is given again what came from outside. So every event can be forked at,
//! and the rest comes out as the engine decides it.

use chrono::{DateTime, Utc};

use super::Command;
use super::adoption::Adoption;
use super::event::{Adopt, Event, RunStarted};
use super::replay::{Difference, Replay, from_outside};
use super::state::{Live, Run};
use crate::definition::Plan;

mod begin;

pub use begin::{Asked, Forking, Trial, Unforkable};

/// A history that is read on its way to the place, and beyond it for what may be adopted.
pub struct Prefix<'a> {
    plan: &'a Plan,
    at: u64,
    replay: Replay<'a>,
    sequence: u64,
    /// The run after what is shared.
    run: Run,
    shared: u64,
    started: Option<Box<RunStarted>>,
    /// The events, where they are kept.
    events: Option<Vec<(Event, DateTime<Utc>)>>,
    /// Of a decision that isn't through.
    pending: Vec<(Event, DateTime<Utc>)>,
    /// Beyond the place: the run as it went on.
    later: Option<Run>,
    adoption: Adoption,
    is_past: bool,
}

/// Where a fork goes on.
#[derive(Debug)]
pub struct Place {
    /// The run there, before it is forked.
    pub run: Run,
    /// How many events there are up to there, and the first of them.
    pub shared: u64,
    pub started: Box<RunStarted>,
    /// All of them, and when they were recorded, where they were kept.
    pub events: Option<Vec<(Event, DateTime<Utc>)>>,
    /// Since when timers stand still.
    pub since: DateTime<Utc>,
    /// What came from outside between there and the place that was asked for.
    pub again: Option<Command>,
    pub adoption: Adoption,
}

impl<'a> Prefix<'a> {
    /// Of a run that follows a plan, up to an event.
    pub fn new(plan: &'a Plan, at: u64, adopt: Adopt) -> Self {
        Self {
            plan,
            at,
            replay: Replay::new(plan),
            sequence: 0,
            run: Run::default(),
            shared: 0,
            started: None,
            events: Some(Vec::new()),
            pending: Vec::new(),
            later: None,
            adoption: Adoption::new(adopt),
            is_past: false,
        }
    }

    /// The same for a history that is too long to be kept.
    pub fn long(plan: &'a Plan, at: u64, adopt: Adopt) -> Self {
        Self { events: None, ..Self::new(plan, at, adopt) }
    }

    /// Goes on by another plan: from the event on by which the run follows another definition.
    pub const fn follow(&mut self, plan: &'a Plan) {
        self.plan = plan;
        self.replay.follow(plan);
    }

    /// Takes the next event, and when it was recorded. False once no more is needed.
    ///
    /// # Errors
    /// The difference, where this engine decides otherwise before the place: then it can't be told
    /// which events belong together.
    pub fn take(&mut self, event: Event, at: DateTime<Utc>) -> Result<bool, Box<Difference>> {
        self.sequence += 1;
        if self.sequence <= self.at {
            self.replay.take(&event, at)?;
            self.pending.push((event, at));
            // What follows from a start is owed to it, and so need not belong to it.
            if self.sequence == 1 || self.replay.is_between_commands() {
                if let (Event::RunStarted(started), true) = (&self.pending[0].0, self.shared == 0) {
                    self.started = Some(started.clone());
                }
                for (event, at) in &self.pending {
                    self.run.evolve(event, *at);
                }
                self.shared += self.pending.len() as u64;
                match &mut self.events {
                    Some(events) => events.append(&mut self.pending),
                    None => self.pending.clear(),
                }
            }
            return Ok(true);
        }
        // Its definition may have become another one.
        self.is_past |= matches!(event, Event::RunForked(_)) || !self.adoption.has_room();
        if !self.is_past {
            self.gather(&event, at);
        }
        Ok(!self.is_past)
    }

    fn gather(&mut self, event: &Event, at: DateTime<Utc>) {
        self.go_beyond();
        if let Some(run) = &mut self.later {
            self.adoption.gather(run, self.plan, event, self.sequence);
            run.evolve(event, at);
        }
    }

    /// What is beyond the shared events may be adopted, first that which belongs together with the
    /// place.
    fn go_beyond(&mut self) {
        if self.later.is_some() {
            return;
        }
        let mut run = self.run.clone();
        for (event, sequence) in self.pending.iter().zip(self.shared + 1..) {
            let (event, at) = event;
            self.adoption.gather(&run, self.plan, event, sequence);
            run.evolve(event, *at);
        }
        self.later = Some(run);
    }

    /// The place; `None` where the run hasn't so many events, or had ended there.
    pub fn place(mut self) -> Option<Place> {
        let live = self.run.live().filter(|_| self.sequence >= self.at)?;
        let first = self.pending.first();
        let again = first.and_then(|(event, at)| from_outside(&self.run, event, *at));
        // A timer that was due is due here as well.
        let since = first.map_or(live.at, |(_, at)| *at);
        self.go_beyond();
        // An outcome comes by way of what is adopted, where its attempt asks for the same.
        let again = again
            .filter(|command| !matches!(command, Command::Report(_) | Command::ReportChild(_)));
        let Self { run, shared, started, events, adoption, .. } = self;
        Some(Place { run, shared, started: started?, events, since, again, adoption })
    }
}

impl Live {
    /// Whether another plan lays out what the run is inside of as its own does: the transitions by
    /// which its groups were opened and its loops are counted.
    pub fn fits(&self, own: &Plan, other: &Plan) -> bool {
        let opened = self.instances.values().flat_map(|one| &one.branches);
        let opened = opened.map(|branches| branches.transition);
        let taken = self.tokens.values().flat_map(|token| token.taken.keys());
        let of_groups = self.instances.values().flat_map(|one| {
            let added = one.added.values().flat_map(|added| added.taken.keys());
            one.taken.keys().chain(one.parent.taken.keys()).chain(added)
        });
        let mut used = opened.chain(taken.copied()).chain(of_groups.copied());
        used.all(|index| match (own.transition(index), other.transition(index)) {
            (Some(own), Some(other)) => {
                (&own.to, &own.group, &own.item_name, &own.join)
                    == (&other.to, &other.group, &other.item_name, &other.join)
            }
            _ => false,
        })
    }
}
