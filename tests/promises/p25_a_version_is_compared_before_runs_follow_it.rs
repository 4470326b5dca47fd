//! Promise 25: two versions of a definition are compared, and the runs of the one that have ended
//! are rehearsed by the other: each that would go another way is named, with where first; nothing
//! is written.
//!
//! It fails where a difference of no meaning parts a run, where a run that parts is counted as the
//! same, and where what the comparison was asked for changes by asking.

use serde_json::{Value, json};
use system_tests::{Client, Platform, Setting};

system_tests::in_both_settings!(recorded_runs_are_rehearsed_by_another_version);

const SIZES: [u64; 4] = [5, 15, 25, 35];

/// Small texts are checked in two branches; large ones are only filed.
fn definition(limit: u64) -> Value {
    json!({
        "name": "review", "start": "look",
        "input_schema": {"type": "object"},
        "nodes": {
            "look": {"action": {"use": "look"}, "input": {"size": "${input.size}"},
                     "output": {"state.size": "${result.size}"}},
            "check": {"action": {"kind": "mock", "with": {"result": 1}}},
            "file": {"compute": {"state.filed": true}},
        },
        "transitions": [
            {"from": "look", "to": "check", "when": format!("result.size <= {limit}"),
             "spawn": 2, "group": "checks", "priority": 1},
            {"from": "look", "to": "file", "priority": 2},
            {"from": "check", "to": "file", "join": {"group": "checks",
                "merge": {"strategy": "append", "into": "state.marks"}}},
        ],
        "output": {"size": "${state.size}", "filed": "${state.filed}"},
    })
}

/// The same with a larger limit, another name of the group, another order of the document, and a
/// time-out.
fn raised() -> Value {
    let mut to = definition(20);
    to["transitions"][0]["group"] = json!("looks");
    to["transitions"][2]["join"]["group"] = json!("looks");
    to["transitions"].as_array_mut().expect("transitions").swap(1, 2);
    to["timeout"] = json!("30h");
    to
}

struct Compared {
    client: Client,
    id: String,
    position: u64,
}

impl Compared {
    async fn with(&self, to: u64, runs: u64) -> Value {
        let (id, position) = (&self.id, self.position);
        let query = format!("from=1&to={to}&runs={runs}&min_position={position}");
        self.client.get(&format!("/workflow-definitions/{id}/compare?{query}")).await
    }

    /// With a definition that isn't published.
    async fn with_unpublished(&self, to: &Value) -> Value {
        let path = format!("/workflow-definitions/{}/compare?from=1", self.id);
        self.client.post(&path, to).await.ok()
    }
}

fn told(comparison: &Value) -> [u64; 4] {
    let rehearsal = &comparison["rehearsal"];
    let parted = rehearsal["parted"].as_array().expect("a list").len() as u64;
    let count = |key: &str| rehearsal[key].as_u64().expect("a count");
    [count("runs"), count("same"), count("values"), parted]
}

