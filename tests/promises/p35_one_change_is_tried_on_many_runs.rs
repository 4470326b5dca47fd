//! Promise 35: one change is tried on many recorded runs. What isn't different is taken over, what
//! would have an effect outside isn't done unless it is allowed, and no more is spent than may be.
//!
//! It fails where a fork of an experiment asks somebody for what was recorded, where a request of
//! one reaches a server, where an experiment doesn't go on by itself once it was asked for, and
//! where one that was broken off forks a run twice or gives more out than it may.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use serde_json::{Value, json};
use system_tests::{Client, Platform, Setting, Shape, wait_for};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;

mod by_itself;

system_tests::in_both_settings!(an_experiment_changes_one_thing_and_nothing_outside);

const RUNS: u64 = 6;
const OTHER: &str = r#"judge.model={"provider": "mock", "model": "other",
    "prices": {"input_micros": 1000000, "output_micros": 1000000}}"#;

/// Somebody decides, a model judges, and what it finds good is told to a server.
fn judge(url: &str) -> Value {
    let prices = json!({"input_micros": 1_000_000, "output_micros": 1_000_000});
    let schema = json!({"type": "object", "required": ["verdict"],
        "properties": {"verdict": {"enum": ["good", "bad"]}}});
    json!({
        "name": "judge", "start": "ask",
        "nodes": {
            "ask": {"gate": {"title": "Judge it?"}},
            "pause": {"wait": {"for": "1ms"}},
            "judge": {"action": {"kind": "llm", "with": {"schema": schema,
                "model": {"provider": "mock", "model": "first", "prices": prices},
                "prompt": "Judge number {{ n }}."}},
                "input": {"n": "${input.n}"},
                "output": {"state.verdict": "${result.value.verdict}", "state.by": "${result.model}"}},
            "tell": {"action": {"kind": "http", "with": {"method": "POST", "url": url,
                "json": {"by": "${input.by}"}}}, "input": {"by": "${state.by}"}},
            "leave": {"compute": {}}},
        "transitions": [
            {"from": "ask", "to": "pause"}, {"from": "pause", "to": "judge"},
            {"from": "judge", "to": "tell", "when": "state.verdict == \"good\""},
            {"from": "judge", "to": "leave", "when": "state.verdict != \"good\""}],
        "output": {"verdict": "${state.verdict}"}
    })
}

/// Counts the requests that reach it.
async fn server() -> (String, Arc<AtomicUsize>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let url = format!("http://{}/", listener.local_addr().expect("an address"));
    let seen = Arc::new(AtomicUsize::new(0));
    let counter = Arc::clone(&seen);
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            counter.fetch_add(1, Ordering::SeqCst);
            let mut asked = [0; 4_096];
            let _ = stream.read(&mut asked).await;
            let told = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\nconnection: close\r\n\r\nok";
            let _ = stream.write_all(told).await;
        }
    });
    (url, seen)
}

/// Waits until an experiment goes on no more, and answers how far it is.
async fn at_rest(client: &Client, name: &str) -> Value {
    wait_for("an experiment that has come to rest", || async {
        let progress = client.get(&format!("/experiments/{name}/progress")).await;
        let is_at_rest = progress["status"] != "running" && progress["running"] == 0;
        is_at_rest.then_some(progress)
    })
    .await
}

async fn approve(client: &Client, run_id: &str) {
    let gate = wait_for("an open gate", || async {
        let gates = client.get(&format!("/gates?run_id={run_id}&status=open")).await;
        gates["items"][0]["id"].as_str().map(str::to_owned)
    });
    let path = format!("/gates/{}/answers", gate.await);
    client.post(&path, &json!({"decision": "approve"})).await.ok();
}

/// Runs an experiment to its end, and reads its report.
async fn tried(platform: &Platform, name: &str, more: &[&str]) -> (Value, String) {
    let server = ["--server", platform.gateway(), "-o", "json"];
    let which = ["experiment", "run", name, "--where", "definition=judge", "--limit", "6"];
    let (status, told, talk) = platform.wonder(&[&which[..], &server[..], more].concat()).await;
    assert!(status.success(), "{told}{talk}");
    (serde_json::from_str(&told).unwrap_or_default(), talk)
}

