//! Child runs: started, told of, paused and cancelled with their parents, whatever comes between.

use std::sync::Arc;
use std::time::Duration;

use chassis::clock::SystemClock;
use chassis::journal::Journal;
use commands::CoordinatorConfig;
use domain::ids::RunId;
use domain::run::RunStatus;
use protocol::{Command, Commands as _, FailureKind, RunOutcome};
use serde_json::{Value, json};

use crate::platform::{Platform, config, folder, node};
use crate::watched::Fault;

/// Publishes a definition.
pub(crate) async fn publish(platform: &Platform, definition: Value) {
    let spec = json!({
        "project_id": platform.service.defaults().project_id,
        "definition": definition,
        "hash": "",
    });
    let spec = serde_json::from_value(spec).expect("a definition");
    let spec = domain::resource::Spec::WorkflowDefinition(spec);
    platform.execute(Command::Create(Box::new(spec))).await.expect("it is published");
}

/// A definition that does one thing on a worker and answers with what came of it.
pub(crate) fn helper(name: &str) -> Value {
    let mut work = node();
    work["input"] = json!({"n": "${input.n}"});
    work["output"] = json!({"state.got": "${result}"});
    json!({"name": name, "start": "work", "nodes": {"work": work},
        "output": {"got": "${state.got}"}})
}

/// A definition whose one node runs another one.
fn caller(workflow: Value) -> Value {
    json!({"name": "caller", "start": "ask",
        "nodes": {"ask": {"workflow": workflow, "output": {"state.got": "${result}"}}},
        "output": {"got": "${state.got}"}})
}

/// One that runs another one so many times at once.
pub(crate) fn callers(branches: usize, join: Value) -> Value {
    let mut join = join;
    join["group"] = json!("all");
    join["merge"] = json!({"strategy": "collect", "into": "state.got"});
    json!({"name": "callers", "start": "begin",
        "nodes": {"begin": {"compute": {"state.begun": true}},
            "ask": {"workflow": {"definition": "helper", "input": {"n": "${index}"}}},
            "end": {"compute": {"state.ended": true}}},
        "transitions": [
            {"from": "begin", "to": "ask", "spawn": branches, "group": "all"},
            {"from": "ask", "to": "end", "join": join},
        ],
        "output": {"got": "${state.got}"}})
}

async fn with_helper(folder: &std::path::Path) -> Platform {
    let platform = Platform::start(folder).await;
    publish(&platform, helper("helper")).await;
    platform
}

fn cancel(run_id: RunId) -> Command {
    Command::CancelRun { run_id, reason: None, compensate: true }
}

fn reason(end: &RunOutcome) -> RunStatus {
    assert!(end.output.is_none());
    end.status
}

/// Why a run was cancelled, as its last event says.
async fn why(platform: &Platform, run_id: RunId) -> Value {
    let events = platform.journal.inner.load("run", &run_id.to_string(), 0, 1_000).await;
    let last = events.expect("the journal is there").pop().expect("it has events");
    assert_eq!(&*last.event_type, "run_cancelled");
    let payload: Value = serde_json::from_slice(&last.payload).expect("json");
    payload["reason"].clone()
}

#[tokio::test]
async fn a_child_runs_beside_its_parent_and_its_output_is_the_nodes_result() {
    let folder = folder();
    let platform = with_helper(folder.path()).await;
    let parent = platform.run(&caller(json!({"definition": "helper", "input": {"n": 7}}))).await;
    let task = platform.pull_one().await;
    assert_eq!((task.run_id, &task.input), (parent.child(1), &json!({"n": 7})));
    assert_eq!(protocol::shard_of(task.run_id), protocol::shard_of(parent));
    platform.succeed(&task, json!("well")).await;
    let end = platform.end_of(parent).await;
    assert_eq!(end.output, Some(json!({"got": {"got": "well"}})));
    let events = platform.journal.inner.load("run", &task.run_id.to_string(), 0, 1).await;
    let first = &events.expect("the journal is there")[0];
    let first: Value = serde_json::from_slice(&first.payload).expect("json");
    let above = json!({"run_id": parent, "token": 1, "root_run_id": parent, "depth": 1});
    assert_eq!(first["parent"], above);
    assert_eq!(first["started_by"], "test");
    assert_eq!(first["definition"]["name"], "helper");
    platform.stop().await;
}

