//! Random definitions whose output doesn't depend on the order in which their tasks end.

use serde_json::{Map, Value, json};
use system_tests::Pace;

/// Parts of a graph, one after the other.
const PARTS: u64 = 5;

struct Graph {
    nodes: Map<String, Value>,
    transitions: Vec<Value>,
    /// Where the next part goes on.
    end: String,
}

/// The definition of a seed.
pub(super) fn random(seed: u64) -> Value {
    let mut pace = Pace::new(seed);
    let mut graph = Graph { nodes: Map::new(), transitions: Vec::new(), end: "zero".to_owned() };
    graph.node("zero", json!({"compute": {"state.n": "${input.n}"}}));
    for part in 0..PARTS {
        let add = pace.below(9) + 1;
        match pace.below(10) {
            0 => graph.task(part, add),
            1 => graph.compute(part, add),
            2 => graph.flaky(part, add),
            3 => graph.foreach(part, 1 + pace.below(6)),
            4 => graph.spawn(part, 1 + pace.below(4)),
            5 => graph.choice(part, add),
            6 => graph.repeat(part, 1 + pace.below(4)),
            7 => graph.wait(part, add),
            8 => graph.emit(part),
            _ => graph.fallback(part, add),
        }
    }
    json!({
        "name": format!("p07-{seed}"),
        "start": "zero",
        "nodes": graph.nodes,
        "transitions": graph.transitions,
        "output": {"n": "${state.n}", "state": "${state}"}
    })
}

impl Graph {
    fn node(&mut self, name: &str, node: Value) {
        self.nodes.insert(name.to_owned(), node);
    }

    /// Leads from the last part to a node, which is the new end.
    fn then(&mut self, name: &str, node: Value) {
        self.node(name, node);
        self.transitions.push(json!({"from": self.end, "to": name}));
        self.end = name.to_owned();
    }

    fn task(&mut self, part: u64, add: u64) {
        let task = json!({
            "action": {"kind": "transform", "with": {"value": format!("${{input.n + {add}}}")}},
            "input": {"n": "${state.n}"},
            "output": {"state.n": "${result}"}
        });
        self.then(&format!("task{part}"), task);
    }

    fn compute(&mut self, part: u64, add: u64) {
        let compute = json!({"state.n": format!("${{state.n * 2 + {add}}}")});
        self.then(&format!("compute{part}"), json!({"compute": compute}));
    }

    /// A wait for a signal that never comes, and how it is told.
    fn wait(&mut self, part: u64, add: u64) {
        let (name, late) = (format!("wait{part}"), format!("late{part}"));
        self.then(&name, json!({"wait": {"signal": "never", "timeout": format!("{}ms", add * 5)}}));
        let compute = json!({"state.n": "${state.n + size(error.code)}"});
        self.node(&late, json!({"compute": compute}));
        self.transitions.push(json!({"from": name, "to": late, "on": "timeout"}));
        self.end = format!("rest{part}");
        self.transitions.push(json!({"from": late, "to": self.end}));
        let wait = json!({"wait": {"for": format!("{add}ms")}});
        self.nodes.insert(self.end.clone(), wait);
    }

    fn emit(&mut self, part: u64) {
        let emit = match part % 2 {
            0 => json!({"event": "counted", "data": {"n": "${state.n}"}}),
            _ => json!({"metric": "counted", "value": "${state.n}", "dimensions": {"part": part}}),
        };
        self.then(&format!("emit{part}"), json!({"emit": emit}));
    }

    fn flaky(&mut self, part: u64, add: u64) {
        let flaky = json!({
            "action": {"kind": "mock", "with": {
                "result": add, "delay": "5ms",
                "fail": {"times": 1 + add % 2, "kind": "transient", "code": "flaky"}
            }},
            "output": {"state.n": "${state.n + result}"},
            "retry": {"max_attempts": 4, "backoff": "linear", "initial": "15ms", "max": "1s"}
        });
        self.then(&format!("flaky{part}"), flaky);
    }

