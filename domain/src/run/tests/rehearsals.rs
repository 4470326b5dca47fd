//! Runs by another version of their definition: what is the same, what is a value, and where they
//! part.

use serde_json::{Value, json};

use super::fixture::Fixture;
use super::replays::plan;
use crate::run::event::FailureKind;
use crate::run::rehearsal::{Parting, PartingKind, Rehearsal};
use crate::run::{Command, Event};

fn base() -> Value {
    json!({
        "name": "checked", "start": "draft",
        "input_schema": {"type": "object"},
        "nodes": {
            "draft": {"action": {"kind": "mock"}, "output": {"state.size": "${result.size}"},
                      "retry": {"max_attempts": 3, "initial": "1s", "jitter": false}},
            "check": {"action": {"kind": "mock"}},
            "sum": {"compute": {"state.found": "${state.marks.size()}"}},
            "big": {"compute": {"state.way": "big"}},
        },
        "transitions": [
            {"from": "draft", "to": "big", "when": "result.size > 10", "priority": 1},
            {"from": "draft", "to": "check", "spawn": 2, "group": "checks", "priority": 2},
            {"from": "check", "to": "sum", "join": {"group": "checks",
                "merge": {"strategy": "append", "into": "state.marks"}}},
        ],
        "output": {"found": "${state.found}"},
    })
}

/// A run of it: an attempt that failed, two branches, a join.
fn ran() -> Fixture {
    let mut run = Fixture::started(base(), json!({"q": 1}));
    run.fail("draft", FailureKind::Transient);
    run.advance_clock(60_000);
    run.succeed("draft", json!({"size": 7}));
    run.succeed("check", json!("a"));
    run.succeed("check", json!("b"));
    assert_eq!(run.output(), json!({"found": 2}));
    run
}

fn rehearsed(run: &Fixture, definition: Value) -> Result<Option<Box<Parting>>, Box<Parting>> {
    let plan = plan(definition);
    let mut rehearsal = Rehearsal::new(&plan);
    run.events.iter().try_for_each(|(event, at)| rehearsal.take(event, *at))?;
    rehearsal.end()
}

/// The run goes another way by this definition.
fn parted(run: &Fixture, definition: Value) -> Parting {
    *rehearsed(run, definition).expect_err("it parts")
}

fn place(run: &Fixture, event_type: &str) -> u64 {
    let at = run.types().iter().position(|name| *name == event_type);
    at.expect("there is such an event") as u64 + 1
}

fn event_type(event: Option<&Event>) -> Option<&'static str> {
    event.map(Event::event_type)
}

#[test]
fn what_means_nothing_by_itself_is_the_same() {
    let run = ran();
    assert_eq!(rehearsed(&run, base()), Ok(None));
    let mut to = base();
    to["nodes"]["other"] = json!({"compute": {"state.x": 1}});
    to["nodes"]["draft"]["retry"]["initial"] = json!("2h");
    to["nodes"]["draft"]["retry"]["max_attempts"] = json!(9);
    to["timeout"] = json!("30h");
    to["transitions"][1]["group"] = json!("looks");
    to["transitions"][1]["max_iterations"] = json!(4);
    to["transitions"][2]["join"]["group"] = json!("looks");
    let new = json!({"from": "big", "to": "other", "when": "state.way == 'big'"});
    to["transitions"].as_array_mut().expect("transitions").insert(0, new);
    assert_eq!(rehearsed(&run, to), Ok(None));
}

#[test]
fn a_changed_condition_parts_the_run_where_it_leads_elsewhere() {
    let run = ran();
    let mut to = base();
    to["transitions"][0]["when"] = json!("result.size > 8");
    assert_eq!(rehearsed(&run, to.clone()), Ok(None), "7 isn't more than 8 either");
    to["transitions"][0]["when"] = json!("result.size > 5");
    let found = parted(&run, to);
    assert_eq!((found.kind, found.sequence), (PartingKind::Path, place(&run, "token_routed")));
    assert_eq!(found.node.as_deref(), Some("draft"));
    let decided = format!("{:?}", found.decided);
    assert!(decided.contains("big"), "{decided}");
}