#[tokio::test]
async fn a_failure_goes_up_or_is_caught() {
    let folder = folder();
    let platform = with_helper(folder.path()).await;
    let input = json!({"n": 1});
    let parent = platform.run(&caller(json!({"definition": "helper", "input": input}))).await;
    platform.fail(&platform.pull_one().await, FailureKind::Permanent).await;
    let error = platform.end_of(parent).await.error.expect("it failed");
    assert_eq!(error.code, "child_failed");
    assert_eq!(error.detail["error"]["code"], "test");
    assert_eq!(error.detail["run_id"], json!(parent.child(1)));
    let workflow = json!({"definition": "helper", "input": input, "on_failure": "catch"});
    let parent = platform.run(&caller(workflow)).await;
    platform.fail(&platform.pull_one().await, FailureKind::Permanent).await;
    let output = platform.end_of(parent).await.output.expect("it completed");
    assert_eq!(output["got"]["status"], "failed");
    assert_eq!(output["got"]["error"]["code"], "test");
    platform.stop().await;
}

#[tokio::test]
async fn a_child_that_can_not_start_fails_its_node_and_says_why() {
    let folder = folder();
    let platform = with_helper(folder.path()).await;
    let mut strict = helper("strict");
    strict["input_schema"] = json!({"type": "object", "required": ["n"]});
    publish(&platform, strict).await;
    for (workflow, code) in [
        (json!({"definition": "nobody"}), "unknown_reference"),
        (json!({"definition": "helper@9"}), "unknown_reference"),
        (json!({"definition": "strict"}), "invalid_input"),
    ] {
        let parent = platform.run(&caller(workflow)).await;
        let error = platform.end_of(parent).await.error.expect("it failed");
        assert_eq!(
            (error.code.as_str(), error.detail["error"]["code"].as_str()),
            ("child_failed", Some(code))
        );
        assert!(platform.events(parent.child(1)).await.is_empty());
    }
    platform.stop().await;
}

#[tokio::test]
async fn an_outage_while_a_child_is_looked_up_is_no_failure() {
    let folder = folder();
    let platform = with_helper(folder.path()).await;
    let workflow = json!({"definition": "${input.which}", "input": {"n": 1}});
    let mut definition = caller(workflow);
    definition["nodes"]["before"] = node();
    definition["start"] = json!("before");
    definition["transitions"] = json!([{"from": "before", "to": "ask"}]);
    let start = platform.starting(&definition, json!({"which": "helper"}));
    let parent: RunId =
        platform.execute(start).await.expect("it starts").id.parse().expect("an id");
    platform.pull_one().await;
    platform.stop().await;
    // The next process knows nothing of the helper before it is asked for.
    let platform = Platform::start(folder.path()).await;
    let before = platform.pull_one().await;
    platform.journal.fail_reads(2);
    platform.succeed(&before, json!(1)).await;
    let task = platform.pull_one().await;
    assert_eq!((task.run_id, platform.journal.unread()), (parent.child(2), 0));
    platform.succeed(&task, json!(1)).await;
    assert_eq!(platform.end_of(parent).await.status, RunStatus::Completed);
    platform.stop().await;
}

#[tokio::test]
async fn a_definition_runs_itself_down_to_the_limit() {
    let folder = folder();
    let platform = Platform::start(folder.path()).await;
    let definition = caller(json!({"definition": "caller"}));
    publish(&platform, definition.clone()).await;
    let parent = platform.run(&definition).await;
    let mut error = serde_json::to_value(platform.end_of(parent).await.error).expect("json");
    let mut depth = 0;
    while error["code"] == "child_failed" {
        error = error["detail"]["error"].take();
        depth += 1;
    }
    assert_eq!((depth, &error["code"]), (10, &json!("child_depth")));
    platform.stop().await;
}

#[tokio::test]
async fn many_children_run_and_another_run_is_not_held_up() {
    let folder = folder();
    let platform = with_helper(folder.path()).await;
    let parent = platform.run(&callers(300, json!({"wait": "all"}))).await;
    let other = platform.run(&crate::platform::sequence(1)).await;
    let mut results = 0;
    while results < 301 {
        for task in platform.pull().await {
            let result = task.input["n"].clone();
            platform.succeed(&task, result).await;
            results += 1;
        }
    }
    assert_eq!(platform.end_of(other).await.status, RunStatus::Completed);
    let output = platform.end_of(parent).await.output.expect("it completed");
    let expected: Vec<_> = (0..300).map(|n| json!({"got": n})).collect();
    assert_eq!(output["got"], json!(expected));
    platform.stop().await;
}

