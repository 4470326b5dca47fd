//! What the runs of a world follow, and what starts some of them by itself.

use chrono::{DateTime, Utc};
use domain::ids::WorkflowId;
use domain::resource::Kind;
use graphs::{Layout, blocks, seeded};
use proptest::strategy::{Strategy, ValueTree};
use proptest::test_runner::Config;
use protocol::{Receipt, RunTarget};
use serde_json::{Value, json};

use super::client::{create, revise};
use super::world::World;

/// The time between two of a schedule's times, in seconds.
pub(super) const EVERY: i64 = 20;
/// What random definitions are called, with a number behind it or without.
pub(super) const RANDOM: &str = "random";

/// Everything that is bound and can be started.
pub(super) struct Cast {
    pub(super) plays: Vec<Play>,
    /// Workflows that may be paused.
    pub(super) workflows: Vec<WorkflowId>,
    pub(super) after: After,
    pub(super) often: Often,
}

/// A definition, and how many runs clients start of it.
pub(super) struct Play {
    pub(super) target: RunTarget,
    pub(super) runs: u64,
}

/// A workflow whose runs are started when others complete.
pub(super) struct After {
    pub(super) workflow_id: WorkflowId,
    /// Its own runs start others, too.
    pub(super) is_chain: bool,
}

/// A workflow whose runs are started by time.
pub(super) struct Often {
    pub(super) workflow_id: WorkflowId,
    pub(super) since: DateTime<Utc>,
}

/// Makes everything that is there before it becomes rough.
pub(super) async fn cast(world: &World) -> Cast {
    // Children of children would be without end.
    let below = json!({
        "name": "below", "start": "work",
        "nodes": {"work": {"action": {"kind": "mock"}, "retry": {"max_attempts": 3, "initial": "2s"}},
            "rest": {"wait": {"for": "3s"}}},
        "transitions": [{"from": "work", "to": "rest"}],
    });
    publish(world, below).await;
    let (mut plays, mut workflows) = (Vec::new(), Vec::new());
    for graph in graphs_of(world.seed) {
        let (mut graph, runs) = (graph, 1 + world.chance.below(2));
        let takes_turns = world.chance.one_in(2);
        if takes_turns {
            graph["concurrency"] = concurrency(world);
            graph["concurrency"]["key"] = json!("${input.key}");
            graph["priority"] = json!("${input.priority}");
        }
        let target = if world.chance.one_in(2) {
            let name = format!("bound-{}", plays.len());
            let (workflow_id, _) = bind(world, &name, graph, json!({})).await;
            workflows.push(workflow_id);
            RunTarget::Workflow(workflow_id)
        } else {
            let definition = serde_json::from_value(graph).expect("a definition");
            RunTarget::Inline { project_id: world.defaults().project_id, definition }
        };
        plays.push(Play { target, runs: if takes_turns { 2 * runs } else { 1 } });
    }
    let is_chain = world.seed / 8 % 4 == 2;
    let wanted = if is_chain { "${true}" } else { "${event.definition.startsWith('random')}" };
    let triggers = json!({"ended": {"event": {"type": "run_completed", "where": wanted}}});
    let (after, _) = bind(world, "after", short(world, "after"), triggers).await;
    let missed = ["skip", "one", "all"][world.chance.below(3) as usize];
    let every = format!("{EVERY}s");
    let triggers = json!({"tick": {"schedule": {"every": every, "missed": missed}}});
    let (often, receipt) = bind(world, "often", short(world, "often"), triggers).await;
    workflows.extend([after, often]);
    Cast {
        plays,
        workflows,
        after: After { workflow_id: after, is_chain },
        often: Often { workflow_id: often, since: receipt.at },
    }
}

/// Publishes a definition that counts its runs by their user.
pub(super) async fn counted(world: &World) -> RunTarget {
    let (key, seed) = ("${input.user}", world.seed);
    let then = if seed.is_multiple_of(4) { "drop" } else { "queue" };
    let rate = json!({"key": key, "limit": 6, "period": "1m", "burst": 1 + seed % 3, "then": then});
    let mut definition = json!({"name": "counted", "start": "work", "rate_limit": rate,
        "nodes": {"work": {"action": {"kind": "mock"}}}});
    if seed.is_multiple_of(2) {
        definition["concurrency"] = json!({"key": key, "limit": 2});
    }
    publish(world, definition).await;
    RunTarget::Named { project_id: world.defaults().project_id, reference: "counted".to_owned() }
}

impl Often {
    /// Ends the schedule, since its runs would be without end.
    pub(super) async fn end(&self, world: &World) {
        let disabled = json!({"triggers": {"tick": {"enabled": false}}});
        revise(world, self.workflow_id, disabled).await;
    }
}

/// A few random graphs, of one definition or of one each.
fn graphs_of(seed: u64) -> Vec<Value> {
    let mut runner = seeded(seed, Config::default());
    let count = 2 + seed % 4;
    let graph = |number| {
        let block = blocks().new_tree(&mut runner).expect("a tree of blocks").current();
        let mut graph = Layout::definition(&block, false, seed.is_multiple_of(2));
        let is_own = seed.is_multiple_of(3);
        graph["name"] = json!(if is_own { format!("{RANDOM}-{number}") } else { RANDOM.into() });
        graph
    };
    (0..count).map(graph).collect()
}

fn concurrency(world: &World) -> Value {
    let then = ["queue", "queue", "drop", "cancel_oldest"][world.chance.below(4) as usize];
    json!({"limit": 1 + world.chance.below(2), "then": then})
}

/// A definition with a task, whose runs may have to take turns.
fn short(world: &World, name: &str) -> Value {
    let mut definition = json!({"name": name, "start": "work",
        "nodes": {"work": {"action": {"kind": "mock"}}}});
    if world.chance.one_in(2) {
        definition["concurrency"] = concurrency(world);
    }
    definition
}

async fn publish(world: &World, definition: Value) -> Receipt {
    let spec = json!({"definition": definition, "hash": ""});
    create(world, Kind::WorkflowDefinition.as_str(), spec).await
}

async fn bind(
    world: &World,
    name: &str,
    definition: Value,
    triggers: Value,
) -> (WorkflowId, Receipt) {
    let published = publish(world, definition).await;
    let (id, version) = (&published.id, published.version);
    let spec = json!({"name": name, "definition_id": id, "definition_version": version,
        "triggers": triggers});
    let receipt = create(world, Kind::Workflow.as_str(), spec).await;
    (receipt.id.parse().expect("a workflow's id"), receipt)
}
