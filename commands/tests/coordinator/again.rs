//! Retries and reruns: what is made again, and what isn't, over restarts too.

use chassis::journal::Journal;
use domain::ids::RunId;
use protocol::command::StartRun;
use protocol::{Command, FailureKind, Rejection, RerunVersion, RunStatus, RunTarget, Task};
use serde_json::{Value, json};

use crate::children::{callers, helper, publish};
use crate::platform::{Platform, folder, node};

/// A step, two branches, and a step over what came of them.
fn errands() -> Value {
    let mut work = node();
    work["input"] = json!({"index": "${index}"});
    json!({
        "name": "errands", "start": "first",
        "nodes": {"first": node(), "work": work, "last": node()},
        "transitions": [
            {"from": "first", "to": "work", "spawn": 2, "group": "g"},
            {"from": "work", "to": "last",
             "join": {"group": "g", "merge": {"strategy": "collect", "into": "state.all"}}}],
        "output": {"all": "${state.all}"},
    })
}

async fn retried(platform: &Platform, run_id: RunId) -> Result<RunId, Rejection> {
    let receipt = platform.execute(Command::RetryRun { run_id, dry_run: false }).await?;
    Ok(receipt.id.parse().expect("a run"))
}

async fn rerun(platform: &Platform, run_id: RunId, version: RerunVersion) -> RunId {
    let start = StartRun {
        target: RunTarget::Rerun { run_id, version },
        input: Value::Null,
        labels: Default::default(),
        home: None,
        trigger: None,
    };
    let receipt = platform.execute(Command::StartRun(Box::new(start))).await;
    receipt.expect("it starts").id.parse().expect("a run")
}

/// A run of which the first step and one branch are done, and the other branch has failed.
async fn failed(platform: &Platform) -> RunId {
    let run_id = platform.run(&errands()).await;
    platform.succeed(&platform.pull_one().await, json!(0)).await;
    let [first, second] = branches(platform).await;
    platform.succeed(&first, json!("a")).await;
    platform.fail(&second, FailureKind::Permanent).await;
    assert_eq!(platform.end_of(run_id).await.status, RunStatus::Failed);
    run_id
}

/// The tasks of both branches, in order.
async fn branches(platform: &Platform) -> [Task; 2] {
    let mut tasks = platform.pull_many(2).await;
    tasks.sort_by_key(|task| task.input["index"].as_u64());
    tasks.try_into().expect("two branches")
}

#[tokio::test]
async fn a_retry_makes_the_failed_attempt_again_and_nothing_else() {
    let folder = folder();
    let platform = Platform::start(folder.path()).await;
    let run_id = failed(&platform).await;
    let before = platform.events(run_id).await;
    let receipt = platform.execute(Command::RetryRun { run_id, dry_run: true }).await;
    let plan = receipt.expect("a plan").plan.expect("a plan");
    assert_eq!((plan.calls.count, plan.adopted.count), (1, 0), "{plan:?}");
    assert_eq!((&*plan.calls.items[0].node, plan.status), ("work", RunStatus::Running));

    let again = retried(&platform, run_id).await.expect("it is retried");
    assert_ne!(again, run_id);
    // The attempt is owed, whatever happens to the process.
    platform.stop().await;
    let platform = Platform::start(folder.path()).await;
    let task = platform.pull_one().await;
    assert_eq!((task.run_id, &task.input["index"]), (again, &json!(1)));
    platform.succeed(&task, json!("b")).await;
    let task = platform.pull_one().await;
    platform.succeed(&task, json!(2)).await;
    let end = platform.end_of(again).await;
    assert_eq!((end.status, end.output), (RunStatus::Completed, Some(json!({"all": ["a", "b"]}))));
    // What it has of the failed run is the same, and the failed run stands as it stood.
    assert_eq!(platform.events(run_id).await, before);
    platform.stop().await;
}

#[tokio::test]
async fn a_retry_that_fails_is_retried_from_where_it_failed() {
    let folder = folder();
    let platform = Platform::start(folder.path()).await;
    let first = failed(&platform).await;
    let second = retried(&platform, first).await.expect("it is retried");
    platform.succeed(&platform.pull_one().await, json!("b")).await;
    platform.fail(&platform.pull_one().await, FailureKind::Permanent).await;
    assert_eq!(platform.end_of(second).await.status, RunStatus::Failed);
    let third = retried(&platform, second).await.expect("it is retried");
    platform.succeed(&platform.pull_one().await, json!(2)).await;
    let end = platform.end_of(third).await;
    assert_eq!((end.status, end.output), (RunStatus::Completed, Some(json!({"all": ["a", "b"]}))));
    platform.stop().await;
}

