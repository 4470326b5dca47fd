//! Experiments: forks that take over all that the world said, and do nothing to it that they may not.

use graphs::{Layout, blocks, runner};
use proptest::prelude::*;
use serde_json::{Value, json};

use super::fixture::{Fixture, task, task_into};
use super::forks::{calls, end, forked, place, run_by, unchanged};
use super::replays::difference;
use crate::run::event::{Adopt, Effect, Experiment, GateOutcome, RunForked, Usage};
use crate::run::{Event, Run, RunStatus};

fn experiment(allow: &[Effect], max_cost_micros: Option<u64>) -> Experiment {
    let allow = allow.iter().copied().collect();
    Experiment { name: "trial".to_owned(), allow, max_cost_micros }
}

/// A fork of an experiment, from the run's start, with something different.
fn tried(parent: &Fixture, experiment: Experiment, change: impl FnOnce(&mut RunForked)) -> Fixture {
    let place = place(parent, 1, Adopt::Outside).expect("the run goes on there");
    let event = unchanged(parent, &place, Adopt::Outside);
    let mut event = RunForked { experiment: Some(Box::new(experiment)), ..event };
    change(&mut event);
    let fork = forked(parent, place, event, None).expect("it is forked");
    assert_eq!(difference(&fork, &fork.plan), None, "it is decided again");
    fork
}

/// Another input.
fn given(input: Value) -> impl FnOnce(&mut RunForked) {
    move |forked| forked.input = Some(input)
}

/// Whether several times were up in the same moment: they are taken over one after the other.
fn has_ended_at_once(run: &Fixture) -> bool {
    let is_of_time = |event: &Event| match event {
        Event::WaitEnded { signal, .. } => signal.is_none(),
        Event::NodeFailed { error, .. } => error.code == "wait_timeout",
        Event::GateClosed(closed) => closed.outcome == GateOutcome::TimedOut,
        _ => false,
    };
    let ended = run.events.iter().filter(|(event, _)| is_of_time(event)).map(|(_, at)| *at);
    let ended: Vec<_> = ended.collect();
    ended.windows(2).any(|pair| pair[0] == pair[1])
}

/// The codes of failures, each after its node.
fn failures(run: &Fixture) -> Vec<(String, String)> {
    let failed = run.events.iter().filter_map(|(event, _)| match event {
        Event::TaskFailed { error, .. } | Event::NodeFailed { error, .. } => Some(error.clone()),
        Event::ChildEnded(ended) => ended.error.clone(),
        Event::GateClosed(closed) => closed.error.clone(),
        _ => None,
    });
    failed.map(|error| (error.node.unwrap_or_default(), error.code)).collect()
}

#[test]
fn an_experiment_that_changes_nothing_differs_in_nothing_and_calls_nobody() {
    let graphs = (blocks(), prop::collection::vec(any::<u32>(), 1..40), any::<bool>());
    runner(150)
        .run(&graphs, |(block, schedule, compensate)| {
            let definition = Layout::definition(&calls(block, true), false, compensate);
            let parent = run_by(definition, &schedule);
            prop_assume!(!has_ended_at_once(&parent));
            let fork = tried(&parent, experiment(&[], Some(0)), |_| ());
            prop_assert_eq!(end(&fork.run), end(&parent.run));
            prop_assert_eq!(&fork.owed, &Vec::new());
            prop_assert_eq!(fork.closed().usage, Usage::default(), "no call was made");
            let mut folded = Run::default();
            fork.events.iter().for_each(|(event, at)| folded.evolve(event, *at));
            prop_assert_eq!(&folded, &fork.run);
            Ok(())
        })
        .unwrap_or_else(|failure| panic!("{failure}"));
}

fn posts() -> Value {
    let http = |method: &str| {
        let with = json!({"method": method, "url": "http://localhost/"});
        json!({"action": {"kind": "http", "with": with}, "input": {"n": "${input.n}"}})
    };
    json!({
        "name": "posts", "start": "tell",
        "nodes": {"tell": http("POST"), "look": http("get")},
        "transitions": [{"from": "tell", "to": "look"}],
    })
}

