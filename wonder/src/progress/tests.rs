//! The fold over hand-written histories.

use serde_json::json;

use super::*;

fn progress(events: Vec<Value>) -> Progress {
    let mut progress = Progress::default();
    for event in events {
        progress.fold(serde_json::from_value(event.clone()).unwrap_or_else(|error| {
            panic!("{event} is not an event: {error}");
        }));
    }
    progress
}

fn started() -> Value {
    json!({
        "type": "run_started",
        "run_id": domain::ids::RunId::derived("ws", "r"),
        "project_id": domain::ids::ProjectId::derived("ws", "p"),
        "definition": {
            "id": domain::ids::DefinitionId::derived("prj", "d"),
            "name": "d", "version": 1, "hash": "00"
        },
        "start": "split",
        "input": {},
        "started_at": "2026-01-01T00:00:00Z"
    })
}

fn fan_out(count: u64) -> Vec<Value> {
    vec![
        started(),
        json!({"type": "task_succeeded", "token": 1, "attempt": 1, "result": 1,
               "usage": {"input_tokens": 5, "output_tokens": 2, "cost_micros": 7}}),
        json!({"type": "token_routed", "token": 1,
               "opened": [{"instance": 1, "group": "g",
                           "branches": [{"transition": 0, "node": "judge", "count": count},
                                        {"transition": 1, "node": "audit", "count": 1}]}]}),
        json!({"type": "branches_spawned", "instance": 1, "index": 0, "token": 2,
               "count": count + 1}),
    ]
}

fn text(progress: &Progress, node: &str) -> String {
    progress.nodes.iter().find(|count| count.node == node).expect("the node is there").text()
}

#[test]
fn a_fan_out_shows_as_counts() {
    let mut events = fan_out(40);
    for token in 2..14 {
        events.push(json!({"type": "task_succeeded", "token": token, "attempt": 1, "result": 1}));
    }
    let error = json!({"code": "x", "message": "x", "kind": "permanent"});
    for token in 14..16 {
        events.push(json!({"type": "task_failed", "token": token, "attempt": 1, "error": error}));
    }
    let progress = progress(events);
    assert_eq!(text(&progress, "split"), "done");
    assert_eq!(text(&progress, "judge"), "12/40 · 2 failed");
    assert_eq!(text(&progress, "audit"), "running");
    assert_eq!(progress.usage.input_tokens, 5);
}

#[test]
fn a_token_that_backs_off_is_shown_until_it_works_again() {
    let error = json!({"code": "x", "message": "x", "kind": "transient"});
    let failed = json!({"type": "task_failed", "token": 1, "attempt": 1, "error": error,
                        "retry_at": "2026-01-01T00:00:01Z"});
    let waiting = progress(vec![started(), failed.clone()]);
    assert_eq!(text(&waiting, "split"), "retrying");
    let retry = json!({"type": "retry_started", "token": 1, "attempt": 2});
    let working = progress(vec![started(), failed, retry]);
    assert_eq!(text(&working, "split"), "running");
}

#[test]
fn a_failure_that_a_transition_took_is_marked() {
    let error = json!({"code": "x", "message": "x", "kind": "permanent"});
    let failed = json!({"type": "task_failed", "token": 1, "attempt": 1, "error": error});
    let routed = json!({"type": "token_routed", "token": 1, "fired": [
        {"moved": {"transition": 0, "token": 2, "node": "other"}}]});
    let handled = progress(vec![started(), failed.clone(), routed]);
    assert_eq!(text(&handled, "split"), "failed (handled)");
    let lost = json!({"type": "token_routed", "token": 1, "failed": true});
    assert_eq!(text(&progress(vec![started(), failed, lost]), "split"), "failed");

    let mut events = fan_out(3);
    for token in 2..4 {
        events.push(json!({"type": "task_failed", "token": token, "attempt": 1, "error": error}));
    }
    events.push(json!({"type": "token_routed", "token": 2, "fired": [
        {"moved": {"transition": 0, "token": 9, "node": "other"}}]}));
    events.push(json!({"type": "token_routed", "token": 3, "failed": true}));
    assert_eq!(text(&progress(events), "judge"), "0/3 · 2 failed (1 handled)");
}

