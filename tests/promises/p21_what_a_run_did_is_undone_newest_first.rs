//! Promise 21: a run that doesn't complete undoes what it did, newest first and each completion
//! once, whatever dies between, and ends with what made it do so.
//!
//! Real processes are killed in the middle of a compensation. It fails where what is to be undone
//! is known in memory only, where an undo that succeeded is started again, and where one that fails
//! for good stops the rest.

use std::collections::BTreeSet;

use serde_json::{Value, json};
use system_tests::{Client, Platform, Records, Setting, wait_for};

system_tests::in_both_settings!(
    what_failed_is_undone_through_kills,
    a_cancelled_family_is_undone_and_a_second_cancel_says_how_to_end_it,
);

/// Branches whose work is undone.
const BRANCHES: u64 = 8;

/// A step before a fan-out whose branches complete in some order, and then a failure. The undo of
/// one branch fails for good, that of another one at first.
fn booking() -> Value {
    let undo = json!({
        "action": {"kind": "mock", "with": {"delay": "200ms", "result": {"undid": "${input.id}"}}},
        "input": {"id": "${result.id}", "of": "${index}"}, "timeout": "1m"
    });
    let mut broken = undo.clone();
    broken["action"]["with"]["fail"] = json!({"times": 9, "kind": "permanent", "code": "gone"});
    let mut flaky = undo.clone();
    flaky["action"]["with"]["fail"] = json!({"times": 1, "kind": "transient", "code": "flaky"});
    flaky["retry"] = json!({"max_attempts": 3, "initial": "50ms"});
    let node = |undo: &Value| {
        json!({"action": {"kind": "mock", "with": {"result": {"id": "${input.id}"}}},
               "input": {"id": "${index}"}, "undo": undo})
    };
    let mut first = node(&undo);
    first["input"] = json!({"id": "first"});
    first["undo"]["input"] = json!({"id": "${result.id}", "of": "${input.for}"});
    let join = json!({"group": "all"});
    json!({
        "name": "booking", "start": "first", "compensate": true,
        "nodes": {
            "first": first, "even": node(&undo), "broken": node(&broken), "flaky": node(&flaky),
            "pay": {"action": {"kind": "mock", "with": {
                "fail": {"times": 9, "kind": "permanent", "code": "no_money"}}}}},
        "transitions": [
            {"from": "first", "to": "even", "spawn": BRANCHES - 2, "group": "all"},
            {"from": "first", "to": "broken", "group": "all"},
            {"from": "first", "to": "flaky", "group": "all"},
            {"from": "even", "to": "pay", "join": join},
            {"from": "broken", "to": "pay", "join": join},
            {"from": "flaky", "to": "pay", "join": join}]
    })
}

async fn killed(platform: &mut Platform) {
    platform.kill_9().await;
    platform.restart().await;
}

/// Waits until so many completions of the run are undone, or could not be.
async fn through(client: &Client, count: u64) -> Value {
    wait_for(&format!("{count} undos"), || async {
        let runs = client.get("/runs?definition=booking").await;
        let view = runs["items"].get(0)?.clone();
        let numbers = &view["compensation"];
        let through = numbers["undone"].as_u64()? + numbers["failed"].as_u64()?;
        (through >= count).then_some(view)
    })
    .await
}

/// The tokens that completed what can be undone, and those whose completion was undone, in order.
fn completed_and_undone(records: &Records, run_id: &str) -> (Vec<u64>, Vec<u64>) {
    let (mut completed, mut undone) = (Vec::new(), Vec::new());
    for event in records.of_run(run_id) {
        let payload: Value = serde_json::from_slice(&event.payload).expect("payloads are JSON");
        match &*event.event_type {
            "task_succeeded" | "child_ended" if payload["undo"].is_object() => {
                completed.extend(payload["token"].as_u64());
            }
            "undo_started" => undone.extend(payload["undoes"].as_u64()),
            _ => {}
        }
    }
    (completed, undone)
}