#[test]
fn a_new_node_on_the_way_parts_the_run_before_it() {
    let run = ran();
    let mut to = base();
    to["nodes"]["look"] = json!({"action": {"kind": "mock"}});
    to["transitions"][1]["to"] = json!("look");
    to["transitions"][1]["group"] = json!("looks");
    to["transitions"]
        .as_array_mut()
        .expect("transitions")
        .push(json!({"from": "look", "to": "sum", "join": {"group": "looks"}}));
    let found = parted(&run, to);
    assert_eq!((found.kind, found.sequence), (PartingKind::Path, place(&run, "token_routed")));
}

#[test]
fn an_outcome_that_the_history_lacks_parts_the_run_where_it_is_needed() {
    let run = ran();
    let mut to = base();
    to["nodes"]["sum"] = json!({"action": {"kind": "mock"}});
    let found = parted(&run, to);
    assert_eq!((found.kind, found.sequence), (PartingKind::Path, place(&run, "node_computed")));
    assert_eq!(found.node.as_deref(), Some("sum"));
    assert_eq!(event_type(found.recorded.as_ref()), Some("node_computed"));
    assert_eq!(found.decided, None);
}

#[test]
fn another_value_is_noted_and_the_rehearsal_goes_on() {
    let run = ran();
    let mut to = base();
    to["nodes"]["draft"]["output"] = json!({"state.length": "${result.size}"});
    let found = rehearsed(&run, to.clone()).expect("the way is the same").expect("noted");
    assert_eq!((found.kind, found.sequence), (PartingKind::Values, place(&run, "task_succeeded")));
    assert_eq!(found.node.as_deref(), Some("draft"));
    // A run that needs the value parts later.
    to["output"]["size"] = json!("${state.size}");
    let found = parted(&run, to);
    assert_eq!((found.kind, found.sequence), (PartingKind::Path, run.events.len() as u64));
    assert_eq!(event_type(found.decided.as_ref()), Some("run_failed"));
}

#[test]
fn another_join_parts_the_run_when_it_fires() {
    let run = ran();
    let mut to = base();
    to["transitions"][2]["join"]["wait"] = json!("any");
    let found = parted(&run, to);
    assert_eq!(found.kind, PartingKind::Path);
    assert_eq!(event_type(found.decided.as_ref()), Some("join_fired"));
    assert!(found.sequence < place(&run, "join_fired"), "{found:?}");
}

#[test]
fn fewer_attempts_part_the_run_where_the_next_one_is_missing() {
    let run = ran();
    let mut to = base();
    to["nodes"]["draft"]["retry"]["max_attempts"] = json!(1);
    let found = parted(&run, to);
    assert_eq!((found.kind, found.sequence), (PartingKind::Path, place(&run, "task_failed")));
}

#[test]
fn an_input_that_is_refused_now_is_told_with_its_problems() {
    let run = ran();
    let mut to = base();
    to["input_schema"]["required"] = json!(["lang"]);
    let found = parted(&run, to);
    assert_eq!((found.kind, found.sequence), (PartingKind::Refused, 1));
    assert_eq!(found.problems.len(), 1, "{found:?}");
}

#[test]
fn another_start_parts_the_run_at_once() {
    let run = ran();
    let mut to = base();
    to["start"] = json!("big");
    let found = parted(&run, to);
    assert_eq!((found.kind, found.sequence), (PartingKind::Path, 1));
    assert_eq!(found.node.as_deref(), Some("draft"));
}

#[test]
fn a_time_out_that_would_have_come_before_the_next_event_parts_the_run() {
    let run = ran();
    let mut to = base();
    to["timeout"] = json!("30s");
    let found = parted(&run, to);
    assert_eq!((found.kind, found.sequence), (PartingKind::Path, place(&run, "retry_started")));
    assert_eq!(event_type(found.decided.as_ref()), Some("run_timed_out"));
    // What waits longer by the new version comes that much nearer to its end.
    let mut to = base();
    to["timeout"] = json!("2m");
    assert_eq!(rehearsed(&run, to.clone()), Ok(None));
    to["nodes"]["draft"]["retry"]["initial"] = json!("3m");
    let found = parted(&run, to);
    assert_eq!(event_type(found.decided.as_ref()), Some("run_timed_out"));
}

#[test]
fn a_cancelled_run_is_rehearsed_up_to_its_end() {
    let mut run = Fixture::started(base(), json!({"q": 1}));
    run.succeed("draft", json!({"size": 7}));
    let cancel = Command::Cancel { reason: Some("enough".to_owned()), compensate: true };
    run.when(&cancel).expect("it goes on");
    assert_eq!(rehearsed(&run, base()), Ok(None));
}
