//! Promise 38: of a run that is held nothing is dropped, whoever asks and whatever dies; what a
//! project wants to go was written elsewhere before, all of it; and who was refused is known.
//!
//! It fails where the sweep or a command passes over a hold, where content goes before its file is
//! whole, where a file isn't the one that is recorded, and where a refusal leaves no trace.

use std::collections::BTreeSet;
use std::path::Path;

use reqwest::Method;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use system_tests::{Book, Client, Platform, Setting, Shape, wait_for};

system_tests::in_both_settings!(
    what_is_held_stays_and_what_goes_was_written_before,
    what_was_tried_and_failed_is_known_and_bounded,
    forks_under_another_key_keep_what_they_were_made_of_through_kills,
);

/// Runs that are archived by the project's policy.
const RUNS: usize = 12;
/// Stands in whatever runs are given.
const CONTENT: &str = "the-patient-is-called-ann";

async fn told(platform: &Platform, arguments: &[&str]) -> String {
    let (status, told, talk) = platform.wonder(arguments).await;
    assert!(status.success(), "{arguments:?}: {told}{talk}");
    told
}

fn archived(runs: &[Value]) -> BTreeSet<String> {
    let archived = runs.iter().filter(|run| run["archived"].is_object());
    archived.map(|run| run["id"].as_str().expect("an id").to_owned()).collect()
}

async fn what_is_held_stays_and_what_goes_was_written_before(setting: Setting) {
    let folder = tempfile::tempdir().expect("a folder");
    let shelf = folder.path().join("shelf");
    let shape =
        Shape::from(setting).with_variable("WONDER_ARCHIVE_DIR", shelf.to_str().expect("a text"));
    let mut platform = Platform::start_as(env!("CARGO_BIN_EXE_wonder"), shape).await;
    let client = platform.client();
    let definition = json!({"name": "p38", "start": "say", "output": {"text": "${state.text}"},
        "nodes": {"say": {"compute": {"state.text": "${input.text}"}}}});
    client.post("/workflow-definitions", &definition).await.ok();
    let mut runs = Vec::new();
    for _ in 0..=RUNS {
        let run = client.start(&json!("p38"), json!({"text": CONTENT})).await;
        client.end_of(&run).await;
        runs.push(run);
    }
    let held = runs.pop().expect("a run");
    let events = client.events(&held).await;
    let (flag, server) = ("--server", platform.gateway());
    told(&platform, &["runs", "hold", &held, "--reason", "case 4711", flag, server]).await;
    let body = json!({"keep": "header"});
    let refused = client.post(&format!("/runs/{held}/archive"), &body).await;
    assert_eq!((refused.status, refused.code()), (409, "run_held"));
    assert!(refused.body["detail"].to_string().contains("case 4711"), "{:?}", refused.body);
    let stranger = format!("wonder_{}_{}", "0".repeat(26), "0".repeat(52));
    let request = client.request(Method::GET, "/runs").bearer_auth(stranger);
    assert_eq!(client.send(request).await.expect("an answer").status, 401);

    let project = client.get(&format!("/runs/{held}")).await["project_id"].clone();
    let project = project.as_str().expect("a project");
    let wanted = json!({"retention": {"keep": "header", "after": "0s", "archive": true}});
    let request = client.request(Method::PATCH, &format!("/projects/{project}")).json(&wanted);
    client.send(request).await.expect("an answer").ok();
    wait_for("a run to be archived", || async {
        (!archived(&client.runs(0).await).is_empty()).then_some(())
    })
    .await;
    // Whoever sweeps dies in the middle of it.
    if let Setting::Distributed = setting {
        for name in ["coordinator-1", "coordinator-2"] {
            platform.kill_one(name).await;
        }
        for name in ["coordinator-1", "coordinator-2"] {
            platform.start_one(name).await;
        }
    } else {
        platform.kill_9().await;
        platform.restart().await;
    }
    let client = platform.client();
    let all: BTreeSet<String> = runs.iter().cloned().collect();
    let seen: Vec<Value> = wait_for("all others to be archived", || async {
        let seen = client.runs(0).await;
        (archived(&seen) == all).then_some(seen)
    })
    .await;
    for run in seen.iter().filter(|run| run["archived"].is_object()) {
        let archive = &run["archived"]["archive"];
        let path = archive["location"].as_str().unwrap_or_else(|| panic!("{run}"));
        assert!(Path::new(path).starts_with(shelf.canonicalize().expect("a folder")), "{path}");
        let bytes = std::fs::read(path).expect("the archive");
        let sha256 = data_encoding::HEXLOWER.encode(&Sha256::digest(&bytes));
        assert_eq!(archive["sha256"], sha256, "{run}");
        assert_eq!(run["input"], Value::Null);
    }
    let one = &runs[0];
    let place = shelf.canonicalize().expect("a folder").join(format!("{one}.wonder"));
    let place = place.to_str().expect("a text");
    let state = told(&platform, &["bundle", "state", place, "-o", "json"]).await;
    assert!(state.contains(CONTENT), "{state}");
    let gone = client.post(&format!("/runs/{one}/fork"), &json!({"at": 1})).await;
    assert_eq!((gone.status, gone.code()), (410, "run_archived"));
    assert!(gone.body["detail"].to_string().contains(place), "{:?}", gone.body);

    // The one that is held has all of it, and says who wants that.
    let kept = client.get(&format!("/runs/{held}")).await;
    let by = (&kept["held"]["by"], &kept["held"]["reason"], &kept["input"]["text"]);
    assert_eq!(by, (&json!("dev"), &json!("case 4711"), &json!(CONTENT)), "{kept}");
    assert_eq!(client.events(&held).await, events);
    let position = client.head().await;
    let log = client.get(&format!("/audit?run_id={held}&min_position={position}")).await;
    let log = log["items"].as_array().expect("entries");
    let acts: BTreeSet<_> = log.iter().filter_map(|entry| entry["action"].as_str()).collect();
    assert_eq!(acts, BTreeSet::from(["run.held", "run.started", "request.refused"]), "{log:?}");
    refused_with(&client, &["run_archived", "run_held", "unauthenticated"]).await;

    let (flag, server) = ("--server", platform.gateway());
    told(&platform, &["runs", "release", &held, "--reason", "settled", flag, server]).await;
    wait_for("the last one to be archived", || async {
        let run = client.get(&format!("/runs/{held}")).await;
        (run["archived"].is_object() && run["held"].is_null()).then_some(())
    })
    .await;
    platform.stop().await;
    let report = platform.audit(&Book::default()).await;
    assert_eq!(report["dropped"]["runs"], RUNS + 1, "{report}");
    let data_dir = platform.data_dir();
    for model in ["runs", "audit_log"] {
        let mut all = vec!["projections", "rebuild", model, "--compare"];
        if platform.database_url().is_none() {
            all.extend(["--data-dir", data_dir.to_str().expect("a text")]);
        }
        told(&platform, &all).await;
    }
}

