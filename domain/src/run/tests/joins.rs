//! Fan-outs and joins: isolation, order, policies, nesting, slices, time-outs.

use serde_json::{Value, json};

use super::fixture::{Fixture, task, task_into};
use crate::run::event::FailureKind;
use crate::run::{Event, RunStatus};

/// `split` fans out over `input.items` to `work`, which joins into `done`.
fn panel(join: Value) -> Value {
    let mut join = join;
    join["group"] = json!("g");
    json!({
        "name": "panel", "start": "split",
        "nodes": {"split": task(), "work": task(), "done": {"compute": {"state.done": true}}},
        "transitions": [
            {"from": "split", "to": "work", "foreach": "${input.items}", "group": "g"},
            {"from": "work", "to": "done", "join": join}
        ],
        "output": {"votes": "${has(state.votes) ? state.votes : null}"}
    })
}

fn fanned(join: Value, items: usize) -> Fixture {
    let items: Vec<_> = (0..items).map(|item| json!({"n": item})).collect();
    let mut run = Fixture::started(panel(join), json!({"items": items}));
    run.succeed("split", json!(null));
    run
}

fn merge(strategy: &str) -> Value {
    json!({"merge": {"strategy": strategy, "into": "state.votes"}})
}

/// Reports for the branch with an index: tokens of the one slice count up from 2.
fn arrive(run: &mut Fixture, index: u64, result: Value) {
    run.report(index + 2, 1, Ok(result)).expect("the branch is out");
}

fn fail(run: &mut Fixture, index: u64) {
    let failure = super::fixture::error(FailureKind::Permanent);
    run.report(index + 2, 1, Err(failure)).expect("the branch is out");
}

#[test]
fn merges_follow_the_branch_index_whatever_the_order_of_arrival() {
    for (strategy, expected) in [
        ("append", json!([0, 1, 1, 2])),
        ("collect", json!([[0], [1, 1], [2]])),
        ("by_branch", json!({"0": [0], "1": [1, 1], "2": [2]})),
        ("last", json!([2])),
    ] {
        let mut run = fanned(merge(strategy), 3);
        arrive(&mut run, 2, json!([2]));
        arrive(&mut run, 0, json!([0]));
        arrive(&mut run, 1, json!([1, 1]));
        assert_eq!(run.output(), json!({"votes": expected}), "{strategy}");
    }
    let mut run = fanned(merge("object"), 2);
    arrive(&mut run, 1, json!({"a": 1, "b": 1}));
    arrive(&mut run, 0, json!({"a": 0, "c": 0}));
    assert_eq!(run.output(), json!({"votes": {"a": 1, "b": 1, "c": 0}}));
    let mut run = fanned(merge("object"), 1);
    arrive(&mut run, 0, json!(1));
    assert_eq!(run.failure(), "merge_type");
}

#[test]
fn a_branch_takes_two_events_and_the_join_one() {
    let mut run = fanned(merge("collect"), 10);
    let before = run.events.len();
    (0..10).for_each(|index| arrive(&mut run, index, json!(index)));
    let after = run.types()[before..].to_vec();
    assert_eq!(after.iter().filter(|name| **name == "task_succeeded").count(), 10);
    assert_eq!(after.iter().filter(|name| **name == "token_routed").count(), 11);
    assert_eq!(after.iter().filter(|name| **name == "join_fired").count(), 1);
    assert_eq!(after.len(), 24, "with the compute node behind it and the end: {after:?}");
}

#[test]
fn an_empty_foreach_satisfies_its_join_at_once() {
    let run = fanned(merge("collect"), 0);
    assert_eq!(run.output(), json!({"votes": []}));
}

#[test]
fn any_and_m_of_n_cancel_the_rest() {
    for (wait, needed) in [(json!("any"), 1), (json!(2), 2)] {
        let mut join = merge("collect");
        join["wait"] = wait;
        let mut run = fanned(join, 4);
        (0..needed).for_each(|index| arrive(&mut run, index, json!(index)));
        assert_eq!(run.closed().status, RunStatus::Completed);
        assert_eq!(run.output()["votes"].as_array().map(Vec::len), Some(needed as usize));
    }
}

