//! Forks, over a real journal: what is shared, what is adopted, and what is called.

use domain::ids::RunId;
use domain::run::event::Adopt;
use protocol::{Command, Commands, ForkDefinition, ForkOutcome, ForkRun, RunStatus, StateAt};
use serde_json::{Value, json};

use crate::platform::{Platform, folder, node};

/// Three branches that work on a word, and a step over what came of them.
fn panel() -> Value {
    let mut work = node();
    work["input"] = json!({"index": "${index}", "word": "${state.word}"});
    let mut after = node();
    after["input"] = json!({"all": "${state.all}", "run": "${run.id}"});
    after["output"] = json!({"state.after": "${result}"});
    json!({
        "name": "panel", "start": "begin",
        "nodes": {"begin": {"compute": {"state.word": "yes"}}, "work": work, "after": after},
        "transitions": [
            {"from": "begin", "to": "work", "spawn": 3, "group": "g"},
            {"from": "work", "to": "after",
             "join": {"group": "g", "merge": {"strategy": "collect", "into": "state.all"}}}],
        "output": {"all": "${state.all}", "after": "${state.after}"},
    })
}

/// The event after which the branches are under way.
const SPAWNED: u64 = 4;

pub(crate) fn fork_of(run_id: RunId, at: u64) -> ForkRun {
    ForkRun::unchanged(run_id, StateAt::Sequence(at))
}

pub(crate) async fn forked(platform: &Platform, fork: ForkRun) -> RunId {
    let receipt = platform.execute(Command::ForkRun(Box::new(fork))).await.expect("it is forked");
    receipt.id.parse().expect("a run")
}

pub(crate) async fn refused(platform: &Platform, fork: ForkRun) -> String {
    let refused = platform.execute(Command::ForkRun(Box::new(fork))).await;
    refused.expect_err("it can't be forked").code.to_string()
}

/// A run of the panel that has ended.
async fn ended(platform: &Platform) -> RunId {
    let run_id = platform.run(&panel()).await;
    let tasks = platform.pull_many(3).await;
    for task in tasks.iter().rev() {
        let word = task.input["word"].as_str().expect("a word");
        platform.succeed(task, json!(format!("{word}{}", task.input["index"]))).await;
    }
    let task = platform.pull_one().await;
    platform.succeed(&task, json!("done")).await;
    assert_eq!(platform.end_of(run_id).await.status, RunStatus::Completed);
    run_id
}

#[tokio::test]
async fn a_fork_at_any_event_calls_nothing_where_nothing_is_different() {
    let folder = folder();
    let platform = Platform::start(folder.path()).await;
    let parent = ended(&platform).await;
    let before = platform.events(parent).await;
    let end = platform.end_of(parent).await;
    for at in 1..before.len() as u64 {
        let fork = forked(&platform, fork_of(parent, at)).await;
        let forked = platform.end_of(fork).await;
        assert_eq!((&forked.status, &forked.output), (&end.status, &end.output), "at {at}");
        let events = platform.events(fork).await;
        let place = events.iter().position(|name| name == "run_forked").expect("a fork");
        assert!(place as u64 <= at && events[..place] == before[..place], "{events:?}");
    }
    assert_eq!(refused(&platform, fork_of(parent, before.len() as u64)).await, "fork_after_end");
    let beyond = fork_of(parent, before.len() as u64 + 1);
    assert_eq!(refused(&platform, beyond).await, "no_such_moment");
    assert_eq!(platform.events(parent).await, before, "it is as it was");
    platform.stop().await;
}

#[tokio::test]
async fn what_is_different_is_called_and_a_restart_still_adopts_the_rest() {
    let folder = folder();
    let platform = Platform::start(folder.path()).await;
    let parent = ended(&platform).await;
    let mut fork = fork_of(parent, SPAWNED);
    fork.branches.insert(3, json!({"word": "no"}));
    let mut dry = fork.clone();
    dry.dry_run = true;
    let receipt = platform.execute(Command::ForkRun(Box::new(dry))).await.expect("a plan");
    let plan = receipt.plan.expect("a plan");
    assert_eq!((plan.adopted.count, plan.calls.count, plan.later.count), (2, 1, 2));
    assert_eq!((plan.calls.items[0].node.as_str(), plan.status), ("work", RunStatus::Running));
    let command = platform.envelope(Command::ForkRun(Box::new(fork)));
    let first = platform.service.execute(command.clone()).await.expect("it is forked");
    let again = platform.service.execute(command).await.expect("it was forked");
    assert_eq!(
        (&first.id, first.version, first.position),
        (&again.id, again.version, again.position)
    );
    let fork: RunId = first.id.parse().expect("a run");
    let task = platform.pull_one().await;
    assert_eq!((task.run_id, task.token), (fork, 3));
    assert_eq!(task.input, json!({"index": 1, "word": "no"}));
    platform.stop().await;
    let platform = Platform::start(folder.path()).await;
    let task = platform.pull_one().await;
    // The same after all: so what comes after it was recorded.
    platform.succeed(&task, json!("yes1")).await;
    let end = platform.end_of(fork).await;
    assert_eq!(end.output, Some(json!({"all": ["yes0", "yes1", "yes2"], "after": "done"})));
    platform.stop().await;
}

