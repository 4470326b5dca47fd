//! Experiments: which forks a request makes, and what is refused before.

use domain::run::event::Effect;
use protocol::{Command, ForkDefinition};
use serde_json::json;

use crate::fakes::{Client, run_id};

#[tokio::test]
async fn a_request_forks_runs_with_a_name_a_change_and_what_is_allowed() {
    let client = Client::dev();
    let body = json!({"name": "cheaper", "runs": [run_id()], "allow": ["http"],
        "change": {"with": {"model": "small"}}, "max_cost_micros": 900});
    let answer = client.post("/api/v1/experiments", body.to_string()).await;
    assert_eq!(answer.status, 200, "{}", answer.json());
    let progress = answer.json();
    assert_eq!((&progress["status"], &progress["left"]), (&json!("running"), &json!(0)));
    let first = client.last_command();
    let Command::ForkRun(fork) = &first.command else { panic!("no fork") };
    let asked = fork.experiment.as_ref().expect("it is of an experiment");
    assert_eq!(asked.experiment.name, "cheaper");
    assert!(asked.experiment.allow.contains(&Effect::Http));
    assert_eq!(asked.experiment.max_cost_micros, Some(225), "a quarter of it");
    assert_eq!(asked.variant.with["model"], "small");
    let labels = fork.labels.as_ref().expect("labels");
    assert_eq!((&*labels["experiment"], &*labels["experiment-budget"]), ("cheaper", "225"));
    // A repetition is the same command, and so the same fork.
    client.post("/api/v1/experiments", body.to_string()).await;
    assert_eq!(client.last_command().id, first.id);
    let other = json!({"name": "other", "start": "a", "nodes": {"a": {"compute": {}}}});
    let body = json!({"name": "other", "runs": [run_id()], "change": {"definition": other}});
    client.post("/api/v1/experiments", body.to_string()).await;
    let Command::ForkRun(fork) = client.last_command().command else { panic!("no fork") };
    assert!(matches!(fork.definition, Some(ForkDefinition::Inline(_))), "{fork:?}");
    let report = client.get("/api/v1/experiments/cheaper").await;
    assert_eq!((report.status.as_u16(), &report.json()["name"]), (200, &json!("cheaper")));
}

#[tokio::test]
async fn an_experiment_has_a_set_within_its_limits_and_one_change() {
    let client = Client::dev();
    for (more, pointer) in [
        (json!({}), "/runs"),
        (json!({"runs": [run_id()], "where": {"limit": 1}}), "/runs"),
        (json!({"runs": vec![run_id(); 201]}), "/runs"),
        (json!({"where": {"limit": 0}}), "/where/limit"),
        (json!({"where": {"limit": 201}}), "/where/limit"),
        (json!({"runs": [run_id()], "at_once": 33}), "/at_once"),
        (
            json!({"runs": [run_id()], "change": {"definition": "d", "with": {"model": "m"}}}),
            "/change/definition",
        ),
    ] {
        let mut body = json!({"name": "n"});
        body.as_object_mut().expect("a body").extend(more.as_object().cloned().expect("members"));
        let answer = client.post("/api/v1/experiments", body.to_string()).await;
        assert_eq!((answer.status.as_u16(), &answer.json()["pointer"]), (422, &json!(pointer)));
    }
    for wrong in [json!({"name": "n", "runs": [run_id()], "allow": ["everything"]}), json!({})] {
        let answer = client.post("/api/v1/experiments", wrong.to_string()).await;
        assert_eq!(answer.status, 422, "{wrong}");
    }
}
