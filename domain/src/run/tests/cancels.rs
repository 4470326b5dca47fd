//! Transitions that end a part of the run, or complete a group.

use serde_json::{Value, json};

use super::fixture::{Fixture, task};
use crate::run::event::{GateOutcome, Region, TokensCancelled};
use crate::run::{Command, Event, RunStatus};

fn cancelled(run: &Fixture) -> Vec<&TokensCancelled> {
    let events = run.events.iter().map(|(event, _)| event);
    let found = events.filter_map(|event| match event {
        Event::TokensCancelled(cancelled) => Some(&**cancelled),
        _ => None,
    });
    found.collect()
}

/// `start` splits into `work` (over `input.items`, with a join into `after`) and `stop`, which
/// leads to `done` with an effect.
fn beside(effect: Value, join: Value) -> Value {
    let mut stop = json!({"from": "stop", "to": "done"});
    for (key, value) in effect.as_object().expect("an object") {
        stop[key] = value.clone();
    }
    let mut join = join;
    join["group"] = json!("items");
    json!({
        "name": "beside", "start": "start",
        "nodes": {"start": task(), "split": {"compute": {"state.split": true}}, "work": task(),
                  "after": task(), "stop": task(), "done": task()},
        "transitions": [
            {"from": "start", "to": "split"}, {"from": "start", "to": "stop"},
            {"from": "split", "to": "work", "foreach": "${input.items}", "group": "items"},
            {"from": "work", "to": "after", "join": join},
            stop
        ]
    })
}

fn begun(effect: Value, join: Value, items: usize) -> Fixture {
    let items: Vec<_> = (0..items).collect();
    let mut run = Fixture::started(beside(effect, join), json!({"items": items}));
    run.succeed("start", Value::Null);
    run
}

#[test]
fn a_region_of_any_size_is_one_small_event() {
    let effect = json!({"cancel": {"nodes": ["work"]}});
    let mut run = begun(effect, json!({"failed": "ignore"}), 10_000);
    assert_eq!(run.owed.len(), 10_001);
    let before = run.events.len();
    run.succeed("stop", Value::Null);
    let brought: Vec<_> = run.types()[before..].to_vec();
    assert_eq!(brought[..3], ["task_succeeded", "tokens_cancelled", "token_routed"]);
    assert_eq!(brought.len(), 4, "and the join fires, with nobody: {brought:?}");
    let [event] = cancelled(&run)[..] else { panic!("one event") };
    assert_eq!((event.tokens, event.within), (10_000, None));
    let size = serde_json::to_vec(event).expect("JSON").len();
    assert!(size < 200, "{size} bytes");
    assert!(run.owed.iter().all(|(token, _)| run.node_of(*token) != "work"));
    run.succeed("after", Value::Null);
    run.succeed("done", Value::Null);
    assert_eq!(run.closed().status, RunStatus::Completed);
}

#[test]
fn a_region_reaches_branches_that_are_not_made_yet() {
    let items: Vec<_> = (0..2_500).collect();
    let effect = json!({"cancel": {"nodes": ["work"]}});
    let definition = beside(effect, json!({"failed": "ignore"}));
    let mut run = Fixture::started(definition, json!({"items": items}));
    let (token, attempt) = run.at("start");
    let report = |token, attempt| {
        Command::Report(Box::new(crate::run::command::Report {
            token,
            attempt,
            result: Ok(Value::Null),
            usage: Default::default(),
            duration_ms: 0,
            adopted: None,
        }))
    };
    // The first slice is made, and `stop` reports before the next one is.
    let first = run.run.execute(&run.plan, &report(token, attempt), run.now).expect("it is owed");
    assert!(first.advance, "the rest is put off");
    let live = run.run.live().expect("it lives");
    let made: u64 = live.instances.values().map(|one| one.spawned).sum();
    assert!(made < 2_500, "{made} are made");
    let stop = live.tokens.iter().find(|(_, token)| &*token.node == "stop").map(|(id, _)| *id);
    let stopped = run.run.execute(&run.plan, &report(stop.expect("it is there"), 1), run.now);
    stopped.expect("it is owed");
    let live = run.run.live().expect("it lives");
    let left: Vec<_> = live.tokens.values().map(|token| &*token.node).collect();
    assert_eq!(left, ["done", "after"], "no branch is made afterwards");
    assert!(!run.run.owed(&run.plan).advance);
}

