//! What comes in is limited, and what is refused says where.

use axum::body::Body;
use protocol::{RunStatus, WaitKind};
use serde_json::json;

use crate::fakes::{Client, run_id};

const JSON: (&str, &str) = ("content-type", "application/json");

async fn refused(client: &Client, path: &str, body: impl Into<Body>) -> (u16, String, String) {
    let answer = client.post(path, body).await;
    let pointer = answer.json()["pointer"].as_str().unwrap_or_default().to_owned();
    (answer.status.as_u16(), answer.code(), pointer)
}

fn is(status: u16, code: &str, pointer: &str) -> (u16, String, String) {
    (status, code.to_owned(), pointer.to_owned())
}

#[tokio::test]
async fn bad_bodies_are_refused_with_their_place_and_nothing_is_written() {
    let client = Client::dev();
    let start = "/api/v1/runs";
    let huge = "x".repeat(10_000_000);
    let deep = format!(r#"{{"definition":"d","input":{}"#, "[".repeat(10_000));
    assert_eq!(refused(&client, start, huge.clone()).await, is(413, "body_too_large", ""));
    assert_eq!(refused(&client, start, deep).await.1, "json_too_deep");
    let nul = r#"{"definition":"d","input":{"a":["\u0000"]}}"#;
    assert_eq!(refused(&client, start, nul).await, is(400, "nul_character", "/input/a/0"));
    let lone = r#"{"definition":"d","input":"\ud800"}"#;
    assert_eq!(refused(&client, start, lone).await, is(400, "lone_surrogate", "/input"));
    let project = "/api/v1/projects";
    assert_eq!(refused(&client, project, huge).await.0, 413);
    assert_eq!(refused(&client, project, "{").await.1, "invalid_json");
    assert_eq!(refused(&client, project, "").await.1, "invalid_json");
    let typed = r#"{"name":"a","limits":{"tasks_in_flight_per_run":"many"}}"#;
    let place = "/limits/tasks_in_flight_per_run";
    assert_eq!(refused(&client, project, typed).await, is(422, "invalid_body", place));
    assert_eq!(refused(&client, project, r#"{"name":""}"#).await, is(422, "invalid_body", "/name"));
    let labels = json!({"definition": "d", "labels": {"a=b": "c"}}).to_string();
    assert_eq!(refused(&client, start, labels).await, is(422, "invalid_body", "/labels/a=b"));
    assert!(client.world.commands.lock().expect("lock").is_empty());
}

#[tokio::test]
async fn a_body_without_announced_length_is_cut_off_too() {
    let client = Client::dev();
    let chunks = (0..200).map(|_| Ok::<_, std::io::Error>(vec![b' '; 100_000]));
    let body = Body::from_stream(futures::stream::iter(chunks));
    assert_eq!(refused(&client, "/api/v1/runs", body).await.1, "body_too_large");
    let chunks = (0..2).map(|_| Ok::<_, std::io::Error>(vec![b' '; 10]));
    let body = Body::from_stream(futures::stream::iter(chunks));
    let path = format!("/api/v1/projects/{}", domain::ids::ProjectId::derived("", "x"));
    assert_eq!(client.call("DELETE", &path, &[], body).await.status, 413);
}

#[tokio::test]
async fn other_content_types_are_refused() {
    let client = Client::dev();
    for media in ["text/plain", "application/x-www-form-urlencoded", "application/yaml"] {
        let headers = [("content-type", media)];
        let answer = client.call("POST", "/api/v1/projects", &headers, r#"{"name":"a"}"#).await;
        assert_eq!(
            (answer.status.as_u16(), answer.code().as_str()),
            (415, "unsupported_media_type")
        );
    }
    let charset = [("content-type", "Application/JSON; charset=utf-8")];
    let answer = client.call("POST", "/api/v1/projects", &charset, r#"{"name":"a"}"#).await;
    assert_eq!(answer.status, 201);
}

const DEFINITION: &str = "name: demo\nstart: a\nnodes:\n  a:\n    compute:\n      state.x: 1\n";

#[tokio::test]
async fn definitions_are_checked_and_published_from_yaml() {
    let client = Client::dev();
    let yaml = [("content-type", "application/yaml")];
    let check = "/api/v1/workflow-definitions/validate";
    let fine = client.call("POST", check, &yaml, DEFINITION).await;
    assert_eq!(fine.json(), json!({"valid": true, "problems": []}));
    let wrong = DEFINITION.replace("start: a", "strat: a");
    let found = client.call("POST", check, &yaml, wrong.clone()).await;
    assert_eq!((found.status.as_u16(), &found.json()["valid"]), (200, &json!(false)));
    let nul = DEFINITION.replace("state.x: 1", r#"state.x: "a\0""#);
    let nul = client.call("POST", check, &yaml, nul).await;
    let problem = &nul.json()["problems"][0];
    assert_eq!(problem["pointer"], "/nodes/a/compute/state.x", "{problem}");
    let path = "/api/v1/workflow-definitions";
    let refused = client.call("POST", path, &yaml, wrong).await;
    assert_eq!((refused.status.as_u16(), refused.code().as_str()), (422, "invalid_definition"));
    let answer = client.call("POST", path, &yaml, DEFINITION).await;
    let body = answer.json();
    assert_eq!(
        (answer.status.as_u16(), &body["name"], &body["version"]),
        (201, &json!("demo"), &json!(1))
    );
    assert_eq!(body["hash"].as_str().map(str::len), Some(64));
    let schema = client.get("/api/v1/workflow-definitions/schema").await;
    assert!(schema.json().is_object());
}

#[tokio::test]
async fn lists_pass_their_page_and_filters_on_and_refuse_others() {
    let client = Client::dev();
    let path = "/api/v1/runs?status=failed,running&status=completed&label=a%3Db&limit=200&cursor=c\
                &min_position=9&started_after=2026-01-31T12:00:00Z&q=x";
    assert_eq!(client.get(path).await.status, 200);
    let page = client.world.pages.lock().expect("lock").pop().expect("a page");
    assert_eq!((page.limit, page.cursor.as_deref(), page.min_position), (200, Some("c"), Some(9)));
    let filter = client.world.filters.lock().expect("lock").pop().expect("a filter");
    assert_eq!((filter.status.len(), filter.labels.len()), (3, 1));
    let parent = crate::fakes::run_id().to_string();
    assert_eq!(client.get(&format!("/api/v1/runs?parent={parent}")).await.status, 200);
    let filter = client.world.filters.lock().expect("lock").pop().expect("a filter");
    assert_eq!(filter.parent, Some(parent));
    for (query, code) in [
        ("limit=0", "invalid_parameter"),
        ("limit=201", "invalid_parameter"),
        ("limit=x", "invalid_parameter"),
        ("cursor=", "invalid_parameter"),
        ("status=done", "invalid_parameter"),
        ("label=x", "invalid_parameter"),
        ("parent=wf_1", "invalid_parameter"),
        ("started_after=yesterday", "invalid_parameter"),
        ("limit=-1", "invalid_parameter"),
        ("limit=1&limit=2", "invalid_parameter"),
        ("q=a&limit=1&q=a", "invalid_parameter"),
        ("min_position=-1", "invalid_parameter"),
        ("waiting_on=worker", "invalid_parameter"),
        ("as_of=12", "invalid_parameter"),
        ("stauts=failed", "unknown_parameter"),
    ] {
        let answer = client.get(&format!("/api/v1/runs?{query}")).await;
        assert_eq!((answer.status.as_u16(), answer.code()), (400, code.to_owned()), "{query}");
    }
    let path = "/api/v1/runs?status=waiting&waiting_on=gate,timer&waiting_on=task\
                &as_of=2026-01-31T12:00:00%2B01:00";
    assert_eq!(client.get(path).await.status, 200);
    let filter = client.world.filters.lock().expect("lock").pop().expect("a filter");
    assert_eq!(filter.status, [RunStatus::Waiting]);
    assert_eq!(filter.waiting_on, [WaitKind::Gate, WaitKind::Timer, WaitKind::Task]);
    assert_eq!(filter.as_of.map(|at| at.timestamp()), Some(1_769_857_200));
    assert_eq!(client.get("/api/v1/projects").await.json()["next_cursor"], "next");
}

#[tokio::test]
async fn a_state_is_asked_by_sequence_or_time() {
    let client = Client::dev();
    let path = format!("/api/v1/runs/{}/state", run_id());
    let at = async |query: &str| client.get(&format!("{path}{query}")).await;
    assert_eq!(at("").await.json()["state"]["at"], "Latest");
    assert_eq!(at("?at=4").await.json()["state"]["at"], "Sequence(4)");
    assert!(at("?at=2026-01-31T12:00:00Z").await.text.contains("Time(2026-01-31"));
    for wrong in ["soon", "-1", "1.5", ""] {
        let refused = at(&format!("?at={wrong}")).await;
        assert_eq!(refused.code(), "invalid_parameter");
        let detail = refused.json()["detail"].to_string();
        assert!(detail.contains("sequence") && detail.contains("rfc 3339"), "{detail}");
    }
}

#[tokio::test]
async fn unknown_paths_methods_and_ids_are_problems() {
    let client = Client::dev();
    assert_eq!(client.get("/api/v2/runs").await.code(), "not_found");
    let method = client.call("PUT", "/api/v1/runs", &[JSON], "{}").await;
    assert_eq!((method.status.as_u16(), method.code().as_str()), (405, "method_not_allowed"));
    assert!(!method.header("allow").is_empty());
    assert_eq!(client.get("/api/v1/runs/run_x").await.code(), "not_found");
    let other = format!("/api/v1/projects/{}", run_id());
    assert_eq!(client.get(&other).await.code(), "not_found");
}

const MAGIC: &str = "$serde_json::private::RawValue";

#[tokio::test]
async fn keys_of_the_json_library_are_refused_in_every_body() {
    let client = Client::dev();
    let magic = format!(r#"{{"{MAGIC}":"\"\\u0000\""}}"#);
    let start = "/api/v1/runs";
    for (path, body, pointer) in [
        (start, format!(r#"{{"definition":"d","input":{{"v":{magic}}}}}"#), "/input/v"),
        (start, format!(r#"{{"definition":"d","labels":{magic}}}"#), "/labels"),
        (start, format!(r#"{{"definition":{{"name":{magic}}}}}"#), "/definition/name"),
        ("/api/v1/projects", magic.clone(), ""),
        ("/api/v1/workflow-definitions", magic.clone(), ""),
        ("/api/v1/workflow-definitions/validate", magic.clone(), ""),
    ] {
        let place = format!("{pointer}/{MAGIC}");
        assert_eq!(refused(&client, path, body).await, is(400, "reserved_key", &place), "{path}");
    }
    let project = format!("/api/v1/projects/{}", domain::ids::ProjectId::derived("", "x"));
    let patch = client.call("PATCH", &project, &[JSON], format!(r#"{{"limits":{magic}}}"#)).await;
    assert_eq!(patch.code(), "reserved_key");
    for media in ["application/yaml", "application/json"] {
        let headers = [("content-type", media)];
        let value = format!("state.x: {{'{MAGIC}': '1'}}");
        let yaml = DEFINITION.replace("state.x: 1", &value);
        let answer = client.call("POST", "/api/v1/workflow-definitions", &headers, yaml).await;
        assert_eq!(answer.code(), "invalid_definition");
        let found = &answer.json()["errors"][0];
        assert_eq!(found["pointer"], format!("/nodes/a/compute/state.x/{MAGIC}"));
    }
    assert!(client.world.commands.lock().expect("lock").is_empty());
}

#[tokio::test]
async fn labels_have_plain_keys_and_visible_values() {
    let client = Client::dev();
    for (key, value) in [
        ("", "v"),
        ("a b", "v"),
        ("a\u{7f}", "v"),
        ("ä", "v"),
        (&"k".repeat(65), "v"),
        ("k", "a\nb"),
        ("k", &"v".repeat(257)),
    ] {
        let body = json!({"definition": "d", "labels": {key: value}}).to_string();
        let place = format!("/labels/{key}");
        let found = refused(&client, "/api/v1/runs", body).await;
        assert_eq!(found, is(422, "invalid_body", &place));
    }
    let labels =
        json!({"app.kubernetes.io/name_-0": "größer 1", "empty": "", "k": "v".repeat(256)});
    let body = json!({"definition": "d", "labels": labels}).to_string();
    assert_eq!(client.post("/api/v1/runs", body).await.status, 201);
}

#[tokio::test]
async fn a_list_is_no_body_and_types_have_plain_names() {
    let client = Client::dev();
    let key = r#"["evil",["read"],null]"#;
    assert_eq!(refused(&client, "/api/v1/api-keys", key).await, is(422, "invalid_body", ""));
    let typed = client.post("/api/v1/projects", r#"{"name":"a","limits":5}"#).await.text;
    assert!(typed.contains("expected an object") && !typed.contains("struct"), "{typed}");
    assert!(client.world.commands.lock().expect("lock").is_empty());
}

#[tokio::test]
async fn a_compressed_body_is_refused_by_name() {
    let client = Client::dev();
    for (encoding, status) in [("gzip", 415), ("identity, br", 415), ("Identity", 201)] {
        let headers = [JSON, ("content-encoding", encoding)];
        let answer = client.call("POST", "/api/v1/projects", &headers, r#"{"name":"a"}"#).await;
        assert_eq!(answer.status, status, "{encoding}");
        assert_eq!(status == 415, answer.text.contains("content-encoding"));
    }
}
