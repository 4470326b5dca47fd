//! Given events, when a command, then events or a refusal.

use chrono::{DateTime, Utc};
use serde_json::{Value, json};

use super::*;
use crate::ids::{ProjectId, WorkspaceId};

mod limits;

fn at() -> DateTime<Utc> {
    DateTime::from_timestamp(1_800_000_000, 0).expect("a time in range")
}

fn project_id() -> ProjectId {
    ProjectId::derived("ws", "default")
}

fn spec(kind: &str, members: Value) -> Spec {
    let mut members = members;
    if !matches!(kind, "workspace" | "project" | "api_key") {
        members["project_id"] = json!(project_id());
    }
    serde_json::from_value(json!({"kind": kind, "spec": members})).expect("a readable spec")
}

fn profile(members: Value) -> Spec {
    let mut whole = json!({"name": "small", "provider": "mock", "model": "m"});
    patch_in(&mut whole, &members);
    spec("model_profile", whole)
}

fn patch_in(whole: &mut Value, members: &Value) {
    for (key, value) in members.as_object().expect("members") {
        whole[key] = value.clone();
    }
}

fn definition(hash: char) -> Spec {
    let body = json!({
        "hash": hash.to_string().repeat(64),
        "definition": {"name": "ship", "start": "a", "nodes": {"a": {"compute": {}}}},
    });
    spec("workflow_definition", body)
}

fn created(spec: &Spec) -> Event {
    Event::Created { spec: Box::new(spec.clone()), revision: 1 }
}

fn revised(spec: &Spec, revision: u64) -> Event {
    Event::Revised { spec: Box::new(spec.clone()), revision }
}

struct Given(Resource);

fn given(events: impl IntoIterator<Item = Event>) -> Given {
    let mut resource = Resource::default();
    for event in events {
        resource.evolve(&event);
    }
    Given(resource)
}

struct Then(Result<Decision, Error>);

impl Given {
    fn when(self, change: Change) -> Then {
        self.when_expecting(None, change)
    }

    fn when_expecting(self, expected_version: Option<u64>, change: Change) -> Then {
        Then(decide(&self.0, &Command { change, expected_version, at: at() }))
    }
}

impl Then {
    fn then(self, events: impl IntoIterator<Item = Event>, version: u64) {
        let events = events.into_iter().collect();
        assert_eq!(self.0, Ok(Decision { events, version }));
    }

    fn then_refused(self, code: &str, pointer: Option<&str>) {
        let error = self.0.expect_err("a refusal");
        assert_eq!((error.code(), error.pointer()), (code, pointer), "{error}");
    }
}

fn create(spec: &Spec) -> Change {
    Change::Create(Box::new(spec.clone()))
}

#[test]
fn a_name_is_used_once() {
    let first = profile(json!({}));
    given([]).when(create(&first)).then([created(&first)], 1);
    given([created(&first)]).when(create(&first)).then_refused("already_exists", Some("/name"));
    given([created(&first), Event::Archived])
        .when(create(&first))
        .then_refused("name_archived", Some("/name"));
}

#[test]
fn a_patch_gives_a_whole_new_spec() {
    let first = profile(json!({"temperature": 0.5, "prices": {"input_micros": 3}}));
    let second = profile(json!({"prices": {"input_micros": 3, "output_micros": 9}}));
    given([created(&first)])
        .when(Change::Revise(json!({"temperature": null, "prices": {"output_micros": 9}})))
        .then([revised(&second, 2)], 2);
    given([created(&first), revised(&second, 2)])
        .when(Change::Revise(json!({"temperature": null})))
        .then([], 2);
}

#[test]
fn a_patch_must_fit_the_kind() {
    let cases = [
        (json!({"name": "other"}), "immutable", "/name"),
        (json!({"project_id": ProjectId::derived("ws", "b")}), "immutable", "/project_id"),
        (json!({"model": null}), "invalid_spec", "/model"),
        (json!({"max_tokens": 5, "temprature": 1}), "invalid_spec", "/temprature"),
        (json!({"base_url": "ftp://x"}), "invalid_spec", "/base_url"),
        (json!([1]), "invalid_spec", ""),
    ];
    for (patch, code, pointer) in cases {
        given([created(&profile(json!({})))])
            .when(Change::Revise(patch))
            .then_refused(code, Some(pointer));
    }
}

#[test]
fn what_is_archived_changes_no_more() {
    let first = profile(json!({}));
    given([created(&first)]).when(Change::Archive).then([Event::Archived], 2);
    let gone = [created(&first), Event::Archived];
    given(gone.clone()).when(Change::Archive).then_refused("archived", None);
    given(gone).when(Change::Revise(json!({}))).then_refused("archived", None);
    given([]).when(Change::Archive).then_refused("not_found", None);
}