#[test]
fn rest_continue_lets_the_others_finish_and_discards_them() {
    let mut join = merge("collect");
    join["wait"] = json!("any");
    join["rest"] = json!("continue");
    let mut run = fanned(join, 3);
    arrive(&mut run, 1, json!("first"));
    assert_eq!(run.run.status(), Some(RunStatus::Running));
    arrive(&mut run, 0, json!("late"));
    assert!(run.events.iter().any(|(event, _)| matches!(event,
        Event::TokenRouted { fired, .. } if format!("{fired:?}").contains("late: true"))));
    fail(&mut run, 2);
    assert_eq!(run.output(), json!({"votes": ["first"]}));
}

#[test]
fn failed_policies() {
    let mut run = fanned(merge("collect"), 3);
    fail(&mut run, 1);
    assert_eq!(run.failure(), "broken", "`fail` ends it at once");

    let mut ignore = merge("collect");
    ignore["failed"] = json!("ignore");
    let mut run = fanned(ignore.clone(), 3);
    fail(&mut run, 0);
    arrive(&mut run, 2, json!(2));
    assert_eq!(run.run.status(), Some(RunStatus::Running), "branch 1 is still out");
    arrive(&mut run, 1, json!(1));
    assert_eq!(run.output(), json!({"votes": [1, 2]}));

    ignore["wait"] = json!(2);
    let mut run = fanned(ignore.clone(), 3);
    fail(&mut run, 0);
    assert_eq!(run.run.status(), Some(RunStatus::Running));
    fail(&mut run, 1);
    assert_eq!(run.failure(), "join_unsatisfiable", "one branch can't make two");

    ignore["failed"] = json!("count");
    let mut run = fanned(ignore, 3);
    fail(&mut run, 0);
    arrive(&mut run, 1, json!(1));
    assert_eq!(run.output(), json!({"votes": [1]}));
}

#[test]
fn more_than_there_are_can_not_be_waited_for() {
    let mut join = merge("collect");
    join["wait"] = json!(5);
    assert_eq!(fanned(join, 3).failure(), "join_unsatisfiable");
}

#[test]
fn a_join_times_out_or_proceeds_with_what_it_has() {
    let mut join = merge("collect");
    join["timeout"] = json!("5s");
    let mut run = fanned(join.clone(), 2);
    arrive(&mut run, 0, json!(0));
    assert!(run.advance_clock(4_999).events.is_empty());
    run.advance_clock(1);
    assert_eq!(run.failure(), "join_timeout");
    join["on_timeout"] = json!("proceed");
    let mut run = fanned(join, 2);
    arrive(&mut run, 1, json!(1));
    run.advance_clock(5_000);
    assert_eq!(run.output(), json!({"votes": [1]}));
}

#[test]
fn branches_do_not_see_each_other_and_keep_nothing_but_the_merge() {
    let mut run = Fixture::started(
        json!({
            "name": "own", "start": "init",
            "nodes": {
                "init": {"compute": {"state.shared": {"base": 1}}},
                "first": {"compute": {"state.shared.mine": "${item}", "state.tmp": "${index}"}},
                "second": {"action": {"kind": "mock"}, "input": {"shared": "${state.shared}"}},
                "end": {"compute": {"state.end": true}}},
            "transitions": [
                {"from": "init", "to": "first", "foreach": "${['a', 'b']}", "group": "g"},
                {"from": "first", "to": "second"},
                {"from": "second", "to": "end", "join": {"group": "g", "merge": {
                    "strategy": "collect", "from": "${state.shared}", "into": "state.all"}}}]
        }),
        json!({}),
    );
    let inputs: Vec<_> = run
        .owed
        .iter()
        .map(|(token, _)| run.run.task_input(&run.plan, *token).expect("it maps"))
        .collect();
    assert_eq!(
        inputs,
        [json!({"shared": {"base": 1, "mine": "a"}}), json!({"shared": {"base": 1, "mine": "b"}}),]
    );
    run.succeed("second", json!(null));
    run.succeed("second", json!(null));
    assert_eq!(
        run.output(),
        json!({
            "shared": {"base": 1},
            "all": [{"base": 1, "mine": "a"}, {"base": 1, "mine": "b"}],
            "end": true
        })
    );
}

