//! A paused workflow: its runs stand still and go on with it, new ones wait, and it is known again
//! after any restart.

use std::time::Duration;

use domain::ids::{RunId, WorkflowId};
use domain::resource::Kind;
use domain::run::RunStatus;
use protocol::command::StartRun;
use protocol::{Command, Receipt, RunTarget};
use serde_json::{Value, json};

use crate::platform::{Platform, folder, sequence};

async fn workflow(platform: &Platform, definition: Value) -> WorkflowId {
    let project_id = platform.service.defaults().project_id;
    let spec = json!({"project_id": project_id, "definition": definition, "hash": ""});
    let create = |kind: &str, spec: Value| {
        let spec = json!({"kind": kind, "spec": spec});
        Command::Create(serde_json::from_value(spec).expect("a spec"))
    };
    let published = platform.execute(create("workflow_definition", spec)).await.expect("a version");
    let spec = json!({"project_id": project_id, "name": "nightly", "definition_id": published.id});
    let made = platform.execute(create("workflow", spec)).await.expect("a workflow");
    made.id.parse().expect("its id")
}

async fn set_paused(platform: &Platform, id: WorkflowId, paused: bool) {
    let (kind, id, patch) = (Kind::Workflow, id.to_string(), json!({"paused": paused}));
    platform.execute(Command::Revise { kind, id, patch }).await.expect("it is revised");
}

async fn start(platform: &Platform, id: WorkflowId) -> Receipt {
    let (target, input) = (RunTarget::Workflow(id), json!({}));
    let labels = Default::default();
    let start = StartRun { target, input, labels, home: None, trigger: None };
    platform.execute(Command::StartRun(Box::new(start))).await.expect("it is taken")
}

fn id(receipt: &Receipt) -> RunId {
    receipt.id.parse().expect("a run's id")
}

async fn recorded(platform: &Platform, run_id: RunId, event: &str, times: usize) {
    let mut look = tokio::time::interval(Duration::from_millis(5));
    let looking = async {
        while platform.events(run_id).await.iter().filter(|one| *one == event).count() < times {
            look.tick().await;
        }
    };
    tokio::time::timeout(Duration::from_secs(20), looking).await.expect(event);
}

#[tokio::test]
async fn its_runs_stand_still_and_new_ones_wait_until_it_goes_on() {
    let folder = folder();
    let platform = Platform::start(folder.path()).await;
    let nightly = workflow(&platform, sequence(2)).await;
    let going = id(&start(&platform, nightly).await);
    let task = platform.pull_one().await;
    let by_hand = id(&start(&platform, nightly).await);
    let other_task = platform.pull_one().await;
    platform.execute(Command::PauseRun { run_id: by_hand, reason: None }).await.expect("paused");
    set_paused(&platform, nightly, true).await;
    recorded(&platform, going, "run_paused", 1).await;
    let late = start(&platform, nightly).await;
    assert!(late.queued);
    let refused = platform.execute(Command::ResumeRun { run_id: going }).await;
    assert_eq!(refused.expect_err("it follows its workflow").code, "workflow_paused");
    platform.succeed(&task, json!(1)).await;
    recorded(&platform, going, "task_succeeded", 1).await;
    platform.stop().await;

    // Nothing of it is known to the next process but what stands in the journal.
    let platform = Platform::start(folder.path()).await;
    let beside = platform.run(&sequence(1)).await;
    let first = platform.pull_one().await;
    assert_eq!(first.run_id, beside);
    platform.succeed(&first, json!(1)).await;
    set_paused(&platform, nightly, false).await;
    let mut due = [going, id(&late)].to_vec();
    while !due.is_empty() {
        for task in platform.pull().await {
            platform.succeed(&task, json!(1)).await;
            if task.node.as_ref() == "s1" {
                assert_eq!(platform.end_of(task.run_id).await.status, RunStatus::Completed);
                due.retain(|run_id| *run_id != task.run_id);
            }
        }
    }
    let events = platform.events(by_hand).await;
    assert!(!events.contains(&"run_resumed".to_owned()), "{events:?}");
    platform.execute(Command::ResumeRun { run_id: by_hand }).await.expect("it is resumed");
    platform.succeed(&other_task, json!(1)).await;
    recorded(&platform, by_hand, "task_succeeded", 1).await;
    platform.stop().await;
}

#[tokio::test]
async fn a_pause_and_a_concurrency_key_hold_one_run_together() {
    let folder = folder();
    let platform = Platform::start(folder.path()).await;
    let mut definition = sequence(1);
    definition["concurrency"] = json!({"limit": 1});
    let nightly = workflow(&platform, definition).await;
    let first = id(&start(&platform, nightly).await);
    let task = platform.pull_one().await;
    let second = start(&platform, nightly).await;
    assert!(second.queued);
    set_paused(&platform, nightly, true).await;
    recorded(&platform, first, "run_paused", 1).await;
    recorded(&platform, id(&second), "run_queued", 2).await;
    // The outcome is taken, and ends the run; who waits for its place stays where it is.
    platform.succeed(&task, json!(1)).await;
    assert_eq!(platform.end_of(first).await.status, RunStatus::Completed);
    let beside = platform.run(&sequence(1)).await;
    let task = platform.pull_one().await;
    assert_eq!(task.run_id, beside);
    set_paused(&platform, nightly, false).await;
    let task = platform.pull_one().await;
    assert_eq!(task.run_id, id(&second));
    platform.succeed(&task, json!(1)).await;
    assert_eq!(platform.end_of(task.run_id).await.status, RunStatus::Completed);
    platform.stop().await;
}
