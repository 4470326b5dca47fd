//! Promise 33: what goes on can be watched over a WebSocket, from history into live, without a gap
//! or a duplicate however often it is cut; and what a process warned of is found later, by run, by
//! trace and by the trace of a run's parent, without a secret in it.
//!
//! It fails where the socket loses an event between history and live ones, tells one twice after a
//! cut, or tells anything else than server-sent events do; where a warning of a process without a
//! database doesn't reach the store, or isn't known to be about a run or its trace; and where a key
//! that an attempt was given stands in a record or in the log.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use serde_json::{Value, json};
use system_tests::{Client, Pace, Platform, Sent, Setting, Shape, Traffic, wait_for, workflows};

system_tests::in_both_settings!(
    sockets_go_on_from_history_into_live,
    a_warning_is_found_by_its_run_and_its_trace,
);

/// Readers of all events at the same time.
const READERS: u64 = 3;

/// Reads up to a position that is told later, and cuts its socket now and then. Answers what it was
/// told, and how often it connected.
async fn reader(client: Client, number: u64, last: Arc<AtomicU64>) -> (Vec<Sent>, u64) {
    let (mut pace, mut told, mut connected) = (Pace::new(number), Vec::<Sent>::new(), 0);
    let is_done = |told: &[Sent]| told.len() as u64 >= last.load(Ordering::Acquire);
    while !is_done(&told) {
        let after = told.last().map(|sent| sent.id.clone());
        let mut socket = client.follow_socket("", after.as_deref()).await;
        connected += 1;
        for _ in 0..=pace.below(60) {
            let Some(sent) = socket.next().await.filter(|sent| sent.name != "error") else { break };
            let due = told.len() as u64 + 1;
            assert_eq!(sent.data["position"], due, "a reader saw a gap or a repetition");
            told.push(sent);
            if is_done(&told) {
                break;
            }
        }
    }
    (told, connected)
}

async fn sockets_go_on_from_history_into_live(setting: Setting) {
    let platform = crate::platform_in(setting).await;
    let client = platform.client();
    let traffic = Traffic::start(&client, 3).await;
    let last = Arc::new(AtomicU64::new(u64::MAX));
    traffic.progress(3).await;
    let started = (1..=READERS).map(|number| reader(client.clone(), number, Arc::clone(&last)));
    let readers: Vec<_> = started.map(tokio::spawn).collect();
    traffic.progress(10).await;
    traffic.stop().await;
    client.all_ended().await;
    let sequence = workflows::sequence("p33", 1);
    let ended = client.run_to_end(&sequence, json!({"n": 1})).await;
    last.store(ended["position"].as_u64().expect("a position"), Ordering::Release);
    // One more, so that readers that wait for an event see that they have all.
    client.run_to_end(&sequence, json!({"n": 1})).await;
    let mut all = Vec::new();
    for reader in readers {
        let (told, connected) = system_tests::within("a reader", reader).await.expect("no gap");
        assert!(connected > 2, "it was cut only {connected} times");
        all.push(told);
    }
    // Server-sent events tell the same, and one run's socket ends with it.
    let mut follower = client.follow("/events", None).await;
    for told in &all[0] {
        assert_eq!(follower.next().await.as_ref(), Some(told));
    }
    let run = format!("run_id={}", ended["id"].as_str().expect("an id"));
    let mut socket = client.follow_socket(&run, None).await;
    let mut names = Vec::new();
    while let Some(sent) = socket.next().await {
        names.push(sent.name);
    }
    assert_eq!(names.first().map(String::as_str), Some("run_started"));
    assert_eq!(&names[names.len() - 2..], ["run_completed", "end"]);
}

/// A key that a model is called with.
const CANARY: &str = "sk-p33-canary-5f2e9c";

/// A model that nobody serves.
async fn no_model(client: &Client) {
    let projects = client.get("/projects").await;
    let profile = json!({
        "project_id": projects["items"][0]["id"], "name": "away", "provider": "openai",
        "model": "m", "base_url": "http://127.0.0.1:1/v1", "api_key_env": "P33_API_KEY",
    });
    client.post("/model-profiles", &profile).await.ok();
}

/// A run that asks it, and its trace.
async fn failing(client: &Client) -> (String, String) {
    let definition = json!({
        "name": "p33-failing", "start": "ask",
        "nodes": {"ask": {"action": {"kind": "llm", "with": {"model": "away", "prompt": "hello"}}}},
    });
    let answer = client.post("/runs", &json!({"definition": definition, "input": {}})).await;
    let trace = answer.headers["x-request-id"].to_str().expect("ascii").to_owned();
    let run = answer.ok()["id"].as_str().expect("an id").to_owned();
    let end = client.end_of(&run).await;
    assert_eq!(end["status"], "failed", "{end}");
    (run, trace)
}