/// Refusals of the audit log, once it tells of these codes and no others.
async fn refused_with(client: &Client, codes: &[&str]) -> Vec<Value> {
    wait_for(&format!("refusals with {codes:?}"), || async {
        let log = client.get("/audit?result=refused&limit=200").await;
        let log = log["items"].as_array().expect("entries").clone();
        let told: BTreeSet<_> =
            log.iter().filter_map(|entry| entry["details"]["code"].as_str()).collect();
        assert!(told.iter().all(|code| codes.contains(code)), "{told:?}");
        (told.len() == codes.len()).then_some(log)
    })
    .await
}

/// Changes that one client tries in vain, each somewhere else.
const IN_VAIN: usize = 300;

async fn what_was_tried_and_failed_is_known_and_bounded(setting: Setting) {
    let platform = Platform::start_as(env!("CARGO_BIN_EXE_wonder"), Shape::from(setting)).await;
    let client = platform.client();
    let definition = json!({"name": "p38", "start": "say",
        "nodes": {"say": {"compute": {"state.n": 1}}}});
    let ended = client.run_to_end(&definition, json!({})).await;
    let ended = ended["id"].as_str().expect("an id").to_owned();
    let before = client.written().await;
    let start = json!({"definition": "nowhere"});
    for _ in 0..3 {
        assert_eq!(client.post("/runs", &start).await.status, 422);
    }
    let unknown = "run_00000000000000000000000000";
    for (path, status) in [(&ended, 409), (&unknown.to_owned(), 404)] {
        let answer = client.post(&format!("/runs/{path}/cancel"), &json!({})).await;
        assert_eq!(answer.status, status, "{}", answer.text);
    }
    let broken = client.post_bytes("/runs", "application/json", b"{".to_vec()).await;
    assert_eq!(broken.status, 400);
    let read = client.request(Method::GET, &format!("/runs/{unknown}/state"));
    assert_eq!(client.send(read).await.expect("the platform answers").status, 404);
    let codes = ["invalid_json", "run_ended", "run_not_found", "unknown_reference"];
    let log = refused_with(&client, &codes).await;
    let of = |code: &str| {
        let is_it = |entry: &&Value| entry["details"]["code"] == code;
        log.iter().find(is_it).expect("one of each code")
    };
    assert!(log.iter().all(|entry| entry["actor"] == "dev"), "{log:?}");
    let conflict = of("run_ended");
    assert_eq!((&conflict["run_id"], &conflict["resource_id"]), (&json!(ended), &json!(ended)));
    assert_eq!(conflict["details"]["route"], "/api/v1/runs/{id}/cancel", "{conflict}");
    let missing = of("run_not_found");
    assert_eq!(
        (&missing["resource_id"], &missing["details"]["method"]),
        (&json!(unknown), &json!("POST"))
    );
    assert_eq!(of("unknown_reference")["origin"]["address"], "127.0.0.1");

    // However many come, and wherever they go.
    for number in 0..IN_VAIN {
        let path = format!("/runs/run_{number:026}/cancel");
        assert_eq!(client.post(&path, &json!({})).await.status, 404);
    }
    let events = client.all_events().await;
    let told = events.iter().filter(|event| event["event_type"] == "access_refused").count();
    // 32 places in a minute, each told twice, and a minute may have ended meanwhile.
    assert!((codes.len()..=4 * 32).contains(&told), "{told}");
    assert_eq!(client.written().await, before, "what was refused wrote nothing else");
}

