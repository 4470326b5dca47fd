//! Experiments: forks of many runs with one change.
//!
//! An experiment is an aggregate of its own. It is begun with all that is asked for, and each fork
//! is an event before it is made, with what it may cost; so whoever goes on with it, after whatever
//! happened, knows what was given out. [`next`] is how it goes on: which forks may be started next,
//! and what each of them may cost.

use crate::ids::{CommandId, ExperimentId, RunId};

mod decide;
mod event;
mod state;

#[cfg(test)]
mod tests;

pub use decide::{Command, Refusal};
pub use event::{Asked, Event, ForkDefinition, Rest, Terms, Tried};
pub use state::{Begun, Fork, ForkEnd, NotForked, State, Status};

/// The aggregate type in the journal.
pub const AGGREGATE: &str = "experiment";

/// The label by which the forks of an experiment are found.
pub const LABEL: &str = "experiment";
/// The label that tells what is different in them, and what they may do.
pub const CHANGE_LABEL: &str = "experiment-change";
/// The label that tells what a fork may cost, in millionths.
pub const BUDGET_LABEL: &str = "experiment-budget";

/// Whether a label is of the forks of experiments alone: their children don't have it.
pub fn is_label(key: &str) -> bool {
    [LABEL, CHANGE_LABEL, BUDGET_LABEL].contains(&key)
}

/// The command that makes a run's fork, and the fork: the same ones, however often it is tried.
pub fn fork_of(id: ExperimentId, run_id: RunId) -> (CommandId, RunId) {
    let command_id = CommandId::derived(&id.to_string(), &run_id.to_string());
    (command_id, run_id.forked(command_id, run_id.home()))
}

/// A fork that was started.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Started {
    pub has_ended: bool,
    /// What it has cost so far, and what it may cost at most, in millionths.
    pub cost_micros: u64,
    pub budget_micros: Option<u64>,
}

/// What is done next.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Next {
    /// The budgets of the forks that are started now, of the first runs that are left.
    pub budgets: Vec<Option<u64>>,
    /// Nothing more is started: what is left of the cap doesn't cover what the next run had cost.
    pub is_capped: bool,
}

/// What is done next. `left` are the costs of the runs that aren't forked yet, in order: each is
/// taken to cost as much again, and gets twice that where there is as much, so that an experiment
/// costs no more than its cap.
pub fn next(started: &[Started], left: &[u64], at_once: usize, cap: Option<u64>) -> Next {
    let under_way = started.iter().filter(|one| !one.has_ended).count();
    let mut free_slots = at_once.saturating_sub(under_way);
    let spent: u64 = started.iter().map(|one| one.cost_micros).sum();
    let reserved = started
        .iter()
        .filter(|one| !one.has_ended)
        .map(|one| one.budget_micros.unwrap_or_default().saturating_sub(one.cost_micros));
    let mut free = cap.map(|cap| cap.saturating_sub(spent).saturating_sub(reserved.sum()));
    let mut next = Next { budgets: Vec::new(), is_capped: false };
    for cost in left {
        if free_slots == 0 {
            break;
        }
        let Some(rest) = &mut free else {
            next.budgets.push(None);
            free_slots -= 1;
            continue;
        };
        if *rest < *cost {
            // What is under way may leave something.
            next.is_capped = under_way == 0 && next.budgets.is_empty();
            break;
        }
        let share = *rest / free_slots as u64;
        let budget = (*rest).min(share.max(cost.saturating_mul(2)));
        *rest -= budget;
        next.budgets.push(Some(budget));
        free_slots -= 1;
    }
    next
}

#[cfg(test)]
mod shares {
    use proptest::prelude::*;

    use super::*;

    fn started(has_ended: bool, cost_micros: u64, budget_micros: Option<u64>) -> Started {
        Started { has_ended, cost_micros, budget_micros }
    }

    #[test]
    fn as_many_are_started_as_may_go_on_at_once() {
        let two = [started(false, 0, None), started(true, 5, None)];
        assert_eq!(next(&two, &[1, 1, 1, 1], 3, None).budgets, [None, None]);
        assert_eq!(next(&two, &[], 3, None).budgets, []);
    }

    #[test]
    fn a_fork_gets_its_share_or_twice_what_its_run_has_cost() {
        assert_eq!(next(&[], &[10, 10], 4, Some(100)).budgets, [Some(25), Some(25)]);
        assert_eq!(next(&[], &[30, 30], 4, Some(100)).budgets, [Some(60), Some(40)]);
        // What is held by one that goes on isn't given twice.
        let one = [started(false, 10, Some(60)), started(true, 30, Some(40))];
        let waits = Next { budgets: vec![], is_capped: false };
        assert_eq!(next(&one, &[30], 4, Some(100)), waits);
        let ended = [started(true, 10, Some(60)), started(true, 80, Some(80))];
        assert_eq!(next(&ended, &[30], 4, Some(100)), Next { budgets: vec![], is_capped: true });
        assert_eq!(next(&ended, &[0], 4, Some(90)).budgets, [Some(0)], "it cost nothing");
    }

    proptest! {
        #[test]
        fn no_more_is_given_out_than_the_cap_leaves(
            costs in prop::collection::vec((any::<bool>(), 0..50u64, 0..50u64), 0..8),
            left in prop::collection::vec(0..50u64, 0..8),
            at_once in 1..6usize,
            cap in 0..400u64,
        ) {
            let all: Vec<_> = costs
                .iter()
                .map(|(ended, cost, more)| started(*ended, *cost, Some(cost + more)))
                .collect();
            let held = |one: &Started| match one.has_ended {
                true => one.cost_micros,
                false => one.budget_micros.unwrap_or_default(),
            };
            let held: u64 = all.iter().map(held).sum();
            let given: u64 = next(&all, &left, at_once, Some(cap)).budgets.iter().flatten().sum();
            prop_assert!(given == 0 || given + held <= cap);
        }
    }
}
