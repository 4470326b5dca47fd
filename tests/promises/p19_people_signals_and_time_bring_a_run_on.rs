//! Promise 19: a run that waits for people, signals or time goes on when they come, once, whatever
//! was down meanwhile; a paused one stands still.
//!
//! Real processes are killed while the run waits. It fails where a wait lives in memory only, where
//! an answer or a signal is acknowledged before it is durable, and where a restart hands out what a
//! pause holds back.

use serde_json::{Value, json};
use system_tests::{Client, Platform, Setting, wait_for, workflows};

system_tests::in_both_settings!(
    a_run_waits_through_restarts_and_goes_on_once,
    a_paused_run_stands_still_through_a_restart_and_goes_on,
    a_signal_by_labels_reaches_the_open_runs_that_have_them,
);

/// A gate, a signal, a span of time, and a task on a worker at last.
fn patient() -> Value {
    json!({
        "name": "patient", "start": "ask",
        "nodes": {
            "ask": {"gate": {"title": "Go on, ${input.name}?", "form": {"type": "object",
                        "required": ["n"], "properties": {"n": {"type": "integer"}}}},
                    "output": {"state.n": "${result.value.n}"}},
            "tell": {"emit": {"event": "asked", "data": {"n": "${state.n}"}}},
            "hear": {"wait": {"signal": "go", "when": "signal.payload.n == state.n"},
                     "output": {"state.heard": "${result.payload.word}"}},
            "rest": {"wait": {"for": "50ms"}},
            "work": {"action": {"kind": "transform", "with": {"value": "${input.word}"}},
                     "input": {"word": "${state.heard}"}, "output": {"state.done": "${result}"}}
        },
        "transitions": [{"from": "ask", "to": "tell"}, {"from": "tell", "to": "hear"},
                        {"from": "hear", "to": "rest"}, {"from": "rest", "to": "work"}],
        "output": {"done": "${state.done}", "n": "${state.n}"}
    })
}

/// Waits until a run waits for something, and says what.
async fn waits_for(client: &Client, run_id: &str, what: &str) -> Value {
    wait_for(&format!("{run_id} to wait for a {what}"), || async {
        let waiting = client.get(&format!("/runs/{run_id}/waiting")).await;
        let items = waiting["items"].as_array().expect("a list");
        let item = items.iter().find(|item| item["for"] == what)?;
        (waiting["status"] == "waiting").then(|| item.clone())
    })
    .await
}

async fn killed(platform: &mut Platform) {
    platform.kill_9().await;
    platform.restart().await;
}

async fn a_run_waits_through_restarts_and_goes_on_once(setting: Setting) {
    let mut platform = crate::platform_in(setting).await;
    let client = platform.client();
    let run_id = client.start(&patient(), json!({"name": "Ann"})).await;
    let item = waits_for(&client, &run_id, "gate").await;
    let gate = item["gate"]["id"].as_str().expect("an id").to_owned();
    assert_eq!(gate, format!("{run_id}.1"));
    killed(&mut platform).await;

    let answers = format!("/gates/{gate}/answers");
    let wrong = client.post(&answers, &json!({"decision": "approve", "value": {"n": "7"}})).await;
    assert_eq!((wrong.status, wrong.code()), (422, "invalid_answer"));
    assert_eq!(wrong.body["errors"][0]["pointer"], "/value/n");
    // Kept for the wait that is reached later.
    let early = json!({"payload": {"n": 7, "word": "early"}});
    let signal = format!("/runs/{run_id}/signals/go");
    client.post(&signal, &json!({"payload": {"n": 8, "word": "other"}})).await.ok();
    let answered = client.post(&answers, &json!({"decision": "approve", "value": {"n": 7}})).await;
    let position = answered.ok()["position"].as_u64().expect("a position");
    let view = client.get(&format!("/gates/{gate}?min_position={position}")).await;
    assert_eq!((&view["status"], &view["outcome"]), (&json!("closed"), &json!("approved")));
    assert_eq!(view["title"], "Go on, Ann?");
    let again = client.post(&answers, &json!({"decision": "reject"})).await;
    assert_eq!((again.status, again.code()), (409, "gate_not_open"));
    killed(&mut platform).await;

    waits_for(&client, &run_id, "signal").await;
    client.post(&signal, &early).await.ok();
    let view = client.end_of(&run_id).await;
    assert_eq!((&view["status"], &view["output"]["done"]), (&json!("completed"), &json!("early")));
    let late = client.post(&signal, &early).await;
    assert_eq!((late.status, late.code()), (409, "run_ended"));
    platform.stop().await;
    let records = platform.records().await;
    records.check();
    let counts = records.count(&run_id);
    for (event, count) in [
        ("gate_opened", 1),
        ("gate_answered", 1),
        ("gate_closed", 1),
        ("event_emitted", 1),
        ("signal_received", 2),
        ("wait_started", 2),
        ("wait_ended", 2),
        ("task_succeeded", 1),
    ] {
        assert_eq!(counts.get(event), Some(&count), "{event}: {counts:?}");
    }
}

