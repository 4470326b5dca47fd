//! The definitions that are measured.

use serde_json::{Value, json};

/// Trivial tasks, one after the other.
pub(super) fn sequence(steps: usize) -> Value {
    let names: Vec<_> = (0..steps).map(|step| format!("s{step}")).collect();
    let node = json!({
        "action": {"kind": "transform", "with": {"value": "${input.n + 1}"}},
        "input": {"n": "${state.n}"},
        "output": {"state.n": "${result}"}
    });
    let mut nodes: serde_json::Map<String, Value> =
        names.iter().map(|name| (name.clone(), node.clone())).collect();
    nodes["s0"]["input"]["n"] = "${input.n}".into();
    let transitions: Vec<_> =
        names.windows(2).map(|pair| json!({"from": pair[0], "to": pair[1]})).collect();
    json!({
        "name": "bench-sequence",
        "start": "s0",
        "nodes": nodes,
        "transitions": transitions,
        "output": {"n": "${state.n}"}
    })
}

/// One task an item, and a join over all of them.
pub(super) fn fanout() -> Value {
    json!({
        "name": "bench-fanout",
        "start": "split",
        "nodes": {
            "split": {"compute": {"state.expected": "${size(input.items)}"}},
            "work": {
                "action": {"kind": "transform", "with": {"value": "${input.item}"}},
                "input": {"item": "${item}"}
            },
            "gather": {"compute": {"state.count": "${size(state.items)}"}}
        },
        "transitions": [
            {"from": "split", "to": "work", "foreach": "${input.items}", "group": "g"},
            {"from": "work", "to": "gather", "join": {
                "group": "g", "wait": "all", "merge": {"strategy": "collect", "into": "state.items"}
            }}
        ],
        "output": {"count": "${state.count}"}
    })
}

/// So many branches at once, and a join over all of them.
pub(super) fn spawn(branches: u64) -> Value {
    json!({
        "name": "bench-spawn",
        "start": "split",
        "nodes": {
            "split": {"compute": {"state.joined": false}},
            "work": {
                "action": {"kind": "transform", "with": {"value": "${input.index}"}},
                "input": {"index": "${index}"}
            },
            "gather": {"compute": {"state.joined": true}}
        },
        "transitions": [
            {"from": "split", "to": "work", "spawn": branches, "group": "g"},
            {"from": "work", "to": "gather", "join": {"group": "g", "wait": "all"}}
        ],
        "output": {"joined": "${state.joined}"}
    })
}

/// A first task that outlasts the measurement, so that only the acceptance is measured.
pub(super) fn start() -> Value {
    json!({
        "name": "bench-start",
        "start": "hold",
        "nodes": {
            "hold": {"action": {"kind": "mock", "with": {"result": 1, "delay": "10m"}}}
        },
        "transitions": []
    })
}

/// One node that is run again and again.
pub(super) fn history(steps: u64) -> Value {
    json!({
        "name": "bench-history",
        "start": "zero",
        "nodes": {
            "zero": {"compute": {"state.n": 0}},
            "step": {
                "action": {"kind": "transform", "with": {"value": "${input.n + 1}"}},
                "input": {"n": "${state.n}"},
                "output": {"state.n": "${result}"}
            }
        },
        "transitions": [
            {"from": "zero", "to": "step"},
            {
                "from": "step", "to": "step", "when": "state.n < input.steps",
                "max_iterations": steps
            }
        ],
        "output": {"n": "${state.n}"}
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_measured_is_valid() {
        for definition in [sequence(5), fanout(), spawn(100_000), start(), history(2_000)] {
            let checked = crate::definition_file::check(&definition.to_string());
            assert!(checked.is_ok(), "{definition}: {checked:#?}");
        }
    }
}
