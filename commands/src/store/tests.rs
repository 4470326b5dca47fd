//! The aggregate as cqrs-es runs it, in its own given/when/then.

use cqrs_es::test::TestFramework;
use domain::ids::{ProjectId, WorkspaceId};
use domain::resource::{Change, Spec};
use serde_json::{Value, json};

use super::*;

fn spec(description: Option<&str>) -> Spec {
    let project_id = ProjectId::derived("ws", "default");
    let mut spec = json!({"kind": "prompt_spec", "spec": {
        "project_id": project_id, "name": "greet", "template": "hello",
    }});
    if let Some(text) = description {
        spec["spec"]["description"] = json!(text);
    }
    serde_json::from_value(spec).expect("a readable spec")
}

fn command(change: Change) -> Command {
    Command { change, expected_version: None, at: DateTime::UNIX_EPOCH }
}

fn created() -> Stored {
    Stored(Event::Created { spec: Box::new(spec(None)), revision: 1 })
}

fn framework() -> TestFramework<Lent<PromptSpec>> {
    TestFramework::with(Arc::default())
}

#[test]
fn creating_gives_one_event() {
    framework()
        .given_no_previous_events()
        .when(command(Change::Create(Box::new(spec(None)))))
        .then_expect_events(vec![created()]);
}

#[test]
fn creating_twice_is_refused() {
    let refusal =
        resource::Error::AlreadyExists { kind: Kind::PromptSpec, name: spec(None).name().clone() };
    framework()
        .given(vec![created()])
        .when(command(Change::Create(Box::new(spec(None)))))
        .then_expect_error(refusal);
}

#[test]
fn revising_gives_the_whole_spec() {
    let revised = Event::Revised { spec: Box::new(spec(Some("kind words"))), revision: 2 };
    framework()
        .given(vec![created()])
        .when(command(Change::Revise(json!({"description": "kind words"}))))
        .then_expect_events(vec![Stored(revised)]);
}

#[test]
fn a_patch_without_effect_gives_no_event() {
    framework()
        .given(vec![created()])
        .when(command(Change::Revise(json!({"description": null}))))
        .then_expect_events(Vec::new());
}

#[test]
fn the_trace_holds_the_state_after_the_events_once_applied() {
    let trace: Arc<Trace> = Arc::default();
    TestFramework::<Lent<PromptSpec>>::with(Arc::clone(&trace))
        .given(vec![created()])
        .when(command(Change::Archive))
        .then_expect_events(vec![Stored(Event::Archived)]);
    let decided = trace.decided.get().expect("a decision");
    assert_eq!((decided.version, decided.created), (2, false));
    assert_eq!(decided.resource.version(), 2);
}

#[test]
fn an_event_survives_its_payload_with_large_and_reserved_values() {
    let workspace = WorkspaceId::derived("", "default").to_string();
    let mut large = spec(None);
    if let Spec::PromptSpec(spec) = &mut large {
        spec.template = "x".repeat(100_000);
        spec.variables_schema = Some(json!({"properties": {"$ref": {"type": "string"}}}));
    }
    let event = Event::Created { spec: Box::new(large), revision: 1 };
    let encoded = payload::encode(&event, &workspace).expect("an encoded event");
    let domain::codec::Encoded { payload, blobs } = encoded;
    assert!(payload.len() < 100_000 && blobs.len() == 1, "{} bytes", payload.len());
    let find = |wanted: &str| {
        blobs.iter().find(|(hash, _)| hash == wanted).map(|(_, bytes)| bytes.clone())
    };
    let read: Value = domain::codec::value(&payload, &find).expect("a readable payload");
    assert_eq!(read["spec"]["spec"]["variables_schema"]["properties"]["$ref"]["type"], "string");
    let read: Event = domain::codec::decode("created", 1, &payload, &find).expect("an event");
    assert_eq!(read, event);
}
