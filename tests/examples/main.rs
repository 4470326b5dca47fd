//! The examples, run as their readers would: each gives what stands in its `expected.json`.
//!
//! `UPDATE_SNAPSHOTS=1` rewrites these files instead of comparing with them.

mod patterns;
mod server;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};
use system_tests::{Client, Platform};

use server::Server;

/// What each folder has.
const FILES: [&str; 4] = ["README.md", "workflow.yaml", "input.json", "expected.json"];

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../examples")
}

fn text(path: &str) -> String {
    let path = root().join(path);
    std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

fn json_of(path: &str) -> Value {
    serde_json::from_str(&text(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

/// The names of all folders of workflows.
fn names() -> Vec<String> {
    let mut names: Vec<String> = std::fs::read_dir(root())
        .expect("the examples can be listed")
        .map(|entry| entry.expect("an entry can be read"))
        .filter(|entry| entry.path().join("workflow.yaml").is_file())
        .map(|entry| entry.file_name().to_string_lossy().into_owned())
        .collect();
    names.sort();
    names
}

async fn platform() -> Platform {
    Platform::start(env!("CARGO_BIN_EXE_wonder")).await
}

/// Publishes an example and runs it to its end; answers its view.
async fn run(client: &Client, name: &str, input: Value) -> Value {
    client.publish(&text(&format!("{name}/workflow.yaml"))).await;
    client.run_to_end(&json!(name), input).await
}

/// Runs an example with its own input and compares the output; answers the run's id.
async fn check(client: &Client, name: &str) -> String {
    let view = run(client, name, json_of(&format!("{name}/input.json"))).await;
    compare(name, &view);
    view["id"].as_str().expect("a run's id").to_owned()
}

fn compare(name: &str, view: &Value) {
    assert_eq!(view["status"], "completed", "{name} ended with {}", view["error"]);
    let path = format!("{name}/expected.json");
    if std::env::var_os("UPDATE_SNAPSHOTS").is_some() {
        let pretty = serde_json::to_string_pretty(&view["output"]).expect("outputs are JSON");
        std::fs::write(root().join(path), pretty + "\n").expect("the file can be written");
        return;
    }
    let expected = json_of(&path);
    assert_eq!(view["output"], expected, "{path}; UPDATE_SNAPSHOTS=1 rewrites it");
}

/// How many attempts of each node failed.
async fn failed_attempts(client: &Client, run_id: &str) -> BTreeMap<String, usize> {
    let mut failed = BTreeMap::new();
    for event in client.events(run_id).await {
        if event["event_type"] == "task_failed" {
            let node = event["payload"]["error"]["node"].as_str().expect("the node that failed");
            *failed.entry(node.to_owned()).or_default() += 1;
        }
    }
    failed
}

fn counts(counts: &[(&str, usize)]) -> BTreeMap<String, usize> {
    counts.iter().map(|(name, count)| ((*name).to_owned(), *count)).collect()
}

#[test]
fn each_folder_has_its_files_and_readme_names_its_own_paths() {
    for name in names() {
        for file in FILES {
            assert!(root().join(&name).join(file).is_file(), "{name} has no {file}");
        }
        let readme = text(&format!("{name}/README.md"));
        assert!(readme.contains(&format!("examples/{name}/workflow.yaml")), "{name}: how to run");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn each_definition_is_valid_by_the_served_schema_and_by_the_parser() {
    let platform = platform().await;
    let client = platform.client();
    let schema = client.get("/workflow-definitions/schema").await;
    let schema = jsonschema::draft202012::new(&schema).expect("the served schema is one");
    for name in names() {
        let source = text(&format!("{name}/workflow.yaml"));
        let document: Value = serde_saphyr::from_str(&source).expect("the file is YAML");
        let problems: Vec<_> = schema.iter_errors(&document).map(|e| e.to_string()).collect();
        assert!(problems.is_empty(), "{name}: {problems:#?}");
        let definition = domain::definition::parse::read(source.as_bytes())
            .unwrap_or_else(|problems| panic!("{name}: {problems:#?}"));
        assert_eq!(definition.name.to_string(), name);
        let input = json_of(&format!("{name}/input.json"));
        let wanted = definition.input_schema.expect("examples say what they take");
        let wanted = jsonschema::draft202012::new(&wanted).expect("an input schema");
        let problems: Vec<_> = wanted.iter_errors(&input).map(|e| e.to_string()).collect();
        assert!(problems.is_empty(), "the input of {name}: {problems:#?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn judge_panel() {
    let platform = platform().await;
    let client = platform.client();
    let run_id = check(&client, "judge-panel").await;
    let view = client.get(&format!("/runs/{run_id}")).await;
    assert!(view["output"]["rounds"].as_u64() > Some(1), "it shows no second round");

    // What every draft reaches needs one round; what none reaches ends after the third.
    for (threshold, rounds) in [(1, 1), (11, 3)] {
        let mut input = json_of("judge-panel/input.json");
        input["threshold"] = json!(threshold);
        let view = run(&client, "judge-panel", input).await;
        assert_eq!(view["output"]["rounds"], rounds, "threshold {threshold}: {}", view["error"]);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn document_pipeline() {
    let input = json_of("document-pipeline/input.json");
    assert_eq!(input["text"], text("document-pipeline/document.md"), "input.json is outdated");
    let platform = platform().await;
    let client = platform.client();
    // Whichever two judges come first, the output is the same.
    for _ in 0..5 {
        check(&client, "document-pipeline").await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn retry_and_fallback() {
    let platform = platform().await;
    let client = platform.client();
    let run_id = check(&client, "retry-and-fallback").await;
    let wanted = counts(&[("delivery", 1), ("price", 2), ("reviews", 3), ("stock", 1)]);
    assert_eq!(failed_attempts(&client, &run_id).await, wanted);
}

#[tokio::test(flavor = "multi_thread")]
async fn approval() {
    let platform = platform().await;
    let client = platform.client();
    client.publish(&text("approval/workflow.yaml")).await;
    let started = async || client.start(&json!("approval"), json_of("approval/input.json")).await;
    let answer = async |run_id: &str, body: Value| {
        client.post(&format!("/gates/{run_id}.1/answers"), &body).await.ok();
    };
    let run_id = started().await;
    // Another expense is paid, which this run doesn't wait for.
    let signal = format!("/runs/{run_id}/signals/paid");
    let other = json!({"payload": {"id": "exp-8", "at": "2026-02-01"}});
    client.post(&signal, &other).await.ok();
    answer(&run_id, json!({"decision": "approve", "value": {"account": "travel"}})).await;
    let paid = json!({"payload": {"id": "exp-7", "at": "2026-03-01"}});
    client.post(&signal, &paid).await.ok();
    compare("approval", &client.end_of(&run_id).await);

    let run_id = started().await;
    answer(&run_id, json!({"decision": "reject", "comment": "too dear"})).await;
    let output = client.end_of(&run_id).await["output"].clone();
    assert_eq!(
        (&output["status"], &output["decided_by"]),
        (&json!("declined"), &json!(["reject"]))
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn reports_in_turn() {
    let platform = platform().await;
    let client = platform.client();
    check(&client, "reports-in-turn").await;
    let mut runs = Vec::new();
    for number in 1..=5 {
        let input =
            json!({"customer": "acme", "report": number.to_string(), "urgent": number == 5});
        runs.push(client.start(&json!("reports-in-turn"), input).await);
    }
    for run_id in &runs {
        assert_eq!(client.end_of(run_id).await["status"], "completed");
    }
    let mut going = 0;
    for event in client.all_events().await {
        match event["event_type"].as_str() {
            Some("run_admitted") => going += 1,
            Some("run_completed") => going -= 1,
            _ => {}
        }
        assert!((0..=2).contains(&going), "{going} go on at once");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn research_team() {
    let platform = platform().await;
    let client = platform.client();
    let run_id = check(&client, "research-team").await;
    let children = client.get(&format!("/runs?parent={run_id}")).await;
    let children = children["items"].as_array().expect("a list");
    // The cellar's could not be started.
    assert_eq!(children.len(), 2, "{children:?}");
    assert!(children.iter().all(|child| child["root_run_id"] == *run_id), "{children:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn trip_booking() {
    let platform = platform().await;
    let client = platform.client();
    check(&client, "trip-booking").await;
    let mut input = json_of("trip-booking/input.json");
    input["budget"] = json!(900);
    let view = run(&client, "trip-booking", input).await;
    assert_eq!((&view["status"], &view["error"]["node"]), (&json!("failed"), &json!("pay")));
    let run_id = view["id"].as_str().expect("a run's id");
    let mut undone = Vec::new();
    for event in client.events(run_id).await {
        if event["event_type"] == "undo_succeeded" {
            undone.push(event["payload"]["result"].as_str().expect("a text").to_owned());
        }
    }
    // The hotels in the order in which they happened to be booked, turned round.
    undone[1..3].sort();
    assert_eq!(
        undone,
        [
            "cancelled car-1",
            "cancelled hotel-Lisbon in Lisbon",
            "cancelled hotel-Porto in Porto",
            "cancelled flight-Ada",
        ]
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn http_fan_out() {
    let server = Server::start(&root().join("http-fan-out/site"), "/planets/mars.json", 2).await;
    let mut platform = platform().await;
    let configuration = platform.data_dir().with_file_name("wonder.toml");
    std::fs::write(configuration, "allow_private_hosts = [\"127.0.0.1\"]\n")
        .expect("the configuration can be written");
    platform.restart().await;
    let client = platform.client();
    let mut input = json_of("http-fan-out/input.json");
    input["base_url"] = json!(server.url);
    let view = run(&client, "http-fan-out", input).await;
    compare("http-fan-out", &view);
    let wanted = counts(&[
        ("/planets/earth.json", 1),
        ("/planets/mars.json", 3),
        ("/planets/mercury.json", 1),
        ("/planets/pluto.json", 1),
        ("/planets/venus.json", 1),
    ]);
    assert_eq!(server.asked(), wanted);
}
