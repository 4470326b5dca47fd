//! Experiments, as far as they are once they are asked for.

use domain::experiment::{self, State};
use domain::ids::ExperimentId;
use protocol::{Command, ExperimentProgress};

/// How far an experiment is once a command begins it.
pub(super) fn begun(id: ExperimentId, command: &Command) -> Option<Box<ExperimentProgress>> {
    let Command::StartExperiment(asked) = command else { return None };
    let mut state = State::default();
    let ask = experiment::Command::Ask(asked.clone());
    let events = state.decide(id, ask).expect("it begins");
    events.iter().for_each(|event| state.evolve(event));
    state.begun().map(|begun| Box::new(ExperimentProgress::of(begun, 17)))
}
