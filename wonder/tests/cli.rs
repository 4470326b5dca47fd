//! The binary as people and scripts use it: what it prints, how it exits, and how soon.

use std::fs::File;
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;
use system_tests::Platform;
use tempfile::TempDir;

const EXE: &str = env!("CARGO_BIN_EXE_wonder");
const QUICK: &str = "name: quick\nstart: a\nnodes: {a: {compute: {state.x: 1}}}\n";
const FAILS: &str = "name: fails\nstart: fetch\nnodes:\n  fetch:\n    action: {kind: mock, with: \
                     {fail: {times: 9, kind: permanent, code: gone, message: it is gone}}}\n";
const SLOW: &str = "name: slow\nstart: a\nnodes: {a: {action: {kind: mock, with: {delay: 9m}}}}\n";

/// A folder that is the home too, so that nothing of this machine's configuration counts.
fn folder() -> TempDir {
    tempfile::tempdir().expect("a folder can be made")
}

fn wonder(folder: &TempDir) -> Command {
    let mut command = Command::new(EXE);
    for (name, _) in std::env::vars_os() {
        if name.to_string_lossy().starts_with("WONDER_") {
            command.env_remove(name);
        }
    }
    command.current_dir(folder.path()).env("HOME", folder.path()).stdin(Stdio::null());
    command.env_remove("XDG_CONFIG_HOME").env_remove("XDG_DATA_HOME");
    command
}

