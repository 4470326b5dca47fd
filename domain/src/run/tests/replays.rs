//! A history decided again: the same by the same plan, and where it parts by another.

use serde_json::{Value, json};

use super::fixture::Fixture;
use crate::definition::{Definition, Plan, Resolved};
use crate::run::Event;
use crate::run::event::FailureKind;
use crate::run::replay::{Difference, Replay};

/// Where a run's history differs from what a plan decides, if it does.
pub(super) fn difference(run: &Fixture, plan: &Plan) -> Option<Box<Difference>> {
    let mut replay = Replay::new(plan);
    let taken = run.events.iter().try_for_each(|(event, at)| replay.take(event, *at).map(drop));
    taken.and_then(|()| replay.end()).err()
}

fn routed(high: i32, low: i32) -> Value {
    json!({
        "name": "routed", "start": "begin",
        "nodes": {"begin": {"action": {"kind": "mock"}, "retry": {"max_attempts": 3, "initial": "1s"}},
            "one": {"compute": {"state.way": "one"}}, "other": {"compute": {"state.way": "other"}}},
        "transitions": [
            {"from": "begin", "to": "one", "when": "result.n > 1", "priority": high},
            {"from": "begin", "to": "other", "when": "result.n > 0", "priority": low},
        ],
        "output": {"way": "${state.way}"},
    })
}

pub(super) fn plan(definition: Value) -> Plan {
    let definition: Definition = serde_json::from_value(definition).expect("a definition");
    Plan::compile(&definition, &Resolved::default()).expect("it compiles")
}

/// A run with a retry that came by a timer, which went one way.
fn ran() -> Fixture {
    let mut run = Fixture::started(routed(1, 2), json!({}));
    run.fail("begin", FailureKind::Transient);
    run.advance_clock(60_000);
    run.succeed("begin", json!({"n": 2}));
    run
}

#[test]
fn a_history_is_decided_again_as_it_is() {
    let run = ran();
    assert!(run.types().contains(&"retry_started"));
    assert_eq!(difference(&run, &run.plan), None);
}

#[test]
fn the_first_event_that_another_plan_decides_otherwise_is_named() {
    let run = ran();
    let routed_at = run.types().iter().position(|name| *name == "token_routed").expect("routed");
    let found = difference(&run, &plan(routed(2, 1))).expect("the other way comes first");
    assert_eq!(found.sequence, routed_at as u64 + 1);
    let Some(Event::TokenRouted { fired, .. }) = &found.decided else { panic!("{found:?}") };
    assert!(format!("{fired:?}").contains("other"), "{fired:?}");
}

#[test]
fn an_event_that_was_altered_left_out_or_added_is_found() {
    let whole = ran();
    let mut altered = ran();
    let last = altered.events.len() - 1;
    altered.events[last].0 = Event::RunCompleted { output: json!({"way": "other"}) };
    assert_eq!(difference(&altered, &whole.plan).map(|one| one.sequence), Some(last as u64 + 1));
    for at in 1..last {
        let mut shorter = ran();
        shorter.events.remove(at);
        let found = difference(&shorter, &whole.plan);
        assert!(found.is_some(), "the event {at} isn't missed: {:?}", whole.events[at].0);
        let mut longer = ran();
        let again = longer.events[at].clone();
        longer.events.insert(at, again);
        assert!(difference(&longer, &whole.plan).is_some(), "the event {at} may come twice");
    }
    let mut cut = ran();
    cut.events.pop();
    let found = difference(&cut, &whole.plan).expect("more was decided");
    assert_eq!((found.sequence, found.recorded), (last as u64 + 1, None));
}
