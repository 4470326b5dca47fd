//! Promise 34: of runs that have ended, content is dropped and nothing else: positions, the chain,
//! lists and sums are what they were, forks keep what they share, and whoever asks for what is gone
//! is told.
//!
//! It fails where a read model folds something that doesn't remain, where a fork lives off the run
//! that it was made of, where content is dropped without a record, and where content stays.

use reqwest::Method;
use serde_json::{Value, json};
use system_tests::{Book, Platform, Setting, wait_for};

system_tests::in_both_settings!(what_has_ended_is_archived);

/// Runs that are archived by the project's policy alone.
const LATER: usize = 6;
/// Stands in whatever the run is given, is told and makes.
const CONTENT: &str = "the-patient-is-called-ann";
const MODELS: [&str; 5] = ["resources", "runs", "audit", "metrics", "audit_log"];

fn definition() -> Value {
    let call = |value: &str| {
        json!({"action": {"kind": "mock", "with": {"result": {"model": "large", "text": value}}},
            "input": {"text": "${input.text}"}, "output": {"state.text": "${result.text}"}})
    };
    json!({
        "name": "intake", "start": "read",
        "nodes": {
            "read": call("${input.text}"),
            "each": {"action": {"kind": "transform", "with": {"value": "${input.item}"}},
                "input": {"item": "${item}"}},
            "ask": {"gate": {"title": "Is it ${state.text}?", "timeout": "1h"}},
            "tell": {"emit": {"event": "read", "data": {"text": "${state.text}"}}},
            "count": {"emit": {"metric": "intakes", "value": 1}}
        },
        "transitions": [
            {"from": "read", "to": "each", "foreach": "${input.items}", "group": "g"},
            {"from": "each", "to": "ask",
                "join": {"group": "g", "merge": {"strategy": "collect", "into": "state.all"}}},
            {"from": "ask", "to": "tell"},
            {"from": "tell", "to": "count"}
        ],
        "output": {"text": "${state.text}"}
    })
}

async fn open_gate(platform: &Platform, run: &str) -> String {
    let client = platform.client();
    wait_for("an open gate", || async {
        let gates = client.get(&format!("/gates?run_id={run}&status=open")).await;
        gates["items"][0]["id"].as_str().map(str::to_owned)
    })
    .await
}

async fn approve(platform: &Platform, run: &str) -> Value {
    let (client, gate) = (platform.client(), open_gate(platform, run).await);
    let answer = json!({"decision": "approve", "value": CONTENT, "comment": "fine"});
    client.post(&format!("/gates/{gate}/answers"), &answer).await.ok();
    client.end_of(run).await
}

/// How many events of the journal tell of the content, but for those of a run.
async fn telling(platform: &Platform, but: &str) -> usize {
    let records = platform.records().await;
    let events = records.events.iter().filter(|event| but != &*event.aggregate_id);
    let tells = |text: &[u8]| text.windows(CONTENT.len()).any(|part| part == CONTENT.as_bytes());
    events.filter(|event| tells(&event.payload)).count()
}

/// Rebuilds all read models of a stopped platform, and finds no difference to those that were live.
async fn rebuilt_the_same(platform: &Platform) {
    let data_dir = platform.data_dir();
    for model in MODELS {
        let mut all = vec!["projections", "rebuild", model, "--compare"];
        if platform.database_url().is_none() {
            all.extend(["--data-dir", data_dir.to_str().expect("a text")]);
        }
        let (status, told, talk) = platform.wonder(&all).await;
        assert!(status.success(), "{model}: {told}{talk}");
    }
}