async fn forks_under_another_key_keep_what_they_were_made_of_through_kills(setting: Setting) {
    let mut platform = crate::platform_in(setting).await;
    let client = platform.client();
    let definition = json!({
        "name": "kept", "start": "read", "concurrency": {"key": "${input.user}", "limit": 1},
        "nodes": {
            "read": {"compute": {"state.text": "${input.text}"}},
            "ask": {"gate": {"title": "Go on?"}},
            "call": {"action": {"kind": "mock", "with": {"result": {"user": "${input.user}"}}},
                "output": {"state.user": "${result.user}"}}
        },
        "transitions": [{"from": "read", "to": "ask"}, {"from": "ask", "to": "call"}]
    });
    let approve = async |run: &str| {
        let gate = wait_for("an open gate", || async {
            let gates = client.get(&format!("/gates?run_id={run}&status=open")).await;
            gates["items"][0]["id"].as_str().map(str::to_owned)
        })
        .await;
        let answer = json!({"decision": "approve"});
        client.post(&format!("/gates/{gate}/answers"), &answer).await.ok();
        client.end_of(run).await;
    };
    let archive = async |run: &str| {
        let body = json!({"keep": "results"});
        client.post(&format!("/runs/{run}/archive"), &body).await
    };
    let refused = async |run: &str, code: &str, other: &str| {
        let refused = archive(run).await;
        assert_eq!((refused.status, refused.code()), (409, code), "{:?}", refused.body);
        assert!(refused.body["detail"].to_string().contains(other), "{:?}", refused.body);
    };
    let first = client.start(&definition, json!({"user": "ann", "text": CONTENT})).await;
    approve(&first).await;
    let mut forks = Vec::new();
    for user in ["bob", "eve"] {
        let asked = json!({"at": 2, "input": {"user": user, "text": CONTENT}});
        let fork = client.post(&format!("/runs/{first}/fork"), &asked).await.ok();
        forks.push(fork["id"].as_str().expect("a run").to_owned());
        // The end of an id is where a run lives.
        assert_ne!(forks.last().map(|id| &id[20..]), Some(&first[20..]));
    }
    refused(&first, "run_needed", "goes on and needs it").await;
    platform.kill_9().await;
    platform.restart().await;
    refused(&first, "run_needed", "goes on and needs it").await;
    approve(&forks[1]).await;
    refused(&first, "run_needed", &forks[0]).await;
    client.post(&format!("/runs/{}/hold", forks[0]), &json!({"reason": "case 1"})).await.ok();
    approve(&forks[0]).await;

    // Whichever is held: the fork holds its run, and the run its forks.
    let release = async |run: &str| {
        client.post(&format!("/runs/{run}/release"), &json!({})).await.ok();
    };
    refused(&first, "run_held", &forks[0]).await;
    platform.kill_9().await;
    platform.restart().await;
    refused(&first, "run_held", &forks[0]).await;
    release(&forks[0]).await;
    client.post(&format!("/runs/{first}/hold"), &json!({"reason": "case 2"})).await.ok();
    for fork in &forks {
        refused(fork, "run_held", &first).await;
    }
    release(&first).await;
    for run in forks.iter().chain([&first]) {
        let dropped = archive(run).await.ok();
        assert!(dropped["dropped"].as_u64() > Some(0), "{dropped}");
    }
    platform.stop().await;
    platform.audit(&Book::default()).await;
}
