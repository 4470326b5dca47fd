//! Forks: what reaches the write side, and what is refused before.

use domain::run::event::Adopt;
use protocol::{Command, ForkDefinition, ForkOutcome, StateAt};
use serde_json::json;

use crate::fakes::{Client, run_id};

#[tokio::test]
async fn a_fork_is_a_command_with_all_that_is_different() {
    let client = Client::dev();
    let path = format!("/api/v1/runs/{}/fork", run_id());
    let answer = client.post(&path, r#"{"at":7}"#).await;
    assert_eq!(answer.status, 201);
    let Command::ForkRun(fork) = client.last_command().command else { panic!("no fork") };
    assert_eq!((fork.run_id, fork.at), (run_id(), StateAt::Sequence(7)));
    assert_eq!((fork.adopt, fork.dry_run, fork.input), (Adopt::All, false, None));
    let body = json!({"at": "2026-01-31T12:00:00Z", "adopt": "successes", "input": null,
        "state": {"a": null}, "branches": {"7": {"b": 1}}, "definition": "other@2",
        "outcomes": {"8": {"result": 1}, "9": {"error": {"code": "gone"}}}, "dry_run": true});
    client.post(&path, body.to_string()).await;
    let Command::ForkRun(fork) = client.last_command().command else { panic!("no fork") };
    assert!(matches!(fork.at, StateAt::Time(_)) && fork.dry_run);
    assert_eq!((fork.state, fork.branches.len()), (Some(json!({"a": null})), 1));
    assert_eq!(fork.outcomes[&8], ForkOutcome::Result(json!(1)));
    assert!(matches!(&fork.outcomes[&9], ForkOutcome::Error(error) if error.code == "gone"));
    assert_eq!(fork.definition, Some(ForkDefinition::Named("other@2".to_owned())));
    let other = json!({"name": "other", "start": "a", "nodes": {"a": {"compute": {}}}});
    client.post(&path, json!({"at": 7, "definition": other}).to_string()).await;
    let Command::ForkRun(fork) = client.last_command().command else { panic!("no fork") };
    let Some(ForkDefinition::Inline(definition)) = fork.definition else { panic!("it is inline") };
    assert_eq!(definition.name.as_str(), "other");
    let wrong = json!({"name": "other", "start": "b", "nodes": {"a": {"compute": {}}}});
    let answer = client.post(&path, json!({"at": 7, "definition": wrong}).to_string()).await;
    let problem = answer.json();
    assert_eq!((&problem["code"], answer.status.as_u16()), (&json!("invalid_definition"), 422));
    assert_eq!(problem["errors"][0]["pointer"], "/definition/start", "{problem}");
    for (body, pointer) in [
        (r#"{"at":-1}"#, "/at"),
        (r#"{"at":"soon"}"#, "/at"),
        (r#"{"at":1,"state":[]}"#, "/state"),
        (r#"{"at":1,"branches":{"7":1}}"#, "/branches/7"),
        (r#"{"at":1,"outcomes":{"7":{}}}"#, "/outcomes/7"),
    ] {
        let answer = client.post(&path, body).await;
        assert_eq!((answer.status.as_u16(), &answer.json()["pointer"]), (422, &json!(pointer)));
    }
    assert_eq!(client.post(&path, r#"{"at":1,"why":2}"#).await.status, 422);
    assert_eq!(client.post(&path, "{}").await.status, 422);
}
