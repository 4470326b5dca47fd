//! Compensation: undos are handed out as other work is, whoever owns the run by then.

use chassis::journal::Journal;
use domain::run::RunStatus;
use protocol::task::WorkBody;
use protocol::{Command, FailureKind, Task};
use serde_json::{Value, json};

use crate::children::{helper, publish};
use crate::platform::{Platform, folder, node};

/// Two steps that can be undone, the second by an action of the project, and one that can't.
fn booking(more: Value) -> Value {
    let mut first = node();
    first["undo"] = json!({"action": {"kind": "mock", "with": {"result": "first"}},
        "input": {"id": "${result.id}"}});
    let mut second = node();
    second["undo"] = json!({"action": {"use": "release"}, "input": {"id": "${result.id}"}});
    for (key, value) in more.as_object().into_iter().flatten() {
        second["undo"][key] = value.clone();
    }
    json!({"name": "booking", "start": "first", "compensate": true,
        "nodes": {"first": first, "second": second, "third": node()},
        "transitions": [{"from": "first", "to": "second"}, {"from": "second", "to": "third"}]})
}

async fn release(platform: &Platform) {
    let spec = json!({"project_id": platform.service.defaults().project_id, "name": "release",
        "action": "mock", "with": {"result": "released"}, "timeout": "7s",
        "retry": {"max_attempts": 2, "initial": "1ms"}});
    let spec = serde_json::from_value(spec).expect("an action");
    let spec = domain::resource::Spec::Action(spec);
    platform.execute(Command::Create(Box::new(spec))).await.expect("it is created");
}

fn result(task: &Task) -> Value {
    let WorkBody::Action(action) = &task.work.body else { panic!("{task:?}") };
    action.with["result"].clone()
}

#[tokio::test]
async fn an_undo_is_owed_with_its_own_work_after_a_restart_too() {
    let folder = folder();
    let platform = Platform::start(folder.path()).await;
    release(&platform).await;
    let run_id = platform.run(&booking(json!({}))).await;
    for id in [1, 2] {
        platform.succeed(&platform.pull_one().await, json!({"id": id})).await;
    }
    let third = platform.pull_one().await;
    platform.fail(&third, FailureKind::Permanent).await;
    let undo = platform.pull_one().await;
    assert_eq!((&*undo.node, undo.token, &undo.input), ("second", 4, &json!({"id": 2})));
    // By the action's own, as the run began with it.
    assert_eq!(result(&undo), "released");
    assert_eq!(undo.timeout.map(|span| span.as_millis()), Some(7_000));
    assert_ne!(undo.work.key, third.work.key);
    platform.fail(&undo, FailureKind::Transient).await;
    let again = platform.pull_one().await;
    assert_eq!((again.token, again.attempt), (undo.token, 2));
    platform.stop().await;

    let platform = Platform::start(folder.path()).await;
    let owed = platform.pull_one().await;
    assert_eq!((owed.token, owed.attempt, &owed.input), (4, 2, &json!({"id": 2})));
    platform.succeed(&owed, json!("done")).await;
    let undo = platform.pull_one().await;
    assert_eq!((&*undo.node, undo.token, result(&undo)), ("first", 5, json!("first")));
    platform.succeed(&undo, json!("done")).await;
    let end = platform.end_of(run_id).await;
    assert_eq!(
        (end.status, end.error.expect("it failed").code.as_str()),
        (RunStatus::Failed, "test")
    );
    platform.stop().await;
}

#[tokio::test]
async fn an_undo_that_must_not_be_repeated_ends_in_doubt_after_a_take_over() {
    let folder = folder();
    let platform = Platform::start(folder.path()).await;
    release(&platform).await;
    let run_id = platform.run(&booking(json!({"repeatable": false}))).await;
    for id in [1, 2] {
        platform.succeed(&platform.pull_one().await, json!({"id": id})).await;
    }
    platform.fail(&platform.pull_one().await, FailureKind::Permanent).await;
    let undo = platform.pull_one().await;
    assert!(!undo.work.repeatable);
    assert!(platform.events(run_id).await.ends_with(&["task_handed_out".to_owned()]));
    platform.stop().await;

    let platform = Platform::start(folder.path()).await;
    // It may have been done, so it isn't made again, and the next one follows.
    let undo = platform.pull_one().await;
    assert_eq!(&*undo.node, "first");
    platform.succeed(&undo, Value::Null).await;
    platform.end_of(run_id).await;
    let events = platform.events(run_id).await;
    let of = |name: &str| events.iter().filter(|event| *event == name).count();
    assert_eq!((of("undo_started"), of("undo_succeeded"), of("undo_failed")), (2, 1, 1));
    platform.stop().await;
}

#[tokio::test]
async fn a_child_that_is_given_up_is_told_that_its_parent_ends_and_undoes_its_own_work_once() {
    let folder = folder();
    let platform = Platform::start(folder.path()).await;
    let mut child = helper("helper");
    child["compensate"] = json!(true);
    child["nodes"]["work"]["undo"] = json!({"action": {"kind": "mock"}});
    child["nodes"]["after"] = node();
    child["transitions"] = json!([{"from": "work", "to": "after"}]);
    publish(&platform, child).await;
    let mut first = node();
    first["undo"] = json!({"action": {"kind": "mock"}});
    let parent = json!({"name": "parent", "start": "first", "compensate": true,
        "nodes": {"first": first,
            "ask": {"workflow": {"definition": "helper", "input": {"n": 1}}}},
        "transitions": [{"from": "first", "to": "ask"}]});
    let parent = platform.run(&parent).await;
    platform.succeed(&platform.pull_one().await, Value::Null).await;
    platform.succeed(&platform.pull_one().await, Value::Null).await;
    assert_eq!(&*platform.pull_one().await.node, "after");
    let cancel = |compensate| Command::CancelRun { run_id: parent, reason: None, compensate };
    platform.execute(cancel(true)).await.expect("it always succeeds");
    platform.pull_many(2).await;
    let again = platform.execute(cancel(true)).await.expect_err("it is at it");
    assert_eq!(again.code, "run_compensating");
    // A parent that is taken over says it again to its child, which goes on with what it does.
    platform.stop().await;
    let platform = Platform::start(folder.path()).await;
    let undos = platform.pull_many(2).await;
    for undo in &undos {
        platform.succeed(undo, Value::Null).await;
    }
    for run_id in [parent, parent.child(2)] {
        assert_eq!(platform.end_of(run_id).await.status, RunStatus::Cancelled);
        let events = platform.events(run_id).await;
        let undone = events.iter().filter(|event| *event == "undo_succeeded").count();
        assert_eq!(undone, 1, "{events:?}");
    }
    let events = platform.journal.inner.load("run", &parent.child(2).to_string(), 0, 1_000).await;
    let last = events.expect("the journal is there").pop().expect("it has events");
    let last: Value = serde_json::from_slice(&last.payload).expect("json");
    assert_eq!(last["reason"], "parent_ended");
    platform.stop().await;
}
