//! What property tests share: random graphs (trees of blocks, laid out as definitions), hostile
//! inputs for parsers, and the runner of a property.

use proptest::prelude::*;
use proptest::test_runner::{Config, RngAlgorithm, TestRng, TestRunner};
use serde_json::{Map, Value, json};

mod hostile;

pub use hostile::{hostile, hostile_text};

/// Runs a property on so many cases, or on as many as `WONDER_CASES` asks for. The seed is printed,
/// and `WONDER_SEED` repeats it.
pub fn runner(cases: u32) -> TestRunner {
    let asked = std::env::var("WONDER_CASES").ok().and_then(|cases| cases.parse().ok());
    let seed = std::env::var("WONDER_SEED").ok().and_then(|seed| seed.parse().ok());
    let seed: u64 = seed.unwrap_or_else(|| {
        let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
        now.map_or(1, |now| now.as_nanos() as u64)
    });
    eprintln!("WONDER_SEED={seed} repeats this run");
    let config =
        Config { cases: asked.unwrap_or(cases), failure_persistence: None, ..Config::default() };
    seeded(seed, config)
}

/// A runner whose values follow from a seed.
pub fn seeded(seed: u64, config: Config) -> TestRunner {
    let mut bytes = [0; 32];
    bytes[..8].copy_from_slice(&seed.to_le_bytes());
    TestRunner::new_with_rng(config, TestRng::from_seed(RngAlgorithm::ChaCha, &bytes))
}

/// Checks a property of what a strategy gives; the smallest counterexample is the panic's message.
pub fn holds<S: Strategy>(cases: u32, inputs: S, property: impl Fn(S::Value)) {
    let checked = runner(cases).run(&inputs, |input| {
        property(input);
        Ok(())
    });
    checked.unwrap_or_else(|failure| panic!("{failure}"));
}

/// The signals that graphs wait for.
pub const SIGNALS: [&str; 2] = ["red", "blue"];
/// Who answers their gates.
pub const PEOPLE: [&str; 3] = ["ann", "bob", "carol"];

/// A part of a graph with one way in and one way out.
#[derive(Debug, Clone)]
pub enum Block {
    Task {
        retries: bool,
        undo: bool,
    },
    Compute,
    Emit,
    Measure,
    Wait,
    Signal {
        fits: bool,
        timed: bool,
    },
    Gate {
        approvals: u8,
        timed: bool,
        on_timeout: u8,
    },
    Child {
        catches: bool,
        timed: bool,
        undo: bool,
    },
    Sequence(Vec<Block>),
    Choice(Box<Block>, Box<Block>),
    Loop(Box<Block>, u32),
    FanOut {
        count: u8,
        body: Box<Block>,
        wait: u8,
        failed: u8,
        rest: bool,
        foreach: bool,
    },
    Rescue(Box<Block>),
    /// A node of one of two mutexes.
    Exclusive {
        kind: u8,
        mutex: bool,
    },
    /// A fan-out whose branches each add a further one.
    Grown {
        body: Box<Block>,
        wait: u8,
        foreach: bool,
    },
    /// A body, and beside it a task that ends or completes (a part of) it.
    Stopped {
        body: Box<Block>,
        how: u8,
        failed: u8,
    },
}

