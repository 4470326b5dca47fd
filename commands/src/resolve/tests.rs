//! What runs find, after everything that may be written meanwhile.

use domain::definition::content_hash;
use domain::ids::{ProjectId, WorkflowId, WorkspaceId};
use domain::resource::{DefinitionSpec, Kind};
use protocol::RejectionKind;
use protocol::command::Command;
use serde_json::{Value, json};

use crate::resources::tests::{over, ship, world};

fn spec(project_id: ProjectId, definition: Value) -> DefinitionSpec {
    let definition = serde_json::from_value(definition).expect("a definition");
    let hash = content_hash(&definition).expect("a hash");
    DefinitionSpec { project_id, definition, hash }
}

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
    let definition = spec(project, definition);
    let before = resolver.resolved(&definition, None).await.expect("resolved");
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
        let again = resolver.resolved(&definition, Some(&before.pins)).await;
        assert_eq!(again.expect("the pinned versions"), before);
        let now = resolver.resolved(&definition, None).await.expect("the newest");
        assert_eq!((now.default_model, now.models["main"].model.as_str()), (None, "n"));
        assert_eq!(now.actions["write"].with["model"], "main");
    }
    let gone = Command::Archive { kind: Kind::Action, id: write.id };
    world.execute(gone).await.expect("gone");
    let again = resolver.resolved(&definition, Some(&before.pins)).await;
    assert_eq!(again.expect("the pinned versions"), before);
    assert!(resolver.resolved(&definition, None).await.is_err());
}

#[tokio::test]
async fn a_reference_that_leads_nowhere_is_pointed_at() {
    let world = world().await;
    let (resolver, project) = (world.resources.resolver(), world.defaults.project_id);
    let definition = json!({"name": "d", "start": "a", "nodes": {
        "a": {"action": {"use": "nobody@2"}},
        "b": {"steps": [{"name": "s", "action": {"kind": "llm", "with": {"model": "none"}}}]},
        "c": {"action": {"kind": "llm", "with": {"model": {"provider": "mock"}, "prompt_spec": "x@0"}}},
        "e": {"action": {"kind": "llm"}},
        "f": {"action": {"kind": "mock"}, "undo": {"action": {"use": "nobody"}}}}});
    let definition = spec(project, definition);
    let refusal = resolver.resolved(&definition, None).await.expect_err("a refusal");
    assert_eq!(refusal.code, "unknown_reference");
    let places: Vec<_> = refusal.problems.iter().map(|problem| problem.pointer.as_str()).collect();
    assert_eq!(
        places,
        [
            "/nodes/a/action/use",
            "/nodes/b/steps/0/action/with/model",
            "/nodes/c/action/with/prompt_spec",
            "/nodes/e/action",
            "/nodes/f/undo/action/use",
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

#[tokio::test]
async fn every_model_of_a_start_is_of_an_allowed_provider() {
    let world = world().await;
    let (resolver, project) = (world.resources.resolver(), world.defaults.project_id);
    let workspace = world.defaults.workspace_id;
    let profile = json!({"name": "main", "provider": "mock", "model": "m", "fallback": ["far"]});
    let far = json!({"name": "far", "provider": "openai", "model": "f"});
    let near = json!({"name": "near", "provider": "mock", "model": "n"});
    for members in [profile, far, near] {
        world.create("model_profile", members).await.expect("a profile");
    }
    let write = json!({"name": "write", "action": "llm", "with": {"model": "main"}});
    world.create("action", write).await.expect("an action");
    let revise = |kind, id: String, patch| world.execute(Command::Revise { kind, id, patch });
    let only = |names: Value| {
        revise(Kind::Workspace, workspace.to_string(), json!({"allowed_providers": names}))
    };
    let llm = |with: Value| json!({"action": {"kind": "llm", "with": with}});
    let place = async |node: Value| {
        let node = json!({"name": "d", "start": "a", "nodes": {"a": node}});
        let start = resolver.resolved_for_start(workspace, &spec(project, node)).await;
        start.err().map(|refusal| {
            assert_eq!(refusal.kind, RejectionKind::Forbidden);
            assert_eq!(refusal.code, "provider_not_allowed");
            refusal.pointer.expect("a place")
        })
    };
    let inline = |provider: &str| llm(json!({"model": {"provider": provider, "model": "x"}}));

    assert_eq!(place(inline("openai")).await, None, "all are allowed where none is named");
    only(json!(["mock"])).await.expect("a revision");
    assert_eq!(place(llm(json!({"model": "near"}))).await, None);
    assert_eq!(place(inline("mock")).await, None);
    let model = Some("/nodes/a/action/with/model".to_owned());
    assert_eq!(place(inline("openai")).await, model);
    assert_eq!(place(llm(json!({"model": "main"}))).await, model, "by its fallback");
    let used = Some("/nodes/a/action/use".to_owned());
    assert_eq!(place(json!({"action": {"use": "write"}})).await, used);
    let step =
        json!({"steps": [{"name": "s", "action": {"kind": "llm", "with": {"model": "far"}}}]});
    assert_eq!(place(step).await.as_deref(), Some("/nodes/a/steps/0/action/with/model"));
    let default = json!({"default_model": "far"});
    revise(Kind::Project, project.to_string(), default).await.expect("a revision");
    assert_eq!(place(llm(json!({}))).await.as_deref(), Some("/nodes/a/action"));
    only(json!(["mock", "openai"])).await.expect("a revision");
    assert_eq!(place(llm(json!({}))).await, None);
}
