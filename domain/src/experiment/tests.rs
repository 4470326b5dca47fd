//! How experiments go on, whatever happens to their forks in which order.

use proptest::prelude::*;
use uuid::Uuid;

use super::*;
use crate::definition::Variant;
use crate::ids::WorkspaceId;
use crate::run::RunStatus;

fn id() -> ExperimentId {
    ExperimentId::of(WorkspaceId::new(Uuid::nil()), "cheaper")
}

fn run(number: u128) -> RunId {
    RunId::new(Uuid::from_u128(number << 70 | 7))
}

fn asked(costs: &[u64], at_once: usize, cap: Option<u64>) -> Asked {
    let tried = |(number, cost_micros): (usize, &u64)| Tried {
        run_id: run(number as u128 + 1),
        cost_micros: *cost_micros,
    };
    Asked {
        workspace_id: WorkspaceId::new(Uuid::nil()),
        name: "cheaper".parse().expect("a name"),
        mark: "m".to_owned(),
        definition: None,
        variant: Variant::default(),
        allow: Default::default(),
        terms: Terms {
            by: "ada".to_owned(),
            runs: costs.iter().enumerate().map(tried).collect(),
            filter: None,
            at_once,
            max_cost_micros: cap,
        },
    }
}

/// Does a command, and answers the types of what it came to.
fn done(state: &mut State, command: Command) -> Vec<&'static str> {
    let events = state.decide(id(), command).expect("it is done");
    events.iter().for_each(|event| state.evolve(event));
    events.iter().map(Event::event_type).collect()
}

fn ask(asked: Asked) -> Command {
    Command::Ask(Box::new(asked))
}

fn end(number: u128, cost_micros: u64) -> Command {
    Command::End { run_id: run(number), status: RunStatus::Completed, cost_micros }
}

fn begun(state: &State) -> &Begun {
    state.begun().expect("it was asked for")
}

#[test]
fn each_fork_that_ends_makes_room_for_the_next_one() {
    let mut state = State::default();
    let first = done(&mut state, ask(asked(&[1, 1, 1], 2, None)));
    let begins = "experiment_fork_begun";
    assert_eq!(first, ["experiment_started", begins, begins]);
    assert!(done(&mut state, ask(asked(&[1, 1, 1], 2, None))).is_empty(), "it is asked twice");
    assert_eq!(done(&mut state, end(2, 5)), ["experiment_fork_ended", begins]);
    assert!(done(&mut state, end(2, 5)).is_empty(), "it is told twice");
    let refused = Command::Refuse { run_id: run(1), code: "c".to_owned(), detail: "d".to_owned() };
    assert_eq!(done(&mut state, refused), ["experiment_fork_refused"]);
    assert!(state.is_open());
    assert_eq!(done(&mut state, end(3, 1)), ["experiment_fork_ended", "experiment_ended"]);
    assert!(!state.is_open());
    let begun = begun(&state);
    assert_eq!((begun.status, begun.spent_micros()), (Status::Ended, 6));
    assert_eq!((begun.forks.len(), begun.refused.len()), (2, 1));
    // What was refused is tried again once something is different.
    assert!(done(&mut state.clone(), ask(asked(&[1, 1, 1], 2, None))).is_empty());
    assert_eq!(done(&mut state, ask(asked(&[1, 1, 1], 3, None))), ["experiment_changed", begins]);
}

#[test]
fn a_cap_ends_it_until_there_is_another_one() {
    let mut state = State::default();
    assert_eq!(
        done(&mut state, ask(asked(&[10, 10], 2, Some(0)))),
        ["experiment_started", "experiment_ended"]
    );
    assert_eq!(begun(&state).status, Status::Capped);
    assert!(done(&mut state, ask(asked(&[10, 10], 2, Some(0)))).is_empty());
    done(&mut state, ask(asked(&[10, 10], 2, Some(15))));
    assert_eq!(begun(&state).forks.len(), 1, "no more is given out than there is");
    assert_eq!(done(&mut state, end(1, 10)), ["experiment_fork_ended", "experiment_ended"]);
    assert_eq!((begun(&state).status, begun(&state).left().count()), (Status::Capped, 1));
}