/// The records that a query finds, once there are some.
async fn logs(client: &Client, query: &str) -> Vec<Value> {
    wait_for(&format!("logs of {query}"), || async {
        let page = client.get(&format!("/logs?{query}")).await;
        page["items"].as_array().filter(|items| !items.is_empty()).cloned()
    })
    .await
}

/// What is told of a child stands under the trace of its parent, and in its tree.
async fn children_are_found_by_the_trace_of_their_parent(platform: &Platform, client: &Client) {
    let helper = "{name: p33-child, start: work, nodes: {work: {action: {kind: mock, with: {fail: \
                  {times: 9, kind: permanent, code: refused}}}}}}";
    client.publish(helper).await;
    let definition = json!({
        "name": "p33-parent", "start": "ask",
        "nodes": {"ask": {"workflow": {"definition": "p33-child", "on_failure": "catch"}}},
    });
    let answer = client.post("/runs", &json!({"definition": definition, "input": {}})).await;
    let trace = answer.headers["x-request-id"].to_str().expect("ascii").to_owned();
    let run = answer.ok()["id"].as_str().expect("an id").to_owned();
    assert_eq!(client.end_of(&run).await["status"], "completed");
    let children = client.get(&format!("/runs?parent={run}")).await;
    let child = children["items"][0]["id"].as_str().expect("an id");
    let told = logs(client, &format!("trace_id={trace}&role=executor")).await;
    assert_eq!((&told[0]["run_id"], &told[0]["trace_id"]), (&json!(child), &json!(trace)));
    // It is recorded with the child too, for who has only its events.
    let first = client.events(child).await[0]["metadata"]["traceparent"].clone();
    let first = first.as_str().expect("a trace");
    assert!(first.starts_with(&format!("00-{trace}-")), "{first}");
    let arguments = ["logs", "--run", &run, "--tree", "-o", "json", "--server", platform.gateway()];
    let (_, listed, talk) = platform.wonder(&arguments).await;
    let listed: Value = serde_json::from_str(&listed).unwrap_or_else(|_| panic!("{listed}{talk}"));
    assert_eq!(listed["items"], json!(told));
}

async fn a_warning_is_found_by_its_run_and_its_trace(setting: Setting) {
    let shape = Shape::from(setting).with_variable("P33_API_KEY", CANARY);
    let shape = shape.with(&["--allow-private-host", "127.0.0.1"]);
    let mut platform = Platform::start_as(env!("CARGO_BIN_EXE_wonder"), shape).await;
    let client = platform.client();
    no_model(&client).await;
    let (run, trace) = failing(&client).await;
    // The trace of a run is known as soon as the audit log has its start.
    let by_trace = logs(&client, &format!("trace_id={trace}&role=executor&level=warn")).await;
    let record = &by_trace[0];
    assert_eq!((&record["level"], &record["role"]), (&json!("warn"), &json!("executor")));
    assert_eq!((&record["run_id"], &record["trace_id"]), (&json!(run), &json!(trace)), "{record}");
    assert_eq!(record["fields"]["node"], "ask");
    assert!(record["workspace_id"].is_string() && record["fields"]["code"].is_string(), "{record}");
    let instance = record["instance"].as_str().expect("a process");
    assert_eq!(instance.contains("gateway"), setting != Setting::Distributed, "{instance}");
    assert_eq!(logs(&client, &format!("run_id={run}&role=executor")).await, by_trace);
    let arguments = ["logs", "--run", &run, "-o", "json", "--server", platform.gateway()];
    let (_, told, talk) = platform.wonder(&arguments).await;
    let told: Value = serde_json::from_str(&told).unwrap_or_else(|_| panic!("{told}{talk}"));
    let items = told["items"].as_array().expect("records");
    assert!(items.contains(record), "{told}");
    children_are_found_by_the_trace_of_their_parent(&platform, &client).await;
    // What was told before the end of a process is there after it.
    let (other, _) = failing(&client).await;
    if setting == Setting::Distributed {
        platform.stop_one("executor-1").await;
    } else {
        platform.stop().await;
        platform.restart().await;
    }
    let client = platform.client();
    logs(&client, &format!("run_id={other}")).await;
    let all = client.get("/logs?limit=200").await.to_string();
    assert!(all.contains(&run) && !all.contains(CANARY) && !platform.log().contains(CANARY));
}
