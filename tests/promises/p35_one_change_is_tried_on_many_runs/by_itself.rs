//! An experiment goes on by itself, whatever dies and whoever goes away, until it is stopped.

use std::collections::BTreeSet;

use serde_json::{Value, json};
use system_tests::{Client, Platform, Setting, wait_for};

use super::at_rest;

system_tests::in_both_settings!(
    an_experiment_goes_on_through_kills_and_forks_each_run_once,
    an_experiment_is_stopped_and_goes_on_again,
);

const RUNS: usize = 9;
const AT_ONCE: u64 = 2;

/// What takes its time, and then costs something.
fn slow() -> Value {
    let model = json!({"provider": "mock", "model": "first",
        "prices": {"input_micros": 1_000_000, "output_micros": 1_000_000}});
    json!({
        "name": "slow", "start": "work",
        "nodes": {
            "work": {"action": {"kind": "mock", "with": {"result": "done"}}},
            "say": {"action": {"kind": "llm", "with": {"model": model, "prompt": "Say."}}}},
        "transitions": [{"from": "work", "to": "say"}],
    })
}

/// Runs, and what they have cost altogether.
async fn recorded(client: &Client) -> u64 {
    let mut cost = 0;
    for n in 0..RUNS {
        let run_id = client.start(&slow(), json!({"n": n})).await;
        let end = client.end_of(&run_id).await;
        cost += end["usage"]["cost_micros"].as_u64().expect("a cost");
    }
    cost
}

/// A change after which each fork takes so long, and calls its model again.
fn asked(name: &str, delay: &str) -> Value {
    json!({
        "name": name, "where": {"definition": "slow", "limit": RUNS}, "at_once": AT_ONCE,
        "change": {"nodes": {"work": {"result": "other", "delay": delay}},
            "with": {"temperature": 1}},
    })
}

/// The forks of an experiment, from the list of runs.
async fn forks(client: &Client, name: &str, position: &Value) -> Vec<Value> {
    let list = format!("/runs?limit=200&label=experiment={name}&min_position={position}");
    let listed = client.get(&list).await;
    listed["items"].as_array().expect("a list").clone()
}

/// Waits until so many forks were begun, and answers how far it is.
async fn begun(client: &Client, name: &str, count: usize) -> Value {
    wait_for("forks that were begun", || async {
        let progress = client.get(&format!("/experiments/{name}/progress")).await;
        assert_eq!(progress["refused"], json!([]), "{progress}");
        let running = forks(client, name, &json!(0)).await;
        let running = running.iter().filter(|fork| fork["ended_at"].is_null()).count() as u64;
        assert!(running <= AT_ONCE, "{running} go on: {progress}");
        let is_begun = progress["items"].as_array().is_some_and(|items| items.len() >= count);
        is_begun.then_some(progress)
    })
    .await
}

fn origins(forks: &[Value]) -> BTreeSet<String> {
    let origin = |fork: &Value| fork["forked_from"]["run_id"].as_str().expect("a run").to_owned();
    forks.iter().map(origin).collect()
}

