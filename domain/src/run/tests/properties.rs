//! The engine's invariants over random graphs, inputs, faults and schedules.
//!
//! A graph is a random tree of blocks (steps, choices, bounded loops, fan-outs with every kind of
//! join), laid out as a definition. A schedule is a list of random numbers that choose which
//! attempt is reported, with what, and when the clock moves.

use std::collections::BTreeMap;

use proptest::prelude::*;
use proptest::test_runner::{Config, RngAlgorithm, TestRng, TestRunner};
use serde_json::{Map, Value, json};

use super::fixture::{Fixture, error};
use crate::codec;
use crate::ids::WorkspaceId;
use crate::run::event::{FailureKind, Fired};
use crate::run::{Command, Event, Run};

/// A part of a graph with one way in and one way out.
#[derive(Debug, Clone)]
enum Block {
    Task { retries: bool },
    Compute,
    Sequence(Vec<Block>),
    Choice(Box<Block>, Box<Block>),
    Loop(Box<Block>, u32),
    FanOut { count: u8, body: Box<Block>, wait: u8, failed: u8, rest: bool, foreach: bool },
    Rescue(Box<Block>),
}

fn blocks() -> impl Strategy<Value = Block> {
    let leaf = prop_oneof![
        3 => any::<bool>().prop_map(|retries| Block::Task { retries }),
        1 => Just(Block::Compute),
    ];
    leaf.prop_recursive(4, 24, 4, |inner| {
        let boxed = inner.clone().prop_map(Box::new);
        prop_oneof![
            3 => prop::collection::vec(inner, 1..4).prop_map(Block::Sequence),
            1 => (boxed.clone(), boxed.clone()).prop_map(|(a, b)| Block::Choice(a, b)),
            1 => (boxed.clone(), 1..3_u32).prop_map(|(body, times)| Block::Loop(body, times)),
            1 => boxed.clone().prop_map(Block::Rescue),
            3 => (1..4_u8, boxed, 0..4_u8, 0..3_u8, any::<bool>(), any::<bool>()).prop_map(
                |(count, body, wait, failed, rest, foreach)| Block::FanOut {
                    count, body, wait, failed, rest, foreach
                }
            ),
        ]
    })
}

/// A definition being laid out.
#[derive(Default)]
struct Layout {
    nodes: Map<String, Value>,
    transitions: Vec<Value>,
    /// Joins wait for all, failures fail them: the output must not depend on the schedule.
    pure: bool,
}

impl Layout {
    fn node(&mut self, node: Value) -> String {
        let name = format!("n{}", self.nodes.len());
        self.nodes.insert(name.clone(), node);
        name
    }

    fn compute(&mut self) -> String {
        let path = format!("state.v{}", self.nodes.len());
        let value = json!({"n": "${size(input.items) * 1.5}", "text": "seen ${input}"});
        self.node(json!({"compute": {path: value}}))
    }

    fn link(&mut self, from: &str, to: &str, more: Value) {
        let mut transition = json!({"from": from, "to": to});
        for (key, value) in more.as_object().into_iter().flatten() {
            transition[key] = value.clone();
        }
        self.transitions.push(transition);
    }

    /// Lays a block out; gives its first and its last node.
    fn block(&mut self, block: &Block) -> (String, String) {
        match block {
            Block::Compute => {
                let node = self.compute();
                (node.clone(), node)
            }
            Block::Task { retries } => {
                let path = format!("state.t{}", self.nodes.len());
                let mut node = json!({"action": {"kind": "mock"}, "output": {path: "${result}"}});
                if *retries {
                    node["retry"] = json!({"max_attempts": 2, "initial": "1s"});
                }
                let node = self.node(node);
                (node.clone(), node)
            }
            Block::Sequence(parts) => {
                let laid: Vec<_> = parts.iter().map(|part| self.block(part)).collect();
                for pair in laid.windows(2) {
                    self.link(&pair[0].1, &pair[1].0, json!({}));
                }
                (laid[0].0.clone(), laid[laid.len() - 1].1.clone())
            }
            Block::Choice(yes, no) => {
                let (start, end) = (self.compute(), self.compute());
                let (yes, no) = (self.block(yes), self.block(no));
                self.link(&start, &yes.0, json!({"when": "size(input.items) > 1", "priority": 1}));
                self.link(&start, &no.0, json!({"priority": 2}));
                self.link(&yes.1, &end, json!({}));
                self.link(&no.1, &end, json!({}));
                (start, end)
            }
            Block::Loop(body, times) => {
                let (start, end) = (self.compute(), self.compute());
                let (first, last) = self.block(body);
                self.link(&start, &first, json!({}));
                // The limit fails the node; its failure leads out of the loop.
                let back = json!({"max_iterations": times, "priority": 1});
                self.link(&last, &first, back);
                self.link(&last, &end, json!({"on": "failure", "priority": 1}));
                (start, end)
            }
            Block::Rescue(body) => {
                let end = self.compute();
                let (first, last) = self.block(body);
                self.link(&last, &end, json!({}));
                self.link(&last, &end, json!({"on": "failure"}));
                (first, end)
            }
            Block::FanOut { count, body, wait, failed, rest, foreach } => {
                let group = format!("g{}", self.nodes.len());
                let (start, end) = (self.compute(), self.compute());
                let (first, last) = self.block(body);
                let mut open = json!({"group": group});
                if *foreach {
                    open["foreach"] = json!("${input.items}");
                } else {
                    open["spawn"] = json!(count);
                }
                self.link(&start, &first, open);
                let mut join = json!({"group": group, "merge": {
                    "strategy": "collect", "from": "${index}", "into": format!("state.{group}")}});
                if !self.pure {
                    join["wait"] = [json!("all"), json!("any"), json!(1), json!(2)]
                        [usize::from(*wait)]
                    .clone();
                    join["failed"] = json!(["fail", "ignore", "count"][usize::from(*failed)]);
                    join["rest"] = json!(if *rest { "continue" } else { "cancel" });
                    if *rest {
                        join["timeout"] = json!("30s");
                        join["on_timeout"] = json!(if *foreach { "proceed" } else { "fail" });
                    }
                }
                self.link(&last, &end, json!({"join": join}));
                (start, end)
            }
        }
    }

