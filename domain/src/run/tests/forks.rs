//! Forks: a run that goes on from any event of another one.

use std::sync::Arc;

use chrono::TimeDelta;
use graphs::{Block, Layout, PEOPLE, blocks, runner};
use proptest::prelude::*;
use serde_json::{Value, json};
use uuid::Uuid;

use super::fixture::{Fixture, error, task_into};
use super::replays::difference;
use crate::ids::RunId;
use crate::run::command::{ChildReport, GateAnswer, Report};
use crate::run::event::{
    Adopt, BranchPatch, Decision as Answer, FailureKind, ForkedChild, RunForked, Usage,
};
use crate::run::fork::{Place, Prefix};
use crate::run::rehearsal::compared;
use crate::run::state::{Live, Phase};
use crate::run::{Command, Decision, Event, Refusal, Run, RunStatus};

const FORK: u128 = 4_242;

/// The place of a fork at an event.
pub(super) fn place(parent: &Fixture, at: u64, adopt: Adopt) -> Option<Place> {
    let mut prefix = Prefix::new(&parent.plan, at, adopt);
    for (event, at) in &parent.events {
        if !prefix.take(event.clone(), *at).expect("the engine decides the same") {
            break;
        }
    }
    prefix.place()
}

pub(super) fn unchanged(parent: &Fixture, place: &Place, adopt: Adopt) -> RunForked {
    RunForked {
        run_id: RunId::new(Uuid::from_u128(FORK)),
        from: RunId::new(Uuid::from_u128(42)),
        sequence: place.shared,
        until: parent.events.len() as u64,
        adopt,
        since: place.since,
        deadline: None,
        forked_by: Some("eve".to_owned()),
        input: None,
        state: None,
        branches: Vec::new(),
        outcomes: Vec::new(),
        definition: None,
        pins: Vec::new(),
        admission: None,
        experiment: None,
        children: Vec::new(),
    }
}

/// A fork, an hour after the last event of its parent. What it has to do itself stands in `owed`.
pub(super) fn forked(
    parent: &Fixture,
    place: Place,
    forked: RunForked,
    outcome: Option<(u64, Value)>,
) -> Result<Fixture, Refusal> {
    let mut fork =
        Fixture::new(json!({"name": "d", "start": "a", "nodes": {"a": {"compute": {}}}}));
    fork.plan = Arc::clone(&parent.plan);
    fork.now = parent.now + TimeDelta::hours(1);
    let Place { run, events, again, mut adoption, .. } = place;
    (fork.run, fork.events) = (run, events.expect("they are kept"));
    let (plan, now) = (&fork.plan, fork.now);
    let mut whole = fork.run.execute(plan, &Command::Fork(Box::new(forked)), now)?;
    let edited = outcome.map(|(token, result)| {
        let (_, attempt) = fork.run.working_attempt(token).expect("it is under way");
        let usage = Usage::default();
        let report =
            Report { token, attempt, result: Ok(result), usage, duration_ms: 0, adopted: None };
        Command::Report(Box::new(report))
    });
    for command in edited.into_iter().chain(again) {
        whole.append(fork.run.execute(plan, &command, now)?);
    }
    loop {
        let Decision { events, dispatch, children, advance, .. } =
            adoption.follow(&mut fork.run, plan, now, std::mem::take(&mut whole));
        fork.events.extend(events.into_iter().map(|event| (event, now)));
        (whole.dispatch, whole.children, whole.advance) = (dispatch, children, advance);
        if !whole.advance {
            break;
        }
    }
    fork.owed = whole.dispatch;
    Ok(fork)
}

fn forked_at(parent: &Fixture, at: u64) -> Fixture {
    let place = place(parent, at, Adopt::All).expect("the run goes on there");
    let event = unchanged(parent, &place, Adopt::All);
    forked(parent, place, event, None).expect("it is forked")
}

/// What a run came to. Children are named by their tokens: its own, and those of the run it was
/// forked from, which an error of before the fork names.
pub(super) fn end(run: &Run) -> Value {
    let Run::Closed(closed) = run else { panic!("the run goes on: {run:#?}") };
    let end = json!([closed.status, closed.root, closed.output, closed.error, closed.reason]);
    let mut text = end.to_string();
    for run in [closed.header.run_id, RunId::new(Uuid::from_u128(42))] {
        for token in 1..200 {
            text = text.replace(&run.child(token).to_string(), &format!("child of {token}"));
        }
    }
    serde_json::from_str(&text).expect("it is JSON")
}

