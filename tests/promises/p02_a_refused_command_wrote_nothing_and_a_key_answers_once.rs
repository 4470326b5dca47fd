//! Promise 02: a command answered 4xx wrote nothing; the same `Idempotency-Key` gives the same
//! answer, and with another body 422.
//!
//! It fails where the inbox row isn't part of the append (concurrent and cut-off repetitions start
//! a second run), where the fingerprint isn't compared, and where anything is appended before the
//! last check of a command.

use reqwest::Method;
use serde_json::{Value, json};
use system_tests::{Answer, Client, Pace, Setting, workflows};
use tokio::task::JoinSet;

system_tests::in_both_settings!(
    a_key_gives_the_same_answer_also_after_a_kill_and_refuses_another_body,
    repetitions_at_the_same_time_start_one_run,
    a_command_whose_answer_was_cut_off_is_found_by_its_key,
    a_refused_command_wrote_nothing,
    the_inline_definition_of_a_refused_run_was_not_published,
);

/// Repetitions that run at the same time.
const AT_ONCE: usize = 16;
/// Answers that are cut off.
const CUT_OFF: u64 = 25;

async fn keyed(client: &Client, path: &str, key: &str, body: &Value) -> Answer {
    let request = client.request(Method::POST, path).header("idempotency-key", key).json(body);
    client.send(request).await.expect("the platform answers")
}

fn run_of(answer: Answer) -> String {
    answer.ok()["id"].as_str().expect("a run's id").to_owned()
}

async fn a_key_gives_the_same_answer_also_after_a_kill_and_refuses_another_body(setting: Setting) {
    let mut platform = crate::platform_in(setting).await;
    let client = platform.client();
    client.post("/workflow-definitions", &workflows::sequence("p02", 2)).await.ok();
    client
        .post("/workflow-definitions", &workflows::fan_out("p02-computes-first", "10m"))
        .await
        .ok();
    let asked = [
        ("/projects".to_owned(), json!({"name": "p02"})),
        ("/runs".to_owned(), json!({"definition": "p02", "input": {"n": 1}})),
        ("/runs".to_owned(), json!({"definition": "p02-computes-first", "input": {"items": [1]}})),
    ];
    let mut asked = Vec::from(asked);
    let mut first = Vec::new();
    for number in 0..4 {
        if number == 3 {
            let run_id: &Value = &first[2];
            let run_id = run_id["id"].as_str().expect("a run's id");
            asked.push((format!("/runs/{run_id}/cancel"), json!({"reason": "enough"})));
        }
        let (path, body) = &asked[number];
        first.push(keyed(&client, path, &format!("key-{number}"), body).await.ok());
    }
    client.end_of(first[1]["id"].as_str().expect("a run's id")).await;
    let head = client.written().await;

    for restart in [false, true] {
        if restart {
            platform.restart().await;
        }
        for (number, (path, body)) in asked.iter().enumerate() {
            let key = format!("key-{number}");
            let again = keyed(&client, path, &key, body).await.ok();
            for field in ["id", "version", "position", "created", "at"] {
                assert_eq!(again[field], first[number][field], "{field} of {path} repeated");
            }
            let other = json!({"definition": "p02", "input": {"n": 2}});
            let refused = keyed(&client, "/runs", &key, &other).await;
            assert_eq!((refused.status, refused.code()), (422, "idempotency_key_reused"), "{path}");
        }
        assert_eq!(client.written().await, head, "repetitions wrote something");
    }
}

async fn repetitions_at_the_same_time_start_one_run(setting: Setting) {
    let mut platform = crate::platform_in(setting).await;
    let client = platform.client();
    client.post("/workflow-definitions", &workflows::sequence("p02", 1)).await.ok();
    for round in 0..10 {
        let mut asked = JoinSet::new();
        for _ in 0..AT_ONCE {
            let client = client.clone();
            asked.spawn(async move {
                let body = json!({"definition": "p02", "input": {"n": round}});
                keyed(&client, "/runs", &format!("round-{round}"), &body).await
            });
        }
        let mut runs: Vec<String> = asked.join_all().await.into_iter().map(run_of).collect();
        runs.dedup();
        assert_eq!(runs.len(), 1, "round {round} started several runs");
    }
    platform.stop().await;
    let records = platform.records().await;
    records.check();
    assert_eq!(records.run_ids().len(), 10);
}