    fn definition(block: &Block, pure: bool) -> Value {
        let mut layout = Self { pure, ..Self::default() };
        let (start, _) = layout.block(block);
        json!({"name": "random", "start": start, "nodes": layout.nodes,
               "transitions": layout.transitions})
    }
}

/// What a schedule does with the attempt that it chose.
fn outcome(choice: u32, faults: bool) -> Result<Value, FailureKind> {
    match choice % 10 {
        7 if faults => Err(FailureKind::Transient),
        8 if faults => Err(FailureKind::Permanent),
        9 if faults => Err(FailureKind::Timeout),
        _ => Ok(json!({"z": 1.0, "big": 1e17, "a": [2.50, {"y": 1, "$ref": 0}]})),
    }
}

/// Runs a graph by a schedule to its end, checking the invariants at every decision.
fn run_by(definition: &Value, items: usize, schedule: &[u32], faults: bool) -> Fixture {
    let mut run = Fixture::new(definition.clone());
    let mut shadow = Shadow::default();
    run.start(json!({"z": 0.50, "items": vec![json!(7.0); items], "a": {"y": 1, "b": 2e3}}))
        .expect("it starts");
    shadow.follow(&run);
    let mut steps = schedule.iter().copied().cycle();
    let mut next = || steps.next().unwrap_or_default();
    for _ in 0..5_000 {
        let Run::Live(live) = &run.run else { return run };
        let due = live.next_due();
        let choice = next();
        let before = run.run.clone();
        let command = if !run.owed.is_empty() && (choice % 7 != 0 || due.is_none()) {
            let (token, attempt) = run.owed[choice as usize % run.owed.len()];
            let result = outcome(next(), faults).map_err(error);
            if choice % 5 == 0 {
                refuses_stale(&mut run, token, attempt + 1);
            }
            report(token, attempt, result)
        } else {
            let due = due.expect("a live run owes an attempt or a timer: it never hangs");
            run.now = run.now.max(due);
            Command::Wake
        };
        let again = crate::run::decide(&before, &run.plan, &command, run.now);
        let decided = before.clone().execute(&run.plan, &command, run.now);
        assert_eq!(again, decided, "deciding again gives the same");
        run.when(&command).expect("what is owed is not refused");
        shadow.follow(&run);
        if let Command::Report(report) = &command {
            refuses_stale(&mut run, report.token, report.attempt);
        }
    }
    panic!("the run did not end in 5,000 steps");
}

fn report(
    token: u64,
    attempt: u32,
    result: Result<Value, crate::run::command::AttemptError>,
) -> Command {
    Command::Report(Box::new(crate::run::command::Report {
        token,
        attempt,
        result,
        usage: Default::default(),
        duration_ms: 0,
    }))
}

/// A second, late or foreign outcome changes nothing.
fn refuses_stale(run: &mut Fixture, token: u64, attempt: u32) {
    let before = (run.run.clone(), run.events.len());
    assert!(run.when(&report(token, attempt, Ok(json!("stale")))).is_err());
    assert_eq!((&run.run, run.events.len()), (&before.0, before.1));
}

/// The event as the journal gives it back.
fn stored(event: &Event) -> Event {
    let encoded = codec::encode(event, WorkspaceId::derived("", "w")).expect("it can be stored");
    let blobs = |hash: &str| encoded.blobs.iter().find(|(h, _)| h == hash).map(|(_, b)| b.clone());
    codec::decode(event.event_type(), event.event_version(), &encoded.payload, &blobs)
        .expect("what was stored is read")
}