/// The graph with calls, and nothing that races with times; nor, where it isn't to wait, with what
/// waits for people or times.
pub(super) fn calls(block: Block, waits: bool) -> Block {
    let calls = |block| calls(block, waits);
    let inner = |block: Box<Block>| Box::new(calls(*block));
    match block {
        Block::Wait | Block::Signal { .. } | Block::Gate { .. } if !waits => {
            Block::Task { retries: true, undo: false }
        }
        Block::Child { catches, undo, .. } => Block::Child { catches, timed: false, undo },
        Block::Exclusive { kind, mutex } if kind < 4 => Block::Exclusive { kind: 0, mutex },
        Block::Sequence(parts) => Block::Sequence(parts.into_iter().map(calls).collect()),
        Block::Choice(yes, no) => Block::Choice(inner(yes), inner(no)),
        Block::Loop(body, times) => Block::Loop(inner(body), times),
        Block::Rescue(body) => Block::Rescue(inner(body)),
        Block::Grown { body, wait, foreach } => Block::Grown { body: inner(body), wait, foreach },
        Block::Stopped { body, how, failed } => Block::Stopped { body: inner(body), how, failed },
        Block::FanOut { count, body, wait, failed, foreach, .. } => {
            Block::FanOut { count, body: inner(body), wait, failed, rest: false, foreach }
        }
        Block::Task { .. }
        | Block::Wait
        | Block::Signal { .. }
        | Block::Gate { .. }
        | Block::Compute
        | Block::Emit
        | Block::Measure
        | Block::Exclusive { .. } => block,
    }
}

/// What people and others may say now.
fn asked_outside(live: &Live) -> Vec<Command> {
    let waiting = live.tokens.iter().filter_map(|(token, at)| match &at.phase {
        Phase::Gated { gate } => Some(Command::Answer(Box::new(GateAnswer {
            token: *token,
            actor: PEOPLE[gate.answers.len()].to_owned(),
            roles: Vec::new(),
            decision: if token % 3 == 0 { Answer::Reject } else { Answer::Approve },
            value: json!({"n": 1.50}),
            comment: None,
        }))),
        Phase::Waiting { signal: Some(name), .. } => Some(Command::Signal {
            name: name.parse().expect("a name"),
            payload: json!({"ok": true}),
            transient: false,
        }),
        _ => None,
    });
    waiting.collect()
}

/// Runs a graph to its end, by a schedule.
pub(super) fn run_by(definition: Value, schedule: &[u32]) -> Fixture {
    let mut run = Fixture::new(definition);
    run.start(json!({"z": 0.5, "items": [7, 7], "a": {"y": 1}})).expect("it starts");
    let mut steps = schedule.iter().copied().cycle();
    let mut next = || steps.next().unwrap_or_default();
    for _ in 0..5_000 {
        let Run::Live(live) = &run.run else { return run };
        let (choice, more) = (next() as usize, next());
        run.now += TimeDelta::milliseconds(i64::from(more % 50));
        let children: Vec<_> = live.children.iter().map(|(token, id)| (*token, *id)).collect();
        let asked = asked_outside(live);
        let all = run.owed.len() + children.len() + asked.len();
        let command = match (choice % all.max(1), live.next_due()) {
            (place, _) if (all - asked.len()..all).contains(&place) => {
                asked[place + asked.len() - all].clone()
            }
            (place, _) if place < run.owed.len() => {
                let (token, attempt) = run.owed[place];
                let result = match more % 6 {
                    4 => Err(error(FailureKind::Transient)),
                    5 => Err(error(FailureKind::Permanent)),
                    n => Ok(json!({"n": n})),
                };
                let usage = Usage { input_tokens: 1, output_tokens: 2, cost_micros: 3 };
                let (duration_ms, adopted) = (1, None);
                Command::Report(Box::new(Report {
                    token,
                    attempt,
                    result,
                    usage,
                    duration_ms,
                    adopted,
                }))
            }
            (place, _) if place - run.owed.len() < children.len() => {
                let (token, run_id) = children[place - run.owed.len()];
                let (status, output) = match more % 3 {
                    0 => (RunStatus::Failed, None),
                    n => (RunStatus::Completed, Some(json!({"child": n}))),
                };
                let (error, adopted) = (None, None);
                Command::ReportChild(Box::new(ChildReport {
                    token,
                    run_id,
                    status,
                    output,
                    error,
                    adopted,
                }))
            }
            (_, Some(due)) => {
                run.now = run.now.max(due);
                Command::Wake
            }
            (_, None) => panic!("the run hangs: {live:#?}"),
        };
        run.when(&command).expect("what is owed is not refused");
    }
    panic!("the run did not end in 5,000 steps");
}

