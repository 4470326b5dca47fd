//! Signals, gates, pauses: what reaches the write side and the queries, and what is refused before.

use domain::run::event::Decision;
use protocol::{AnswerGate, Command, GateId, GateStatus, Rejection, RejectionKind};
use serde_json::{Value, json};

use crate::fakes::{Client, run_id};

const JSON: (&str, &str) = ("content-type", "application/json");

fn of_run(rest: &str) -> String {
    format!("/api/v1/runs/{}/{rest}", run_id())
}

#[tokio::test]
async fn a_signal_reaches_its_run_with_and_without_a_body() {
    let client = Client::dev();
    let (run_id, name) = (run_id(), "paid".parse().expect("a name"));
    let answer = client.post(&of_run("signals/paid"), r#"{"payload":{"n":1}}"#).await;
    assert_eq!((answer.status.as_u16(), &answer.json()["position"]), (200, &json!(17)));
    let payload = json!({"n": 1});
    let sent = Command::SignalRun { run_id, name, payload, transient: false };
    assert_eq!(client.last_command().command, sent);
    client.call("POST", &of_run("signals/go"), &[], "").await;
    let Command::SignalRun { payload, .. } = client.last_command().command else {
        panic!("no signal")
    };
    assert_eq!(payload, Value::Null);
    let answer = client.post(&of_run("signals/a.b"), "{}").await;
    assert_eq!((answer.status.as_u16(), answer.code().as_str()), (422, "invalid_name"));
    let answer = client.post(&of_run("signals/a"), r#"{"transient":1}"#).await;
    assert_eq!(answer.status, 422);
}

#[tokio::test]
async fn a_signal_by_labels_reaches_each_open_run_under_a_key_of_its_own() {
    let client = Client::dev();
    let headers = [JSON, ("idempotency-key", "k1")];
    let body = r#"{"labels":{"team":"red"},"name":"go","payload":7}"#;
    let answer = client.call("POST", "/api/v1/signals", &headers, body).await;
    let expected = json!({"run_ids": [run_id()], "refused": [], "position": 17});
    assert_eq!((answer.status.as_u16(), answer.json()), (200, expected));
    let sent = client.last_command();
    assert_eq!(sent.idempotency_key, Some(format!("k1/{}", run_id())));
    let filter = client.world.filters.lock().expect("lock").pop().expect("a filter");
    let statuses: Vec<_> = filter.status.iter().map(|status| status.as_str()).collect();
    assert_eq!(statuses, ["queued", "running", "waiting", "paused"]);
    assert_eq!(filter.labels, [("team".to_owned(), "red".to_owned())]);

    let refusal = Rejection::new(RejectionKind::Conflict, "too_many_signals", "no room");
    *client.world.refuse.lock().expect("lock") = Some(refusal);
    let refused = client.post("/api/v1/signals", body).await.json();
    assert_eq!(refused["refused"][0]["code"], "too_many_signals");
    let ended = Rejection::new(RejectionKind::Conflict, "run_ended", "over");
    *client.world.refuse.lock().expect("lock") = Some(ended);
    let answer = client.post("/api/v1/signals", body).await.json();
    assert_eq!((&answer["run_ids"], &answer["refused"]), (&json!([]), &json!([])));

    *client.world.more_runs.lock().expect("lock") = domain::limits::SIGNAL_RUNS;
    let before = client.world.commands.lock().expect("lock").len();
    let answer = client.post("/api/v1/signals", body).await;
    assert_eq!((answer.status.as_u16(), answer.code().as_str()), (422, "too_many_runs"));
    assert_eq!(client.world.commands.lock().expect("lock").len(), before, "none is told");
    let answer = client.post("/api/v1/signals", r#"{"labels":{},"name":"go"}"#).await;
    assert_eq!((answer.status.as_u16(), answer.json()["pointer"].as_str()), (422, Some("/labels")));
}

#[tokio::test]
async fn a_gate_is_answered_by_whoever_is_signed_in() {
    let client = Client::dev();
    let path = format!("/api/v1/gates/{}.7/answers", run_id());
    let body = r#"{"decision":"reject","value":{"n":1},"comment":"no"}"#;
    assert_eq!(client.post(&path, body).await.status, 200);
    let sent = client.last_command();
    assert_eq!(sent.actor.0, "dev");
    let Command::AnswerGate { gate, answer } = sent.command else { panic!("no answer") };
    assert_eq!(gate, GateId { run_id: run_id(), token: 7 });
    let roles = ["read", "run", "write", "admin"].map(str::to_owned).to_vec();
    let (value, comment) = (json!({"n": 1}), Some("no".to_owned()));
    assert_eq!(*answer, AnswerGate { decision: Decision::Reject, value, comment, roles });
    let answer = client.post(&path, r#"{"decision":"maybe"}"#).await;
    assert_eq!(answer.status, 422);
    for id in ["x.1", "run_x.1", &format!("{}.0", run_id()), &run_id().to_string()] {
        let answer = client.post(&format!("/api/v1/gates/{id}/answers"), body).await;
        assert_eq!((answer.status.as_u16(), answer.code().as_str()), (404, "not_found"), "{id}");
    }
}

#[tokio::test]
async fn lists_of_gates_pass_their_filters_on() {
    let client = Client::dev();
    let path = "/api/v1/gates?status=open&assignee=key_1&role=run&workflow_id=wf_1&run_id=run_1\
                &limit=3";
    assert_eq!(client.get(path).await.status, 200);
    let filter = client.world.gate_filters.lock().expect("lock").pop().expect("a filter");
    assert_eq!(filter.status, Some(GateStatus::Open));
    assert_eq!((filter.assignee.as_deref(), filter.role.as_deref()), (Some("key_1"), Some("run")));
    assert_eq!(filter.workflow_id.as_deref(), Some("wf_1"));
    assert_eq!(filter.run_id.as_deref(), Some("run_1"));
    for query in ["status=pending", "limit=0", "who=me"] {
        assert_eq!(client.get(&format!("/api/v1/gates?{query}")).await.status, 400, "{query}");
    }
    let missing = client.get(&format!("/api/v1/gates/{}.1", run_id())).await;
    assert_eq!(missing.status, 404);
}

#[tokio::test]
async fn pauses_and_resumes_are_commands_and_what_a_run_waits_for_is_a_query() {
    let client = Client::dev();
    let run_id = run_id();
    assert_eq!(client.post(&of_run("pause"), r#"{"reason":"night"}"#).await.status, 200);
    let paused = Command::PauseRun { run_id, reason: Some("night".to_owned()) };
    assert_eq!(client.last_command().command, paused);
    assert_eq!(client.call("POST", &of_run("resume"), &[], "").await.status, 200);
    assert_eq!(client.last_command().command, Command::ResumeRun { run_id });
    assert_eq!(client.post(&of_run("resume"), r#"{"why":1}"#).await.status, 422);
    let waiting = client.get(&of_run("waiting")).await.json();
    assert_eq!((&waiting["run_id"], &waiting["items"]), (&json!(run_id), &json!([])));
}