#[test]
fn nested_groups_never_mix() {
    let mut run = Fixture::started(
        json!({
            "name": "nested", "start": "a",
            "nodes": {"a": {"compute": {"state.x": 0}}, "outer": {"compute": {"state.o": "${item}"}},
                "inner": {"action": {"kind": "mock"}, "input": {"i": "${item}", "o": "${row}"}},
                "meet": {"compute": {"state.row": "${state.cells}"}},
                "end": {"compute": {"state.end": 1}}},
            "transitions": [
                {"from": "a", "to": "outer", "foreach": "${[10, 20]}", "as": "row", "group": "rows"},
                {"from": "outer", "to": "inner", "foreach": "${[1, 2]}", "group": "cells"},
                {"from": "inner", "to": "meet", "join": {"group": "cells",
                    "merge": {"strategy": "collect", "into": "state.cells"}}},
                {"from": "meet", "to": "end", "join": {"group": "rows",
                    "merge": {"strategy": "collect", "from": "${state.row}", "into": "state.rows"}}}],
            "output": {"rows": "${state.rows}"}
        }),
        json!({}),
    );
    assert_eq!(run.owed.len(), 4);
    for (token, attempt) in run.owed.clone().into_iter().rev() {
        let input = run.run.task_input(&run.plan, token).expect("it maps");
        let sum = input["i"].as_i64().expect("int") + input["o"].as_i64().expect("int");
        run.report(token, attempt, Ok(json!(sum))).expect("owed");
    }
    assert_eq!(run.output(), json!({"rows": [[11, 12], [21, 22]]}));
}

#[test]
fn a_failure_goes_up_level_by_level() {
    let definition = |outer_failed: &str| {
        json!({
            "name": "up", "start": "a",
            "nodes": {"a": {"compute": {"state.x": 0}}, "b": {"compute": {"state.y": 0}},
                      "c": task(), "d": {"compute": {"state.z": 0}}, "e": {"compute": {"state.e": 1}}},
            "transitions": [
                {"from": "a", "to": "b", "spawn": 2, "group": "outer"},
                {"from": "b", "to": "c", "spawn": 2, "group": "inner"},
                {"from": "c", "to": "d", "join": {"group": "inner"}},
                {"from": "d", "to": "e", "join": {"group": "outer", "failed": outer_failed}}]
        })
    };
    let mut run = Fixture::started(definition("fail"), json!({}));
    run.fail("c", FailureKind::Permanent);
    assert_eq!(run.failure(), "broken");
    let mut run = Fixture::started(definition("ignore"), json!({}));
    run.fail("c", FailureKind::Permanent);
    assert_eq!(run.owed.len(), 2, "the failed branch's other half is cancelled");
    run.succeed("c", json!(1));
    run.succeed("c", json!(1));
    assert_eq!(run.closed().status, RunStatus::Completed);
}

#[test]
fn a_fan_out_without_a_join_ends_with_its_last_branch() {
    let mut run = Fixture::started(
        json!({"name": "free", "start": "a",
               "nodes": {"a": task(), "b": task(), "c": task_into("state.lost")},
               "transitions": [{"from": "a", "to": "b"}, {"from": "a", "to": "c"}]}),
        json!({}),
    );
    run.succeed("a", json!(null));
    run.succeed("b", json!(null));
    assert_eq!(run.run.status(), Some(RunStatus::Running));
    run.succeed("c", json!(1));
    assert_eq!(run.output(), json!({}), "what a branch wrote is its own");
    assert!(run.types().contains(&"group_ended"));
}

#[test]
fn a_failure_without_a_join_fails_the_run() {
    let mut run = Fixture::started(
        json!({"name": "free", "start": "a", "nodes": {"a": task(), "b": task()},
               "transitions": [{"from": "a", "to": "b", "spawn": 3}]}),
        json!({}),
    );
    run.succeed("a", json!(null));
    run.fail("b", FailureKind::Permanent);
    assert_eq!(run.failure(), "broken");
}

