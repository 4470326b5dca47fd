//! What an experiment has come to, by its events.

use std::collections::BTreeSet;

use super::event::{Asked, Event, Rest, Tried};
use super::{Next, Started, next};
use crate::ids::RunId;
use crate::run::RunStatus;

/// An experiment.
#[derive(Debug, Clone, Default, PartialEq)]
pub enum State {
    #[default]
    NotStarted,
    Begun(Box<Begun>),
}

/// An experiment that was asked for.
#[derive(Debug, Clone, PartialEq)]
pub struct Begun {
    pub asked: Asked,
    pub status: Status,
    /// In the order in which they were begun.
    pub forks: Vec<Fork>,
    /// Runs that can't be forked so.
    pub refused: Vec<NotForked>,
}

/// Whether it goes on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Status {
    Running,
    /// Somebody has stopped it; forks of it may still be about to end.
    Stopped,
    /// See [`Rest`].
    Capped,
    Ended,
}

impl Status {
    /// The text in JSON.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Running => "running",
            Self::Stopped => "stopped",
            Self::Capped => "capped",
            Self::Ended => "ended",
        }
    }
}

/// A fork that was begun.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Fork {
    pub run_id: RunId,
    pub fork_id: RunId,
    pub budget_micros: Option<u64>,
    /// Absent as long as it goes on, as far as is known.
    pub end: Option<ForkEnd>,
}

/// How a fork has ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ForkEnd {
    pub status: RunStatus,
    pub cost_micros: u64,
}

/// A run that can't be forked as the experiment asks, and why.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NotForked {
    pub run_id: RunId,
    pub code: String,
    pub detail: String,
}

impl State {
    /// Folds an event. One that can't be here changes nothing.
    pub fn evolve(&mut self, event: &Event) {
        match (self, event) {
            (this @ Self::NotStarted, Event::ExperimentStarted(asked)) => {
                let asked = Asked::clone(asked);
                let (forks, refused) = (Vec::new(), Vec::new());
                *this =
                    Self::Begun(Box::new(Begun { asked, status: Status::Running, forks, refused }));
            }
            (Self::Begun(begun), event) => begun.evolve(event),
            (Self::NotStarted, _) => {}
        }
    }

    /// What was asked for and what came of it, if anything was.
    pub fn begun(&self) -> Option<&Begun> {
        match self {
            Self::NotStarted => None,
            Self::Begun(begun) => Some(begun),
        }
    }

    /// Whether anything is still to be done.
    pub fn is_open(&self) -> bool {
        self.begun().is_some_and(|begun| {
            begun.status == Status::Running || begun.under_way().next().is_some()
        })
    }
}

impl Begun {
    fn evolve(&mut self, event: &Event) {
        match event {
            Event::ExperimentStarted(_) => {}
            Event::ExperimentChanged(terms) => {
                self.asked.terms.clone_from(terms);
                self.refused.clear();
                self.status = Status::Running;
            }
            Event::ExperimentForkBegun { run_id, fork_id, budget_micros } => {
                let (run_id, fork_id, budget_micros) = (*run_id, *fork_id, *budget_micros);
                self.forks.push(Fork { run_id, fork_id, budget_micros, end: None });
            }
            Event::ExperimentForkRefused { run_id, code, detail } => {
                self.forks.retain(|fork| fork.run_id != *run_id);
                let (run_id, code, detail) = (*run_id, code.clone(), detail.clone());
                self.refused.push(NotForked { run_id, code, detail });
            }
            Event::ExperimentForkEnded { run_id, status, cost_micros } => {
                let ended = self.forks.iter_mut().find(|fork| fork.run_id == *run_id);
                if let Some(fork) = ended {
                    fork.end = Some(ForkEnd { status: *status, cost_micros: *cost_micros });
                }
            }
            Event::ExperimentStopped => self.status = Status::Stopped,
            Event::ExperimentEnded { status: Rest::Ended } => self.status = Status::Ended,
            Event::ExperimentEnded { status: Rest::Capped } => self.status = Status::Capped,
        }
    }

    /// The forks that go on.
    pub fn under_way(&self) -> impl Iterator<Item = &Fork> {
        self.forks.iter().filter(|fork| fork.end.is_none())
    }

    /// The runs that aren't forked yet, and can be as far as is known.
    pub fn left(&self) -> impl Iterator<Item = &Tried> {
        let forked = self.forks.iter().map(|fork| fork.run_id);
        let done: BTreeSet<_> =
            forked.chain(self.refused.iter().map(|refused| refused.run_id)).collect();
        self.asked.terms.runs.iter().filter(move |tried| !done.contains(&tried.run_id))
    }

    /// What the forks that have ended have cost, in millionths.
    pub fn spent_micros(&self) -> u64 {
        self.forks.iter().filter_map(|fork| fork.end).map(|end| end.cost_micros).sum()
    }

    /// Whether the next one of the runs that are left may be forked, and what it may cost.
    pub(super) fn next(&self, run: &Tried) -> Next {
        let started = |fork: &Fork| Started {
            has_ended: fork.end.is_some(),
            cost_micros: fork.end.map_or(0, |end| end.cost_micros),
            budget_micros: fork.budget_micros,
        };
        let started: Vec<_> = self.forks.iter().map(started).collect();
        let terms = &self.asked.terms;
        next(&started, &[run.cost_micros], terms.at_once, terms.max_cost_micros)
    }
}