async fn an_experiment_changes_one_thing_and_nothing_outside(setting: Setting) {
    let (url, seen) = server().await;
    let shape = Shape::from(setting).with(&["--allow-private-host", "127.0.0.1"]);
    let mut platform = Platform::start_as(env!("CARGO_BIN_EXE_wonder"), shape).await;
    let client = platform.client();
    let (mut costs, mut good) = (Vec::new(), 0);
    let mut runs = Vec::new();
    for n in 0..RUNS {
        runs.push(client.start(&judge(&url), json!({"n": n})).await);
    }
    for run_id in &runs {
        approve(&client, run_id).await;
        let end = client.end_of(run_id).await;
        assert_eq!(end["status"], "completed", "{end}");
        good += usize::from(end["output"]["verdict"] == "good");
        costs.push(end["usage"]["cost_micros"].as_u64().expect("a cost"));
    }
    let cost: u64 = costs.iter().sum();
    assert!(cost > 0 && costs.iter().all(|one| *one == costs[0]), "{costs:?}");
    assert_eq!(seen.load(Ordering::SeqCst), good);

    // Nothing is different: nobody is called, and nothing comes out otherwise.
    let (report, _) = tried(&platform, "same", &["--max-cost", "0"]).await;
    assert_eq!(report, Value::Null, "a cap of nothing starts nothing: {report}");
    let (report, talk) = tried(&platform, "same", &["--check"]).await;
    let totals = &report["totals"];
    assert_eq!((&totals["runs"], &totals["same"]), (&json!(RUNS), &json!(RUNS)), "{report}{talk}");
    assert_eq!(
        (&totals["calls"]["made"], &totals["usage"]["spent"]["cost_micros"]),
        (&json!(0), &json!(0))
    );
    assert_eq!(
        (&totals["usage"]["after"], &totals["calls"]["stubbed"]),
        (&totals["usage"]["before"], &json!(good))
    );

    // Another model: it dies in the middle, and goes on where it stopped.
    let (plan, _) = tried(&platform, "other", &["--set", OTHER, "--dry-run"]).await;
    assert_eq!(plan["items"].as_array().map(Vec::len), Some(RUNS as usize), "{plan}");
    assert!(plan["usage"]["cost_micros"].as_u64() >= Some(cost), "{plan}");
    let model: Value =
        serde_json::from_str(OTHER.split_once('=').expect("a model").1).expect("json");
    let begin = json!({"name": "other", "where": {"definition": "judge", "limit": RUNS},
        "change": {"nodes": {"judge": {"model": model}}}, "at_once": 2});
    let begun = client.post("/experiments", &begin).await.ok();
    assert_eq!((&begun["running"], &begun["left"]), (&json!(2), &json!(RUNS - 2)), "{begun}");
    platform.kill_9().await;
    platform.restart().await;
    // Nobody asks again.
    let progress = at_rest(&client, "other").await;
    let (status, refused) = (&progress["status"], &progress["refused"]);
    assert_eq!((status, refused), (&json!("ended"), &json!([])), "{progress}");
    let again = client.post("/experiments", &begin).await.ok();
    assert_eq!(again, progress, "there is nothing more to do");
    let (report, talk) = tried(&platform, "other", &["--set", OTHER, "--at-once", "2"]).await;
    let totals = report["totals"].clone();
    assert_eq!((&totals["runs"], &totals["running"]), (&json!(RUNS), &json!(0)), "{report}{talk}");
    assert_eq!(totals["same"], 0, "another model says who it is");
    assert!(totals["path"].as_u64() > Some(0), "{report}");
    assert_eq!(totals["calls"]["made"], RUNS, "only the model is called: {report}");
    assert_eq!(seen.load(Ordering::SeqCst), good, "no request is made");
    let (mut told, mut stubbed) = (0, 0);
    for one in report["items"].as_array().expect("items") {
        let parts = one["parts"]["after"]["to"][0] == "tell";
        told += usize::from(one["calls"]["stubbed"] == 1);
        stubbed += usize::from(one["after"]["code"] == "stubbed");
        assert_eq!(parts, one["after"]["code"] == "stubbed", "nothing was recorded: {one}");
        let fork = one["fork_id"].as_str().expect("a fork");
        let verified = client.post(&format!("/runs/{fork}/verify"), &json!({})).await.ok();
        assert_eq!(verified["verified"], true, "{verified}");
    }
    assert!(stubbed <= told);
    let differs = client.post("/experiments", &json!({"name": "other", "runs": [runs[0]]})).await;
    assert_eq!(differs.code(), "experiment_differs");
    // Lists show them among the others, alone, or not at all.
    for (which, count) in [("any", 3 * RUNS), ("exclude", RUNS), ("only", 2 * RUNS)] {
        let listed = ["runs", "list", "--experiment", which, "--limit", "200", "-o", "json"];
        let listed = [&listed[..], &["--server", platform.gateway()]].concat();
        let (status, listed, talk) = platform.wonder(&listed).await;
        assert!(status.success(), "{listed}{talk}");
        let listed: Value = serde_json::from_str(&listed).expect("json");
        let listed = listed["items"].as_array().expect("a list");
        assert_eq!(listed.len() as u64, count, "{which}");
        let forks = listed.iter().filter(|run| run["forked_from"].is_object()).count() as u64;
        assert_eq!(forks, count - if which == "only" { 0 } else { RUNS }, "{which}");
    }

    // The same, and the server may hear of it.
    let (report, _) = tried(&platform, "loud", &["--set", OTHER, "--allow", "http"]).await;
    assert_eq!(report["totals"]["calls"]["stubbed"], 0, "{report}");
    assert_eq!(seen.load(Ordering::SeqCst), good + told, "{report}");

    // There is enough for one more.
    let cap = (costs[0] + costs[0] / 2).to_string();
    let most = ["--set", "temperature=1", "--max-cost", &cap, "--at-once", "1"];
    let (report, talk) = tried(&platform, "capped", &most).await;
    assert_eq!(report["totals"]["runs"], 1, "{report}{talk}");
    assert!(talk.contains("the cap is reached"), "{talk}");
    assert!(report["totals"]["usage"]["spent"]["cost_micros"].as_u64() <= cap.parse().ok());
    platform.stop().await;
    platform.records().await.check();
}