#[test]
fn a_large_fan_out_is_made_in_slices() {
    let mut run = fanned(merge("last"), 600);
    let slices: Vec<_> = run
        .events
        .iter()
        .filter_map(|(event, _)| match event {
            Event::BranchesSpawned { index, count, items, .. } => {
                Some((*index, *count, items.len()))
            }
            _ => None,
        })
        .collect();
    assert_eq!(slices, [(0, 250, 250), (250, 250, 250), (500, 100, 100)]);
    assert_eq!(run.owed.len(), 600);
    let (last, _) = *run.owed.last().expect("some");
    let owed = run.run.owed(&run.plan);
    assert_eq!(owed.attempts.len(), 600);
    assert!(!owed.advance);
    for (token, attempt) in run.owed.clone() {
        run.report(token, attempt, Ok(json!(token == last))).expect("owed");
    }
    assert_eq!(run.output(), json!({"votes": true}));
}

#[test]
fn an_empty_foreach_has_nothing_to_wait_for_whatever_the_number() {
    let mut join = merge("collect");
    join["wait"] = json!(3);
    assert_eq!(fanned(join, 0).output(), json!({"votes": []}));
}

#[test]
fn a_limit_holds_for_loops_that_go_through_a_join() {
    for (on_open, on_inside, on_join) in [(3, 0, 0), (0, 3, 0), (0, 0, 3)] {
        let limited = |mut transition: Value, limit: u32| {
            if limit > 0 {
                transition["max_iterations"] = json!(limit);
            }
            transition
        };
        let run = Fixture::started(
            json!({
                "name": "around", "start": "a",
                "nodes": {"a": {"compute": {"state.n": "${has(state.n) ? state.n + 1 : 0}"}},
                          "b": {"compute": {"state.x": 1}}, "c": {"compute": {"state.x": 2}}},
                "transitions": [
                    limited(json!({"from": "a", "to": "b", "spawn": 2, "group": "g"}), on_open),
                    limited(json!({"from": "b", "to": "c"}), on_inside),
                    limited(json!({"from": "c", "to": "a", "join": {"group": "g"}}), on_join)]
            }),
            json!({}),
        );
        assert_eq!(run.failure(), "loop_limit");
        assert!(run.events.len() < 60, "{} events", run.events.len());
    }
}

#[test]
fn a_plain_split_inside_a_branch_keeps_the_item() {
    let run = Fixture::started(
        json!({
            "name": "split", "start": "a",
            "nodes": {"a": {"compute": {"state.x": 0}}, "b": {"compute": {"state.x": 1}},
                      "l": {"compute": {"state.v": "${item + 'l'}"}},
                      "r": {"compute": {"state.v": "${item + string(index)}"}},
                      "m": {"compute": {"state.m": "${state.parts}"}}, "e": {"compute": {"state.e": 1}}},
            "transitions": [
                {"from": "a", "to": "b", "foreach": "${['p', 'q']}", "group": "outer"},
                {"from": "b", "to": "l", "group": "inner"}, {"from": "b", "to": "r", "group": "inner"},
                {"from": "l", "to": "m", "join": {"group": "inner", "merge": {
                    "strategy": "collect", "from": "${state.v}", "into": "state.parts"}}},
                {"from": "r", "to": "m", "join": {"group": "inner", "merge": {
                    "strategy": "collect", "from": "${state.v}", "into": "state.parts"}}},
                {"from": "m", "to": "e", "join": {"group": "outer", "merge": {
                    "strategy": "append", "from": "${state.m}", "into": "state.all"}}}],
            "output": {"all": "${state.all}"}
        }),
        json!({}),
    );
    assert_eq!(run.output(), json!({"all": ["pl", "p1", "ql", "q1"]}));
}

#[test]
fn what_waits_at_a_join_is_limited() {
    let mut run = fanned(merge("collect"), 9);
    for index in 0..9 {
        if run.run.live().is_some() {
            arrive(&mut run, index, json!("x".repeat(1_000_000)));
        }
    }
    assert_eq!(run.failure(), "context_too_large");
}
