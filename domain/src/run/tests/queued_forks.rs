//! Forks that wait for their turn: nothing of them goes on before, and then all does.

use std::sync::Arc;

use chrono::TimeDelta;
use graphs::{Layout, blocks, runner};
use proptest::prelude::*;
use serde_json::json;
use uuid::Uuid;

use super::fixture::{Fixture, task_into};
use super::forks::{calls, end, place, run_by};
use super::queued::{ADMIT, admission, reason};
use super::replays::difference;
use crate::ids::RunId;
use crate::run::adoption::Adoption;
use crate::run::event::Adopt;
use crate::run::fork::{Asked, Forking};
use crate::run::{Command, Decision, Event, Run, RunStatus};

const FORK: u128 = 4_242;

/// A fork with a turn to wait for, where it has to.
fn forking(parent: &Fixture, at: u64, adopt: Adopt, waits: bool) -> Option<Forking> {
    let place = place(parent, at, adopt)?;
    if place.run.live().is_none_or(|live| live.compensation.is_some()) {
        return None;
    }
    let [fork, from] = [FORK, 42].map(|id| RunId::new(Uuid::from_u128(id)));
    let until = parent.events.len() as u64;
    let asked = Asked {
        adopt,
        admission: Some(admission(parent)),
        ..Asked::unchanged(fork, from, until, parent.now)
    };
    let mut forking = place.fork(asked).expect("it can be forked");
    forking.waits = waits.then(|| reason(0));
    Some(forking)
}

/// A fork that begins an hour after its parent's last event, and what it may take over.
fn begun(parent: &Fixture, mut forking: Forking) -> (Fixture, Adoption, Decision) {
    let mut fork =
        Fixture::new(json!({"name": "d", "start": "a", "nodes": {"a": {"compute": {}}}}));
    fork.plan = Arc::clone(&parent.plan);
    fork.now = parent.now + TimeDelta::hours(1);
    let past = forking.past.clone();
    let decision = forking.begin(&mut fork.run, &fork.plan, fork.now).expect("it begins");
    let own = decision.events.iter().map(|event| (event.clone(), fork.now));
    fork.events = past.events().into_iter().chain(own).collect();
    (fork, forking.adoption, decision)
}

/// Lets a fork in, as who has its adoption does.
fn admitted(fork: &mut Fixture, adoption: &mut Adoption) {
    let (plan, now) = (Arc::clone(&fork.plan), fork.now);
    let mut whole = fork.run.execute(&plan, &ADMIT, now).expect("it may begin");
    loop {
        let Decision { events, dispatch, children, advance, .. } =
            adoption.follow(&mut fork.run, &plan, now, std::mem::take(&mut whole));
        fork.events.extend(events.into_iter().map(|event| (event, now)));
        (whole.dispatch, whole.children, whole.advance) = (dispatch, children, advance);
        if !whole.advance {
            break;
        }
    }
    fork.owed = whole.dispatch;
}

fn types(decision: &Decision) -> Vec<&str> {
    decision.events.iter().map(Event::event_type).collect()
}

#[test]
fn a_fork_that_waited_for_its_turn_at_any_event_ends_as_its_run_did() {
    let graphs = (blocks(), prop::collection::vec(any::<u32>(), 1..40), any::<bool>());
    runner(30)
        .run(&graphs, |(block, schedule, compensate)| {
            let definition = Layout::definition(&calls(block, false), false, compensate);
            let parent = run_by(definition, &schedule);
            for at in 1..=parent.events.len() as u64 {
                let Some(forking) = forking(&parent, at, Adopt::All, true) else { continue };
                let again = forking.first.len();
                let (mut fork, mut adoption, first) = begun(&parent, forking);
                prop_assert_eq!(types(&first)[..2].to_vec(), ["run_forked", "run_queued"]);
                prop_assert!(again > 0 || first.events.len() == 2, "nothing goes on: {:?}", first);
                prop_assert!(first.dispatch.is_empty() && first.children.is_empty());
                if fork.run.live().is_some() {
                    prop_assert_eq!(fork.run.status(), Some(RunStatus::Queued));
                    prop_assert_eq!(fork.run.owed(&fork.plan), Default::default());
                    fork.advance_clock(3_600_000);
                    admitted(&mut fork, &mut adoption);
                }
                prop_assert_eq!(end(&fork.run), end(&parent.run), "forked at {}", at);
                prop_assert_eq!(&fork.owed, &Vec::new());
                prop_assert_eq!(difference(&fork, &fork.plan), None);
                let mut folded = Run::default();
                fork.events.iter().for_each(|(event, at)| folded.evolve(event, *at));
                prop_assert_eq!(&folded, &fork.run);
            }
            Ok(())
        })
        .unwrap_or_else(|failure| panic!("{failure}"));
}

/// A call, and then a wait of ten seconds.
fn waited() -> Fixture {
    let mut parent = Fixture::new(json!({
        "name": "d", "start": "first", "timeout": "1m",
        "concurrency": {"key": "${input.user}", "limit": 1},
        "nodes": {"first": task_into("state.first"), "then": {"wait": {"for": "10s"}},
            "last": task_into("state.last")},
        "transitions": [{"from": "first", "to": "then"}, {"from": "then", "to": "last"}],
    }));
    parent.admission = Some(admission(&parent));
    parent.start(json!({"user": "ann"})).expect("it starts");
    parent.succeed("first", json!(1));
    parent.advance_clock(4_000);
    parent
}

