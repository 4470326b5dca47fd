//! Promise 31: who did what, from where, is told, also who read that or took it away; and what is
//! exported of history is proven by the file alone, down to the position that was altered.
//!
//! It fails where an act or its origin is lost on the way to the log, where an export leaves no
//! trace, and where a bundle is believed without its signatures.

use domain::audit::AuditKey;
use serde_json::{Value, json};
use system_tests::{Platform, Setting, Shape, workflows};

system_tests::in_both_settings!(who_did_what_is_told_and_proven);

/// The check of a bundle: whether it found nothing, and its report.
async fn verified(platform: &Platform, arguments: &[&str]) -> (bool, Value) {
    let all = [&["audit", "verify", "-o", "json", "--bundle"], arguments].concat();
    let (status, report, talk) = platform.wonder(&all).await;
    let report = serde_json::from_str(&report).unwrap_or_else(|_| panic!("{report}{talk}"));
    (status.success(), report)
}

async fn who_did_what_is_told_and_proven(setting: Setting) {
    let folder = tempfile::tempdir().expect("a folder");
    let path = |name: &str| folder.path().join(name).to_str().expect("a text").to_owned();
    let key = AuditKey::from_seed(&[7; 32]);
    std::fs::write(path("key.pem"), key.to_pem()).expect("it is written");
    std::fs::write(path("key.pub"), key.public().to_pem()).expect("it is written");
    let shape = Shape::from(setting).with_variable("WONDER_AUDIT_KEY", &path("key.pem"));
    let mut platform = Platform::start_as(env!("CARGO_BIN_EXE_wonder"), shape).await;
    let client = platform.client();
    client.post("/workflow-definitions", &workflows::sequence("p31", 2)).await.ok();
    let run = client.run_to_end(&json!("p31"), json!({"n": 1})).await;
    let run = run["id"].as_str().expect("an id").to_owned();
    // Whoever folds signs its last head when it stops.
    let head = client.head().await;
    platform.stop().await;
    platform.restart().await;

    let client = platform.client();
    let log = client.get(&format!("/audit?min_position={head}")).await;
    let acts = log["items"].as_array().expect("entries").iter();
    let by_us = |entry: &&Value| !["system", "trigger"].contains(&entry["actor"].as_str().unwrap());
    let acts: Vec<_> = acts.filter(by_us).map(|entry| entry["action"].clone()).collect();
    assert_eq!(acts, ["audit.read", "run.started", "workflow_definition.created"], "{log}");
    let started = client.get(&format!("/audit?run_id={run}")).await;
    let started = &started["items"][0];
    assert_eq!(started["origin"]["address"], "127.0.0.1", "{started}");
    assert_eq!((&started["resource_id"], &started["result"]), (&json!(run), &json!("done")));
    assert_eq!(started["details"]["definition"], "p31@1");

    let (file, public) = (path("bundle.ndjson"), path("key.pub"));
    let export = ["audit", "export", &file, "--server", platform.gateway()];
    let (status, _, talk) = platform.wonder(&export).await;
    assert!(status.success(), "{talk}");
    let (ok, report) = verified(&platform, &[&file, "--public-key", &public]).await;
    assert!(ok && report["signed"].as_u64() >= Some(head), "{report}");
    let exports = client.get("/audit?action=audit.exported").await;
    let exports = exports["items"].as_array().expect("entries").len();
    assert_eq!(exports, 1);

    let bundle = std::fs::read_to_string(&file).expect("the bundle");
    let lines: Vec<&str> = bundle.lines().collect();
    let place = lines.iter().position(|line| line.contains("\"run_started\"")).expect("a start");
    let line: Value = serde_json::from_str(lines[place]).expect("JSON");
    let position = line["event"]["entry"]["position"].as_u64().expect("a position");
    let altered = lines[place].replace("\"n\":1", "\"n\":2");
    assert_ne!(altered, lines[place]);
    let mut forged = lines.clone();
    forged[place] = &altered;
    let cut = &lines[..place];
    for forged in [forged.join("\n"), cut.join("\n")] {
        std::fs::write(path("forged.ndjson"), forged).expect("it is written");
        let forged = path("forged.ndjson");
        let (ok, report) = verified(&platform, &[&forged, "--public-key", &public]).await;
        assert!(!ok, "{report}");
        assert_eq!(report["findings"][0]["position"], position, "{report}");
    }
}
