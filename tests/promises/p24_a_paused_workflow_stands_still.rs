//! Promise 24: the runs of a paused workflow stand still and new ones wait, whatever dies
//! meanwhile, and all of them go on with it; what was paused for itself stays so.
//!
//! It fails where a pause is known to the processes alone that were asked for it, where one that
//! takes over hasn't heard of it, and where a run is told of the one and not of the other.

use serde_json::{Value, json};
use system_tests::{Book, Client, Platform, Setting, wait_for};

system_tests::in_both_settings!(a_workflow_is_paused_and_resumed_through_kills);

const RUNS: usize = 30;

async fn workflow(client: &Client) -> String {
    let definition = json!({
        "name": "nightly", "start": "wait",
        "nodes": {"wait": {"wait": {"signal": "go"}},
                  "work": {"action": {"kind": "mock", "with": {"result": 1}}}},
        "transitions": [{"from": "wait", "to": "work"}],
    });
    let published = client.publish(&definition.to_string()).await;
    let projects = client.get("/projects").await;
    let body = json!({"project_id": projects["items"][0]["id"], "name": "nightly",
        "definition_id": published["id"]});
    let made = client.post("/workflows", &body).await.ok();
    made["id"].as_str().expect("an id").to_owned()
}

async fn started(client: &Client, workflow: &str) -> (String, Value) {
    let answer = client.post(&format!("/workflows/{workflow}/runs"), &json!({})).await.ok();
    (answer["id"].as_str().expect("an id").to_owned(), answer["status"].clone())
}

async fn there_are(client: &Client, status: &str, count: usize) {
    wait_for(&format!("{count} runs that are {status}"), || async {
        let runs = client.get(&format!("/runs?status={status}&limit=200")).await;
        (runs["items"].as_array()?.len() == count).then_some(())
    })
    .await;
}

async fn killed(platform: &mut Platform) {
    platform.kill_9().await;
    platform.restart().await;
}

async fn a_workflow_is_paused_and_resumed_through_kills(setting: Setting) {
    let mut platform = crate::platform_in(setting).await;
    let client = platform.client();
    let nightly = workflow(&client).await;
    let mut runs = Vec::new();
    for _ in 0..RUNS {
        runs.push(started(&client, &nightly).await.0);
    }
    let alone = runs.pop().expect("a run");
    client.post(&format!("/runs/{alone}/pause"), &json!({})).await.ok();
    client.post(&format!("/workflows/{nightly}/pause"), &json!({})).await.ok();
    // Right after the answer: who is told is derived again.
    killed(&mut platform).await;
    there_are(&client, "paused", RUNS).await;
    assert_eq!(client.get(&format!("/workflows/{nightly}")).await["spec"]["paused"], true);
    let (late, status) = started(&client, &nightly).await;
    assert_eq!(status, "queued");
    there_are(&client, "queued", 1).await;
    let waiting = client.get(&format!("/runs/{late}/waiting")).await;
    assert_eq!(waiting["items"][0]["queue"]["reason"], "workflow_paused", "{waiting}");
    for run_id in runs.iter().chain([&late, &alone]) {
        client.post(&format!("/runs/{run_id}/signals/go"), &json!({})).await.ok();
    }
    client.post(&format!("/workflows/{nightly}/resume"), &json!({})).await.ok();
    killed(&mut platform).await;
    for run_id in runs.iter().chain([&late]) {
        assert_eq!(client.end_of(run_id).await["status"], "completed");
    }
    there_are(&client, "paused", 1).await;
    client.post(&format!("/runs/{alone}/resume"), &json!({})).await.ok();
    assert_eq!(client.end_of(&alone).await["status"], "completed");
    platform.stop().await;
    platform.records().await.check();
    platform.audit(&Book::default()).await;
}
