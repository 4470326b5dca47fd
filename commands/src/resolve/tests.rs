//! What runs find, after everything that may be written meanwhile.

use domain::definition::Definition;
use domain::ids::{WorkflowId, WorkspaceId};
use domain::resource::Kind;
use protocol::RejectionKind;
use protocol::command::Command;
use serde_json::{Value, json};

use crate::resources::tests::{over, ship, world};

#[tokio::test]
async fn a_workflow_follows_what_is_written() {
    let world = world().await;
    let published = world.publish(ship("one")).await.expect("version 1");
    let members = json!({"name": "w", "definition_id": published.id});
    let made = world.create("workflow", members).await.expect("a workflow");
    let id: WorkflowId = made.id.parse().expect("an id");
    let (resolver, workspace) = (world.resources.resolver(), world.defaults.workspace_id);
    assert!(resolver.workflow(workspace, id).await.expect("a workflow").enabled);

    let revise =
        |patch: Value| Command::Revise { kind: Kind::Workflow, id: made.id.clone(), patch };
    let beyond = revise(json!({"definition_version": 2}));
    world.refuses(beyond, RejectionKind::Invalid, "unknown_version").await;
    world.execute(revise(json!({"enabled": false}))).await.expect("a receipt");
    let refusal = resolver.workflow(workspace, id).await.expect_err("disabled");
    assert_eq!(refusal.code, "workflow_disabled");
    let elsewhere = WorkspaceId::derived("", "elsewhere");
    assert_eq!(resolver.workflow(elsewhere, id).await.expect_err("foreign").code, "not_found");
}

#[tokio::test]
async fn pins_hold_after_newer_versions() {
    let world = world().await;
    let (resolver, project) = (world.resources.resolver(), world.defaults.project_id);
    let profile = json!({"name": "main", "provider": "mock", "model": "m", "fallback": ["spare"]});
    let spare = json!({"name": "spare", "provider": "mock", "model": "s"});
    let main = world.create("model_profile", profile).await.expect("a profile");
    world.create("model_profile", spare).await.expect("a profile");
    world.create("prompt_spec", json!({"name": "ask", "template": "q"})).await.expect("a prompt");
    let write = json!({"name": "write", "action": "llm", "with": {"prompt_spec": "ask"}});
    let write = world.create("action", write).await.expect("an action");
    let id = project.to_string();
    let default_model = |name: &str| {
        let patch = json!({"default_model": name});
        Command::Revise { kind: Kind::Project, id: id.clone(), patch }
    };
    world.execute(default_model("main")).await.expect("a default");

    let definition = json!({"name": "d", "start": "a",
        "nodes": {"a": {"action": {"use": "write"}}}});
    let definition: Definition = serde_json::from_value(definition).expect("a definition");
    let before = resolver.resolved(project, &definition, None).await.expect("resolved");
    assert_eq!(before.default_model.as_deref(), Some("main"));
    assert_eq!(before.models.keys().collect::<Vec<_>>(), ["main", "spare"]);
    assert_eq!(before.prompts.keys().collect::<Vec<_>>(), ["ask"]);
    assert_eq!(before.pins.len(), 5);

    let (kind, patch) = (Kind::ModelProfile, json!({"model": "n", "fallback": null}));
    world.execute(Command::Revise { kind, id: main.id, patch }).await.expect("a revision");
    world.execute(default_model("spare")).await.expect("another default");
    let (kind, patch) = (Kind::Action, json!({"with": {"model": "main"}}));
    world.execute(Command::Revise { kind, id: write.id.clone(), patch }).await.expect("a revision");

    let fresh = over(&world.journal).resolver();
    for resolver in [&resolver, &fresh] {
        let again = resolver.resolved(project, &definition, Some(&before.pins)).await;
        assert_eq!(again.expect("the pinned versions"), before);
        let now = resolver.resolved(project, &definition, None).await.expect("the newest");
        assert_eq!((now.default_model, now.models["main"].model.as_str()), (None, "n"));
        assert_eq!(now.actions["write"].with["model"], "main");
    }
    let gone = Command::Archive { kind: Kind::Action, id: write.id };
    world.execute(gone).await.expect("gone");
    let again = resolver.resolved(project, &definition, Some(&before.pins)).await;
    assert_eq!(again.expect("the pinned versions"), before);
    assert!(resolver.resolved(project, &definition, None).await.is_err());
}

#[tokio::test]
async fn a_reference_that_leads_nowhere_is_pointed_at() {
    let world = world().await;
    let (resolver, project) = (world.resources.resolver(), world.defaults.project_id);
    let definition = json!({"name": "d", "start": "a", "nodes": {
        "a": {"action": {"use": "nobody@2"}},
        "b": {"steps": [{"name": "s", "action": {"kind": "llm", "with": {"model": "none"}}}]},
        "c": {"action": {"kind": "llm", "with": {"model": {"provider": "mock"}, "prompt_spec": "x@0"}}},
        "e": {"action": {"kind": "llm"}}}});
    let definition: Definition = serde_json::from_value(definition).expect("a definition");
    let refusal = resolver.resolved(project, &definition, None).await.expect_err("a refusal");
    assert_eq!(refusal.code, "unknown_reference");
    let places: Vec<_> = refusal.problems.iter().map(|problem| problem.pointer.as_str()).collect();
    assert_eq!(
        places,
        [
            "/nodes/a/action/use",
            "/nodes/b/steps/0/action/with/model",
            "/nodes/c/action/with/prompt_spec",
            "/nodes/e/action",
        ]
    );
    let published = world.publish(ship("one")).await.expect("version 1");
    let found = resolver.definition(project, "ship@1").await.expect("a definition");
    assert_eq!((found.id.as_str(), found.version), (published.id.as_str(), 1));
    assert_eq!(
        resolver.definition(project, "ship@2").await.expect_err("none").code,
        "unknown_reference"
    );
    let id = found.id.parse().expect("an id");
    assert_eq!(resolver.definition_by_id(id, None).await.expect("the newest").version, 1);
    assert_eq!(resolver.definition_by_id(id, Some(9)).await.expect_err("none").code, "not_found");
}
