//! Promise 31: who did what, from where, is told, also who read that or took it away; and what is
//! exported of history is proven by the file alone, down to the position that was altered.
//!
//! It fails where an act or its origin is lost on the way to the log, where an export leaves no
//! trace, and where a bundle is believed without its signatures.

use serde_json::{Value, json};
use system_tests::{Book, Platform, Setting, Shape, wait_for, workflows};

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
    let shape = Shape::from(setting).with_audit_key(folder.path());
    let mut platform = Platform::start_as(env!("CARGO_BIN_EXE_wonder"), shape).await;
    let client = platform.client();
    client.post("/workflow-definitions", &workflows::sequence("p31", 2)).await.ok();
    let run = client.run_to_end(&json!("p31"), json!({"n": 1})).await;
    let run = run["id"].as_str().expect("an id").to_owned();
    let head = client.head().await;
    if let Setting::Embedded = setting {
        // Whoever folds signs its last head when it stops: sooner than in ten seconds.
        platform.stop().await;
        platform.restart().await;
    }
    let client = platform.client();
    wait_for("a signed head", || async {
        let heads = client.get(&format!("/audit/heads?after={}", head - 1)).await;
        (!heads["items"].as_array()?.is_empty()).then_some(())
    })
    .await;

    let log = client.get(&format!("/audit?min_position={head}")).await;
    let acts = log["items"].as_array().expect("entries").iter();
    let acts = acts.filter(|entry| entry["actor"] != "system");
    let acts: Vec<_> = acts.map(|entry| entry["action"].clone()).collect();
    // Whether that read is among them depends on how fast it is folded.
    assert!(acts.ends_with(&["run.started".into(), "workflow_definition.created".into()]), "{log}");
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
    let now = client.head().await;
    for action in ["audit.exported", "audit.read"] {
        let found = client.get(&format!("/audit?action={action}&min_position={now}")).await;
        // Reads of a minute are one, and a minute may have ended meanwhile.
        let entries = found["items"].as_array().expect("entries").len();
        assert!((1..=2).contains(&entries), "{found}");
    }

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
    platform.stop().await;
    platform.audit(&Book::default()).await;
}