#[tokio::test]
async fn an_outcome_can_be_another_one_and_nothing_need_be_adopted() {
    let folder = folder();
    let platform = Platform::start(folder.path()).await;
    let parent = ended(&platform).await;
    let mut fork = fork_of(parent, SPAWNED);
    fork.outcomes.insert(4, ForkOutcome::Result(json!("other")));
    let other = forked(&platform, fork).await;
    let task = platform.pull_one().await;
    assert_eq!(task.input, json!({"all": ["yes0", "yes1", "other"], "run": other}));
    platform.succeed(&task, json!("new")).await;
    let end = platform.end_of(other).await;
    assert_eq!(end.output.map(|output| output["after"].clone()), Some(json!("new")));
    let mut fork = fork_of(parent, SPAWNED);
    fork.outcomes.insert(1, ForkOutcome::Result(json!(1)));
    assert_eq!(refused(&platform, fork).await, "fork_token");
    let mut fork = fork_of(parent, SPAWNED);
    fork.adopt = Adopt::None;
    let fresh = forked(&platform, fork).await;
    let tasks = platform.pull_many(3).await;
    assert!(tasks.iter().all(|task| task.run_id == fresh), "{tasks:?}");
    // A fork of it, while it goes on: it is nobody's end.
    let of_fork = forked(&platform, fork_of(fresh, 2)).await;
    assert_ne!(of_fork, fresh);
    platform.stop().await;
}

/// Another definition that comes with the fork.
pub(crate) fn inline(definition: &Value) -> Option<ForkDefinition> {
    let definition = serde_json::from_value(definition.clone()).expect("a definition");
    Some(ForkDefinition::Inline(Box::new(definition)))
}

#[tokio::test]
async fn a_definition_that_comes_with_a_fork_is_checked_tried_and_published_with_it() {
    let folder = folder();
    let platform = Platform::start(folder.path()).await;
    let parent = ended(&platform).await;
    let mut other = panel();
    other["nodes"]["after"]["action"]["with"]["result"] = json!({"other": true});
    let fork = ForkRun { definition: inline(&other), ..fork_of(parent, SPAWNED) };
    let dry = ForkRun { dry_run: true, ..fork.clone() };
    let receipt = platform.execute(Command::ForkRun(Box::new(dry))).await.expect("a plan");
    let plan = receipt.plan.expect("a plan");
    assert_eq!((plan.adopted.count, plan.calls.count), (3, 1), "the other action is called");
    let named = |version| ForkDefinition::Named(format!("panel@{version}"));
    let by_name = ForkRun { definition: Some(named(2)), ..fork.clone() };
    let unknown = platform.execute(Command::ForkRun(Box::new(by_name.clone()))).await;
    unknown.expect_err("nothing was published");

    // What is refused publishes nothing either.
    let mut elsewhere = other.clone();
    elsewhere["transitions"][0]["group"] = json!("h");
    elsewhere["transitions"][1]["join"]["group"] = json!("h");
    let elsewhere = ForkRun { definition: inline(&elsewhere), ..fork.clone() };
    assert_eq!(refused(&platform, elsewhere).await, "fork_transitions_differ");

    let forked = forked(&platform, fork.clone()).await;
    let task = platform.pull_one().await;
    assert_eq!((task.run_id, &*task.node), (forked, "after"));
    platform.succeed(&task, json!("other")).await;
    assert_eq!(platform.end_of(forked).await.status, RunStatus::Completed);
    // The same content has the same version, by its name too.
    for again in [fork, by_name] {
        let again = self::forked(&platform, again).await;
        assert_eq!(platform.pull_one().await.run_id, again);
    }
    platform.stop().await;
}