async fn what_has_ended_is_archived(setting: Setting) {
    let folder = tempfile::tempdir().expect("a folder");
    let mut platform = crate::platform_in(setting).await;
    let client = platform.client();
    client.post("/workflow-definitions", &definition()).await.ok();
    let later = json!({"name": "later", "start": "say", "output": {"text": "${input.text}"},
        "nodes": {"say": {"compute": {"state.text": "${input.text}"}}}});
    client.post("/workflow-definitions", &later).await.ok();
    let input = json!({"text": CONTENT, "items": [CONTENT, 2]});
    let (run, other) = {
        let run = client.start(&json!("intake"), input.clone()).await;
        let other = client.start(&json!("intake"), input).await;
        approve(&platform, &other).await;
        (run, other)
    };
    let archive = |run: &str| format!("/runs/{run}/archive");
    let early = client.post(&archive(&run), &json!({"keep": "header"})).await;
    assert_eq!(early.code(), "run_not_ended");
    let end = approve(&platform, &run).await;
    let events = client.events(&run).await;
    let gate = events.iter().find(|event| event["event_type"] == "gate_opened").expect("a gate");

    // A fork that goes on needs the run: it may still take over what that recorded.
    let body = json!({"at": gate["sequence"]});
    let fork = client.post(&format!("/runs/{run}/fork"), &body).await.ok();
    let fork = fork["id"].as_str().expect("an id").to_owned();
    open_gate(&platform, &fork).await;
    let pinned = client.post(&archive(&run), &json!({"keep": "results"})).await;
    assert_eq!(pinned.code(), "run_needed");
    let forked = approve(&platform, &fork).await;
    let of_fork = client.events(&fork).await;

    // What would be dropped is what is dropped.
    let asked = json!({"keep": "results", "dry_run": true});
    let planned = client.post(&archive(&run), &asked).await.ok();
    assert_eq!(client.events(&run).await, events, "a dry run has dropped something");
    let path = folder.path().to_str().expect("a text");
    let server = platform.gateway();
    let command = ["runs", "archive", &run, "--keep", "results", "--to", path, "--server", server];
    let (status, told, talk) = platform.wonder(&[&command[..], &["-o", "jsonl"]].concat()).await;
    assert!(status.success(), "{told}{talk}");
    let dropped: Value = serde_json::from_str(&told).expect("JSON");
    for count in ["events", "dropped", "bytes"] {
        assert_eq!(dropped[count], planned[count], "{dropped} {planned}");
    }
    let done = client.post(&archive(&other), &json!({"keep": "header"})).await.ok();
    let at = done["position"].as_u64().expect("a position");
    let again = client.post(&archive(&other), &json!({"keep": "results"})).await.ok();
    assert_eq!((&again["dropped"], &again["keep"]), (&json!(0), &json!("header")));

    // What was to stay is there, and the rest says where it is.
    let seen = client.get(&format!("/runs/{run}?min_position={at}")).await;
    assert_eq!((&seen["output"], &seen["usage"]), (&end["output"], &end["usage"]), "{seen}");
    assert_eq!(seen["archived"]["keep"], "results", "{seen}");
    let file = seen["archived"]["archive"]["location"].as_str().expect("a file").to_owned();
    let bare = client.get(&format!("/runs/{other}")).await;
    assert_eq!((&bare["status"], &bare["output"]), (&json!("completed"), &Value::Null), "{bare}");
    let left = client.events(&run).await;
    assert_eq!(left.len(), events.len());
    assert!(left.iter().any(|event| event["dropped"] == true));
    for path in ["state", "explain", "bundle"] {
        let path = format!("/runs/{run}/{path}");
        let request = client.request(Method::GET, &path);
        let refused = client.send(request).await.expect("an answer");
        assert_eq!((refused.status, refused.code()), (410, "run_archived"), "{path}");
        assert!(refused.body["detail"].to_string().contains(&run), "{:?}", refused.body);
    }
    for (path, body) in [("fork", json!({"at": 1})), ("verify", json!({}))] {
        let refused = client.post(&format!("/runs/{run}/{path}"), &body).await;
        assert_eq!(refused.code(), "run_archived", "{path}");
    }
    let timeline = client.get(&format!("/runs/{run}/timeline")).await;
    assert_eq!(timeline["items"].as_array().map(Vec::len), Some(6), "{timeline}");
    let (status, opened, talk) = platform.wonder(&["bundle", "state", &file, "-o", "json"]).await;
    assert!(status.success() && opened.contains(CONTENT), "{opened}{talk}");
    let log = client.get(&format!("/audit?action=run.archived&min_position={at}")).await;
    assert_eq!(log["items"].as_array().map(Vec::len), Some(2), "{log}");

    // The fork has all that it shares, and can be forked itself.
    assert_eq!(client.events(&fork).await, of_fork);
    assert_eq!(forked["output"], end["output"]);
    let body = json!({"at": gate["sequence"]});
    let second = client.post(&format!("/runs/{fork}/fork"), &body).await.ok();
    let second = second["id"].as_str().expect("an id").to_owned();
    assert_eq!(approve(&platform, &second).await["output"], end["output"]);

    for _ in 0..LATER {
        let later = client.start(&json!("later"), json!({"text": CONTENT})).await;
        client.end_of(&later).await;
    }
    // What a project wants is done by itself, whatever dies meanwhile.
    let project = seen["project_id"].as_str().expect("a project");
    let wanted = json!({"retention": {"keep": "header", "after": "0s"}});
    let request = client.request(Method::PATCH, &format!("/projects/{project}")).json(&wanted);
    client.send(request).await.expect("an answer").ok();
    wait_for("a run to be archived", || async {
        client.runs(0).await.iter().filter(|run| run["archived"].is_object()).nth(2).map(drop)
    })
    .await;
    // Shards of processes that are killed change hands once their leases are over: a test of its
    // own.
    if let Setting::Embedded = setting {
        platform.kill_9().await;
        platform.restart().await;
    }
    let archived: Vec<Value> = wait_for("all runs to be archived", || async {
        let runs = client.runs(0).await;
        runs.iter().all(|run| run["archived"].is_object()).then_some(runs)
    })
    .await;
    assert_eq!(archived.len(), 4 + LATER);
    let kept = archived.iter().filter(|run| run["archived"]["keep"] == "results");
    assert_eq!(kept.count(), 1, "no more is dropped than was asked for: {archived:?}");

    platform.stop().await;
    let report = platform.audit(&Book::default()).await;
    assert_eq!(report["dropped"]["runs"], 4 + LATER, "{report}");
    assert_eq!(report["sealed"]["position"], report["head"], "{report}");
    rebuilt_the_same(&platform).await;
    assert_eq!(telling(&platform, &run).await, 0, "content of runs is still there");
}