fn file(folder: &TempDir, name: &str, text: &str) -> String {
    let path = folder.path().join(name);
    std::fs::write(&path, text).expect("the file can be written");
    path.display().to_string()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

fn done(output: &Output) -> (Option<i32>, String, String) {
    (output.status.code(), text(&output.stdout), text(&output.stderr))
}

fn keys(json: &str) -> Vec<String> {
    let value: Value = serde_json::from_str(json).expect("JSON");
    value.as_object().expect("an object").keys().cloned().collect()
}

#[test]
fn a_stderr_that_takes_nothing_changes_no_exit_code() {
    let folder = folder();
    for (definition, code) in [(QUICK, 0), (FAILS, 1)] {
        let path = file(&folder, "it.yaml", definition);
        let full = File::options().write(true).open("/dev/full").expect("there is such a device");
        let mut command = wonder(&folder);
        command.args(["run", &path, "--local"]).stderr(full).stdout(Stdio::null());
        assert_eq!(command.status().expect("it starts").code(), Some(code));
        let (reader, writer) = std::io::pipe().expect("a pipe");
        drop(reader);
        let mut command = wonder(&folder);
        command.args(["run", &path, "--local"]).stderr(writer).stdout(Stdio::null());
        assert_eq!(command.status().expect("it starts").code(), Some(code));
    }
}

#[test]
fn a_local_run_that_is_given_up_ends_at_once() {
    let folder = folder();
    let path = file(&folder, "slow.yaml", SLOW);
    let started = Instant::now();
    let output = wonder(&folder).args(["run", &path, "--local", "--timeout", "1s"]).output();
    let output = output.expect("it starts");
    assert_eq!(output.status.code(), Some(4), "{}", text(&output.stderr));
    // The executor's own patience is many times that.
    assert!(started.elapsed() < Duration::from_secs(8), "{:?}", started.elapsed());
}

#[test]
fn a_failure_is_told_in_words_and_in_json() {
    let folder = folder();
    let path = file(&folder, "fails.yaml", FAILS);
    let output = wonder(&folder).args(["run", &path, "--local", "-o", "json"]).output();
    let (code, stdout, stderr) = done(&output.expect("it starts"));
    assert_eq!(code, Some(1));
    assert!(stderr.contains("error gone at node fetch, attempt 1: it is gone"), "{stderr}");
    assert_eq!(keys(&stdout), ["run_id", "status", "output", "error"]);
}

#[test]
fn resources_are_validated_as_what_they_are() {
    let folder = folder();
    let well = "kind: model_profile\nname: fast\nprovider: mock\nmodel: m\n";
    let path = file(&folder, "models.yaml", &format!("{well}---\nkind: model_profile\nname: b\n"));
    let output = wonder(&folder).args(["validate", &path]).output().expect("it starts");
    let (code, stdout, stderr) = done(&output);
    assert_eq!(code, Some(2), "{stdout}{stderr}");
    assert!(stdout.contains("models.yaml:6: ") && stdout.contains("provider"), "{stdout}");
    assert!(stderr.contains("a model profile named \"fast\""), "{stderr}");
    assert!(stderr.contains("2 checked, 1 problems"), "{stderr}");
}

#[tokio::test]
async fn applying_twice_changes_nothing_and_a_change_revises() {
    let platform = Platform::start(EXE).await;
    let folder = folder();
    let resources = |delay: &str| {
        format!(
            "name: uses\nstart: a\nnodes: {{a: {{action: {{use: score}}}}}}\n---\n\
             kind: action\nname: score\naction: mock\nwith: {{result: {{a: 1}}, delay: {delay}}}\n\
             ---\nkind: model_profile\nname: fast\nprovider: mock\nmodel: m\n"
        )
    };
    let apply = async |text: &str| {
        let path = file(&folder, "all.yaml", text);
        let arguments = ["apply", "-f", &path, "-o", "jsonl", "--server", platform.url("platform")];
        let (status, stdout, stderr) = platform.wonder(&arguments).await;
        assert!(status.success(), "{stderr}");
        let told = |line: &str| {
            let item: Value = serde_json::from_str(line).expect("JSON");
            format!("{} {} {}", item["name"], item["version"], item["result"])
        };
        stdout.lines().map(told).collect::<Vec<_>>().join(", ").replace('"', "")
    };
    let first = apply(&resources("10ms")).await;
    assert_eq!(first, "fast 1 created, score 1 created, uses 1 published");
    let again = apply(&resources("10ms")).await;
    assert_eq!(again, "fast 1 unchanged, score 1 unchanged, uses 1 unchanged");
    let changed = apply(&resources("20ms")).await;
    assert_eq!(changed, "fast 1 unchanged, score 2 revised, uses 1 unchanged");
}

#[tokio::test]
async fn a_started_run_has_the_same_keys_and_its_state_reads_as_yaml() {
    let platform = Platform::start(EXE).await;
    let folder = folder();
    let path = file(&folder, "quick.yaml", QUICK);
    let mut id = String::new();
    for wait in [&["--wait"][..], &[]] {
        let mut arguments = vec!["run", &path, "-o", "json", "--server", platform.url("platform")];
        arguments.extend(wait);
        let (status, stdout, stderr) = platform.wonder(&arguments).await;
        assert!(status.success(), "{stderr}");
        assert_eq!(keys(&stdout), ["run_id", "status", "output", "error"]);
        let result: Value = serde_json::from_str(&stdout).expect("JSON");
        id = result["run_id"].as_str().expect("an id").to_owned();
    }
    let (status, stdout, stderr) =
        platform.wonder(&["state", &id, "--server", platform.url("platform")]).await;
    assert!(status.success(), "{stderr}");
    assert!(stdout.starts_with("run_id: ") && stdout.contains("\nstate:\n  "), "{stdout}");
}

#[test]
fn development_ends_with_its_demo_and_has_a_folder_of_its_own() {
    let folder = folder();
    let started = Instant::now();
    let output = wonder(&folder).args(["dev", "--exit", "--listen", "127.0.0.1:0"]).output();
    let (code, _, stderr) = done(&output.expect("it starts"));
    assert_eq!(code, Some(0), "{stderr}");
    assert!(started.elapsed() < Duration::from_secs(15), "{:?}", started.elapsed());
    let data = folder.path().join(".local/share/wonder/dev");
    assert!(data.join("journal.db").is_file(), "{stderr}");
    assert!(stderr.contains(&data.display().to_string()), "{stderr}");
}
