//! Commands: what reaches the write side, and what its answers look like.

use protocol::{Command, Rejection, RejectionKind, RunOutcome, RunStatus, RunTarget, Usage};
use serde_json::json;

use crate::fakes::{Client, run_id, start_time};

const JSON: (&str, &str) = ("content-type", "application/json");

#[tokio::test]
async fn a_creation_answers_where_the_thing_is_and_at_which_position() {
    let client = Client::dev();
    let answer = client.post("/api/v1/projects", r#"{"name":"papers"}"#).await;
    let body = answer.json();
    assert_eq!((answer.status.as_u16(), &body["position"]), (201, &json!(17)));
    let id = body["id"].as_str().expect("an id");
    assert_eq!(answer.header("location"), format!("/api/v1/projects/{id}"));
    assert_eq!(answer.header("etag"), "\"1\"");
    assert_eq!(client.last_command().actor.0, "dev");
}

#[tokio::test]
async fn headers_of_writes_reach_the_command() {
    let client = Client::dev();
    let parent = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
    let headers =
        [JSON, ("idempotency-key", "k1"), ("if-match", "\"17\""), ("traceparent", parent)];
    let path = format!("/api/v1/runs/{}/cancel", run_id());
    let answer = client.call("POST", &path, &headers, r#"{"reason":"x"}"#).await;
    assert_eq!(answer.header("x-request-id"), "4bf92f3577b34da6a3ce929d0e0e4736");
    let first = client.last_command();
    assert_eq!((first.idempotency_key.as_deref(), first.expected_version), (Some("k1"), Some(17)));
    assert!(
        first.traceparent.is_some_and(|trace| trace.contains("4bf92f3577b34da6a3ce929d0e0e4736"))
    );
    client.call("POST", &path, &headers, r#"{"reason":"y"}"#).await;
    let second = client.last_command();
    assert!(first.fingerprint.is_some() && first.fingerprint != second.fingerprint);
}

#[tokio::test]
async fn headers_that_cannot_be_read_are_refused() {
    let client = Client::dev();
    let path = format!("/api/v1/runs/{}/cancel", run_id());
    let long = "k".repeat(256);
    for (name, value) in [
        ("idempotency-key", long.as_str()),
        ("idempotency-key", "a b"),
        ("if-match", "17"),
        ("if-match", "W/\"1\""),
        ("if-match", "*"),
    ] {
        let answer = client.call("POST", &path, &[(name, value)], "").await;
        assert_eq!(
            (answer.status.as_u16(), answer.code().as_str()),
            (400, "invalid_header"),
            "{name}"
        );
    }
    let path = format!("/api/v1/runs/{}", run_id());
    let waits = client.call("GET", &path, &[("prefer", "wait=61")], "").await;
    assert_eq!(waits.code(), "invalid_header");
}

#[tokio::test]
async fn a_run_starts_by_name_inline_and_by_workflow() {
    let client = Client::dev();
    let answer = client.post("/api/v1/runs", r#"{"definition":"demo@2","input":{"a":1}}"#).await;
    assert_eq!((answer.status.as_u16(), &answer.json()["status"]), (201, &json!("running")));
    let Command::StartRun(start) = client.last_command().command else { panic!("a start") };
    assert!(matches!(start.target, RunTarget::Named { reference, .. } if reference == "demo@2"));
    assert_eq!(start.input, json!({"a": 1}));
    let workflow = domain::ids::WorkflowId::derived("", "w");
    client.post(&format!("/api/v1/workflows/{workflow}/runs"), "{}").await;
    let Command::StartRun(start) = client.last_command().command else { panic!("a start") };
    assert_eq!((start.target, start.input), (RunTarget::Workflow(workflow), json!({})));
    let bad = client.post("/api/v1/runs", r#"{"definition":{"name":"x"}}"#).await;
    assert_eq!((bad.status.as_u16(), bad.code().as_str()), (422, "invalid_definition"));
    assert!(
        bad.json()["errors"][0]["pointer"].as_str().is_some_and(|p| p.starts_with("/definition"))
    );
}

fn outcome() -> RunOutcome {
    RunOutcome {
        status: RunStatus::Completed,
        output: Some(json!(42)),
        error: None,
        usage: Usage::default(),
        sequence: 9,
        position: 90,
        ended_at: start_time(),
    }
}

#[tokio::test]
async fn a_read_that_waits_has_all_its_time_for_a_read_model_that_is_behind() {
    let client = Client::dev();
    *client.world.outcome.lock().expect("lock") = Some(outcome());
    let path = format!("/api/v1/runs/{}", run_id());
    let waits = [("prefer", "wait=1")];
    let behind = |reads| *client.world.behind.lock().expect("lock") = reads;
    behind(3);
    let answer = client.call("GET", &path, &waits, "").await;
    assert_eq!((answer.status.as_u16(), answer.header("preference-applied")), (200, "wait=1"));
    assert_eq!(*client.world.behind.lock().expect("lock"), 0, "it was asked until it was there");

    behind(u32::MAX);
    let as_it_is = client.call("GET", &path, &waits, "").await;
    assert_eq!(as_it_is.status, 200);
    let own = client.call("GET", &format!("{path}?min_position=90"), &waits, "").await;
    assert_eq!((own.status.as_u16(), own.code().as_str()), (503, "position_not_reached"));
}

#[tokio::test]
async fn a_start_that_waits_answers_with_the_outcome() {
    let client = Client::dev();
    *client.world.outcome.lock().expect("lock") = Some(outcome());
    let body = r#"{"definition":"demo"}"#;
    let answer = client.call("POST", "/api/v1/runs", &[JSON, ("prefer", "wait=5")], body).await;
    let run = answer.json();
    assert_eq!((answer.status.as_u16(), answer.header("preference-applied")), (201, "wait=5"));
    assert_eq!(
        (&run["status"], &run["output"], &run["position"]),
        (&json!("completed"), &json!(42), &json!(90))
    );
    let plain = client.post("/api/v1/runs", body).await.json();
    assert_eq!(plain.get("output"), None);
}

#[tokio::test]
async fn each_kind_of_refusal_has_its_status() {
    let client = Client::dev();
    for (kind, status) in [
        (RejectionKind::Malformed, 400),
        (RejectionKind::Unauthenticated, 401),
        (RejectionKind::Forbidden, 403),
        (RejectionKind::NotFound, 404),
        (RejectionKind::Conflict, 409),
        (RejectionKind::Gone, 410),
        (RejectionKind::PreconditionFailed, 412),
        (RejectionKind::TooLarge, 413),
        (RejectionKind::Invalid, 422),
        (RejectionKind::Overloaded, 429),
        (RejectionKind::Internal, 500),
        (RejectionKind::Unavailable, 503),
    ] {
        let refusal = Rejection::new(kind, "some_code", "no such host db-7").at("/name");
        *client.world.refuse.lock().expect("lock") = Some(refusal);
        let answer = client.post("/api/v1/projects", r#"{"name":"a"}"#).await;
        assert_eq!(answer.status.as_u16(), status);
        let internal = kind == RejectionKind::Internal;
        assert_eq!(answer.code(), if internal { "internal" } else { "some_code" });
        assert_eq!(answer.text.contains("db-7"), !internal);
        assert_eq!(!answer.header("retry-after").is_empty(), matches!(status, 429 | 503));
    }
}

#[tokio::test]
async fn a_defect_answers_500_and_the_next_request_works() {
    let client = Client::dev();
    *client.world.panics.lock().expect("lock") = true;
    let answer = client.post("/api/v1/projects", r#"{"name":"a"}"#).await;
    assert_eq!((answer.status.as_u16(), answer.code().as_str()), (500, "internal"));
    *client.world.panics.lock().expect("lock") = false;
    assert_eq!(client.post("/api/v1/projects", r#"{"name":"a"}"#).await.status, 201);
}

#[tokio::test]
async fn patches_and_archivings_name_the_resource() {
    let client = Client::dev();
    let id = domain::ids::ProjectId::derived("", "p").to_string();
    let path = format!("/api/v1/projects/{id}");
    let media = [("content-type", "application/merge-patch+json")];
    let answer = client.call("PATCH", &path, &media, r#"{"description":null}"#).await;
    assert_eq!(answer.status, 200);
    let Command::Revise { patch, .. } = client.last_command().command else { panic!("a patch") };
    assert_eq!(patch, json!({"description": null}));
    assert_eq!(client.call("PATCH", &path, &media, "[]").await.code(), "invalid_body");
    assert_eq!(client.call("DELETE", &path, &[], "").await.status, 200);
    let Command::Archive { id: archived, .. } = client.last_command().command else {
        panic!("an archiving")
    };
    assert_eq!(archived, id);
}

#[tokio::test]
async fn a_run_that_ends_as_it_starts_is_told_as_ended_without_a_wait() {
    let client = Client::dev();
    let outcome = RunOutcome {
        status: RunStatus::Completed,
        output: Some(json!({"ok": true})),
        error: None,
        usage: Usage::default(),
        sequence: 4,
        position: 21,
        ended_at: start_time(),
    };
    *client.world.ended.lock().expect("lock") = Some(outcome);
    let answer = client.post("/api/v1/runs", r#"{"definition":"d"}"#).await;
    let body = answer.json();
    assert_eq!((&body["status"], &body["output"]), (&json!("completed"), &json!({"ok": true})));
    assert_eq!((&body["version"], &body["position"]), (&json!(4), &json!(21)));
    assert_eq!(answer.header("etag"), "\"4\"");
}

#[tokio::test]
async fn damage_in_the_store_is_told_as_that_and_other_defects_stay_inside() {
    let client = Client::dev();
    let unreadable = "stored_data_unreadable";
    for (code, told) in [(unreadable, unreadable), ("event_damaged", unreadable), ("x", "internal")]
    {
        let rejection = Rejection::new(RejectionKind::Internal, code, "the secret place");
        *client.world.refuse.lock().expect("lock") = Some(rejection);
        let answer = client.post("/api/v1/projects", r#"{"name":"a"}"#).await;
        assert_eq!((answer.status.as_u16(), &*answer.code()), (500, told));
        assert!(!answer.text.contains("secret"));
    }
}