async fn a_command_whose_answer_was_cut_off_is_found_by_its_key(setting: Setting) {
    let mut platform = crate::platform_in(setting).await;
    let client = platform.client();
    client.post("/workflow-definitions", &workflows::sequence("p02", 1)).await.ok();
    let mut pace = Pace::new(2);
    for number in 0..CUT_OFF {
        let (key, body) =
            (format!("cut-{number}"), json!({"definition": "p02", "input": {"n": 1}}));
        let unread = client.post_unread("/runs", &key, &body).await;
        if number > 5 {
            pace.pause(12).await;
        }
        drop(unread);
        run_of(keyed(&client, "/runs", &key, &body).await);
    }
    // A request that was cut off may still be on its way when its repetition is answered.
    client.all_ended().await;
    platform.stop().await;
    let records = platform.records().await;
    records.check();
    assert_eq!(records.run_ids().len() as u64, CUT_OFF);
}

/// A command that must be refused: method, path, body, `If-Match`, and the status it gets.
type Refused = (Method, String, Value, Option<&'static str>, u16);

fn post(path: &str, body: Value, status: u16) -> Refused {
    (Method::POST, path.to_owned(), body, None, status)
}

/// A platform with a definition that checks its input, a project, a workflow and an ended run.
struct World {
    client: Client,
    project: String,
    workflow: String,
    ended: String,
}

impl World {
    async fn new(client: Client) -> Self {
        let mut checked = workflows::sequence("p02-checked", 1);
        checked["input_schema"] = json!({"type": "object", "required": ["n"]});
        let definition = client.post("/workflow-definitions", &checked).await.ok();
        let project = client.post("/projects", &json!({"name": "p02"})).await.ok();
        let projects = client.get("/projects?name=default").await;
        let project_id = &projects["items"][0]["id"];
        let workflow =
            json!({"name": "p02", "project_id": project_id, "definition_id": definition["id"]});
        let workflow = client.post("/workflows", &workflow).await.ok();
        let ended = client.run_to_end(&json!("p02-checked"), json!({"n": 1})).await;
        let id = |value: &Value| value["id"].as_str().expect("an id").to_owned();
        Self { project: id(&project), workflow: id(&workflow), ended: id(&ended), client }
    }

    /// Sends commands that are refused; none may write anything but that it was refused.
    async fn check(&self, refused: Vec<Refused>) {
        let head = self.client.written().await;
        for (method, path, body, if_match, status) in refused {
            let mut request = self.client.request(method.clone(), &path);
            if !body.is_null() {
                request = request.json(&body);
            }
            if let Some(version) = if_match {
                request = request.header("if-match", version);
            }
            let answer = self.client.send(request).await.expect("the platform answers");
            assert!(!answer.code().is_empty(), "{method} {path}: {}", answer.text);
            assert_eq!(answer.status, status, "{method} {path} {body}: {}", answer.text);
            let now = self.client.written().await;
            assert_eq!(now, head, "{method} {path} {body} wrote something");
        }
    }
}

async fn a_refused_command_wrote_nothing(setting: Setting) {
    let platform = crate::platform_in(setting).await;
    let world = World::new(platform.client()).await;
    let mut broken = workflows::sequence("p02-broken", 1);
    broken["start"] = json!("nowhere");
    let World { project, workflow, ended, .. } = &world;
    let project = format!("/projects/{project}");
    let nobody = "/projects/prj_00000000000000000000000000".to_owned();
    world
        .check(vec![
            post("/runs", json!({"definition": "no-such-definition"}), 422),
            post("/runs", json!({"definition": "p02-checked", "input": {}}), 422),
            post("/runs", json!({"definition": broken, "input": {"n": 1}}), 422),
            post("/runs", json!({"definition": "p02-checked", "inptu": {"n": 1}}), 422),
            post("/workflow-definitions", broken, 422),
            post("/projects", json!({"name": "p02"}), 409),
            post("/projects", json!({"name": "not a name"}), 422),
            post("/workflows/wf_00000000000000000000000000/runs", json!({}), 404),
            post(&format!("/workflows/{workflow}/runs"), json!({"input": {}}), 422),
            post(&format!("/runs/{ended}/cancel"), json!({}), 409),
            (Method::PATCH, project.clone(), json!({"description": "x"}), Some("\"99\""), 412),
            (Method::PATCH, project, json!({"nonsense": 1}), None, 422),
            (Method::DELETE, nobody, Value::Null, None, 404),
        ])
        .await;
}

async fn the_inline_definition_of_a_refused_run_was_not_published(setting: Setting) {
    let platform = crate::platform_in(setting).await;
    let world = World::new(platform.client()).await;
    let mut strict = workflows::sequence("p02-strict", 1);
    strict["input_schema"] = json!({"type": "object", "required": ["n"]});
    let mut dangling = workflows::sequence("p02-dangling", 1);
    dangling["nodes"]["t0"]["action"] = json!({"use": "no-such-action"});
    world
        .check(vec![
            post("/runs", json!({"definition": strict, "input": {}}), 422),
            post("/runs", json!({"definition": dangling, "input": {"n": 1}}), 422),
        ])
        .await;
}