#[tokio::test]
async fn a_child_that_failed_is_started_anew_by_the_retry_of_its_parent() {
    let folder = folder();
    let platform = Platform::start(folder.path()).await;
    publish(&platform, helper("helper")).await;
    let run_id = platform.run(&callers(3, json!({}))).await;
    let mut tasks = platform.pull_many(3).await;
    tasks.sort_by_key(|task| task.input["n"].as_u64());
    platform.succeed(&tasks[0], json!("a")).await;
    platform.end_of(tasks[0].run_id).await;
    platform.fail(&tasks[1], FailureKind::Permanent).await;
    assert_eq!(platform.end_of(run_id).await.status, RunStatus::Failed);
    assert_eq!(platform.end_of(tasks[2].run_id).await.status, RunStatus::Cancelled);

    let again = retried(&platform, run_id).await.expect("it is retried");
    let mut anew = platform.pull_many(2).await;
    anew.sort_by_key(|task| task.input["n"].as_u64());
    assert_eq!(anew.iter().map(|task| &task.input["n"]).collect::<Vec<_>>(), [1, 2]);
    assert!(anew.iter().all(|task| tasks.iter().all(|before| before.run_id != task.run_id)));
    platform.succeed(&anew[0], json!("b")).await;
    platform.succeed(&anew[1], json!("c")).await;
    let end = platform.end_of(again).await;
    let got = ["a", "b", "c"].map(|got| json!({"got": got}));
    assert_eq!((end.status, end.output), (RunStatus::Completed, Some(json!({"got": got}))));
    platform.stop().await;
}

#[tokio::test]
async fn only_what_has_failed_and_stands_as_it_failed_is_retried() {
    let folder = folder();
    let platform = Platform::start(folder.path()).await;
    let run_id = platform.run(&errands()).await;
    platform.pull_one().await;
    assert_eq!(retried(&platform, run_id).await.expect_err("it goes on").code, "not_failed");
    platform
        .execute(Command::CancelRun { run_id, reason: None, compensate: true })
        .await
        .expect("it is cancelled");
    assert_eq!(retried(&platform, run_id).await.expect_err("cancelled").code, "not_failed");
    let nobody = RunId::new(uuid::Uuid::from_u128(7));
    assert_eq!(retried(&platform, nobody).await.expect_err("nobody").code, "run_not_found");

    let mut undone = errands();
    (undone["name"], undone["compensate"]) = (json!("undone"), json!(true));
    undone["nodes"]["first"]["undo"] = json!({"action": {"kind": "mock", "with": {}}});
    let run_id = platform.run(&undone).await;
    platform.succeed(&platform.pull_one().await, json!(0)).await;
    let [first, second] = branches(&platform).await;
    platform.succeed(&first, json!("a")).await;
    platform.fail(&second, FailureKind::Permanent).await;
    platform.succeed(&platform.pull_one().await, json!("undone")).await;
    assert_eq!(platform.end_of(run_id).await.status, RunStatus::Failed);
    let refused = retried(&platform, run_id).await.expect_err("it is undone");
    assert_eq!((&*refused.code, refused.pointer), ("retry_undone", None));
    platform.stop().await;
}

#[tokio::test]
async fn a_rerun_has_the_input_and_the_version_of_its_run_or_the_newest() {
    let folder = folder();
    let platform = Platform::start(folder.path()).await;
    let version = |number: u64| {
        json!({"name": "sum", "start": "one", "nodes": {"one": node()},
            "output": {"version": number, "n": "${input.n}"}})
    };
    publish(&platform, version(1)).await;
    let target = RunTarget::Named {
        project_id: platform.service.defaults().project_id,
        reference: "sum".to_owned(),
    };
    let start = StartRun {
        target,
        input: json!({"n": 5}),
        labels: [("team".to_owned(), "a".to_owned())].into(),
        home: None,
        trigger: None,
    };
    let receipt = platform.execute(Command::StartRun(Box::new(start))).await.expect("it starts");
    let run_id: RunId = receipt.id.parse().expect("a run");
    publish(&platform, version(2)).await;
    platform.succeed(&platform.pull_one().await, json!(0)).await;
    for (version, number) in [(RerunVersion::Pinned, 1), (RerunVersion::Latest, 2)] {
        let again = rerun(&platform, run_id, version).await;
        platform.succeed(&platform.pull_one().await, json!(0)).await;
        let end = platform.end_of(again).await;
        assert_eq!(end.output, Some(json!({"version": number, "n": 5})), "{version:?}");
        let events = platform.journal.inner.load("run", &again.to_string(), 0, 1).await;
        let payload = &events.expect("the journal is there")[0].payload;
        let started: Value = serde_json::from_slice(payload).expect("it is JSON");
        assert_eq!(started["rerun_of"], run_id.to_string());
        assert_eq!(started["labels"], json!({"team": "a"}));
    }
    platform.stop().await;
}
