//! Promise 18: every event ever written decodes.
//!
//! The golden events of the domain, and a journal that an earlier build of the platform wrote.
//! Neither is ever changed: a payload that changes gets a new version and an upcaster. It fails
//! where a field becomes required, is renamed, or means something else in the fold.

use std::path::{Path, PathBuf};

use domain::codec;
use serde_json::{Value, json};
use system_tests::{Platform, Records, wait_for, workflows};

/// A journal of an earlier build, and what its runs fold to.
fn recorded(journal: &str, runs: &str) -> (PathBuf, PathBuf) {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/promises/golden");
    (folder.join(journal), folder.join(runs))
}

fn golden_events() -> Vec<(String, PathBuf)> {
    let golden = Path::new(env!("CARGO_MANIFEST_DIR")).join("../domain/tests/golden");
    let list = |folder: &Path| -> Vec<PathBuf> {
        let entries = std::fs::read_dir(folder).expect("the golden files are there");
        entries.map(|entry| entry.expect("the folder can be read").path()).collect()
    };
    let families = list(&golden).into_iter();
    let name = |path: &Path| path.file_name().expect("a name").to_string_lossy().into_owned();
    families
        .flat_map(|family| list(&family).into_iter().map(move |file| (name(&family), file)))
        .collect()
}

#[test]
fn every_golden_event_decodes() {
    let files = golden_events();
    assert!(files.len() >= 15, "golden files are missing");
    for (family, file) in files {
        let name = file.file_name().expect("a name").to_string_lossy().into_owned();
        let name = name.strip_suffix(".json").expect("<type>.v<version>.json");
        let (event_type, version) = name.split_once(".v").expect("<type>.v<version>.json");
        // A further file of the version says what it shows.
        let version = version.split('.').next().unwrap_or_default();
        let version = version.parse().expect("a version");
        let stored = std::fs::read(&file).expect("the file can be read");
        let decoded = match family.as_str() {
            "run" => {
                codec::decode::<domain::run::Event>(event_type, version, &stored, &|_| None).err()
            }
            "resource" => {
                codec::decode::<domain::resource::Event>(event_type, version, &stored, &|_| None)
                    .err()
            }
            "trigger" => {
                codec::decode::<domain::trigger::Event>(event_type, version, &stored, &|_| None)
                    .err()
            }
            "access" => {
                codec::decode::<domain::access::Event>(event_type, version, &stored, &|_| None)
                    .err()
            }
            "experiment" => {
                codec::decode::<domain::experiment::Event>(event_type, version, &stored, &|_| None)
                    .err()
            }
            "hold" => {
                codec::decode::<domain::hold::Event>(event_type, version, &stored, &|_| None).err()
            }
            "retention" => {
                codec::decode::<domain::retention::Event>(event_type, version, &stored, &|_| None)
                    .err()
            }
            other => panic!("there is no family of events called {other:?}"),
        };
        assert_eq!(decoded, None, "{}", file.display());
    }
}

/// A large value by the length of its text.
fn short(value: Value) -> Value {
    let length = value.to_string().len();
    if length < 1_000 { value } else { json!({"bytes": length}) }
}

/// What each run of a journal folds to.
fn folded(records: &Records) -> Value {
    let runs = records.run_ids().into_iter().map(|run_id| {
        let steps = records.fold(&run_id);
        let last = steps.last().expect("a run has an event");
        let header = last.run.header().expect("its first event starts it");
        let (output, error) = match &last.run {
            domain::run::Run::Closed(closed) => (closed.output.clone(), closed.error.clone()),
            _ => (None, None),
        };
        let view = json!({
            "definition": header.definition.name, "status": last.run.status(),
            "sequence": last.sequence, "output": short(json!(output)),
            "error": error, "usage": last.run.usage(),
        });
        (run_id, view)
    });
    runs.collect::<serde_json::Map<_, _>>().into()
}

/// Writes a journal with every way that a run can end. Only where there is none yet.
async fn record(journal: &Path, runs: &Path) {
    let mut platform = crate::platform().await;
    let client = platform.client();
    let mut expiring = workflows::flaky("expiring", 0, 1);
    expiring["nodes"]["try"]["action"]["with"]["delay"] = json!("10m");
    let cancelled = client.start(&expiring, json!({})).await;
    client.post(&format!("/runs/{cancelled}/cancel"), &json!({"reason": "enough"})).await.ok();
    expiring["timeout"] = json!("50ms");
    client.run_to_end(&expiring, json!({})).await;
    client.run_to_end(&workflows::sequence("sequence", 3), json!({"n": 1})).await;
    client.run_to_end(&workflows::flaky("flaky", 2, 4), json!({})).await;
    client.run_to_end(&workflows::flaky("poison", 9, 2), json!({})).await;
    let large = "x".repeat(70_000);
    let items = json!({"items": ["a", 1.5, {"$ref": "not a reference"}, large]});
    client.run_to_end(&workflows::fan_out("fan-out", "1ms"), items).await;
    let project = client.post("/projects", &json!({"name": "golden"})).await.ok();
    let project = format!("/projects/{}", project["id"].as_str().expect("an id"));
    for (method, body) in [("PATCH", json!({"description": "renamed"})), ("DELETE", Value::Null)] {
        let method = method.parse().expect("a method");
        let mut request = client.request(method, &project);
        if !body.is_null() {
            request = request.json(&body);
        }
        client.send(request).await.expect("the platform answers").ok();
    }
    client.all_ended().await;
    platform.stop().await;
    keep(&platform, journal, runs).await;
}