#[test]
fn what_is_stopped_begins_nothing_until_it_is_asked_for_again() {
    let mut state = State::default();
    assert_eq!(state.decide(id(), Command::Stop), Err(Refusal::NotStarted));
    done(&mut state, ask(asked(&[1, 1, 1], 1, None)));
    assert_eq!(done(&mut state, Command::Stop), ["experiment_stopped"]);
    assert!(done(&mut state, Command::Stop).is_empty());
    assert!(state.is_open(), "a fork of it is about to end");
    assert_eq!(done(&mut state, end(1, 0)), ["experiment_fork_ended"]);
    assert!(!state.is_open());
    assert_eq!(begun(&state).status, Status::Stopped);
    let again = done(&mut state, ask(asked(&[1, 1, 1], 1, None)));
    assert_eq!(again, ["experiment_changed", "experiment_fork_begun"]);
    assert_eq!(begun(&state).forks[1].run_id, run(2));
}

#[test]
fn a_set_is_found_once_and_another_change_is_another_experiment() {
    let mut state = State::default();
    let found = |costs: &[u64], filter: &str| {
        let mut asked = asked(costs, 1, None);
        asked.terms.filter = Some(serde_json::json!({ "definition": filter }));
        asked
    };
    done(&mut state, ask(found(&[1, 1], "a")));
    assert!(done(&mut state, ask(found(&[1, 1, 1], "a"))).is_empty());
    assert_eq!(done(&mut state, ask(found(&[1, 1, 1], "b"))), ["experiment_changed"]);
    assert_eq!(begun(&state).asked.terms.runs.len(), 3);
    let other = Asked { mark: "other".to_owned(), ..asked(&[1], 1, None) };
    let differs = Refusal::Differs("cheaper".parse().expect("a name"));
    assert_eq!(state.decide(id(), ask(other)), Err(differs));
    let full = state.decide(id(), ask(asked(&[1; 1_001], 1, None)));
    assert_eq!(full, Err(Refusal::Full(1_001)));
}

proptest! {
    #[test]
    fn no_run_is_forked_twice_and_no_more_goes_on_or_is_given_out_than_may(
        costs in prop::collection::vec(0..20u64, 1..12),
        steps in prop::collection::vec((0..6u8, any::<prop::sample::Index>(), 0..3u64), 0..60),
        at_once in 1..5usize,
        cap in prop::option::of(0..200u64),
    ) {
        let mut state = State::default();
        done(&mut state, ask(asked(&costs, at_once, cap)));
        for (kind, which, share) in steps {
            let under_way: Vec<_> = begun(&state).under_way().copied().collect();
            let command = match (kind, under_way.is_empty()) {
                (0, _) => Command::Stop,
                (1, _) => ask(asked(&costs, at_once, cap)),
                (2, false) => {
                    let run_id = which.get(&under_way).run_id;
                    Command::Refuse { run_id, code: String::new(), detail: String::new() }
                }
                (_, false) => {
                    let fork = which.get(&under_way);
                    let cost_micros = fork.budget_micros.unwrap_or(9) * share / 2;
                    let cost_micros = cost_micros.min(fork.budget_micros.unwrap_or(9));
                    Command::End { run_id: fork.run_id, status: RunStatus::Completed, cost_micros }
                }
                (_, true) => Command::Stop,
            };
            done(&mut state, command);
            let begun = begun(&state);
            prop_assert!(begun.under_way().count() <= at_once);
            let mut forked: Vec<_> = begun.forks.iter().map(|fork| fork.run_id).collect();
            forked.sort();
            forked.dedup();
            prop_assert_eq!(forked.len(), begun.forks.len());
            if let Some(cap) = cap {
                let held = |fork: &Fork| match fork.end {
                    Some(end) => end.cost_micros,
                    None => fork.budget_micros.unwrap_or_default(),
                };
                prop_assert!(begun.forks.iter().map(held).sum::<u64>() <= cap);
            }
            let is_idle = begun.under_way().next().is_none();
            prop_assert!(!(is_idle && begun.status == Status::Running), "it stands still");
        }
    }
}