#[test]
fn branches_that_are_cancelled_have_ended_for_their_join() {
    for (failed, status) in [("ignore", None), ("count", None), ("fail", Some(RunStatus::Failed))] {
        let effect = json!({"cancel": {"nodes": ["work"]}});
        let mut run = begun(effect, json!({"failed": failed}), 3);
        run.succeed("work", json!(1));
        run.succeed("stop", Value::Null);
        assert_eq!(run.run.status().filter(|status| status.is_terminal()), status, "{failed}");
        match status {
            Some(_) => assert_eq!(run.failure(), "join_unsatisfiable"),
            None => {
                run.succeed("after", Value::Null);
            }
        }
    }
}

#[test]
fn a_cancelled_group_never_joins_and_its_branch_ends() {
    let mut run = begun(json!({"cancel": {"group": "items"}}), json!({}), 3);
    run.succeed("work", json!(1));
    run.succeed("stop", Value::Null);
    assert!(!run.types().contains(&"join_fired"));
    assert!(!run.types().contains(&"join_failed"));
    assert_eq!(cancelled(&run)[0].region, Region::Group("items".to_owned()));
    assert_eq!(cancelled(&run)[0].tokens, 2);
    run.succeed("done", Value::Null);
    assert_eq!(run.closed().status, RunStatus::Completed);
}

#[test]
fn a_completed_group_joins_with_what_has_arrived() {
    let join = json!({"merge": {"strategy": "collect", "into": "state.votes"}});
    let mut run = begun(json!({"complete": "items"}), join, 3);
    run.succeed("work", json!("one"));
    run.succeed("stop", Value::Null);
    let fired = run.events.iter().find_map(|(event, _)| match event {
        Event::JoinFired { arithmetic, completed_by, writes, .. } => {
            Some((arithmetic.arrived, *completed_by, writes.clone()))
        }
        _ => None,
    });
    let (arrived, by, writes) = fired.expect("the join fired");
    assert_eq!((arrived, writes["votes"].clone()), (1, json!(["one"])));
    assert!(by.is_some(), "it says who completed it");
    run.succeed("after", Value::Null);
    run.succeed("done", Value::Null);
    assert_eq!(run.closed().status, RunStatus::Completed);
}

#[test]
fn nothing_to_end_is_no_event() {
    let mut run = begun(json!({"cancel": {"nodes": ["after"]}}), json!({}), 1);
    run.succeed("stop", Value::Null);
    assert!(cancelled(&run).is_empty());
}

#[test]
fn an_item_reaches_no_other_item() {
    let mut run = Fixture::started(
        json!({
            "name": "items", "start": "start",
            "nodes": {"start": task(), "open": {"compute": {"state.id": "${item}"}},
                      "work": task(), "stop": task(), "done": task()},
            "transitions": [
                {"from": "start", "to": "open", "foreach": "${input.items}"},
                {"from": "open", "to": "work"}, {"from": "open", "to": "stop"},
                {"from": "stop", "to": "done", "cancel": {"nodes": "all"}}
            ]
        }),
        json!({"items": [1, 2]}),
    );
    run.succeed("start", Value::Null);
    run.succeed("stop", Value::Null);
    let mut nodes: Vec<_> = run.owed.iter().map(|(token, _)| run.node_of(*token)).collect();
    nodes.sort();
    assert_eq!(nodes, ["done", "stop", "work"], "the other item works and may still stop");
    assert!(cancelled(&run)[0].within.is_some());
}

#[test]
fn an_open_gate_in_a_region_is_closed_for_whoever_was_asked() {
    let mut definition = beside(json!({"cancel": {"nodes": ["work"]}}), json!({"failed": "count"}));
    definition["nodes"]["work"] = json!({"gate": {"title": "Well?", "timeout": "1h"}});
    let mut run = Fixture::started(definition, json!({"items": [1, 2]}));
    run.succeed("start", Value::Null);
    run.succeed("stop", Value::Null);
    let closed = run.events.iter().filter(|(event, _)| {
        matches!(event, Event::GateClosed(closed) if closed.outcome == GateOutcome::Cancelled)
    });
    assert_eq!(closed.count(), 2);
    assert!(run.run.next_due().is_none(), "their time-outs are disarmed");
}

#[test]
fn a_failure_may_cancel_too() {
    let mut definition = beside(json!({}), json!({}));
    definition["transitions"][4] =
        json!({"from": "stop", "to": "done", "on": "failure", "cancel": {"group": "items"}});
    let mut run = Fixture::started(definition, json!({"items": [1]}));
    run.succeed("start", Value::Null);
    run.fail("stop", crate::run::FailureKind::Permanent);
    assert_eq!(cancelled(&run).len(), 1);
    run.succeed("done", Value::Null);
    assert_eq!(run.closed().status, RunStatus::Completed);
}
