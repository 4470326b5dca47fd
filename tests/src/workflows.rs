//! Definitions that the promises are tried with. None of them needs anything outside.

use serde_json::{Value, json};

/// Tasks one after the other, each adding one to a counter that starts at `input.n`.
pub fn sequence(name: &str, tasks: usize) -> Value {
    let node = |from: &str| {
        json!({
            "action": {"kind": "transform", "with": {"value": "${input.n + 1}"}},
            "input": {"n": from},
            "output": {"state.n": "${result}"}
        })
    };
    let mut nodes = serde_json::Map::new();
    for task in 0..tasks {
        let from = if task == 0 { "${input.n}" } else { "${state.n}" };
        nodes.insert(format!("t{task}"), node(from));
    }
    let transitions: Vec<Value> = (1..tasks)
        .map(|task| json!({"from": format!("t{}", task - 1), "to": format!("t{task}")}))
        .collect();
    json!({
        "name": name, "start": "t0", "nodes": nodes, "transitions": transitions,
        "output": {"n": "${state.n}"}
    })
}

/// One mock task per item of `input.items`, which takes `delay` and answers the item, and a join
/// over all of them.
pub fn fan_out(name: &str, delay: &str) -> Value {
    json!({
        "name": name,
        "start": "split",
        "nodes": {
            "split": {"compute": {"state.expected": "${size(input.items)}"}},
            "work": {
                "action": {"kind": "mock", "with": {"delay": delay, "result": "${input.item}"}},
                "input": {"item": "${item}"}
            },
            "gather": {"compute": {"state.count": "${size(state.items)}"}}
        },
        "transitions": [
            {"from": "split", "to": "work", "foreach": "${input.items}", "group": "g"},
            {"from": "work", "to": "gather", "join": {
                "group": "g", "wait": "all",
                "merge": {"strategy": "collect", "into": "state.items"}
            }}
        ],
        "output": {"count": "${state.count}", "items": "${state.items}"}
    })
}

/// One task that fails so many attempts as transient before it answers 1.
pub fn flaky(name: &str, failures: u32, max_attempts: u32) -> Value {
    json!({
        "name": name,
        "start": "try",
        "nodes": {"try": {
            "action": {"kind": "mock", "with": {
                "result": 1, "fail": {"times": failures, "kind": "transient", "code": "flaky"}
            }},
            "retry": {
                "max_attempts": max_attempts, "backoff": "constant", "initial": "20ms",
                "jitter": false
            }
        }}
    })
}

/// One task that takes `short`, and beside it so many that take `long`; the first that is through
/// ends the others.
pub fn race(name: &str, short: &str, long: &str, losers: u64) -> Value {
    let work =
        |delay: &str| json!({"action": {"kind": "mock", "with": {"delay": delay, "result": 1}}});
    let join = json!({"group": "g", "wait": "any"});
    json!({
        "name": name,
        "start": "split",
        "nodes": {
            "split": {"compute": {}}, "quick": work(short), "slow": work(long),
            "end": {"compute": {}}
        },
        "transitions": [
            {"from": "split", "to": "quick", "group": "g"},
            {"from": "split", "to": "slow", "spawn": losers, "group": "g"},
            {"from": "quick", "to": "end", "join": join},
            {"from": "slow", "to": "end", "join": join}
        ]
    })
}

/// One task that takes a while and answers 1.
pub fn slow(name: &str, delay: &str) -> Value {
    json!({
        "name": name,
        "start": "wait",
        "nodes": {"wait": {
            "action": {"kind": "mock", "with": {"delay": delay, "result": 1}},
            "output": {"state.n": "${result}"}
        }},
        "output": {"n": "${state.n}"}
    })
}

/// So many branches of one task each, and a join over all of them. The branches whose numbers
/// `input.fails` divides fail, and the join goes on without them.
pub fn wide(name: &str, branches: u64) -> Value {
    let action = json!({
        "kind": "transform", "with": {"value": "${1 / (input.index % input.fails)}"}
    });
    spread(name, branches, action)
}

/// The same with a task that takes a while.
pub fn wide_and_slow(name: &str, branches: u64, delay: &str) -> Value {
    spread(name, branches, json!({"kind": "mock", "with": {"delay": delay, "result": 1}}))
}

fn spread(name: &str, branches: u64, action: Value) -> Value {
    json!({
        "name": name,
        "start": "split",
        "nodes": {
            "split": {"compute": {"state.done": false}},
            "work": {
                "action": action,
                "input": {"index": "${index}", "fails": "${has(input.fails) ? input.fails : 1}"}
            },
            "gather": {"compute": {"state.done": true}}
        },
        "transitions": [
            {"from": "split", "to": "work", "spawn": branches, "group": "g"},
            {"from": "work", "to": "gather", "join": {
                "group": "g", "wait": "all", "failed": "ignore"
            }}
        ],
        "output": {"done": "${state.done}"}
    })
}