#[test]
fn a_stale_reader_changes_nothing() {
    let first = profile(json!({}));
    given([created(&first)]).when_expecting(Some(1), Change::Archive).then([Event::Archived], 2);
    given([created(&first)])
        .when_expecting(Some(2), Change::Archive)
        .then_refused("version_mismatch", None);
    given([]).when_expecting(Some(1), create(&first)).then_refused("version_mismatch", None);
}

#[test]
fn the_same_content_is_published_once() {
    let (one, two) = (definition('a'), definition('b'));
    let published = [created(&one), revised(&two, 2)];
    given([created(&one)]).when(create(&two)).then([revised(&two, 2)], 2);
    given(published.clone()).when(create(&one)).then([], 1);
    given(published.clone()).when(create(&two)).then([], 2);
    given(published).when(Change::Revise(json!({}))).then_refused("immutable", Some(""));
}

#[test]
fn a_definition_keeps_hashes_and_no_bodies() {
    let Given(resource) = given([created(&definition('a')), revised(&definition('b'), 2)]);
    assert_eq!(resource.spec(), None);
    let revisions = resource.revisions().expect("live");
    assert_eq!(revisions.version_of(&"b".repeat(64)), Some(2));
    let text = serde_json::to_string(&resource).expect("state as JSON");
    assert!(!text.contains("compute"), "{text}");
}

#[test]
fn each_kind_checks_its_members() {
    let hash = "0".repeat(64);
    let workspace_id = WorkspaceId::derived("", "default");
    let key = |members: Value| {
        let mut whole = json!({"workspace_id": workspace_id, "name": "ci", "secret_hash": hash,
            "scopes": ["read"]});
        patch_in(&mut whole, &members);
        spec("api_key", whole)
    };
    let action = |members: Value| {
        let mut whole = json!({"name": "a", "action": "mock"});
        patch_in(&mut whole, &members);
        spec("action", whole)
    };
    let cases = [
        (key(json!({"scopes": []})), "/scopes"),
        (key(json!({"scopes": ["read", "read"]})), "/scopes/1"),
        (key(json!({"secret_hash": "ABC"})), "/secret_hash"),
        (key(json!({"expires_at": "2020-01-01T00:00:00Z"})), "/expires_at"),
        (action(json!({"with": {"resutl": 1}})), "/with/resutl"),
        (action(json!({"action": "mcp"})), "/action"),
        (action(json!({"retry": {"max_attempts": 101}})), "/retry/max_attempts"),
        (action(json!({"timeout": "0s"})), "/timeout"),
        (action(json!({"output_schema": {"type": "strin"}})), "/output_schema/type"),
        (profile(json!({"base_url": "https://key@host/v1"})), "/base_url"),
        (profile(json!({"api_key_env": "sk-123"})), "/api_key_env"),
        (profile(json!({"temperature": 2.5})), "/temperature"),
        (profile(json!({"fallback": ["small"]})), "/fallback/0"),
        (
            spec("project", json!({"name": "p", "limits": {"tasks_in_flight_per_run": 0}})),
            "/limits/tasks_in_flight_per_run",
        ),
    ];
    for (spec, pointer) in cases {
        given([]).when(create(&spec)).then_refused("invalid_spec", Some(pointer));
    }
}

#[test]
fn ids_follow_from_owner_kind_and_name() {
    let (here, there) = (WorkspaceId::derived("", "here"), WorkspaceId::derived("", "there"));
    let project = spec("project", json!({"name": "p"}));
    assert_ne!(id_of(&project, here), id_of(&project, there));
    let action = spec("action", json!({"name": "p", "action": "mock"}));
    assert_eq!(id_of(&action, here), id_of(&action, there));
    assert_eq!(id_of(&action, here), owned(Kind::Action, project_id(), "p"));
    for kind in Kind::ALL {
        let id = owned(kind, project_id(), "p");
        assert_eq!(check_id(kind, &id), Ok(()));
        assert!(id.starts_with(&format!("{}_", kind.id_prefix())), "{id}");
    }
    assert!(check_id(Kind::Action, &owned(Kind::Workflow, project_id(), "p")).is_err());
}

#[test]
fn events_are_stored_in_this_form() {
    let event = created(&spec("project", json!({"name": "p"})));
    let stored = json!({
        "type": "created",
        "spec": {"kind": "project", "spec": {"name": "p", "limits": {}}},
        "revision": 1,
    });
    assert_eq!(serde_json::to_value(&event).expect("an event as JSON"), stored);
    assert_eq!(serde_json::from_value::<Event>(stored).expect("an event"), event);
    let archived = serde_json::from_value::<Event>(json!({"type": "archived"}));
    assert_eq!(archived.expect("an event"), Event::Archived);
}
