//! Experiments: which forks a request makes, and what is refused before.

use domain::run::event::Effect;
use protocol::{Command, ForkDefinition, ForkRun};
use serde_json::json;

use crate::fakes::{Client, run_id};

#[tokio::test]
async fn a_request_is_one_command_with_a_name_a_change_and_what_is_allowed() {
    let client = Client::dev();
    let body = json!({"name": "cheaper", "runs": [run_id()], "allow": ["http"],
        "change": {"with": {"model": "small"}}, "max_cost_micros": 900});
    let answer = client.post("/api/v1/experiments", body.to_string()).await;
    assert_eq!(answer.status, 200, "{}", answer.json());
    let progress = answer.json();
    assert_eq!((&progress["status"], &progress["left"]), (&json!("running"), &json!(0)));
    assert_eq!((&progress["running"], &progress["position"]), (&json!(1), &json!(17)));
    assert_eq!(progress["items"][0]["run_id"], run_id().to_string());
    let Command::StartExperiment(asked) = client.last_command().command else { panic!("no start") };
    assert_eq!((asked.name.as_str(), asked.terms.max_cost_micros), ("cheaper", Some(900)));
    assert!(asked.allow.contains(&Effect::Http));
    assert_eq!(asked.variant.with["model"], "small");
    assert_eq!((asked.terms.at_once, &asked.terms.filter), (4, &None));
    let mut fork = ForkRun::of_experiment(&asked, run_id(), Some(225));
    let labels = fork.labels.take().expect("labels");
    assert_eq!((&*labels["experiment"], &*labels["experiment-budget"]), ("cheaper", "225"));
    // What a set was found by is kept with it, as it is meant.
    let found = json!({"name": "cheaper", "where": {"definition": "d", "limit": 3}});
    client.post("/api/v1/experiments", found.to_string()).await;
    let Command::StartExperiment(asked) = client.last_command().command else { panic!("no start") };
    let of = json!({"definition": "d", "limit": 3, "status": ["completed", "failed"]});
    assert_eq!((asked.terms.filter, asked.terms.runs.len()), (Some(of), 1));
    let other = json!({"name": "other", "start": "a", "nodes": {"a": {"compute": {}}}});
    let body = json!({"name": "other", "runs": [run_id()], "change": {"definition": other}});
    client.post("/api/v1/experiments", body.to_string()).await;
    let Command::StartExperiment(asked) = client.last_command().command else { panic!("no start") };
    assert!(matches!(asked.definition, Some(ForkDefinition::Inline(_))), "{asked:?}");
    let dry = json!({"name": "cheaper", "runs": [run_id()], "dry_run": true});
    client.post("/api/v1/experiments", dry.to_string()).await;
    let Command::ForkRun(fork) = client.last_command().command else { panic!("no fork") };
    assert!(fork.dry_run);
    let report = client.get("/api/v1/experiments/cheaper").await;
    assert_eq!((report.status.as_u16(), &report.json()["name"]), (200, &json!("cheaper")));
    let progress = client.get("/api/v1/experiments/cheaper/progress").await;
    assert_eq!((progress.status.as_u16(), &progress.json()["runs"]), (200, &json!(1)));
    client.post("/api/v1/experiments/cheaper/stop", String::new()).await;
    let stop = client.last_command().command;
    assert!(matches!(stop, Command::StopExperiment { name } if name.as_str() == "cheaper"));
    let unnamed = client.post("/api/v1/experiments/NO%20NAME/stop", String::new()).await;
    assert_eq!(unnamed.status, 404);
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
