//! What is done with an experiment, and what follows from that at once.

use super::event::{Asked, Event, Rest, Terms};
use super::fork_of;
use super::state::{Begun, State, Status};

use crate::ids::{ExperimentId, Name, RunId};
use crate::limits::EXPERIMENT_FORKS;
use crate::run::RunStatus;

/// What is done with an experiment.
#[derive(Debug, Clone, PartialEq)]
pub enum Command {
    /// Somebody asks for it, for the first time or again.
    Ask(Box<Asked>),
    /// Somebody stops it.
    Stop,
    /// A fork that was begun can't be made.
    Refuse { run_id: RunId, code: String, detail: String },
    /// A fork has ended.
    End { run_id: RunId, status: RunStatus, cost_micros: u64 },
}

/// Why nothing is done.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    #[error("there is no such experiment")]
    NotStarted,
    #[error(
        "the experiment {0} has another change, or other effects that are allowed: give this one \
         a name of its own"
    )]
    Differs(Name),
    #[error(
        "with these runs the experiment would have {0} forks, more than {EXPERIMENT_FORKS}: give \
         the rest of them to one with another name"
    )]
    Full(usize),
}

impl State {
    /// What a command comes to, with all that follows from it: the forks that are begun, or that
    /// nothing more is to be done. Nothing, where it was done before.
    ///
    /// # Errors
    /// Where it isn't done.
    pub fn decide(&self, id: ExperimentId, command: Command) -> Result<Vec<Event>, Refusal> {
        let mut events = match (self, command) {
            (Self::NotStarted, Command::Ask(asked)) => vec![Event::ExperimentStarted(asked)],
            (Self::NotStarted, _) => return Err(Refusal::NotStarted),
            (Self::Begun(begun), Command::Ask(asked)) => begun.asked_again(*asked)?,
            (Self::Begun(begun), Command::Stop) => match begun.status {
                Status::Running => vec![Event::ExperimentStopped],
                Status::Stopped | Status::Capped | Status::Ended => Vec::new(),
            },
            (Self::Begun(begun), Command::Refuse { run_id, code, detail }) => {
                let refused = Event::ExperimentForkRefused { run_id, code, detail };
                begun.is_under_way(run_id).then_some(refused).into_iter().collect()
            }
            (Self::Begun(begun), Command::End { run_id, status, cost_micros }) => {
                let ended = Event::ExperimentForkEnded { run_id, status, cost_micros };
                begun.is_under_way(run_id).then_some(ended).into_iter().collect()
            }
        };
        if events.is_empty() {
            return Ok(events);
        }
        let mut after = self.clone();
        events.iter().for_each(|event| after.evolve(event));
        while let Some(event) = after.begun().and_then(|begun| begun.goes_on(id)) {
            after.evolve(&event);
            events.push(event);
        }
        Ok(events)
    }
}

impl Begun {
    fn asked_again(&self, asked: Asked) -> Result<Vec<Event>, Refusal> {
        if asked.mark != self.asked.mark {
            return Err(Refusal::Differs(asked.name));
        }
        let (kept, mut terms) = (&self.asked.terms, asked.terms);
        if terms.filter.is_some() && terms.filter == kept.filter {
            terms.runs.clone_from(&kept.runs);
        }
        let is_new = self.status == Status::Stopped || !terms.are_like(kept);
        if !is_new {
            return Ok(Vec::new());
        }
        let forks = self.forks.len() + self.not_forked(&terms);
        if forks > EXPERIMENT_FORKS {
            return Err(Refusal::Full(forks));
        }
        Ok(vec![Event::ExperimentChanged(Box::new(terms))])
    }

    fn not_forked(&self, terms: &Terms) -> usize {
        let is_forked = |run_id| self.forks.iter().any(|fork| fork.run_id == run_id);
        terms.runs.iter().filter(|tried| !is_forked(tried.run_id)).count()
    }

    fn is_under_way(&self, run_id: RunId) -> bool {
        self.under_way().any(|fork| fork.run_id == run_id)
    }

    /// What happens next by itself, if anything does.
    fn goes_on(&self, id: ExperimentId) -> Option<Event> {
        if self.status != Status::Running {
            return None;
        }
        let is_idle = self.under_way().next().is_none();
        let Some(run) = self.left().next() else {
            return is_idle.then_some(Event::ExperimentEnded { status: Rest::Ended });
        };
        let next = self.next(run);
        if next.is_capped {
            return Some(Event::ExperimentEnded { status: Rest::Capped });
        }
        let budget_micros = *next.budgets.first()?;
        let (_, fork_id) = fork_of(id, run.run_id);
        Some(Event::ExperimentForkBegun { run_id: run.run_id, fork_id, budget_micros })
    }
}