/// Writes a journal with waits, signals, gates, a business event and a pause in it.
async fn record_waits(journal: &Path, runs: &Path) {
    let mut platform = crate::platform().await;
    let client = platform.client();
    let definition = json!({"name": "waits", "start": "ask",
        "nodes": {
            "ask": {"gate": {"title": "Go on?", "form": {"type": "object"}, "roles": ["run"],
                             "timeout": "1h"}, "output": {"state.value": "${result.value}"}},
            "tell": {"emit": {"event": "asked", "data": "${state.value}"}},
            "hear": {"wait": {"signal": "go", "when": "signal.payload.n > 1"},
                     "output": {"state.heard": "${result.payload}"}},
            "rest": {"wait": {"for": "5ms"}},
            "late": {"wait": {"signal": "never", "timeout": "5ms"}},
            "end": {"compute": {"state.end": "${error.code}"}}
        },
        "transitions": [{"from": "ask", "to": "tell"}, {"from": "ask", "to": "end", "on": "rejected"},
            {"from": "tell", "to": "hear"}, {"from": "hear", "to": "rest"},
            {"from": "rest", "to": "late"}, {"from": "late", "to": "end", "on": "timeout"}]});
    for decision in ["approve", "reject"] {
        let run_id = client.start(&definition, json!({})).await;
        let post = async |path: &str, body: Value| client.post(path, &body).await.ok();
        let of_run = |rest: &str| format!("/runs/{run_id}/{rest}");
        post(&of_run("pause"), json!({"reason": "a look at it"})).await;
        post(&of_run("signals/go"), json!({"payload": {"n": 1}})).await;
        post(&of_run("signals/go"), json!({"payload": {"n": 2, "$ref": "mine"}})).await;
        post(&of_run("signals/other"), json!({"transient": true})).await;
        post(&of_run("resume"), json!({})).await;
        let body = json!({"decision": decision, "value": {"n": 1.5}, "comment": "as recorded"});
        post(&format!("/gates/{run_id}.1/answers"), body).await;
        client.end_of(&run_id).await;
    }
    client.all_ended().await;
    platform.stop().await;
    keep(&platform, journal, runs).await;
}

/// Writes a journal with a parent whose children complete, pause, fail, and take too long.
async fn record_families(journal: &Path, runs: &Path) {
    let mut platform = crate::platform().await;
    let client = platform.client();
    let hears = json!({"name": "hears", "start": "hear",
        "nodes": {"hear": {"wait": {"signal": "go"}, "output": {"state.n": "${result.payload}"}}}});
    let breaks = json!({"name": "breaks", "start": "break",
        "nodes": {"break": {"compute": {"state.n": "${input.none}"}}}});
    for definition in [&hears, &breaks] {
        client.publish(&definition.to_string()).await;
    }
    let run_id = client
        .start(
            &json!({"name": "family", "start": "first",
                "nodes": {
                    "first": {"workflow": {"definition": "hears"},
                              "output": {"state.first": "${result.n}"}},
                    "second": {"workflow": {"definition": "breaks@1", "on_failure": "catch"},
                               "output": {"state.second": "${result.error.code}"}},
                    "third": {"workflow": {"definition": "${'hears'}"}, "timeout": "300ms"},
                    "fourth": {"workflow": {"definition": "nobody"}},
                },
                "transitions": [{"from": "first", "to": "second"}, {"from": "second", "to": "third"},
                    {"from": "third", "to": "fourth", "on": "timeout"}]}),
            json!({}),
        )
        .await;
    let child = wait_for("the first child", || async {
        let page = client.get(&format!("/runs?parent={run_id}")).await;
        page["items"][0]["id"].as_str().map(str::to_owned)
    })
    .await;
    let post = async |path: String, body: Value| client.post(&path, &body).await.ok();
    post(format!("/runs/{run_id}/pause"), json!({"reason": "a look at it"})).await;
    wait_for("the child to pause", || async {
        let view = client.get(&format!("/runs/{child}")).await;
        (view["status"] == "paused").then_some(())
    })
    .await;
    post(format!("/runs/{run_id}/resume"), json!({})).await;
    post(format!("/runs/{child}/signals/go"), json!({"payload": 7})).await;
    client.end_of(&run_id).await;
    client.all_ended().await;
    platform.stop().await;
    keep(&platform, journal, runs).await;
}

