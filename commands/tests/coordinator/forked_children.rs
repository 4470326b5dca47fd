//! Forks of runs that wait for children: these fork with them, at the same moment.

use domain::ids::RunId;
use domain::run::event::Adopt;
use protocol::{Command, FailureKind, ForkPlan, ForkRun, RunStatus, Task};
use serde_json::{Value, json};

use crate::children::publish;
use crate::forks::{fork_of, forked, refused};
use crate::platform::{Platform, folder, node, sequence};

/// A run whose one node waits for a run of another definition.
fn above(name: &str, below: &str) -> Value {
    json!({"name": name, "start": "call",
        "nodes": {"call": {"workflow": {"definition": below}}}})
}

/// The event after which its child is waited for, and the token that does.
const CALLED: u64 = 2;
const CALLS: u64 = 1;

async fn planned(platform: &Platform, fork: ForkRun) -> ForkPlan {
    let fork = Command::ForkRun(Box::new(ForkRun { dry_run: true, ..fork }));
    *platform.execute(fork).await.expect("it is tried").plan.expect("a plan")
}

async fn succeed_next(platform: &Platform, run_id: RunId) -> Task {
    let task = platform.pull_one().await;
    assert_eq!(task.run_id, run_id);
    platform.succeed(&task, json!(task.node.to_string())).await;
    task
}

#[tokio::test]
async fn a_live_child_forks_with_its_parent_and_goes_on_where_it_was() {
    let folder = folder();
    let platform = Platform::start(folder.path()).await;
    let mut below = sequence(3);
    below["name"] = json!("below");
    publish(&platform, below).await;
    let parent = platform.run(&above("above", "below")).await;
    let child = parent.child(CALLS);
    let first = succeed_next(&platform, child).await;
    let second = platform.pull_one().await;

    let plan = planned(&platform, fork_of(parent, CALLED)).await;
    assert_eq!((plan.children, plan.calls.count, plan.later.count), (1, 1, 0));
    let call = &plan.calls.items[0];
    assert_eq!((&*call.node, &call.run_id), (&*second.node, &Some(child.to_string())));

    let fork = forked(&platform, fork_of(parent, CALLED)).await;
    let of_child = fork.child(CALLS);
    let again = platform.pull_one().await;
    assert_eq!((again.run_id, &again.node), (of_child, &second.node));
    // Another process takes over while the child of the fork is under way.
    platform.stop().await;
    let platform = Platform::start(folder.path()).await;
    let tasks = platform.pull_many(2).await;
    for task in tasks.iter().filter(|task| task.run_id == of_child) {
        platform.succeed(task, json!(1)).await;
    }
    let last = succeed_next(&platform, of_child).await;
    assert_ne!((&last.node, &last.node), (&first.node, &second.node));
    assert_eq!(platform.end_of(fork).await.status, RunStatus::Completed);
    let events = platform.events(of_child).await;
    assert_eq!(events.iter().filter(|one| *one == "task_succeeded").count(), 3, "{events:?}");
    assert!(events.contains(&"run_forked".to_owned()), "{events:?}");

    // The other run is where it was.
    for task in tasks.iter().filter(|task| task.run_id == child) {
        platform.succeed(task, json!(1)).await;
    }
    succeed_next(&platform, child).await;
    assert_eq!(platform.end_of(parent).await.status, RunStatus::Completed);
    // By now its child's end is known, and is taken over.
    let late = forked(&platform, fork_of(parent, CALLED)).await;
    assert_eq!(platform.end_of(late).await.status, RunStatus::Completed);
    assert!(platform.events(late.child(CALLS)).await.is_empty(), "no child was made");
    platform.stop().await;
}

#[tokio::test]
async fn children_of_children_and_of_branches_fork_too() {
    let folder = folder();
    let platform = Platform::start(folder.path()).await;
    let mut below = sequence(2);
    below["name"] = json!("below");
    publish(&platform, below).await;
    publish(&platform, above("middle", "below")).await;
    let fan = json!({"name": "fan", "start": "begin",
        "nodes": {"begin": {"compute": {}}, "call": {"workflow": {"definition": "middle"}},
            "after": {"compute": {}}},
        "transitions": [{"from": "begin", "to": "call", "spawn": 2, "group": "g"},
            {"from": "call", "to": "after",
             "join": {"group": "g", "merge": {"strategy": "collect", "into": "state.all"}}}]});
    let top = platform.run(&fan).await;
    let tasks = platform.pull_many(2).await;
    // One of the two ends, the other is half way.
    platform.succeed(&tasks[0], json!(1)).await;
    let done = succeed_next(&platform, tasks[0].run_id).await;
    platform.succeed(&tasks[1], json!(1)).await;
    let open = platform.pull_one().await;
    assert_eq!((open.run_id, &open.node), (tasks[1].run_id, &done.node));

    let told = |events: &[String]| events.iter().any(|one| one == "child_ended");
    let mut events = platform.events(top).await;
    while !told(&events) {
        tokio::task::yield_now().await;
        events = platform.events(top).await;
    }
    let at = events.len() as u64;
    let plan = planned(&platform, fork_of(top, at)).await;
    assert_eq!((plan.children, plan.calls.count), (2, 1), "{plan:?}");
    let fork = forked(&platform, fork_of(top, at)).await;
    let again = platform.pull_one().await;
    assert_eq!((&again.node, &again.input), (&open.node, &open.input));
    platform.succeed(&again, json!(2)).await;
    assert_eq!(platform.end_of(fork).await.status, RunStatus::Completed);

    // Where nothing is adopted, what was done by then is done all the same.
    let bare = ForkRun { adopt: Adopt::None, ..fork_of(top, at) };
    let bare = forked(&platform, bare).await;
    let again = platform.pull_one().await;
    assert_eq!(&again.node, &open.node);
    platform.succeed(&again, json!(2)).await;
    assert_eq!(platform.end_of(bare).await.status, RunStatus::Completed);
    platform.stop().await;
}

#[tokio::test]
async fn a_child_that_undoes_its_work_keeps_its_parent_from_being_forked() {
    let folder = folder();
    let platform = Platform::start(folder.path()).await;
    let mut first = node();
    first["undo"] = json!({"action": {"kind": "mock"}});
    let below = json!({"name": "below", "start": "a", "compensate": true, "nodes": {"a": first, "b": node()},
        "transitions": [{"from": "a", "to": "b"}]});
    publish(&platform, below).await;
    let parent = platform.run(&above("above", "below")).await;
    let child = parent.child(CALLS);
    succeed_next(&platform, child).await;
    let second = platform.pull_one().await;
    platform.fail(&second, FailureKind::Permanent).await;
    let undo = platform.pull_one().await;
    assert_eq!(undo.run_id, child);
    assert_eq!(refused(&platform, fork_of(parent, CALLED)).await, "fork_child_live");
    // Before the child there is nothing in the way.
    let fork = forked(&platform, fork_of(parent, 1)).await;
    assert_eq!(platform.pull_one().await.run_id, fork.child(CALLS));
    platform.stop().await;
}