/// The fold of the events so far, and what they say of tokens and groups.
#[derive(Default)]
struct Shadow {
    run: Run,
    seen: usize,
    made: BTreeMap<u64, bool>,
    declared: BTreeMap<u64, u64>,
    arrived: BTreeMap<u64, Vec<u64>>,
    fired: BTreeMap<u64, u32>,
}

impl Shadow {
    fn follow(&mut self, run: &Fixture) {
        for (event, at) in &run.events[self.seen..] {
            self.count(event);
            self.run.evolve(&stored(event), *at);
            let kept = serde_json::to_vec(&self.run).expect("a run has a JSON form");
            let back: Run = serde_json::from_slice(&kept).expect("a snapshot reads back");
            assert_eq!(back, self.run, "a snapshot is the state");
            self.run = back;
        }
        self.seen = run.events.len();
        assert_eq!(self.run, run.run, "the fold is the state in memory");
        self.check();
    }

    fn count(&mut self, event: &Event) {
        match event {
            Event::RunStarted(_) => {
                self.made.insert(1, true);
            }
            Event::TokenRouted { token, fired, opened, .. } => {
                assert_eq!(self.made.insert(*token, false), Some(true), "a token ends once");
                for one in fired {
                    if let Fired::Moved { token, .. } = one {
                        assert_eq!(self.made.insert(*token, true), None);
                    }
                }
                for one in opened {
                    let declared = one.branches.iter().map(|branches| branches.count).sum();
                    assert_eq!(self.declared.insert(one.instance, declared), None);
                }
            }
            Event::BranchesSpawned { instance, index, token, count, .. } => {
                for offset in 0..*count {
                    assert_eq!(self.made.insert(token + offset, true), None);
                    self.arrived.entry(*instance).or_default().push(index + offset);
                }
            }
            Event::JoinFired { instance, token, .. } => {
                *self.fired.entry(*instance).or_default() += 1;
                assert_eq!(self.made.insert(*token, true), None);
            }
            _ => {}
        }
    }

    fn check(&self) {
        assert!(self.fired.values().all(|count| *count == 1), "a join fires at most once");
        for (instance, indices) in &self.arrived {
            let expected: Vec<_> = (0..indices.len() as u64).collect();
            assert_eq!(*indices, expected, "branches are made once and in order");
            assert!(indices.len() as u64 <= self.declared[instance]);
        }
        let Run::Live(live) = &self.run else { return };
        for token in live.tokens.values() {
            if let Some(branch) = token.branch {
                let instance = live.instances.get(&branch.instance).expect("its group is alive");
                assert!(branch.index < instance.declared);
            }
        }
        for instance in live.instances.values() {
            if let Some(branch) = instance.parent.branch {
                assert!(live.instances.contains_key(&branch.instance), "its parent is alive");
            }
        }
        let waiting = live.tokens.values().filter(|token| token.phase.is_waiting()).count() as u64;
        assert_eq!(waiting, live.waiting);
    }
}

/// Cases per property; `WONDER_CASES` asks for more.
fn runner() -> TestRunner {
    let cases = std::env::var("WONDER_CASES").ok().and_then(|cases| cases.parse().ok());
    let seed = std::env::var("WONDER_SEED").ok().and_then(|seed| seed.parse().ok());
    let seed: u64 = seed.unwrap_or_else(|| {
        let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
        now.map_or(1, |now| now.as_nanos() as u64)
    });
    eprintln!("WONDER_SEED={seed} repeats this run");
    let mut bytes = [0; 32];
    bytes[..8].copy_from_slice(&seed.to_le_bytes());
    let rng = TestRng::from_seed(RngAlgorithm::ChaCha, &bytes);
    let config =
        Config { cases: cases.unwrap_or(2_000), failure_persistence: None, ..Config::default() };
    TestRunner::new_with_rng(config, rng)
}

#[test]
fn every_schedule_with_faults_keeps_the_invariants_and_ends() {
    let schedules = prop::collection::vec(any::<u32>(), 8..64);
    runner()
        .run(&(blocks(), 0..4_usize, schedules), |(block, items, schedule)| {
            let run = run_by(&Layout::definition(&block, false), items, &schedule, true);
            prop_assert!(run.run.status().is_some_and(|status| status.is_terminal()));
            Ok(())
        })
        .unwrap_or_else(|failure| panic!("{failure}"));
}

#[test]
fn with_wait_all_and_pure_nodes_every_schedule_gives_the_same_output() {
    let schedule = || prop::collection::vec(any::<u32>(), 8..64);
    runner()
        .run(&(blocks(), 0..4_usize, schedule(), schedule()), |(block, items, one, other)| {
            let definition = Layout::definition(&block, true);
            let one = run_by(&definition, items, &one, false);
            let other = run_by(&definition, items, &other, false);
            prop_assert_eq!(&one.closed().output, &other.closed().output);
            prop_assert_eq!(&one.closed().error, &other.closed().error);
            Ok(())
        })
        .unwrap_or_else(|failure| panic!("{failure}"));
}