#[tokio::test]
async fn a_cancel_is_answered_at_once_and_the_children_follow() {
    let folder = folder();
    let platform = with_helper(folder.path()).await;
    let parent = platform.run(&callers(50, json!({}))).await;
    let tasks = platform.pull_many(50).await;
    let children: Vec<RunId> = tasks.iter().map(|task| task.run_id).collect();
    platform.execute(cancel(parent)).await.expect("it always succeeds");
    assert_eq!(platform.end_of(parent).await.status, RunStatus::Cancelled);
    for child in children {
        assert_eq!(reason(&platform.end_of(child).await), RunStatus::Cancelled);
        assert_eq!(why(&platform, child).await, "parent_ended");
    }
    platform.stop().await;
}

#[tokio::test]
async fn a_cancel_whose_answer_was_lost_reaches_the_children_all_the_same() {
    let folder = folder();
    let platform = with_helper(folder.path()).await;
    let parent = platform.run(&callers(3, json!({}))).await;
    let tasks = platform.pull_many(3).await;
    platform.journal.fail_next(Fault::AnswerLost);
    platform.execute(cancel(parent)).await.expect("it is found to be done");
    for task in tasks {
        assert_eq!(reason(&platform.end_of(task.run_id).await), RunStatus::Cancelled);
        assert_eq!(why(&platform, task.run_id).await, "parent_ended");
    }
    platform.stop().await;
}

#[tokio::test]
async fn a_resume_whose_answer_was_lost_reaches_the_children_all_the_same() {
    let folder = folder();
    let platform = Platform::start(folder.path()).await;
    let mut twice = helper("twice");
    twice["nodes"]["again"] = node();
    twice["transitions"] = json!([{"from": "work", "to": "again"}]);
    publish(&platform, twice).await;
    let called = caller(json!({"definition": "twice", "input": {"n": 1}}));
    let parent = platform.run(&called).await;
    let first = platform.pull_one().await;
    platform.execute(Command::PauseRun { run_id: parent, reason: None }).await.expect("it runs");
    let child = first.run_id;
    let came_to = async |event_type: &str| {
        while platform.events(child).await.last().map(String::as_str) != Some(event_type) {
            tokio::task::yield_now().await;
        }
    };
    came_to("run_paused").await;
    platform.succeed(&first, json!(1)).await;
    came_to("token_routed").await;
    platform.journal.fail_next(Fault::AnswerLost);
    platform.execute(Command::ResumeRun { run_id: parent }).await.expect("it is paused");
    let second = platform.pull_one().await;
    assert_eq!(second.run_id, child);
    platform.succeed(&second, json!(2)).await;
    assert_eq!(platform.end_of(parent).await.status, RunStatus::Completed);
    platform.stop().await;
}

#[tokio::test]
async fn children_of_branches_that_a_join_gives_up_are_cancelled() {
    let folder = folder();
    let platform = with_helper(folder.path()).await;
    let parent = platform.run(&callers(3, json!({"wait": "any"}))).await;
    let tasks = platform.pull_many(3).await;
    platform.succeed(&tasks[1], json!(1)).await;
    assert_eq!(platform.end_of(parent).await.status, RunStatus::Completed);
    for task in [&tasks[0], &tasks[2]] {
        assert_eq!(reason(&platform.end_of(task.run_id).await), RunStatus::Cancelled);
    }
    platform.stop().await;
}

#[tokio::test]
async fn a_child_that_takes_too_long_is_cancelled() {
    let folder = folder();
    let platform = with_helper(folder.path()).await;
    let mut definition = caller(json!({"definition": "helper", "input": {"n": 1}}));
    definition["nodes"]["ask"]["timeout"] = json!("20ms");
    let parent = platform.run(&definition).await;
    let error = platform.end_of(parent).await.error.expect("it failed");
    assert_eq!(error.code, "child_timeout");
    // It may have been given up before it was started.
    let child = parent.child(1);
    if !platform.events(child).await.is_empty() {
        assert_eq!(reason(&platform.end_of(child).await), RunStatus::Cancelled);
    }
    platform.stop().await;
}