async fn what_failed_is_undone_through_kills(setting: Setting) {
    let mut platform = crate::platform_in(setting).await;
    let client = platform.client();
    let run_id = client.start(&booking(), json!({"for": "Ann"})).await;
    through(&client, 1).await;
    killed(&mut platform).await;
    let view = through(&client, 4).await;
    if view["status"] == "running" {
        killed(&mut platform).await;
    }
    let view = client.end_of(&run_id).await;
    assert_eq!((&view["status"], &view["error"]["code"]), (&json!("failed"), &json!("no_money")));
    let numbers = &view["compensation"];
    let all = BRANCHES + 1;
    assert_eq!(
        (&numbers["cause"], &numbers["total"], &numbers["undone"], &numbers["failed"]),
        (&json!("failed"), &json!(all), &json!(all - 1), &json!(1)),
        "{view}"
    );
    assert_eq!(
        (&numbers["failures"][0]["node"], &numbers["failures"][0]["code"]),
        (&json!("broken"), &json!("gone"))
    );
    let timeline = client.get(&format!("/runs/{run_id}/timeline")).await;
    let entries = timeline["items"].as_array().expect("a list");
    let undos: Vec<_> = entries.iter().filter(|entry| entry["undoes"].is_u64()).collect();
    assert_eq!(undos.len() as u64, all);
    let failed: Vec<_> = undos.iter().filter(|entry| entry["status"] == "failed").collect();
    assert_eq!((failed.len(), &failed[0]["node"]), (1, &json!("broken")));
    platform.stop().await;
    let records = platform.records().await;
    records.check();
    let (completed, mut undone) = completed_and_undone(&records, &run_id);
    undone.reverse();
    assert_eq!(completed, undone, "newest first, and each once");
    assert_eq!(completed.iter().collect::<BTreeSet<_>>().len() as u64, all);
    let counts = records.count(&run_id);
    assert_eq!(counts["undo_succeeded"] as u64, all - 1, "{counts:?}");
    // One for good, and the first attempt of another one.
    assert_eq!(counts["undo_failed"], 2, "{counts:?}");
    assert_eq!((counts["compensation_started"], counts["compensation_ended"]), (1, 1));
}

/// A child that waits for a signal when its work is done.
fn errand() -> Value {
    json!({"name": "errand", "start": "fetch", "compensate": true,
        "nodes": {
            "fetch": {"action": {"kind": "mock", "with": {"result": {"id": 7}}},
                "output": {"state.id": "${result.id}"},
                "undo": {"action": {"kind": "mock"}, "input": {"id": "${result.id}"}}},
            "hear": {"wait": {"signal": "go"}}},
        "transitions": [{"from": "fetch", "to": "hear", "when": "input.waits"}],
        "output": {"id": "${state.id}"}})
}

/// A run with a child that completes and one that doesn't. The undo of the first one takes long.
fn household() -> Value {
    json!({"name": "household", "start": "done", "compensate": true,
        "nodes": {
            "done": {"workflow": {"definition": "errand", "input": {"waits": false}},
                "undo": {"action": {"kind": "mock", "with": {"delay": "10m"}},
                    "input": {"id": "${result.id}"}}},
            "open": {"workflow": {"definition": "errand", "input": {"waits": true}}}},
        "transitions": [{"from": "done", "to": "open"}]})
}

async fn a_cancelled_family_is_undone_and_a_second_cancel_says_how_to_end_it(setting: Setting) {
    let mut platform = crate::platform_in(setting).await;
    let client = platform.client();
    client.publish(&errand().to_string()).await;
    let run_id = client.start(&household(), json!({})).await;
    // Both children have done their work, and the second one waits.
    let open = wait_for("the second child to wait", || async {
        let children = client.get(&format!("/runs?parent={run_id}&status=waiting")).await;
        let child = children["items"][0]["id"].as_str()?.to_owned();
        let waiting = client.get(&format!("/runs/{child}/waiting")).await;
        (waiting["items"][0]["for"] == "signal").then_some(child)
    })
    .await;
    let children = client.get(&format!("/runs?parent={run_id}")).await;
    assert_eq!(children["items"].as_array().map(Vec::len), Some(2));
    let cancel = format!("/runs/{run_id}/cancel");
    client.post(&cancel, &json!({"reason": "moved away"})).await.ok();
    // The child that is given up undoes its own work, and its parent the one that had completed.
    let child = client.end_of(&open).await;
    assert_eq!(
        (&child["status"], &child["compensation"]["undone"]),
        (&json!("cancelled"), &json!(1))
    );
    killed(&mut platform).await;
    let again = client.post(&cancel, &json!({})).await;
    assert_eq!((again.status, again.code()), (409, "run_compensating"));
    let waiting = client.get(&format!("/runs/{run_id}/waiting")).await;
    assert_eq!(waiting["compensation"]["remaining"], 1, "{waiting}");
    let item = &waiting["items"][0];
    assert_eq!(
        (&item["for"], &item["node"], &item["undoes"]),
        (&json!("task"), &json!("done"), &json!(1))
    );
    client.post(&cancel, &json!({"compensate": false})).await.ok();
    let view = client.end_of(&run_id).await;
    assert_eq!(
        (&view["status"], &view["error"]["message"]),
        (&json!("cancelled"), &json!("moved away")),
        "it ends with the reason of the first"
    );
    assert_eq!(view["compensation"]["remaining"], 1);
    platform.stop().await;
    platform.records().await.check();
}