#[test]
fn its_timers_stand_still_while_it_waits_and_have_as_much_time_left_then() {
    let parent = waited();
    assert_eq!(parent.types()[..2], ["run_started", "run_admitted"]);
    let at = parent.events.len() as u64;
    let (mut fork, mut adoption, first) =
        begun(&parent, forking(&parent, at, Adopt::All, true).expect("it goes on there"));
    assert_eq!(types(&first), ["run_forked", "run_queued"]);
    let began = fork.now;
    assert_eq!(fork.run.next_due(), None);
    // Nobody else is in the way of a pause meanwhile, which counts once.
    fork.advance_clock(60_000);
    fork.when(&Command::Pause { reason: None }).expect("it may be paused");
    fork.advance_clock(60_000);
    fork.when(&Command::Resume).expect("it may go on");
    fork.advance_clock(60_000);
    admitted(&mut fork, &mut adoption);
    assert_eq!(fork.run.status(), Some(RunStatus::Waiting));
    // The wait had ten seconds left where it began, and its run's time-out a minute.
    assert_eq!(fork.run.next_due(), Some(fork.now + TimeDelta::seconds(10)));
    assert!(fork.now - began == TimeDelta::minutes(3));
    fork.advance_clock(10_000);
    assert_eq!(fork.at("last"), (3, 1));
    fork.advance_clock(49_999);
    assert!(fork.run.live().is_some());
    fork.advance_clock(1);
    assert_eq!(fork.closed().status, RunStatus::TimedOut);
    assert_eq!(difference(&fork, &fork.plan), None);
}

#[test]
fn one_that_is_let_in_while_it_is_paused_goes_on_when_it_is_resumed() {
    let parent = waited();
    let at = parent.events.len() as u64;
    let (mut fork, mut adoption, _) =
        begun(&parent, forking(&parent, at, Adopt::All, true).expect("it goes on there"));
    fork.advance_clock(60_000);
    fork.when(&Command::Pause { reason: None }).expect("it may be paused");
    fork.advance_clock(60_000);
    admitted(&mut fork, &mut adoption);
    assert_eq!((fork.run.status(), fork.run.next_due()), (Some(RunStatus::Paused), None));
    fork.advance_clock(60_000);
    fork.when(&Command::Resume).expect("it may go on");
    assert_eq!(fork.run.next_due(), Some(fork.now + TimeDelta::seconds(10)));
    assert_eq!(difference(&fork, &fork.plan), None);
}

#[test]
fn one_with_a_place_goes_on_at_once_and_can_be_forked_and_cancelled_like_any() {
    let parent = waited();
    let at = parent.events.len() as u64;
    let (fork, _, first) =
        begun(&parent, forking(&parent, at, Adopt::All, false).expect("it goes on there"));
    assert_eq!(types(&first), ["run_forked", "run_admitted"]);
    assert_eq!(difference(&fork, &fork.plan), None);
    // A fork of the fork, and of one that waits: each has its own turn.
    let (mut second, _, first) =
        begun(&fork, forking(&fork, at + 2, Adopt::All, true).expect("it goes on there"));
    assert_eq!(types(&first), ["run_forked", "run_queued"]);
    assert_eq!(second.run.live().map(|live| live.is_its_own()), Some(true));
    let (third, ..) =
        begun(&second, forking(&second, at + 4, Adopt::All, false).expect("it goes on there"));
    assert_eq!(third.run.next_due(), Some(third.now + TimeDelta::seconds(10)));
    assert_eq!(difference(&third, &third.plan), None);
    second.when(&Command::Cancel { reason: None, compensate: true }).expect("it is cancelled");
    assert_eq!(second.closed().status, RunStatus::Cancelled);
    assert_eq!(difference(&second, &second.plan), None);
}

#[test]
fn an_outcome_that_it_is_given_is_there_before_its_turn_and_what_follows_is_not() {
    let mut parent = Fixture::new(json!({
        "name": "d", "start": "first", "concurrency": {"limit": 1},
        "nodes": {"first": task_into("state.first"), "then": {"compute": {"state.then": "${1}"}}},
        "transitions": [{"from": "first", "to": "then"}],
    }));
    parent.admission = Some(admission(&parent));
    parent.start(json!({})).expect("it starts");
    let place = place(&parent, 2, Adopt::None).expect("it goes on there");
    let [fork, from] = [FORK, 42].map(|id| RunId::new(Uuid::from_u128(id)));
    let asked = Asked {
        adopt: Adopt::None,
        admission: Some(admission(&parent)),
        outcomes: [(1, Ok(json!(7)))].into(),
        ..Asked::unchanged(fork, from, 2, parent.now)
    };
    let mut forking = place.fork(asked).expect("the attempt is under way");
    forking.waits = Some(reason(3));
    let (mut fork, mut adoption, first) = begun(&parent, forking);
    assert_eq!(types(&first), ["run_forked", "run_queued", "task_succeeded", "token_routed"]);
    assert_eq!(fork.run.status(), Some(RunStatus::Queued));
    admitted(&mut fork, &mut adoption);
    assert_eq!(fork.closed().status, RunStatus::Completed);
    assert_eq!(fork.closed().output.as_deref(), Some(&json!({"first": 7, "then": 1})));
    assert_eq!(difference(&fork, &fork.plan), None);
}
