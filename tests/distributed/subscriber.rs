//! Subscribers in another language, with public clients: `examples/subscriber`, and a reader that has
//! public libraries say whether what it gets is what it should be.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Output;

use serde_json::{Value, json};
use system_tests::{Setting, within, workflows};
use tokio::process::Command;

fn example() -> PathBuf {
    let tree = Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the package stands in it");
    tree.join("examples/subscriber")
}

async fn python(arguments: &[&str], packages: &Path) -> Output {
    let mut command = Command::new("python3");
    command.args(arguments).env("PYTHONPATH", packages).kill_on_drop(true);
    within("python3", command.output()).await.expect("python3 can be started")
}

fn talk(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// The packages that a program asks for, installed once for this tree.
async fn packages(program: &Path, name: &str, imports: &str) -> PathBuf {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
    if !python(&["-c", imports], &folder).await.status.success() {
        let asked = program.join("requirements.txt").display().to_string();
        let target = folder.display().to_string();
        let install = ["-m", "pip", "install", "--quiet", "--target", &target, "-r", &asked];
        let installed = python(&install, &folder).await;
        assert!(installed.status.success(), "pip: {}", talk(&installed));
    }
    folder
}

#[tokio::test(flavor = "multi_thread")]
async fn a_subscriber_in_python_gets_every_event_in_order_over_a_restart() {
    let packages = packages(&example(), "nats-py", "import nats").await;
    let mut platform = crate::platform(Setting::Distributed).await;
    let client = platform.client();
    for n in 0..3 {
        client.run_to_end(&workflows::sequence("subscribed", 4), json!({"n": n})).await;
    }
    let events = client.get("/events?limit=1000").await;
    let events = events["items"].as_array().expect("a list").clone();
    let last = events.last().expect("there are events")["position"].to_string();

    let program = example().join("subscriber.py").display().to_string();
    let server = platform.nats().url();
    let begin = [&program, "--server", &server, "--json", "--timeout", "50"];
    let mut got: Vec<Value> = Vec::new();
    // The server keeps its place.
    for end in [["--count", "7"], ["--until-position", &last]] {
        let arguments: Vec<&str> = begin.iter().copied().chain(end).collect();
        let output = python(&arguments, &packages).await;
        assert!(output.status.success(), "{}", talk(&output));
        let lines = String::from_utf8(output.stdout).expect("it prints text");
        got.extend(lines.lines().map(|line| serde_json::from_str(line).expect("JSON")));
    }
    let positions: Vec<u64> = got
        .iter()
        .map(|event| event["position"].as_str().expect("a text").parse().expect("a number"))
        .collect();
    assert!(positions.iter().copied().eq(1..=last.parse().expect("a number")), "{positions:?}");
    // What it got is what the API shows.
    let by_position: BTreeMap<String, &Value> = got
        .iter()
        .map(|event| (event["position"].as_str().expect("a text").to_owned(), event))
        .collect();
    for event in &events {
        let outside = by_position[&event["position"].to_string()];
        assert_eq!(outside["id"], event["id"]);
        assert_eq!(outside["subject"], event["aggregate_id"]);
        let named = format!(
            "wonder.{}.{}",
            event["aggregate_type"].as_str().expect("a text"),
            event["event_type"].as_str().expect("a text")
        );
        assert_eq!((&outside["type"], &outside["data"]), (&json!(named), &event["payload"]));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn public_libraries_read_the_events_as_what_they_are() {
    let program = Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the tree");
    let program = program.join("tests/distributed/reader");
    let imports = "import cloudevents.core, nats, sseclient";
    let packages = packages(&program, "public-clients", imports).await;
    let mut platform = crate::platform(Setting::Distributed).await;
    let client = platform.client();
    client.run_to_end(&workflows::sequence("read", 4), json!({"n": 1})).await;
    let events = client.all_events().await;
    let last = events.last().expect("there are events")["position"].to_string();

    let script = program.join("reader.py").display().to_string();
    let read = async |way: &str, url: &str| {
        let output = python(&[&script, way, url, &last], &packages).await;
        assert!(output.status.success(), "{way}: {}", talk(&output));
        serde_json::from_slice::<Vec<Value>>(&output.stdout).expect("JSON")
    };
    let url = platform.nats().url();
    let outside = read("nats", &url).await;
    let stream = format!("{}/api/v1/events", platform.gateway());
    let sent = read("sse", &stream).await;
    assert_eq!((outside.len(), sent.len()), (events.len(), events.len()));
    for ((event, outside), sent) in events.iter().zip(&outside).zip(&sent) {
        assert_eq!((&outside["id"], &outside["specversion"]), (&event["id"], &json!("1.0")));
        assert_eq!(
            (&outside["position"], &outside["data"]),
            (&event["position"], &event["payload"])
        );
        assert_eq!((&sent["event"], &sent["data"]), (&event["event_type"], event));
    }
    platform.stop().await;
}