    /// A fan-out over a list, with two steps in each branch, and a join over all of them.
    fn foreach(&mut self, part: u64, items: u64) {
        let (first, second, joined) =
            (format!("each{part}"), format!("next{part}"), format!("joined{part}"));
        let list: Vec<u64> = (0..items).collect();
        let into = format!("state.v{part}");
        self.node(
            &first,
            json!({
                "action": {"kind": "mock", "with": {"delay": "8ms", "result": "${input.i}"}},
                "input": {"i": "${item}"},
                "output": {"state.own": "${result * 10}"}
            }),
        );
        self.node(
            &second,
            json!({
                "action": {"kind": "transform", "with": {"value": "${input.own + input.index}"}},
                "input": {"own": "${state.own}", "index": "${index}"}
            }),
        );
        self.node(
            &joined,
            json!({"compute": {
                "state.n": format!("${{state.n + size(state.v{part})}}")
            }}),
        );
        let group = format!("g{part}");
        self.transitions.extend([
            json!({
                "from": self.end, "to": first, "group": group,
                "foreach": format!("${{{}}}", json!(list))
            }),
            json!({"from": first, "to": second}),
            json!({"from": second, "to": joined, "join": {
                "group": group, "wait": "all", "merge": {"strategy": "collect", "into": into}
            }}),
        ]);
        self.end = joined;
    }

    /// Branches of which the first one fails, and a join that counts it.
    fn spawn(&mut self, part: u64, count: u64) {
        let (branch, joined) = (format!("branch{part}"), format!("met{part}"));
        self.node(
            &branch,
            json!({
                "action": {"kind": "transform", "with": {"value": "${10 / input.index}"}},
                "input": {"index": "${index}"}
            }),
        );
        self.node(&joined, json!({"compute": {"state.n": "${state.n + 1}"}}));
        let group = format!("s{part}");
        self.transitions.extend([
            json!({"from": self.end, "to": branch, "spawn": count, "group": group}),
            json!({"from": branch, "to": joined, "join": {
                "group": group, "wait": "all", "failed": "count",
                "merge": {"strategy": "by_branch", "into": format!("state.b{part}")}
            }}),
        ]);
        self.end = joined;
    }

    /// One of two ways, by a condition and a fall-back, that meet again.
    fn choice(&mut self, part: u64, add: u64) {
        let (left, right, met) =
            (format!("left{part}"), format!("right{part}"), format!("after{part}"));
        let way =
            |sign: &str| json!({"compute": {"state.n": format!("${{state.n {sign} {add}}}")}});
        self.node(&left, way("+"));
        self.node(&right, way("-"));
        self.node(&met, way("*"));
        self.transitions.extend([
            json!({"from": self.end, "to": left, "when": format!("state.n > {}", add * 3)}),
            json!({"from": self.end, "to": right, "priority": 1}),
            json!({"from": left, "to": met}),
            json!({"from": right, "to": met}),
        ]);
        self.end = met;
    }

    /// A task that is run several times.
    fn repeat(&mut self, part: u64, times: u64) {
        let count = format!("state.c{part}");
        self.then(&format!("none{part}"), json!({"compute": {count.as_str(): 0}}));
        let again = format!("again{part}");
        self.then(
            &again,
            json!({
                "action": {"kind": "mock", "with": {"result": "${input.c + 1}", "delay": "3ms"}},
                "input": {"c": format!("${{{count}}}")},
                "output": {count.as_str(): "${result}"}
            }),
        );
        self.transitions.push(json!({
            "from": again, "to": again, "when": format!("{count} < {times}"),
            "max_iterations": times
        }));
        let out = format!("out{part}");
        self.node(&out, json!({"compute": {"state.n": format!("${{state.n + {count}}}")}}));
        self.transitions.push(json!({"from": again, "to": out, "priority": 1}));
        self.end = out;
    }

    /// A task that fails for good, and what takes the failure.
    fn fallback(&mut self, part: u64, add: u64) {
        let fails = json!({"action": {"kind": "mock", "with": {
            "result": 0, "fail": {"times": 99, "kind": "permanent", "code": "broken"}
        }}});
        let (failing, instead) = (format!("fails{part}"), format!("instead{part}"));
        self.then(&failing, fails);
        self.node(&instead, json!({"compute": {"state.n": format!("${{state.n + {add}}}")}}));
        self.transitions.push(json!({
            "from": failing, "to": instead, "on": "failure", "when": "error.code == 'broken'"
        }));
        self.end = instead;
    }
}