#[test]
fn a_join_that_fires_early_takes_the_others_back() {
    let mut events = fan_out(7);
    for token in 2..7 {
        events.push(json!({"type": "task_succeeded", "token": token, "attempt": 1, "result": 1}));
        events.push(json!({"type": "token_routed", "token": token, "fired": [
            {"arrived": {"transition": 0, "instance": 1}}]}));
    }
    // One of those that are out has opened a group of its own, and not all of it is made yet.
    events.push(json!({"type": "task_succeeded", "token": 7, "attempt": 1, "result": 1}));
    events.push(json!({"type": "token_routed", "token": 7, "opened": [{"instance": 2,
        "branches": [{"transition": 0, "node": "inner", "count": 4}]}]}));
    events.push(json!({"type": "branches_spawned", "instance": 2, "index": 0, "token": 20,
        "count": 3}));
    let mut continues = events.clone();
    let fired = json!({"type": "join_fired", "instance": 1, "token": 30, "node": "pick",
        "arithmetic": {"declared": 8, "arrived": 5, "failed": 0, "ended": 0, "needed": 5}});
    events.push(fired.clone());
    let cancelled = progress(events);
    assert_eq!(text(&cancelled, "judge"), "6/7 · 1 cancelled");
    assert_eq!(text(&cancelled, "audit"), "cancelled");
    assert_eq!(text(&cancelled, "inner"), "0/4 · 4 cancelled");
    assert_eq!(text(&cancelled, "pick"), "running");
    assert!(cancelled.nodes.iter().all(|node| node.node == "pick" || node.running == 0));

    let mut fired = fired;
    fired["rest_continues"] = json!(true);
    continues.push(fired);
    assert_eq!(text(&progress(continues), "judge"), "6/7");
}

#[test]
fn what_a_transition_cancels_is_taken_back() {
    // Branch 0 waits at `judge`, 1 has gone on to `write` and backs off there, 2 cancels.
    let mut events = fan_out(3);
    events.push(json!({"type": "wait_started", "token": 2, "signal": "go"}));
    events.push(json!({"type": "task_succeeded", "token": 3, "attempt": 1, "result": 1}));
    events.push(json!({"type": "token_routed", "token": 3, "fired": [
        {"moved": {"transition": 0, "token": 9, "node": "write"}}]}));
    events.push(json!({"type": "task_succeeded", "token": 4, "attempt": 1, "result": 1}));
    let cancelled = |region: Value, within: Value| {
        let mut event = json!({"type": "tokens_cancelled", "by": 4, "transition": 2, "tokens": 2,
            "region": region});
        if !within.is_null() {
            event["within"] = within;
        }
        let mut events = events.clone();
        events.push(event);
        let progress = progress(events);
        ["judge", "write", "audit"].map(|node| text(&progress, node))
    };
    let nothing = ["1/3 · 1 waiting", "running", "running"];
    let counts = cancelled(json!({"nodes": ["judge", "write"]}), Value::Null);
    assert_eq!(counts, ["2/3 · 1 cancelled", "cancelled", "running"]);
    let counts = cancelled(json!("all"), Value::Null);
    assert_eq!(counts, ["2/3 · 1 cancelled", "cancelled", "cancelled"]);
    let own = json!({"instance": 1, "index": 2});
    assert_eq!(cancelled(json!("all"), own)[1..], nothing[1..]);
}

#[test]
fn the_end_is_known_with_its_output_or_error() {
    let completed = progress(vec![started(), json!({"type": "run_completed", "output": {"a": 1}})]);
    assert_eq!(completed.status, Some("completed"));
    assert_eq!(completed.output, json!({"a": 1}));
    let error = json!({"code": "stalled", "message": "x", "kind": "permanent"});
    let failed = progress(vec![started(), json!({"type": "run_failed", "error": error})]);
    assert_eq!(failed.status, Some("failed"));
    assert_eq!(failed.error["code"], "stalled");
    assert!(failed.nodes.iter().all(|node| node.running == 0));
}