async fn a_paused_run_stands_still_through_a_restart_and_goes_on(setting: Setting) {
    let mut platform = crate::platform_in(setting).await;
    let client = platform.client();
    let definition = json!({"name": "held", "start": "hear",
        "nodes": {"hear": {"wait": {"signal": "go"}},
                  "work": {"action": {"kind": "transform", "with": {"value": 7}},
                           "output": {"state.n": "${result}"}}},
        "transitions": [{"from": "hear", "to": "work"}]});
    let run_id = client.start(&definition, json!({})).await;
    let path = |verb: &str| format!("/runs/{run_id}/{verb}");
    let reason = json!({"reason": "maintenance"});
    let paused = client.post(&path("pause"), &reason).await.ok();
    let again = client.post(&path("pause"), &reason).await;
    assert_eq!((again.status, again.code()), (409, "already_paused"));
    let position = &paused["position"];
    let view = client.get(&format!("/runs/{run_id}?min_position={position}")).await;
    assert_eq!(view["status"], "paused");
    // The task is owed now, and is handed to nobody: not by this process, and not by the next one.
    client.post(&path("signals/go"), &json!({})).await.ok();
    killed(&mut platform).await;
    // Another run goes all the way meanwhile.
    client.run_to_end(&workflows::sequence("beside", 3), json!({"n": 1})).await;
    let waiting = client.get(&path("waiting")).await;
    assert_eq!(
        (&waiting["status"], &waiting["items"][0]["node"]),
        (&json!("paused"), &json!("work"))
    );
    assert_eq!(waiting["pause"]["reason"], "maintenance");
    let events = client.events(&run_id).await;
    assert!(!events.iter().any(|event| event["event_type"] == "task_succeeded"));

    client.post(&path("resume"), &json!({})).await.ok();
    let view = client.end_of(&run_id).await;
    assert_eq!((&view["status"], &view["output"]["n"]), (&json!("completed"), &json!(7)));
    platform.stop().await;
    platform.records().await.check();
}

async fn a_signal_by_labels_reaches_the_open_runs_that_have_them(setting: Setting) {
    let platform = crate::platform_in(setting).await;
    let client = platform.client();
    let definition = json!({"name": "listening", "start": "hear",
        "nodes": {"hear": {"wait": {"signal": "go"}, "output": {"state.n": "${result.payload}"}}}});
    let mut position = 0;
    let mut runs = Vec::new();
    for team in ["red", "red", "blue"] {
        let body = json!({"definition": definition, "labels": {"team": team}});
        let started = client.post("/runs", &body).await.ok();
        position = position.max(started["position"].as_u64().expect("a position"));
        runs.push(started["id"].as_str().expect("an id").to_owned());
    }
    let body = json!({"labels": {"team": "red"}, "name": "go", "payload": 5});
    let told = client.post(&format!("/signals?min_position={position}"), &body).await.ok();
    let mut ids: Vec<_> =
        told["run_ids"].as_array().expect("a list").iter().filter_map(Value::as_str).collect();
    ids.sort_unstable();
    let mut expected = [runs[0].as_str(), runs[1].as_str()];
    expected.sort_unstable();
    assert_eq!(ids, expected);
    for run_id in &runs[..2] {
        assert_eq!(client.end_of(run_id).await["output"]["n"], 5);
    }
    waits_for(&client, &runs[2], "signal").await;
}
