//! Runs with a concurrency key: as many go on as may, the others in their turn, over restarts and
//! failing appends.

use domain::ids::RunId;
use domain::run::RunStatus;
use protocol::{Command, Commands, Receipt, Task};
use serde_json::{Value, json};

use crate::platform::{Platform, folder, node};

fn bounded(limit: u32, then: &str) -> Value {
    json!({
        "name": "bounded", "start": "work",
        "concurrency": {"key": "${input.user}", "limit": limit, "then": then},
        "priority": "${has(input.urgent) ? 100 : 0}",
        "nodes": {"work": node()},
    })
}

async fn start(platform: &Platform, definition: &Value, input: Value) -> Receipt {
    platform.execute(platform.starting(definition, input)).await.expect("it is taken")
}

fn id(receipt: &Receipt) -> RunId {
    receipt.id.parse().expect("a run's id")
}

async fn started(platform: &Platform, definition: &Value, user: &str) -> RunId {
    id(&start(platform, definition, json!({"user": user})).await)
}

async fn end(platform: &Platform, task: &Task) {
    platform.succeed(task, json!(1)).await;
    assert_eq!(platform.end_of(task.run_id).await.status, RunStatus::Completed);
}

/// The tasks of so many runs, and of no more.
async fn at_work(platform: &Platform, count: usize) -> Vec<Task> {
    let tasks = platform.pull_many(count).await;
    assert_eq!(tasks.len(), count, "{tasks:?}");
    tasks
}

#[tokio::test]
async fn runs_of_one_key_go_in_turn_and_those_of_others_beside_them() {
    let folder = folder();
    let platform = Platform::start(folder.path()).await;
    let definition = bounded(1, "queue");
    let first = start(&platform, &definition, json!({"user": "ann"})).await;
    let other = start(&platform, &definition, json!({"user": "bob"})).await;
    let mut tasks = at_work(&platform, 2).await;
    let second = start(&platform, &definition, json!({"user": "ann"})).await;
    let third = start(&platform, &definition, json!({"user": "ann", "urgent": true})).await;
    assert_eq!([&second, &third].map(|one| one.queued), [true, true]);
    assert_eq!(id(&first).home(), id(&second).home());
    tasks.sort_by_key(|task| task.run_id != id(&first));
    assert_eq!([tasks[0].run_id, tasks[1].run_id], [id(&first), id(&other)]);
    end(&platform, &tasks[0]).await;
    let next = platform.pull_one().await;
    assert_eq!(next.run_id, id(&third));
    end(&platform, &next).await;
    let last = platform.pull_one().await;
    assert_eq!(last.run_id, id(&second));
    end(&platform, &last).await;
    let recorded = platform.events(id(&second)).await;
    assert_eq!(&recorded[..3], ["run_started", "run_queued", "run_admitted"]);
    platform.stop().await;
}

#[tokio::test]
async fn a_restart_finds_the_queue_as_it_was_and_lets_nobody_in_too_early() {
    let folder = folder();
    let definition = bounded(2, "queue");
    let platform = Platform::start(folder.path()).await;
    let mut runs = Vec::new();
    for _ in 0..6 {
        runs.push(started(&platform, &definition, "ann").await);
    }
    let tasks = at_work(&platform, 2).await;
    assert!(tasks.iter().all(|task| runs[..2].contains(&task.run_id)));
    platform.stop().await;

    let mut going = runs.clone();
    while going.len() > 2 {
        let platform = Platform::start(folder.path()).await;
        let tasks = at_work(&platform, 2).await;
        let mut named: Vec<_> = tasks.iter().map(|task| task.run_id).collect();
        named.sort_by_key(|run_id| going.iter().position(|one| one == run_id));
        assert_eq!(named, going[..2]);
        let oldest = tasks.iter().find(|task| task.run_id == going[0]).expect("it is among them");
        end(&platform, oldest).await;
        going.remove(0);
        platform.stop().await;
    }
}

