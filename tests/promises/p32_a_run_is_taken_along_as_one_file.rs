//! Promise 32: a run is taken along as one file, and what it did is there without a server as it is
//! with one.
//!
//! It fails where a bundle says something else than the server, where it can't be decided again,
//! where one that isn't whole is taken for one, and where a changed definition passes that doesn't
//! go the same way.

use std::path::Path;

use serde_json::{Value, json};
use system_tests::{Platform, Setting};

system_tests::in_both_settings!(a_run_is_taken_along_as_one_file);

const CHILD: &str = "
name: helper
start: say
nodes:
  say:
    action: {kind: mock, with: {result: {said: 'yes'}}}
    output: {state.said: '${result.said}'}
output: {said: '${state.said}'}
";

/// Asks a child, goes one of two ways, and carries a value that stands apart from its events.
fn definition() -> Value {
    let mock = |result: &str| json!({"action": {"kind": "mock", "with": {"result": result}}});
    json!({
        "name": "taken", "start": "ask",
        "nodes": {
            "ask": {"workflow": {"definition": "helper"}, "output": {"state.said": "${result.said}"}},
            "high": mock("high"), "low": mock("low")
        },
        "transitions": [
            {"from": "ask", "to": "high", "when": "input.amount > 100"},
            {"from": "ask", "to": "low", "priority": 1}
        ],
        "output": {"said": "${state.said}"}
    })
}

/// A command of the binary: its exit code, its answer and what it said.
async fn told(platform: &Platform, arguments: &[&str]) -> (i32, Value, String) {
    let (status, told, talk) = platform.wonder(&[arguments, &["-o", "json"]].concat()).await;
    let code = status.code().expect("it ended by itself");
    (code, serde_json::from_str(&told).unwrap_or(Value::Null), talk)
}

/// The lines of a bundle, but for when it was made and its end.
fn lines(file: &Path) -> Vec<String> {
    let text = std::fs::read_to_string(file).expect("a bundle");
    let lines: Vec<String> = text.lines().map(str::to_owned).collect();
    lines[1..lines.len() - 1].to_vec()
}

