//! The definitions that are measured.

use serde_json::{Value, json};

/// Five trivial tasks, one after the other.
pub(super) fn sequence() -> Value {
    let names = ["a", "b", "c", "d", "e"];
    let node = json!({
        "action": {"kind": "transform", "with": {"value": "${input.n + 1}"}},
        "input": {"n": "${state.n}"},
        "output": {"state.n": "${result}"}
    });
    let mut nodes: serde_json::Map<String, Value> =
        names.iter().map(|name| ((*name).to_owned(), node.clone())).collect();
    nodes["a"]["input"]["n"] = "${input.n}".into();
    let transitions: Vec<_> =
        names.windows(2).map(|pair| json!({"from": pair[0], "to": pair[1]})).collect();
    json!({
        "name": "bench-sequence",
        "start": "a",
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
        for definition in [sequence(), fanout(), start(), history(2_000)] {
            let checked = crate::definition_file::check(&definition.to_string());
            assert!(checked.is_ok(), "{definition}: {checked:#?}");
        }
    }
}