#[test]
fn a_fork_at_any_event_that_changes_nothing_ends_as_its_run_did_and_costs_no_call() {
    let graphs = (blocks(), prop::collection::vec(any::<u32>(), 1..40), any::<bool>());
    runner(60)
        .run(&graphs, |(block, schedule, compensate)| {
            let definition = Layout::definition(&calls(block, false), false, compensate);
            let parent = run_by(definition, &schedule);
            for at in 1..=parent.events.len() as u64 {
                let Some(place) = place(&parent, at, Adopt::All) else { continue };
                if place.run.live().is_none_or(|live| live.compensation.is_some()) {
                    continue;
                }
                let event = unchanged(&parent, &place, Adopt::All);
                let fork = forked(&parent, place, event, None).expect("it is forked");
                prop_assert_eq!(end(&fork.run), end(&parent.run), "forked at {}", at);
                prop_assert_eq!(&fork.owed, &Vec::new());
                prop_assert_eq!(fork.closed().usage, Usage::default(), "no call was made");
                prop_assert_eq!(difference(&fork, &fork.plan), None);
                let mut folded = Run::default();
                fork.events.iter().for_each(|(event, at)| folded.evolve(event, *at));
                prop_assert_eq!(&folded, &fork.run);
            }
            Ok(())
        })
        .unwrap_or_else(|failure| panic!("{failure}"));
}

fn two_steps() -> Value {
    let mut second = task_into("state.second");
    second["input"] = json!({"given": "${state.first}", "key": "${run.id}"});
    json!({
        "name": "two", "start": "first", "timeout": "2h",
        "nodes": {"first": task_into("state.first"), "second": second},
        "transitions": [{"from": "first", "to": "second"}],
        "output": {"all": "${[input.n, state.first, state.second]}"},
    })
}

/// Both steps have run.
fn ran() -> Fixture {
    let mut run = Fixture::started(two_steps(), json!({"n": 1}));
    run.succeed("first", json!("a"));
    run.succeed("second", json!("b"));
    run
}

#[test]
fn a_fork_is_a_run_of_its_own_with_the_same_sequences() {
    let parent = ran();
    assert_eq!(parent.output(), json!({"all": [1, "a", "b"]}));
    // In the middle of a decision: what came from outside is taken over again.
    assert_eq!(parent.types()[1..3], ["task_succeeded", "token_routed"]);
    let fork = forked_at(&parent, 2);
    assert_eq!(fork.events[0], parent.events[0]);
    let Event::RunForked(forked) = &fork.events[1].0 else { panic!("{:?}", fork.types()) };
    assert_eq!((forked.sequence, forked.until), (1, parent.events.len() as u64));
    let adopted: Vec<_> = fork
        .events
        .iter()
        .filter_map(|(event, _)| match event {
            Event::TaskSucceeded { adopted, .. } => *adopted,
            _ => None,
        })
        .collect();
    assert_eq!(adopted, [2, 4]);
    let closed = fork.closed();
    assert_eq!(closed.header.run_id, RunId::new(Uuid::from_u128(FORK)));
    assert_eq!(closed.header.started_by.as_deref(), Some("eve"));
    assert_eq!(closed.usage, Usage::default());
    assert_eq!(fork.output(), parent.output());
    assert_eq!(place(&parent, parent.events.len() as u64, Adopt::All).map(|one| one.since), None);
}

