//! Triggers: what came of them, and which one started a run.

use domain::ids::{TriggerId, WorkflowId};
use domain::resource::{Event as ResourceEvent, Spec};
use domain::trigger;
use protocol::{RejectionKind, ResourceQueries, RunQueries};

use super::*;

fn workflow_id() -> WorkflowId {
    WorkflowId::derived("prj", "nightly")
}

fn workflow(enabled: bool) -> Box<Spec> {
    let spec = json!({"kind": "workflow", "spec": {
        "project_id": project_id(1), "name": "flow", "enabled": enabled,
        "definition_id": DefinitionId::new(Uuid::nil()),
        "triggers": {
            "hook": {"webhook": {"secret_envs": ["HOOK"]}},
            "nightly": {"schedule": {"cron": "0 3 * * *"}},
        },
    }});
    Box::new(serde_json::from_value(spec).expect("a spec"))
}

fn triggered(run: RunId, hour: u32) -> Event {
    let Event::RunStarted(mut first) = started(run, json!(1), &[]) else {
        unreachable!("it is a start")
    };
    let by = json!({"workflow_id": workflow_id(), "name": "nightly", "kind": "schedule",
        "at": format!("2026-01-01T{hour:02}:00:00Z"), "key": "k"});
    first.trigger = Some(serde_json::from_value(by).expect("a trigger"));
    Event::RunStarted(first)
}

fn of_trigger(event_type: &str, members: Value) -> trigger::Event {
    let mut event =
        json!({"type": event_type, "workflow_id": workflow_id(), "name": "nightly", "key": "k"});
    for (name, value) in members.as_object().expect("members") {
        event[name] = value.clone();
    }
    serde_json::from_value(event).expect("an event")
}

/// A workflow of project 1 with a trigger that fired run 11; the ids of both logs.
pub(super) async fn with_a_trigger(world: &World) -> (String, String) {
    let id = workflow_id().to_string();
    let created = ResourceEvent::Created { spec: workflow(true), revision: 1 };
    world.append(("workflow", &id), ours(), 0, &[created]).await;
    let log = TriggerId::of(workflow_id(), &"nightly".parse().expect("a name")).to_string();
    let fired = json!({"at": "2026-01-01T03:00:00Z", "run_id": run_id(11)});
    let fired = of_trigger("trigger_fired", fired);
    world.append(("trigger", &log), ours(), 0, &[fired]).await;
    let Event::RunStarted(mut first) = triggered(run_id(11), 3) else { unreachable!("a start") };
    first.workflow_id = Some(workflow_id());
    world.run(run_id(11), 0, &[Event::RunStarted(first)]).await;
    (id, log)
}

async fn triggers_show_what_came_of_them(storage: Storage) {
    let world = World::new(storage).await;
    let id = workflow_id().to_string();
    let stream = ("workflow", &*id);
    let created = ResourceEvent::Created { spec: workflow(true), revision: 1 };
    world.append(stream, ours(), 0, &[created]).await;
    let at = |hour| format!("2026-01-01T{hour:02}:00:00Z");
    world.run(run_id(1), 0, &[triggered(run_id(1), 3)]).await;
    world.run(run_id(2), 0, &[triggered(run_id(2), 4)]).await;
    let log = TriggerId::of(workflow_id(), &"nightly".parse().expect("a name")).to_string();
    let events = [
        of_trigger("trigger_fired", json!({"at": at(3), "run_id": run_id(1)})),
        of_trigger("trigger_missed", json!({"first": at(5), "last": at(7)})),
        of_trigger("trigger_failed", json!({"at": at(8), "code": "a", "message": "b"})),
        of_trigger("trigger_failed", json!({"at": at(9), "code": "c", "message": "d"})),
        of_trigger("trigger_advanced", json!({"position": 4})),
    ];
    let position = world.append(("trigger", &log), ours(), 0, &events).await;
    let now = at(1).parse().expect("a time");
    let list = |workspace, position| {
        ResourceQueries::triggers(&*world.views, workspace, workflow_id(), now, position)
    };
    let shown = list(ours(), Some(position)).await.expect("there");
    let names: Vec<_> = shown.iter().map(|one| (&*one.name, &*one.kind)).collect();
    assert_eq!(names, [("hook", "webhook"), ("nightly", "schedule")]);
    assert_eq!((shown[0].runs, shown[0].next_at, &shown[0].last_run_id), (0, None, &None));
    let nightly = &shown[1];
    assert_eq!((nightly.runs, nightly.failures, nightly.enabled), (2, 2, true));
    assert_eq!(nightly.next_at, Some(at(3).parse().expect("a time")));
    assert_eq!(nightly.last_run_id, Some(run_id(2).to_string()));
    assert_eq!(nightly.last_at, Some(at(4).parse().expect("a time")));
    let error = nightly.last_error.as_ref().expect("an error");
    assert_eq!((&*error.code, &*error.message, &*error.key), ("c", "d", "k"));
    let missed = nightly.last_missed.expect("missed times");
    assert_eq!(missed.last, at(7).parse::<DateTime<Utc>>().expect("a time"));
    let hidden = list(theirs(), None).await.expect_err("not theirs");
    assert_eq!(hidden.kind, RejectionKind::NotFound);

    let run = RunQueries::get(&*world.views, ours(), run_id(2), Some(position)).await;
    let by = run.expect("there").trigger.expect("a trigger");
    assert_eq!((&*by.name, &*by.kind, by.depth), ("nightly", "schedule", 0));
    assert_eq!(by.workflow_id, id);

    let revised = ResourceEvent::Revised { spec: workflow(false), revision: 2 };
    let position = world.append(stream, ours(), 1, &[revised]).await;
    let shown = list(ours(), Some(position)).await.expect("there");
    assert_eq!((shown[1].enabled, shown[1].next_at, shown[1].runs), (false, None, 2));
    let compared = world.views.compare("runs", |_| {}).await.expect("it compares");
    assert_eq!(compared.difference, None);
}

on_both_storages!(triggers_show_what_came_of_them);