async fn an_experiment_goes_on_through_kills_and_forks_each_run_once(setting: Setting) {
    let mut platform = Platform::start_as(env!("CARGO_BIN_EXE_wonder"), setting).await;
    let client = platform.client();
    let cost = recorded(&client).await;
    // There is enough for all but two.
    let cap = cost - 2 * cost / RUNS as u64;
    let mut body = asked("slow", "400ms");
    body["max_cost_micros"] = json!(cap);
    let first = client.post("/experiments", &body).await.ok();
    assert_eq!((&first["status"], &first["running"]), (&json!("running"), &json!(AT_ONCE)));
    // A run that comes later isn't among those that were found.
    let later = client.start(&slow(), json!({})).await;
    client.end_of(&later).await;
    for round in 1..=3 {
        begun(&client, "slow", 2 * round).await;
        match setting {
            Setting::Distributed if round < 3 => {
                let one = format!("coordinator-{round}");
                platform.kill_one(&one).await;
                begun(&client, "slow", 2 * round + 1).await;
                platform.start_one(&one).await;
            }
            _ => {
                platform.kill_9().await;
                platform.restart().await;
            }
        }
    }
    let progress = at_rest(&client, "slow").await;
    let left = progress["left"].as_u64().expect("a number") as usize;
    assert_eq!((&progress["status"], &progress["refused"]), (&json!("capped"), &json!([])));
    assert!(left >= 2, "{progress}");
    assert!(progress["spent_micros"].as_u64() <= Some(cap), "{progress}");
    // More is to be had: the rest of the same set is forked, and nothing twice.
    body["max_cost_micros"] = json!(10 * cost);
    client.post("/experiments", &body).await.ok();
    let progress = at_rest(&client, "slow").await;
    assert_eq!((&progress["status"], &progress["left"]), (&json!("ended"), &json!(0)));
    assert_eq!(client.post("/experiments", &body).await.ok(), progress, "all is done");
    let path = format!("/experiments/slow?min_position={}", progress["position"]);
    let report = client.get(&path).await;
    assert_eq!((&report["status"], &report["totals"]["runs"]), (&json!("ended"), &json!(RUNS)));
    assert_eq!(report["totals"]["usage"]["spent"]["cost_micros"], progress["spent_micros"]);
    let forks = forks(&client, "slow", &progress["position"]).await;
    let origins = origins(&forks);
    assert_eq!((forks.len(), origins.len()), (RUNS, RUNS), "a run is forked once");
    assert!(!origins.contains(&later));
    let mut items = progress["items"].as_array().expect("items").iter();
    assert!(items.all(|item| item["status"] == "completed"), "{progress}");
    platform.stop().await;
    platform.records().await.check();
}

const BEGIN: [&str; 11] = [
    "run",
    "long",
    "--where",
    "definition=slow",
    "--at-once",
    "2",
    "--set",
    "work.result=other",
    "--set",
    "work.delay=1h",
    "--detach",
];

/// Asks by the command line, which doesn't look on.
async fn asked_for(platform: &Platform, which: &[&str]) -> Value {
    let server = ["--server", platform.gateway(), "-o", "json"];
    let (status, told, talk) = platform.wonder(&[&["experiment"], which, &server].concat()).await;
    assert!(status.success(), "{told}{talk}");
    assert_eq!(talk.contains("goes on"), which.contains(&"--detach"), "{talk}");
    serde_json::from_str(&told).expect("json")
}

async fn an_experiment_is_stopped_and_goes_on_again(setting: Setting) {
    let mut platform = Platform::start_as(env!("CARGO_BIN_EXE_wonder"), setting).await;
    let client = platform.client();
    let unknown = client.post("/experiments/none/stop", &json!({})).await;
    assert_eq!(unknown.code(), "not_found");
    recorded(&client).await;
    let told = asked_for(&platform, &BEGIN).await;
    assert_eq!(told["status"], "running", "{told}");
    wait_for("forks that go on", || async {
        (forks(&client, "long", &json!(0)).await.len() == 2).then_some(())
    })
    .await;
    let told = asked_for(&platform, &["stop", "long"]).await;
    assert_eq!(told["status"], "stopped", "{told}");
    // What is to be cancelled is cancelled by whoever takes it up.
    platform.kill_9().await;
    platform.restart().await;
    let progress = at_rest(&client, "long").await;
    assert_eq!((&progress["status"], &progress["left"]), (&json!("stopped"), &json!(RUNS - 2)));
    let cancelled = |progress: &Value| {
        let items = progress["items"].as_array().expect("items");
        items.iter().filter(|item| item["status"] == "cancelled").count()
    };
    let made = forks(&client, "long", &progress["position"]).await.len();
    assert_eq!((cancelled(&progress), made), (2, 2), "{progress}");
    let again = client.post("/experiments/long/stop", &json!({})).await.ok();
    assert_eq!(again, progress);
    let report = client.get("/experiments/long").await;
    assert_eq!(report["status"], "stopped", "{report}");
    // It goes on with the runs that are left.
    let told = asked_for(&platform, &BEGIN).await;
    assert_eq!(told["status"], "running", "{told}");
    assert_eq!((&told["running"], &told["left"]), (&json!(2), &json!(RUNS - 4)), "{told}");
    client.post("/experiments/long/stop", &json!({})).await.ok();
    let progress = at_rest(&client, "long").await;
    let made = forks(&client, "long", &progress["position"]).await.len();
    assert_eq!((cancelled(&progress), made), (4, 4), "{progress}");
    platform.stop().await;
    platform.records().await.check();
}