#[test]
fn what_an_edit_reaches_is_called_again_and_the_rest_is_taken_over() {
    let parent = ran();
    let after_first = 3;
    let at = |edit: &dyn Fn(&mut RunForked), adopt, outcome| {
        let place = place(&parent, if outcome { 1 } else { after_first }, adopt).expect("a place");
        let mut event = unchanged(&parent, &place, adopt);
        edit(&mut event);
        forked(&parent, place, event, outcome.then(|| (1, json!("z"))))
    };
    // The second step has another input.
    let mut fork = at(&|event| event.state = Some(json!({"first": "x"})), Adopt::All, false)
        .expect("it is forked");
    let given = json!({"given": "x", "key": RunId::new(Uuid::from_u128(FORK))});
    assert_eq!(fork.input_at("second"), given);
    fork.succeed("second", json!("c"));
    assert_eq!(fork.output(), json!({"all": [1, "x", "c"]}));
    assert_eq!(fork.closed().usage.cost_micros, 3);
    assert_eq!(difference(&fork, &fork.plan), None);
    // What nobody asked for may change.
    let fork = at(&|event| event.input = Some(json!({"n": 9})), Adopt::All, false).expect("forked");
    assert_eq!(fork.output(), json!({"all": [9, "a", "b"]}));
    // Another outcome of an attempt.
    let mut fork = at(&|event| event.outcomes = vec![1], Adopt::All, true).expect("it is forked");
    assert_eq!(fork.input_at("second")["given"], json!("z"));
    fork.succeed("second", json!("d"));
    assert_eq!(fork.output(), json!({"all": [1, "z", "d"]}));
    assert_eq!(difference(&fork, &fork.plan), None);
    // Nothing is taken over.
    let fork = at(&|_| (), Adopt::None, false).expect("it is forked");
    assert_eq!(fork.at("second"), (2, 1));
    let refused = at(
        &|event| event.branches.push(BranchPatch { token: 2, patch: json!({}) }),
        Adopt::All,
        false,
    );
    assert_eq!(refused.err(), Some(Refusal::NoBranch { token: 2 }));
}

#[test]
fn what_failed_is_tried_again_where_only_successes_are_taken_over() {
    let mut parent = Fixture::started(two_steps(), json!({"n": 1}));
    parent.succeed("first", json!("a"));
    parent.fail("second", FailureKind::Permanent);
    assert_eq!(parent.closed().status, RunStatus::Failed);
    let place = place(&parent, 1, Adopt::Successes).expect("a place");
    let event = unchanged(&parent, &place, Adopt::Successes);
    let mut fork = forked(&parent, place, event, None).expect("it is forked");
    fork.succeed("second", json!("b"));
    assert_eq!(fork.output(), json!({"all": [1, "a", "b"]}));
    assert_eq!(end(&forked_at(&parent, 1).run), end(&parent.run));
}

#[test]
fn gates_stay_open_and_timers_have_as_much_time_left_as_they_had() {
    let mut parent = Fixture::started(
        json!({
            "name": "d", "start": "begin",
            "nodes": {"begin": {"compute": {}}, "ask": {"gate": {"title": "Go on?", "timeout": "1h"}},
                "rest": {"wait": {"for": "30m"}}},
            "transitions": [{"from": "begin", "to": "ask"}, {"from": "begin", "to": "rest"}],
        }),
        json!({}),
    );
    let opened = parent.events.len() as u64;
    parent.advance_clock(10 * 60_000);
    parent.when(&Command::Pause { reason: None }).expect("it goes on");
    let paused = parent.events.len() as u64;
    parent.advance_clock(5 * 60_000);
    parent.when(&Command::Resume).expect("it is paused");
    let gate = *parent.run.live().and_then(|live| live.gates.first()).expect("a gate");
    parent.when(&answer(gate)).expect("it is open");
    let left = |fork: &Fixture| {
        let live = fork.run.live().expect("it waits");
        let due: Vec<_> =
            live.timers.iter().map(|(due, _)| (*due - fork.now).num_minutes()).collect();
        (live.gates.len(), due, live.pause.is_some())
    };
    assert_eq!(left(&forked_at(&parent, opened)), (1, vec![30, 60], false));
    assert_eq!(left(&forked_at(&parent, paused)), (1, vec![20, 50], false));
    // With the answer: it is given again.
    let answered = parent.types().iter().position(|name| *name == "gate_answered").expect("it was");
    let fork = forked_at(&parent, answered as u64 + 1);
    assert_eq!(left(&fork), (0, vec![20], false));
    assert_eq!(difference(&fork, &fork.plan), None);
    // When the time was up, it is up.
    parent.advance_clock(60 * 60_000);
    let waited = parent.types().iter().position(|name| *name == "wait_ended").expect("it has");
    assert_eq!(forked_at(&parent, waited as u64 + 1).closed().status, RunStatus::Completed);
}