/// Writes a journal with runs that undo their work: after a failure, and until a cancel ends that.
async fn record_undone(journal: &Path, runs: &Path) {
    let mut platform = crate::platform().await;
    let client = platform.client();
    let node = |undo: Value| {
        json!({"action": {"kind": "mock", "with": {"result": {"id": "${input.id}"}}},
               "input": {"id": "${run.id}"},
               "undo": {"action": {"kind": "mock", "with": undo}, "input": {"id": "${result.id}"},
                        "retry": {"max_attempts": 2, "initial": "5ms"}}})
    };
    let fails = |times: u32| json!({"fail": {"times": times, "kind": "transient", "code": "busy"}});
    let mut definition = json!({"name": "undone", "start": "one", "compensate": true,
        "nodes": {
            "one": node(json!({"result": "undone"})), "two": node(fails(1)), "three": node(fails(9)),
            "child": {"workflow": {"definition": "nobody", "on_failure": "catch"}},
            "end": {"compute": {"state.end": "${input.none}"}}},
        "transitions": [{"from": "one", "to": "two"}, {"from": "two", "to": "three"},
            {"from": "three", "to": "child"}, {"from": "child", "to": "end"}]});
    client.run_to_end(&definition, json!({})).await;
    definition["name"] = json!("cut-short");
    definition["nodes"]["three"]["undo"]["action"]["with"] = json!({"delay": "10m"});
    let run_id = client.start(&definition, json!({})).await;
    wait_for("the undo", || async {
        let waiting = client.get(&format!("/runs/{run_id}/waiting")).await;
        waiting["items"][0]["undoes"].is_u64().then_some(())
    })
    .await;
    client.post(&format!("/runs/{run_id}/cancel"), &json!({"compensate": false})).await.ok();
    client.all_ended().await;
    platform.stop().await;
    keep(&platform, journal, runs).await;
}

async fn keep(platform: &Platform, journal: &Path, runs: &Path) {
    let records = Records::read(&platform.data_dir()).await;
    std::fs::create_dir_all(journal.parent().expect("a folder")).expect("it can be made");
    std::fs::write(journal, records.export()).expect("it can be written");
    let text = serde_json::to_string_pretty(&folded(&records)).expect("it is JSON");
    std::fs::write(runs, text + "\n").expect("it can be written");
}

/// Reads a recorded journal back; answers what its runs fold to, which is what was recorded.
fn check_recorded(journal: &Path, runs: &Path) -> Value {
    let lines = std::fs::read_to_string(journal).expect("the recorded journal is there");
    let records = Records::import(&lines);
    records.check();
    assert_eq!(records.export(), lines, "the import loses something");
    let expected = std::fs::read_to_string(runs).expect("what it folds to is there");
    let expected: Value = serde_json::from_str(&expected).expect("it is JSON");
    assert_eq!(folded(&records), expected);
    expected
}

fn is_to_be_recorded(journal: &Path) -> bool {
    !journal.exists() && std::env::var_os("UPDATE_SNAPSHOTS").is_some()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_journal_of_an_earlier_build_decodes_and_folds_to_the_same_runs() {
    let (journal, runs) = recorded("journal.jsonl", "runs.json");
    if is_to_be_recorded(&journal) {
        record(&journal, &runs).await;
    }
    let expected = check_recorded(&journal, &runs);
    let statuses: Vec<&Value> =
        expected.as_object().expect("an object").values().map(|run| &run["status"]).collect();
    for status in ["completed", "failed", "cancelled", "timed_out"] {
        assert!(statuses.contains(&&json!(status)), "no recorded run has {status}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_journal_of_an_earlier_build_that_waits_folds_to_the_same_runs() {
    let (journal, runs) = recorded("waits.jsonl", "waits.json");
    if is_to_be_recorded(&journal) {
        record_waits(&journal, &runs).await;
    }
    check_recorded(&journal, &runs);
    let lines = std::fs::read_to_string(&journal).expect("the recorded journal is there");
    for event in [
        "wait_started",
        "wait_ended",
        "signal_received",
        "gate_opened",
        "gate_answered",
        "gate_closed",
        "event_emitted",
        "run_paused",
        "run_resumed",
    ] {
        assert!(lines.contains(event), "no {event} is recorded");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_journal_of_an_earlier_build_with_child_runs_folds_to_the_same_runs() {
    let (journal, runs) = recorded("families.jsonl", "families.json");
    if is_to_be_recorded(&journal) {
        record_families(&journal, &runs).await;
    }
    check_recorded(&journal, &runs);
    let lines = std::fs::read_to_string(&journal).expect("the recorded journal is there");
    for part in ["child_started", "child_ended", "by_parent", "root_run_id", "no_longer_awaited"] {
        assert!(lines.contains(part), "no {part} is recorded");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_journal_of_an_earlier_build_with_compensation_folds_to_the_same_runs() {
    let (journal, runs) = recorded("undone.jsonl", "undone.json");
    if is_to_be_recorded(&journal) {
        record_undone(&journal, &runs).await;
    }
    check_recorded(&journal, &runs);
    let lines = std::fs::read_to_string(&journal).expect("the recorded journal is there");
    for event in [
        "compensation_started",
        "undo_started",
        "undo_succeeded",
        "undo_failed",
        "compensation_ended",
    ] {
        assert!(lines.contains(event), "no {event} is recorded");
    }
}
