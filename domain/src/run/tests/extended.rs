//! Groups that get further branches while they are open.

use serde_json::{Value, json};

use super::fixture::{Fixture, task};
use crate::run::event::FailureKind;
use crate::run::{Event, RunStatus};

/// `ask` is the one branch of `g` at first; each success adds `work` for the items that it brings,
/// and asks again, until it brings none.
fn grown() -> Value {
    let join = |from: &str| {
        json!({"group": "g", "merge": {
            "strategy": "append", "from": from, "into": "state.all"}})
    };
    json!({
        "name": "grown", "start": "start",
        "nodes": {"start": task(), "ask": task(), "work": task(), "end": task()},
        "transitions": [
            {"from": "start", "to": "ask", "group": "g"},
            {"from": "ask", "to": "work", "when": "size(result) > 0", "extend": "g",
             "foreach": "${result}", "as": "one"},
            {"from": "ask", "to": "ask", "when": "size(result) > 0", "max_iterations": 9},
            {"from": "ask", "to": "end", "when": "size(result) == 0", "join": join("${[]}")},
            {"from": "work", "to": "end", "join": join("${one}")}
        ],
        "output": {"all": "${state.all}"}
    })
}

#[test]
fn the_join_waits_for_branches_that_were_added_and_merges_them_in_order() {
    let mut run = Fixture::started(grown(), Value::Null);
    run.succeed("start", Value::Null);
    run.succeed("ask", json!(["a", "b"]));
    run.succeed("work", Value::Null);
    run.succeed("ask", json!(["c"]));
    run.succeed("ask", json!([]));
    assert!(!run.types().contains(&"join_fired"));
    run.succeed("work", Value::Null);
    run.succeed("work", Value::Null);
    let declared = run.events.iter().find_map(|(event, _)| match event {
        Event::JoinFired { arithmetic, .. } => Some(arithmetic.declared),
        _ => None,
    });
    assert_eq!(declared, Some(4));
    run.succeed("end", Value::Null);
    assert_eq!(run.output(), json!({"all": ["a", "b", "c"]}));
}

#[test]
fn many_are_added_in_slices_and_each_has_its_item() {
    let mut run = Fixture::started(grown(), Value::Null);
    run.succeed("start", Value::Null);
    let items: Vec<_> = (0..2_500).collect();
    run.succeed("ask", json!(items));
    run.succeed("ask", json!([]));
    assert_eq!(run.owed.len(), 2_500);
    for _ in 0..2_500 {
        run.succeed("work", Value::Null);
    }
    run.succeed("end", Value::Null);
    assert_eq!(run.output(), json!({"all": items}));
}

#[test]
fn what_is_added_counts_on_from_the_lineage_of_who_added_it() {
    let mut run = Fixture::started(
        json!({
            "name": "again", "start": "start",
            "nodes": {"start": task(), "work": task(), "more": task(), "end": task()},
            "transitions": [
                {"from": "start", "to": "work", "group": "g"},
                {"from": "work", "to": "more", "max_iterations": 3, "priority": 1},
                // The cycle leads through what is added.
                {"from": "more", "to": "work", "extend": "g"},
                {"from": "work", "to": "end", "on": "failure", "join": {"group": "g", "failed": "count"}}
            ]
        }),
        Value::Null,
    );
    run.succeed("start", Value::Null);
    for _ in 0..3 {
        run.succeed("work", Value::Null);
        run.succeed("more", Value::Null);
    }
    run.succeed("work", Value::Null);
    let limit = run.events.iter().any(
        |(event, _)| matches!(event, Event::NodeFailed { error, .. } if error.code == "loop_limit"),
    );
    assert!(limit, "the bound holds across branches that were added");
    run.succeed("end", Value::Null);
    assert_eq!(run.closed().status, RunStatus::Completed);
}

#[test]
fn an_added_branch_that_fails_fails_the_join() {
    let mut run = Fixture::started(grown(), Value::Null);
    run.succeed("start", Value::Null);
    run.succeed("ask", json!(["a"]));
    run.fail("work", FailureKind::Permanent);
    assert_eq!(run.failure(), "broken");
}
