//! Forks of experiments, over a real journal: what a change reaches, and what isn't done.

use domain::definition::Variant;
use domain::run::event::Experiment;
use protocol::{Command, ForkDefinition, ForkExperiment, ForkRun, RunStatus};
use serde_json::{Value, json};

use crate::forks::{fork_of, forked, inline, refused};
use crate::platform::{Platform, folder};

/// Two models in a row, then two requests from a loop, of which each says what the second one said.
fn told_twice() -> Value {
    let ask = |model: &str| {
        let with = json!({"model": {"provider": "mock", "model": model}, "prompt": "Say."});
        json!({"action": {"kind": "llm", "with": with}, "output": {"state.said": "${result}"}})
    };
    let post = json!({"kind": "http", "with": {"method": "POST", "url": "http://localhost/"}});
    json!({
        "name": "told", "start": "first",
        "nodes": {
            "first": ask("a"), "second": ask("b"),
            "tell": {"action": post, "input": {"said": "${state.said}"},
                "output": {"state.last": "${result}"}},
            "count": {"compute": {"state.n": "${has(state.n) ? state.n + 1 : 1}"}}},
        "transitions": [
            {"from": "first", "to": "second"}, {"from": "second", "to": "tell"},
            {"from": "tell", "to": "count"},
            {"from": "count", "to": "tell", "when": "state.n < 2", "max_iterations": 3}],
        "output": {"said": "${state.said}", "last": "${state.last}"},
    })
}

fn of_experiment(run_id: domain::ids::RunId, variant: Value) -> ForkRun {
    let experiment =
        Experiment { name: "e".to_owned(), allow: Default::default(), max_cost_micros: None };
    let variant: Variant = serde_json::from_value(variant).expect("a variant");
    let experiment = Some(Box::new(ForkExperiment { experiment, variant }));
    ForkRun { experiment, ..fork_of(run_id, 1) }
}

#[tokio::test]
async fn only_the_node_that_is_different_is_called_and_no_request_is_made_after_a_restart() {
    let folder = folder();
    let platform = Platform::start(folder.path()).await;
    let parent = platform.run(&told_twice()).await;
    for said in ["one", "two", "heard 1", "heard 2"] {
        let task = platform.pull_one().await;
        platform.succeed(&task, json!(said)).await;
    }
    let end = platform.end_of(parent).await;
    assert_eq!(end.output, Some(json!({"said": "two", "last": "heard 2"})));

    let same = forked(&platform, of_experiment(parent, json!({}))).await;
    assert_eq!(platform.end_of(same).await.output, end.output);

    let change = json!({"nodes": {"second": {"temperature": 1}}});
    let mut dry = of_experiment(parent, change.clone());
    dry.dry_run = true;
    let receipt = platform.execute(Command::ForkRun(Box::new(dry))).await.expect("a plan");
    let plan = receipt.plan.expect("a plan");
    let later: Vec<_> = plan.later.items.iter().map(|call| call.node.as_str()).collect();
    assert_eq!((plan.adopted.count, later), (1, vec!["second"]), "requests aren't calls");

    let fork = forked(&platform, of_experiment(parent, change)).await;
    let task = platform.pull_one().await;
    assert_eq!((task.run_id, &*task.node), (fork, "second"));
    platform.stop().await;
    let platform = Platform::start(folder.path()).await;
    let task = platform.pull_one().await;
    assert_eq!((task.run_id, &*task.node), (fork, "second"));
    platform.succeed(&task, json!("otherwise")).await;
    let other = platform.end_of(fork).await;
    assert_eq!(other.status, RunStatus::Completed);
    assert_eq!(other.output, Some(json!({"said": "otherwise", "last": "heard 2"})));

    // A definition of its own is published under a name of its own.
    let mut own = told_twice();
    own["nodes"]["second"]["action"]["with"]["temperature"] = json!(1);
    let own = ForkRun { definition: inline(&own), ..of_experiment(parent, json!({})) };
    let fork = forked(&platform, own).await;
    let task = platform.pull_one().await;
    assert_eq!((task.run_id, &*task.node), (fork, "second"));
    let named = Some(ForkDefinition::Named("told@2".to_owned()));
    let named = ForkRun { definition: named, ..fork_of(parent, 1) };
    let refused_so = platform.execute(Command::ForkRun(Box::new(named))).await;
    refused_so.expect_err("nobody follows it who follows the newest");
    let named = Some(ForkDefinition::Named("told-experiment".to_owned()));
    forked(&platform, ForkRun { definition: named, ..fork_of(parent, 1) }).await;
    platform.pull_one().await;

    let missing = json!({"nodes": {"third": {"temperature": 1}}});
    assert_eq!(refused(&platform, of_experiment(parent, missing)).await, "experiment_change");
    let invalid = json!({"nodes": {"second": {"prompt": 7}}});
    assert_eq!(refused(&platform, of_experiment(parent, invalid)).await, "invalid_definition");
    platform.stop().await;
}