/// Trees of at most 24 blocks.
pub fn blocks() -> impl Strategy<Value = Block> {
    let leaf = prop_oneof![
        3 => (any::<bool>(), any::<bool>()).prop_map(|(retries, undo)| Block::Task { retries, undo }),
        1 => Just(Block::Compute),
        1 => Just(Block::Emit),
        1 => Just(Block::Measure),
        1 => Just(Block::Wait),
        1 => (any::<bool>(), any::<bool>()).prop_map(|(fits, timed)| Block::Signal { fits, timed }),
        1 => (1..3_u8, any::<bool>(), 0..3_u8).prop_map(|(approvals, timed, on_timeout)| {
            Block::Gate { approvals, timed, on_timeout }
        }),
        1 => (any::<bool>(), any::<bool>(), any::<bool>()).prop_map(|(catches, timed, undo)| {
            Block::Child { catches, timed, undo }
        }),
        2 => (0..5_u8, any::<bool>())
            .prop_map(|(kind, mutex)| Block::Exclusive { kind, mutex }),
    ];
    leaf.prop_recursive(4, 24, 4, |inner| {
        let boxed = inner.clone().prop_map(Box::new);
        prop_oneof![
            3 => prop::collection::vec(inner, 1..4).prop_map(Block::Sequence),
            1 => (boxed.clone(), boxed.clone()).prop_map(|(a, b)| Block::Choice(a, b)),
            1 => (boxed.clone(), 1..3_u32).prop_map(|(body, times)| Block::Loop(body, times)),
            1 => boxed.clone().prop_map(Block::Rescue),
            1 => (boxed.clone(), 0..3_u8, any::<bool>())
                .prop_map(|(body, wait, foreach)| Block::Grown { body, wait, foreach }),
            2 => (boxed.clone(), 0..4_u8, 0..3_u8)
                .prop_map(|(body, how, failed)| Block::Stopped { body, how, failed }),
            3 => (1..4_u8, boxed, 0..4_u8, 0..3_u8, any::<bool>(), any::<bool>()).prop_map(
                |(count, body, wait, failed, rest, foreach)| Block::FanOut {
                    count, body, wait, failed, rest, foreach
                }
            ),
        ]
    })
}

/// A definition being laid out.
#[derive(Debug, Default)]
pub struct Layout {
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