async fn a_run_is_taken_along_as_one_file(setting: Setting) {
    let mut platform = crate::platform_in(setting).await;
    let client = platform.client();
    client.publish(CHILD).await;
    // Somebody has typed in a key, as it must not be.
    let key = format!("ghp_{}", "a1".repeat(18));
    let input = json!({"amount": 500, "text": "x".repeat(100_000), "note": format!("use {key}")});
    let run = client.start(&definition(), input).await;
    let end = client.end_of(&run).await;
    assert_eq!(end["status"], "completed", "{end}");

    let folder = tempfile::tempdir().expect("a folder");
    let path = |name: &str| folder.path().join(name).to_str().expect("text").to_owned();
    let (file, again) = (path("run.wonder"), path("again.wonder"));
    let (plain, masked) = (path("plain.wonder"), path("masked.wonder"));
    let export = |to: &str| {
        ["bundle", "export", &run, "--server", platform.gateway(), "-f", to].map(str::to_owned)
    };
    let exported = async |to: &str, more: &[&str]| {
        let export = export(to);
        let all: Vec<&str> =
            export.iter().map(String::as_str).chain(more.iter().copied()).collect();
        told(&platform, &all).await
    };
    let (code, _, talk) = exported(&file, &[]).await;
    assert!(code == 2 && talk.contains("github_token at /input/note of run_"), "{code}: {talk}");
    assert!(!talk.contains(&key) && !Path::new(&file).exists(), "{talk}");
    let (code, written, talk) = exported(&masked, &["--mask"]).await;
    assert_eq!((code, &written["masked"]), (0, &json!(true)), "{written}{talk}");
    let (code, written, talk) = exported(&plain, &["--allow-findings", "--plain"]).await;
    assert!(code == 0 && written["secrets"]["count"].as_u64() > Some(0), "{written}{talk}");
    let (code, written, talk) = exported(&file, &["--allow-findings"]).await;
    assert_eq!((code, &written["runs"]), (0, &json!(2)), "{written}{talk}");
    let size = |file: &str| std::fs::metadata(file).expect("a file").len();
    assert!(size(&file) * 4 < size(&plain), "{} {}", size(&file), size(&plain));
    // The masked one is decided again like the other, and says what it is.
    let (_, opened, _) = told(&platform, &["bundle", "open", &masked]).await;
    assert_eq!(opened["masked"], true, "{opened}");
    assert_eq!(opened["runs"][0]["input"]["note"], "use [masked github_token]");
    let (code, tested, talk) = told(&platform, &["bundle", "test", &masked]).await;
    assert!(code == 0 && talk.contains("masked"), "{tested}{talk}");

    let (_, opened, _) = told(&platform, &["bundle", "open", &file]).await;
    let root = &opened["runs"][0];
    assert_eq!((&root["status"], &root["output"]), (&end["status"], &end["output"]), "{opened}");
    assert_eq!(opened["runs"][1]["definition"], "helper@1");
    let events = client.events(&run).await;
    let (_, own, _) = told(&platform, &["bundle", "events", &file]).await;
    assert_eq!(own["items"], json!(events));
    for at in [1, events.len() / 2, events.len()] {
        let at = at.to_string();
        let wanted = client.get(&format!("/runs/{run}/state?at={at}")).await;
        let (_, state, _) = told(&platform, &["bundle", "state", &file, "--at", &at]).await;
        assert_eq!(state, wanted, "at {at}");
    }
    let wanted = client.get(&format!("/runs/{run}/explain?node=low")).await;
    let (_, why, _) = told(&platform, &["bundle", "explain", &file, "--node", "low"]).await;
    assert_eq!(why, wanted);

    // The history at a pace is the same history.
    let mut replay = client.follow(&format!("/runs/{run}/events?speed=10000"), None).await;
    for event in &events {
        let sent = replay.next().await.expect("another event");
        assert_eq!(&sent.data, event);
    }

    // Another input takes the other way, and calls somebody there.
    let (code, fork, talk) =
        told(&platform, &["bundle", "fork", &file, "--at", "1", "-i", r#"{"amount": 5}"#]).await;
    assert_eq!(code, 0, "{talk}");
    assert_eq!(
        (&fork["adopted"]["count"], &fork["calls"]["items"][0]["node"]),
        (&json!(1), &json!("low")),
        "{fork}"
    );
    assert_eq!(fork["parts"]["node"], "ask", "{fork}");

    // Both runs are decided again; a definition that goes another way is found.
    let (code, tested, _) = told(&platform, &["bundle", "test", &file]).await;
    let results: Vec<_> = tested["items"].as_array().into_iter().flatten().collect();
    assert!(code == 0 && results.len() == 2, "{tested}");
    let mut changed = definition();
    changed["transitions"][0]["when"] = json!("input.amount > 1000");
    let by = path("changed.json");
    std::fs::write(&by, changed.to_string()).expect("it is written");
    let (code, tested, _) = told(&platform, &["bundle", "test", &file, "--definition", &by]).await;
    let parted = &tested["items"][0];
    assert_eq!((code, &parted["result"], &parted["node"]), (1, &json!("path"), &json!("ask")));

    // Without a server: the same lines. What was cut off isn't taken.
    platform.stop().await;
    let data_dir = platform.data_dir();
    let mut export = vec!["bundle", "export", &run, "--offline", "-f", &again];
    export.extend(["--allow-findings", "--plain"]);
    if platform.database_url().is_none() {
        export.extend(["--data-dir", data_dir.to_str().expect("text")]);
    }
    let (code, _, talk) = told(&platform, &export).await;
    assert_eq!(code, 0, "{talk}");
    assert_eq!(lines(again.as_ref()), lines(plain.as_ref()));
    for (whole, less) in [(&plain, 9), (&file, 40)] {
        let whole = std::fs::read(whole).expect("a bundle");
        std::fs::write(&again, &whole[..whole.len() - less]).expect("it is written");
        let (code, _, talk) = told(&platform, &["bundle", "open", &again]).await;
        assert!(code == 2 && talk.contains("line "), "{code}: {talk}");
    }
}