#[test]
fn a_request_that_may_change_something_gets_what_was_recorded_whatever_it_says() {
    let mut parent = Fixture::started(posts(), json!({"n": 1}));
    parent.succeed("tell", json!("told"));
    parent.succeed("look", json!("seen"));
    let fork = tried(&parent, experiment(&[], None), given(json!({"n": 2})));
    assert_eq!(fork.types()[2], "task_succeeded");
    assert_eq!(fork.node_of(fork.owed[0].0), "look", "a safe one is made again");
    let allowed = tried(&parent, experiment(&[Effect::Http], None), given(json!({"n": 2})));
    assert_eq!(allowed.node_of(allowed.owed[0].0), "tell");
}

#[test]
fn without_a_recorded_outcome_a_node_fails_as_stubbed() {
    let parent = Fixture::started(posts(), json!({"n": 1}));
    let stubbed = tried(&parent, experiment(&[], None), |_| ());
    assert_eq!(stubbed.failure(), "stubbed");
    assert_eq!(failures(&stubbed), [("tell".to_owned(), "stubbed".to_owned())]);
    let allowed = tried(&parent, experiment(&[Effect::Http], None), |_| ());
    assert_eq!(allowed.node_of(allowed.owed[0].0), "tell");
    let ordinary = {
        let place = place(&parent, 1, Adopt::Outside).expect("the run goes on there");
        let event = unchanged(&parent, &place, Adopt::Outside);
        forked(&parent, place, event, None).expect("it is forked")
    };
    assert_eq!(ordinary.owed.len(), 1, "only experiments withhold anything");
}

#[test]
fn nobody_is_asked_no_child_is_started_and_no_time_is_waited_for() {
    let definition = json!({
        "name": "outside", "start": "pause",
        "nodes": {
            "pause": {"wait": {"for": "30d"}},
            "ask": {"gate": {"title": "Sure?"}},
            "child": {"workflow": {"definition": "other"}},
            "hear": {"wait": {"signal": "paid"}},
            "end": task(),
        },
        "transitions": [
            {"from": "pause", "to": "ask"},
            {"from": "ask", "to": "child", "on": "failure"},
            {"from": "child", "to": "hear", "on": "failure"},
            {"from": "hear", "to": "end", "on": "failure"},
        ],
    });
    let parent = Fixture::started(definition, json!({}));
    let fork = tried(&parent, experiment(&[], None), |_| ());
    assert_eq!(fork.node_of(fork.owed[0].0), "end");
    let failed = [("ask", "stubbed"), ("child", "child_failed"), ("hear", "stubbed")];
    assert_eq!(failures(&fork), failed.map(|(node, code)| (node.to_owned(), code.to_owned())));
    let asks = tried(&parent, experiment(&[Effect::Gate], None), |_| ());
    assert_eq!(asks.run.live().expect("it goes on").gates.len(), 1);
}

/// Three calls beside each other, each of which costs 3.
fn fan() -> (Value, Value) {
    let mut call = task_into("state.last");
    call["input"] = json!({"item": "${item}", "tone": "${input.tone}"});
    let definition = json!({
        "name": "fan", "start": "begin",
        "nodes": {"begin": {"compute": {}}, "call": call, "end": {"compute": {}}},
        "transitions": [
            {"from": "begin", "to": "call", "foreach": "${input.items}", "group": "all"},
            {"from": "call", "to": "end", "join": {"group": "all", "wait": "all", "failed": "ignore"}},
        ],
    });
    (definition, json!({"items": [1, 2, 3], "tone": "kind"}))
}

#[test]
fn calls_stop_where_they_would_cost_more_than_they_may() {
    let (definition, input) = fan();
    let mut parent = Fixture::started(definition, input);
    for _ in 0..3 {
        parent.succeed("call", json!("so"));
    }
    assert_eq!(parent.closed().usage.cost_micros, 9);
    let rude = || given(json!({"items": [1, 2, 3], "tone": "rude"}));
    for (most, called) in [(0, 0), (2, 0), (3, 1), (8, 2), (9, 3)] {
        let fork = tried(&parent, experiment(&[], Some(most)), rude());
        assert_eq!(fork.owed.len(), called, "with {most}");
        let capped = failures(&fork);
        assert_eq!(capped.len(), 3 - called);
        assert!(capped.iter().all(|(node, code)| node == "call" && code == "cost_cap"));
    }
    assert_eq!(tried(&parent, experiment(&[], None), rude()).owed.len(), 3);
    assert_eq!(parent.closed().status, RunStatus::Completed);
}