    fn leaf(&mut self, node: Value) -> (String, String) {
        let node = self.node(node);
        (node.clone(), node)
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
            Block::Task { retries, undo } => {
                let path = format!("state.t{}", self.nodes.len());
                let mut node = json!({"action": {"kind": "mock"}, "output": {path: "${result}"}});
                if *retries {
                    node["retry"] = json!({"max_attempts": 2, "initial": "1s"});
                }
                if *undo {
                    node["undo"] = undone("3s");
                }
                let node = self.node(node);
                (node.clone(), node)
            }
            Block::Emit => self.leaf(json!({"emit": {"event": "seen", "data": "${input.items}"}})),
            Block::Measure => self.leaf(json!({"emit": {"metric": "items",
                "value": "${size(input.items)}", "dimensions": {"of": "input"}}})),
            Block::Wait => self.leaf(json!({"wait": {"for": "5s"}})),
            Block::Signal { fits, timed } => {
                let mut wait = json!({"signal": SIGNALS[self.nodes.len() % 2]});
                if *fits {
                    wait["when"] = json!("signal.payload.ok");
                }
                if *timed && !self.pure {
                    wait["timeout"] = json!("20s");
                }
                self.leaf(json!({"wait": wait}))
            }
            Block::Gate { approvals, timed, on_timeout } => {
                let mut gate = json!({"title": "Go on?", "approvals": approvals});
                if *approvals > 1 {
                    gate["assignees"] = json!(PEOPLE);
                }
                if *timed && !self.pure {
                    gate["timeout"] = json!("15s");
                    gate["on_timeout"] =
                        json!(["fail", "reject", "proceed"][usize::from(*on_timeout)]);
                }
                self.leaf(json!({"gate": gate}))
            }
            Block::Child { catches, timed, undo } => {
                let mut workflow = json!({"definition": "below", "input": {"n": "${input}"}});
                if *catches {
                    workflow["on_failure"] = json!("catch");
                }
                let mut node = json!({"workflow": workflow});
                if *timed && !self.pure {
                    node["timeout"] = json!("10s");
                }
                if *undo {
                    node["undo"] = undone("1s");
                }
                self.leaf(node)
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
            Block::Exclusive { kind, mutex } => {
                let name = self.compute();
                let mut node = match kind {
                    0 => json!({"action": {"kind": "mock"},
                                "retry": {"max_attempts": 2, "initial": "1s"}}),
                    1 => json!({"wait": {"for": "3s"}}),
                    2 => json!({"wait": {"signal": SIGNALS[0]}}),
                    3 => json!({"gate": {"title": "Go on?"}}),
                    _ => json!({"compute": {format!("state.{name}"): true}}),
                };
                node["mutex"] = json!(if *mutex { "m1" } else { "m2" });
                let node = self.node(node);
                self.link(&name, &node, json!({}));
                (name, node)
            }
            Block::Grown { body, wait, foreach } => {
                let group = format!("x{}", self.nodes.len());
                let (start, branch, end) = (self.compute(), self.compute(), self.compute());
                let (first, last) = self.block(body);
                self.link(&start, &branch, json!({"group": group, "spawn": 2}));
                self.link(&branch, &first, json!({}));
                let mut more = json!({"extend": group, "max_iterations": 1, "priority": 1});
                if *foreach {
                    more["foreach"] = json!("${[1]}");
                }
                self.link(&last, &branch, more);
                let mut join = json!({"group": group, "merge": {
                    "strategy": "collect", "from": "${index}", "into": format!("state.{group}")}});
                if !self.pure {
                    join["wait"] =
                        [json!("all"), json!("any"), json!(3)][usize::from(*wait)].clone();
                }
                let join = json!({"join": join});
                let mut after = join.clone();
                after["priority"] = json!(1);
                self.link(&last, &end, after);
                // The limit of adding fails the node; its failure leads to the join as well.
                let mut failed = join;
                failed["on"] = json!("failure");
                failed["join"]["merge"]["from"] = json!("${index}");
                self.link(&last, &end, failed);
                (start, end)
            }
            // What it gives depends on the schedule.
            Block::Stopped { body, .. } if self.pure => self.block(body),
            Block::Stopped { body, how, failed } => {
                let group = format!("s{}", self.nodes.len());
                let (start, end) = (self.compute(), self.compute());
                let (nodes, transitions) = (self.nodes.len(), self.transitions.len());
                let (first, last) = self.block(body);
                let region: Vec<_> = self.nodes.keys().skip(nodes).cloned().collect();
                let inner = self.transitions[transitions..]
                    .iter()
                    .find_map(|transition| transition["group"].as_str().map(str::to_owned));
                let stop = self.node(json!({"action": {"kind": "mock"}}));
                let stopped = self.compute();
                self.link(&start, &first, json!({"group": group}));
                self.link(&start, &stop, json!({"group": group}));
                let effect = match (how, inner) {
                    (0, _) => json!({"cancel": {"nodes": "all"}}),
                    (1, Some(inner)) => json!({"cancel": {"group": inner}}),
                    (2, Some(inner)) => json!({"complete": inner}),
                    _ => json!({"cancel": {"nodes": region}}),
                };
                self.link(&stop, &stopped, effect);
                let failed = ["fail", "ignore", "count"][usize::from(*failed)];
                let join = json!({"join": {"group": group, "failed": failed}});
                self.link(&last, &end, join.clone());
                self.link(&stopped, &end, join);
                (start, end)
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

    /// The definition `random` of a block. A pure one gives the same output whatever the schedule.
    pub fn definition(block: &Block, pure: bool, compensate: bool) -> Value {
        let mut layout = Self { pure, ..Self::default() };
        let (start, _) = layout.block(block);
        json!({"name": "random", "start": start, "compensate": compensate,
               "nodes": layout.nodes, "transitions": layout.transitions})
    }
}

/// What undoes a node, with what the node had and gave.
fn undone(initial: &str) -> Value {
    json!({"action": {"kind": "mock"}, "retry": {"max_attempts": 2, "initial": initial},
        "input": {"n": "${input.z}", "state": "${state}", "gave": "${result}"}})
}