#[tokio::test]
async fn a_parent_and_its_child_pause_together() {
    let folder = folder();
    let platform = with_helper(folder.path()).await;
    let mut two = helper("two");
    two["nodes"]["then"] = node();
    two["transitions"] = json!([{"from": "work", "to": "then"}]);
    publish(&platform, two).await;
    let parent = platform.run(&caller(json!({"definition": "two", "input": {"n": 1}}))).await;
    let first = platform.pull_one().await;
    platform.execute(Command::PauseRun { run_id: parent, reason: None }).await.expect("it runs");
    let child = first.run_id;
    while platform.events(child).await.last().map(String::as_str) != Some("run_paused") {
        tokio::task::yield_now().await;
    }
    platform.succeed(&first, json!(1)).await;
    // The next task is another run's.
    let other = platform.run(&crate::platform::sequence(1)).await;
    assert_eq!(platform.pull_one().await.run_id, other);
    platform.execute(Command::ResumeRun { run_id: parent }).await.expect("it is paused");
    let second = platform.pull_one().await;
    assert_eq!((second.run_id, &*second.node), (child, "then"));
    platform.succeed(&second, json!(1)).await;
    assert_eq!(platform.end_of(parent).await.status, RunStatus::Completed);
    platform.stop().await;
}

#[tokio::test]
async fn parents_and_children_that_left_memory_find_each_other() {
    let folder = folder();
    let config = CoordinatorConfig { idle: Duration::from_millis(1), ..config() };
    let clock = Arc::new(SystemClock::new());
    let platform = Platform::start_with(folder.path(), &config, clock).await;
    publish(&platform, helper("helper")).await;
    let parent = platform.run(&callers(5, json!({}))).await;
    let tasks = platform.pull_many(5).await;
    for task in &tasks {
        for run_id in [parent, task.run_id] {
            // A stranger's command loads the run where it isn't in memory: so it has left.
            let loads = platform.journal.run_loads();
            while platform.journal.run_loads() == loads {
                platform.cancel_from_elsewhere(run_id).await;
                tokio::task::yield_now().await;
            }
        }
        platform.succeed(task, json!(1)).await;
    }
    assert_eq!(platform.end_of(parent).await.status, RunStatus::Completed);
    platform.stop().await;
}

/// The trace that a run's first event is part of.
async fn trace(platform: &Platform, run_id: RunId) -> Value {
    let events = platform.journal.inner.load("run", &run_id.to_string(), 0, 1).await;
    let metadata = &events.expect("the journal is there")[0].metadata;
    let metadata: Value = serde_json::from_slice(metadata).expect("json");
    metadata["traceparent"].clone()
}

#[tokio::test]
async fn children_are_part_of_the_trace_of_the_run_at_the_top() {
    let folder = folder();
    let platform = with_helper(folder.path()).await;
    publish(&platform, caller(json!({"definition": "helper", "input": {"n": 7}}))).await;
    let mut top = caller(json!({"definition": "caller"}));
    top["name"] = json!("top");
    // The second one is asked for after a restart: what is in memory is gone by then.
    top["nodes"]["then"] = json!({"workflow": {"definition": "helper", "input": {"n": 8}}});
    top["transitions"] = json!([{"from": "ask", "to": "then"}]);
    const TRACE: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
    let mut envelope = platform.envelope(platform.starting(&top, json!({})));
    envelope.traceparent = Some(TRACE.to_owned());
    let receipt = platform.service.execute(envelope).await.expect("the run starts");
    let run: RunId = receipt.id.parse().expect("an id");
    let low = platform.pull_one().await;
    assert_eq!(low.run_id, run.child(1).child(1));
    for run_id in [run, run.child(1), low.run_id] {
        assert_eq!(trace(&platform, run_id).await, TRACE);
    }
    platform.stop().await;
    let platform = Platform::start(folder.path()).await;
    platform.succeed(&platform.pull_one().await, json!(1)).await;
    let next = platform.pull_one().await;
    assert_ne!(next.run_id, low.run_id);
    assert_eq!(trace(&platform, next.run_id).await, TRACE);
    platform.stop().await;
}