#[test]
fn a_loop_counts_each_turn() {
    let mut events = vec![started()];
    for token in 1..=3 {
        events.push(json!({"type": "task_succeeded", "token": token, "attempt": 1, "result": 1}));
        events.push(json!({"type": "token_routed", "token": token, "fired": [
            {"moved": {"transition": 0, "token": token + 1, "node": "split"}}]}));
    }
    assert_eq!(text(&progress(events), "split"), "3/4");
}

#[test]
fn what_waits_is_shown_as_waiting_until_it_comes() {
    let mut events = fan_out(3);
    events.push(json!({"type": "wait_started", "token": 2, "signal": "go"}));
    for token in 3..5 {
        events.push(json!({"type": "gate_opened", "token": token, "node": "judge", "title": "?",
            "approvals": 1, "rejections": 1}));
    }
    assert_eq!(text(&progress(events.clone()), "judge"), "0/3 · 3 waiting");
    let error = json!({"code": "gate_rejected", "message": "x", "kind": "policy"});
    events.extend([
        json!({"type": "run_paused"}),
        json!({"type": "wait_ended", "token": 2, "result": {}}),
        json!({"type": "gate_closed", "token": 3, "outcome": "approved"}),
        json!({"type": "gate_closed", "token": 4, "outcome": "rejected", "error": error}),
        json!({"type": "run_resumed"}),
    ]);
    assert_eq!(text(&progress(events), "judge"), "2/3 · 1 failed");
}

#[test]
fn a_token_waits_for_its_child() {
    let child = domain::ids::RunId::derived("ws", "c");
    let mut events = fan_out(3);
    events.extend((2..5).map(|token| {
        json!({"type": "child_started", "token": token, "run_id": child, "definition": "d"})
    }));
    assert_eq!(text(&progress(events.clone()), "judge"), "0/3 · 3 waiting");
    let error = json!({"code": "child_failed", "message": "x", "kind": "permanent"});
    let ended = json!({"type": "child_ended", "token": 2, "run_id": child, "status": "completed",
        "result": 1});
    let failed = json!({"type": "child_ended", "token": 3, "run_id": child, "status": "failed",
        "error": error});
    events.extend([ended, failed]);
    assert_eq!(text(&progress(events), "judge"), "1/3 · 1 failed · 1 waiting");
}

#[test]
fn what_is_undone_shows_beside_what_was_done() {
    let mut events = fan_out(3);
    events.push(json!({"type": "task_succeeded", "token": 2, "attempt": 1, "result": 1,
        "undo": {}}));
    let error = json!({"code": "x", "message": "x", "kind": "permanent"});
    let started = json!({"type": "compensation_started", "status": "failed", "error": error,
        "total": 2});
    let undo =
        |token: u64| json!({"type": "undo_started", "token": token, "undoes": 2, "node": "judge"});
    events.extend([started, undo(9)]);
    assert_eq!(text(&progress(events.clone()), "judge"), "1/3 · 2 cancelled");
    assert_eq!(text(&progress(events.clone()), "undo judge"), "running");
    let retried = json!({"type": "undo_failed", "token": 9, "attempt": 1, "error": error,
        "retry_at": "2026-01-01T00:00:00Z"});
    events.push(retried);
    assert_eq!(text(&progress(events.clone()), "undo judge"), "retrying");
    let usage = json!({"input_tokens": 1, "output_tokens": 0, "cost_micros": 0});
    events.extend([
        json!({"type": "retry_started", "token": 9, "attempt": 2}),
        json!({"type": "undo_failed", "token": 9, "attempt": 2, "error": error}),
        undo(10),
        json!({"type": "undo_succeeded", "token": 10, "attempt": 1, "result": 1, "usage": usage}),
        json!({"type": "compensation_ended", "total": 2, "undone": 1, "failed": 1}),
        json!({"type": "run_failed", "error": error}),
    ]);
    let progress = progress(events);
    assert_eq!(text(&progress, "undo judge"), "1/2 · 1 failed");
    assert_eq!(text(&progress, "judge"), "1/3 · 2 cancelled");
    assert_eq!((progress.status, progress.usage.input_tokens), (Some("failed"), 6));
}