async fn recorded_runs_are_rehearsed_by_another_version(setting: Setting) {
    let platform = crate::platform_in(setting).await;
    let client = platform.client();
    let projects = client.get("/projects").await;
    let action = json!({"project_id": projects["items"][0]["id"], "name": "look", "action": "mock",
        "with": {"result": {"size": "${input.size}"}}});
    client.post("/actions", &action).await.ok();
    let published = client.publish(&definition(10).to_string()).await;
    let id = published["id"].as_str().expect("an id").to_owned();
    let mut runs = Vec::new();
    for size in SIZES {
        let view = client.run_to_end(&json!("review"), json!({"size": size})).await;
        assert_eq!(view["output"], json!({"size": size, "filed": true}), "{view}");
        runs.push(view["id"].clone());
    }
    assert_eq!(client.publish(&raised().to_string()).await["version"], 2);
    let mut strict = definition(10);
    strict["input_schema"]["properties"] = json!({"size": {"maximum": 30}});
    strict["output"]["size"] = json!("${state.size * 2}");
    assert_eq!(client.publish(&strict.to_string()).await["version"], 3);
    let head = client.head().await;
    let compared = Compared { client: client.clone(), id: id.clone(), position: head };

    let same = compared.with(1, 50).await;
    assert_eq!((told(&same), &same["changes"]), ([4, 4, 0, 0], &json!([])), "{same}");
    assert_eq!(told(&compared.with(2, 0).await), [0, 0, 0, 0]);

    // The second run is checked now; the last one is the newest.
    let raised_limit = compared.with(2, 50).await;
    assert_eq!(told(&raised_limit), [4, 3, 0, 1], "{raised_limit}");
    let parted = &raised_limit["rehearsal"]["parted"][0];
    assert_eq!(parted["run_id"], runs[1]);
    assert_eq!((&parted["kind"], &parted["node"]), (&json!("path"), &json!("look")), "{parted}");
    assert_eq!(parted["recorded"]["fired"][0]["moved"]["node"], "file", "{parted}");
    assert_eq!(parted["decided"]["opened"][0]["branches"][0]["node"], "check", "{parted}");
    let events = client.events(runs[1].as_str().expect("an id")).await;
    let routed = events.iter().find(|event| event["sequence"] == parted["sequence"]);
    assert_eq!(routed.expect("there is such an event")["event_type"], "token_routed");
    let changes = raised_limit["changes"].as_array().expect("a list");
    let when = changes.iter().find(|one| one["pointer"] == "/transitions/0/when");
    let when = when.expect("the condition is named");
    assert_eq!(when["transition"], "look -> check");
    assert_eq!(
        (&when["before"], &when["after"]),
        (&json!("result.size <= 10"), &json!("result.size <= 20"))
    );
    assert_eq!(told(&compared.with(2, 2).await), [2, 2, 0, 0], "the newest ones are the same");

    // Refused, and other values.
    let stricter = compared.with(3, 50).await;
    assert_eq!(told(&stricter), [4, 0, 3, 4], "{stricter}");
    let parted = stricter["rehearsal"]["parted"].as_array().expect("a list");
    let kinds: Vec<_> = parted.iter().map(|one| one["kind"].as_str().expect("a kind")).collect();
    assert_eq!(kinds, ["refused", "values", "values", "values"]);
    assert_eq!(parted[0]["problems"][0]["pointer"], "/size", "{}", parted[0]);
    assert_eq!(parted[3]["decided"]["output"]["size"], 10, "{}", parted[3]);

    // What isn't published, and what refers to something that isn't there.
    assert_eq!(told(&compared.with_unpublished(&raised()).await), [4, 3, 0, 1]);
    let mut to = definition(10);
    to["nodes"]["check"]["action"] = json!({"use": "gone"});
    let gone = compared.with_unpublished(&to).await;
    assert_eq!(told(&gone), [0, 0, 0, 0]);
    assert_eq!(gone["rehearsal"]["not_rehearsed"].as_array().map(Vec::len), Some(4), "{gone}");

    by_command_line(&platform).await;
    refusals(&client, &id).await;
    assert_eq!(client.head().await, head, "nothing was written");
}

async fn by_command_line(platform: &Platform) {
    let server = platform.gateway();
    let file = platform.data_dir().with_file_name("review.yaml");
    std::fs::write(&file, raised().to_string()).expect("a file can be written");
    let file = file.to_str().expect("a path that is text");
    let named = ["compare", "review", "--server", server, "--from", "1"];
    let (status, out, talk) =
        platform.wonder(&[&named[..], &["--to", "2", "-o", "json"]].concat()).await;
    assert!(status.success(), "{out}{talk}");
    let shown: Value = serde_json::from_str(&out).expect("it is JSON");
    assert_eq!(told(&shown), [4, 3, 0, 1]);
    let (status, out, talk) =
        platform.wonder(&[&named[..], &["--to", file, "--check"]].concat()).await;
    assert_eq!(status.code(), Some(1), "{out}{talk}");
    assert!(out.contains("look -> check") && out.contains("token_routed"), "{out}");
    assert!(talk.contains("4 runs rehearsed: 3 the same"), "{talk}");
}

async fn refusals(client: &Client, id: &str) {
    for (query, status, code) in [
        ("to=2", 400, "invalid_parameter"),
        ("from=1", 400, "invalid_parameter"),
        ("from=0&to=1", 400, "invalid_parameter"),
        ("from=1&to=2&runs=501", 400, "invalid_parameter"),
        ("from=1&to=9", 404, "not_found"),
    ] {
        let path = format!("/workflow-definitions/{id}/compare?{query}");
        let answer = client.send(client.request(reqwest::Method::GET, &path)).await;
        let answer = answer.expect("the platform answers");
        assert_eq!((answer.status, answer.code()), (status, code), "{query}: {}", answer.text);
    }
}