fn answer(token: u64) -> Command {
    Command::Answer(Box::new(GateAnswer {
        token,
        actor: "ann".to_owned(),
        roles: Vec::new(),
        decision: Answer::Approve,
        value: json!({}),
        comment: None,
    }))
}

#[test]
fn a_fork_undoes_nothing_that_its_run_did_and_a_child_is_its_own() {
    let undo = json!({"action": {"kind": "mock"}});
    let mut book = task_into("state.booked");
    book["undo"] = undo;
    let mut parent = Fixture::started(
        json!({
            "name": "d", "start": "book", "compensate": true,
            "nodes": {"book": book, "below": {"workflow": {"definition": "below"}}},
            "transitions": [{"from": "book", "to": "below"}],
        }),
        json!({}),
    );
    parent.succeed("book", json!("yes"));
    let there = parent.events.len() as u64;
    assert_eq!(parent.run.live().map(|live| live.completions.len()), Some(1));
    let fork = forked_at(&parent, there);
    let live = fork.run.live().expect("it waits for its child");
    assert_eq!(live.completions.len(), 0);
    let own = RunId::new(Uuid::from_u128(FORK)).child(2);
    assert!(matches!(live.tokens[&2].phase, Phase::AwaitingChild { run_id, .. } if run_id == own));
    assert_eq!(fork.run.owed(&fork.plan).children, [(2, own)]);
    let begins = |fork: &Fixture| fork.run.child_start(&fork.plan, 2).expect("a child").fork_of;
    assert_eq!(begins(&fork), None, "it begins anew");
    let there = place(&parent, there, Adopt::All).expect("it waits for its child");
    let run_id = RunId::new(Uuid::from_u128(42)).child(2);
    let child = ForkedChild { token: 2, run_id, sequence: 3, children: Vec::new() };
    let event =
        RunForked { children: vec![child.clone()], ..unchanged(&parent, &there, Adopt::All) };
    let fork = forked(&parent, there, event, None).expect("it is forked");
    assert_eq!(begins(&fork).as_deref(), Some(&child));
    parent.when(&Command::Cancel { reason: None, compensate: true }).expect("it goes on");
    let undoing = parent.events.len() as u64;
    let place = place(&parent, undoing, Adopt::All).expect("it undoes its work");
    let event = unchanged(&parent, &place, Adopt::All);
    let refused = forked(&parent, place, event, None).err();
    assert_eq!(refused, Some(Refusal::ForkWhileUndoing));
}

#[test]
fn another_plan_is_followed_where_it_has_the_nodes() {
    let parent = ran();
    let with = |definition: Value| {
        let place = place(&parent, 3, Adopt::All).expect("a place");
        let event = unchanged(&parent, &place, Adopt::All);
        let (now, events) = (parent.now, parent.events.clone());
        let other = Fixture { now, events, ..Fixture::new(definition) };
        forked(&other, place, event, None)
    };
    let mut changed = two_steps();
    changed["output"] = json!({"first": "${state.first}"});
    assert_eq!(with(changed).expect("it is forked").output(), json!({"first": "a"}));
    let mut renamed = two_steps();
    let second = renamed["nodes"]["second"].take();
    renamed["nodes"] = json!({"first": task_into("state.first"), "other": second});
    renamed["transitions"] = json!([{"from": "first", "to": "other"}]);
    let missing = Refusal::NodeMissing { token: 2, node: "second".to_owned() };
    assert_eq!(with(renamed).err(), Some(missing));
}

#[test]
fn what_a_fork_says_of_its_origin_is_no_difference() {
    let parent = ran();
    for (event, _) in &parent.events {
        let mut other = event.clone();
        match &mut other {
            Event::RunStarted(first) => {
                let from = json!({"run_id": first.run_id, "sequence": 2, "at": parent.now});
                first.forked_from = Some(serde_json::from_value(from).expect("an origin"));
            }
            Event::TaskSucceeded { adopted, usage, .. } => {
                (*adopted, usage.input_tokens) = (Some(7), 5);
            }
            _ => continue,
        }
        assert_ne!(event, &other);
        assert_eq!(compared(event, &other), None);
    }
}