#[tokio::test]
async fn queued_runs_are_cancelled_and_paused_and_leave_their_place_to_others() {
    let folder = folder();
    let platform = Platform::start(folder.path()).await;
    let definition = bounded(1, "queue");
    let first = started(&platform, &definition, "ann").await;
    let task = platform.pull_one().await;
    let cancelled = started(&platform, &definition, "ann").await;
    let paused = started(&platform, &definition, "ann").await;
    let next = started(&platform, &definition, "ann").await;
    let command = Command::CancelRun { run_id: cancelled, reason: None, compensate: true };
    platform.execute(command).await.expect("it is cancelled");
    let command = Command::PauseRun { run_id: paused, reason: None };
    platform.execute(command).await.expect("it is paused");
    assert_eq!(task.run_id, first);
    end(&platform, &task).await;
    let task = platform.pull_one().await;
    assert_eq!(task.run_id, next);
    platform.execute(Command::ResumeRun { run_id: paused }).await.expect("it is resumed");
    end(&platform, &task).await;
    let task = platform.pull_one().await;
    assert_eq!(task.run_id, paused);
    end(&platform, &task).await;
    platform.stop().await;
}

#[tokio::test]
async fn what_is_over_the_limit_is_dropped_and_recorded() {
    let folder = folder();
    let platform = Platform::start(folder.path()).await;
    let definition = bounded(1, "drop");
    started(&platform, &definition, "ann").await;
    let task = platform.pull_one().await;
    let dropped = start(&platform, &definition, json!({"user": "ann"})).await;
    let outcome = dropped.outcome.as_ref().expect("it has ended");
    assert_eq!(outcome.status, RunStatus::Cancelled);
    assert_eq!(outcome.error.as_ref().expect("why").code, "concurrency_dropped");
    assert_eq!(platform.events(id(&dropped)).await, ["run_started", "run_cancelled"]);
    end(&platform, &task).await;
    let after = started(&platform, &definition, "ann").await;
    assert_eq!(platform.pull_one().await.run_id, after);
    platform.stop().await;
}

#[tokio::test]
async fn the_oldest_makes_room_for_the_newest() {
    let folder = folder();
    let platform = Platform::start(folder.path()).await;
    let definition = bounded(1, "cancel_oldest");
    let first = started(&platform, &definition, "ann").await;
    assert_eq!(platform.pull_one().await.run_id, first);
    let second = started(&platform, &definition, "ann").await;
    let end_of_first = platform.end_of(first).await;
    assert_eq!(end_of_first.status, RunStatus::Cancelled);
    let why = end_of_first.error.expect("why");
    assert_eq!(why.code, "concurrency_replaced");
    assert!(why.message.contains(&second.to_string()), "{}", why.message);
    let task = platform.pull_one().await;
    assert_eq!(task.run_id, second);
    end(&platform, &task).await;
    platform.stop().await;
}

#[tokio::test]
async fn a_command_that_comes_twice_is_one_run_with_one_place() {
    let folder = folder();
    let platform = Platform::start(folder.path()).await;
    let definition = bounded(1, "queue");
    started(&platform, &definition, "ann").await;
    let task = platform.pull_one().await;
    let command = platform.starting(&definition, json!({"user": "ann"}));
    let envelope = platform.envelope(command);
    let once = platform.service.execute(envelope.clone()).await.expect("it is taken");
    let again = platform.service.execute(envelope).await.expect("it is taken");
    assert_eq!((&once.id, once.queued), (&again.id, again.queued));
    end(&platform, &task).await;
    let task = platform.pull_one().await;
    assert_eq!(task.run_id, id(&once));
    end(&platform, &task).await;
    platform.stop().await;
}

#[tokio::test]
async fn a_key_that_cant_be_made_refuses_the_start_with_its_place() {
    let folder = folder();
    let platform = Platform::start(folder.path()).await;
    let definition = bounded(1, "queue");
    let refused = platform.execute(platform.starting(&definition, json!({}))).await;
    let refused = refused.expect_err("there is no user");
    assert_eq!(
        (&*refused.code, refused.pointer.as_deref()),
        ("admission_failed", Some("/concurrency/key"))
    );
    platform.stop().await;
}
