//! Clients: they ask until they are answered, and keep a log of what was acknowledged.

use std::collections::BTreeMap;
use std::sync::{Arc, Weak};
use std::time::Duration;

use async_trait::async_trait;
use domain::ids::{CommandId, RunId, WorkflowId, WorkspaceId};
use domain::resource::Kind;
use domain::run::event::Decision;
use domain::run::state::{Live, Phase};
use graphs::{PEOPLE, SIGNALS};
use protocol::command::{AnswerGate, StartRun};
use protocol::gate::GateId;
use protocol::{
    Command, CommandEnvelope, Commands, Receipt, Rejection, RejectionKind, RunOutcome, RunTarget,
    StartAnswer, run_of, shard_of,
};
use serde_json::{Value, json};

use super::cast::Cast;
use super::views::Views;
use super::world::World;
use crate::coordinator::unavailable;

/// How long a client waits for an answer before it asks again.
const PATIENCE: Duration = Duration::from_secs(10);
const AGAIN: Duration = Duration::from_millis(200);

/// What was acknowledged.
#[derive(Debug, Default)]
pub(super) struct Log {
    pub(super) started: Vec<RunId>,
    pub(super) cancelled: Vec<RunId>,
    /// By the numbers that stand in their payloads.
    pub(super) signals: Vec<(RunId, u64)>,
}

/// The write side of all processes, as those ask it whose runs live elsewhere.
pub(super) struct Edge(pub(super) Weak<World>);

#[async_trait]
impl Commands for Edge {
    async fn execute(&self, envelope: CommandEnvelope) -> Result<Receipt, Rejection> {
        let world = self.0.upgrade().ok_or_else(|| unavailable("the world has ended"))?;
        asked(&world, envelope).await
    }

    async fn wait(
        &self,
        _: WorkspaceId,
        _: RunId,
        _: Duration,
    ) -> Result<Option<RunOutcome>, Rejection> {
        Ok(None)
    }
}

/// Asks whoever it is up to until somebody answers, as an edge does.
async fn asked(world: &World, mut envelope: CommandEnvelope) -> Result<Receipt, Rejection> {
    loop {
        let shard = match &envelope.command {
            Command::StartRun(start) => {
                Some(start.home.map_or_else(|| shard_of(run_of(envelope.id)), |home| home.shard))
            }
            other => other.run_id().map(shard_of),
        };
        let service = match shard {
            Some(shard) => world.owner_of(shard),
            None => world.any(),
        };
        let Some(service) = service else {
            tokio::time::sleep(AGAIN).await;
            continue;
        };
        let answer = service.start_at_home(envelope.clone());
        match tokio::time::timeout(PATIENCE, answer).await {
            Ok(Ok(StartAnswer::Done(receipt))) => return Ok(*receipt),
            Ok(Ok(StartAnswer::Elsewhere(home))) => {
                if let Command::StartRun(start) = &mut envelope.command {
                    start.home = Some(home);
                }
            }
            Ok(Err(rejection)) if !may_pass(&rejection) => return Err(rejection),
            Ok(Err(_)) | Err(_) => tokio::time::sleep(AGAIN).await,
        }
    }
}

/// Whether the same may be asked again.
fn may_pass(rejection: &Rejection) -> bool {
    rejection.kind == RejectionKind::Unavailable || rejection.code == "conflict"
}

/// Asks until somebody answers.
pub(super) async fn ask(
    world: &World,
    actor: &str,
    command: Command,
) -> Result<Receipt, Rejection> {
    let envelope = CommandEnvelope::new(
        CommandId::new(world.chance.uuid()),
        world.defaults().workspace_id,
        actor,
        command,
    );
    asked(world, envelope).await
}

/// Creates a resource.
pub(super) async fn create(world: &World, kind: &str, mut spec: Value) -> Receipt {
    spec["project_id"] = json!(world.defaults().project_id);
    let spec = serde_json::from_value(json!({"kind": kind, "spec": spec})).expect("a spec");
    ask(world, "ann", Command::Create(Box::new(spec))).await.expect("it is created")
}

/// Changes a workflow.
pub(super) async fn revise(world: &World, workflow_id: WorkflowId, patch: Value) {
    let (kind, id) = (Kind::Workflow, workflow_id.to_string());
    ask(world, "ann", Command::Revise { kind, id, patch }).await.expect("it is revised");
}

/// What a run of a random graph is started with.
pub(super) fn input(world: &World) -> Value {
    let chance = &world.chance;
    json!({"items": (0..chance.below(4)).collect::<Vec<_>>(),
        "key": if chance.one_in(4) { "few" } else { "many" }, "priority": chance.below(4)})
}

/// Starts a run.
pub(super) async fn start(world: &World, target: RunTarget, input: Value) -> RunId {
    let start = StartRun { target, input, labels: BTreeMap::new(), home: None, trigger: None };
    let receipt = ask(world, "ann", Command::StartRun(Box::new(start))).await;
    receipt.expect("it starts").id.parse().expect("a run's id")
}

/// Does what nobody needs, to any run that lives, or to a workflow.
pub(super) async fn play(world: &Arc<World>, cast: &Cast, views: &mut Views, log: &mut Log) {
    views.follow(world);
    let chance = &world.chance;
    if chance.one_in(6) {
        let workflow_id = chance.pick(&cast.workflows).expect("there are workflows");
        let paused = chance.one_in(2);
        world.troubles.note(if paused { "a workflow paused" } else { "a workflow went on" });
        return revise(world, *workflow_id, json!({"paused": paused})).await;
    }
    let mut live = views.live();
    if chance.one_in(4) && live.iter().any(|(_, live)| live.in_queue.is_some()) {
        live.retain(|(_, live)| live.in_queue.is_some());
    }
    let Some((run_id, live)) = chance.pick(&live).copied() else { return };
    match chance.below(12) {
        0..=1 => drop(ask(world, "ann", Command::PauseRun { run_id, reason: None }).await),
        2..=4 => drop(ask(world, "ann", Command::ResumeRun { run_id }).await),
        5..=7 => {
            let name = SIGNALS[usize::from(chance.one_in(2))];
            signal(world, run_id, name, log).await;
        }
        8..=10 => {
            if let Some((command, person)) = answer(live, run_id, chance.one_in(4)) {
                drop(ask(world, person, command).await);
            }
        }
        _ => {
            let is_queued = live.in_queue.is_some();
            let command = Command::CancelRun { run_id, reason: None, compensate: chance.one_in(2) };
            if chance.one_in(3) && ask(world, "ann", command).await.is_ok() {
                log.cancelled.push(run_id);
                if is_queued {
                    world.troubles.note("a queued run was cancelled");
                }
            }
        }
    }
}

/// Ends what would go on for ever by itself, and lets all workflows go on.
pub(super) async fn calm(world: &World, cast: &Cast) {
    cast.often.end(world).await;
    for workflow_id in &cast.workflows {
        revise(world, *workflow_id, json!({"paused": false})).await;
    }
}

/// Does what the runs need that wait for somebody; answers whether all have ended.
pub(super) async fn nurse(world: &Arc<World>, views: &mut Views, log: &mut Log) -> bool {
    views.follow(world);
    let mut needed = Vec::new();
    let mut signals = Vec::new();
    let live = views.live();
    for (run_id, live) in &live {
        if live.pause.as_ref().is_some_and(|pause| !pause.by_parent && !pause.by_workflow) {
            needed.push((Command::ResumeRun { run_id: *run_id }, PEOPLE[0]));
        }
        needed.extend(answer(live, *run_id, false));
        let wanted = live.tokens.values().find_map(|token| match &token.phase {
            Phase::Waiting { signal: Some(name), .. } => Some(name.clone()),
            _ => None,
        });
        signals.extend(wanted.map(|name| (*run_id, name)));
    }
    let is_done = live.is_empty();
    for (command, person) in needed {
        // Something else may have come first.
        drop(ask(world, person, command).await);
    }
    for (run_id, name) in signals {
        signal(world, run_id, &name, log).await;
    }
    is_done
}

/// The next person's answer to a run's first gate.
fn answer(live: &Live, run_id: RunId, rejects: bool) -> Option<(Command, &'static str)> {
    let token = *live.gates.iter().next()?;
    let Phase::Gated { gate } = &live.tokens.get(&token)?.phase else { return None };
    let person = PEOPLE.get(gate.answers.len())?;
    let decision = if rejects { Decision::Reject } else { Decision::Approve };
    let answer = AnswerGate { decision, value: json!({"n": 1}), comment: None, roles: Vec::new() };
    let gate = GateId { run_id, token };
    Some((Command::AnswerGate { gate, answer: Box::new(answer) }, person))
}

async fn signal(world: &World, run_id: RunId, name: &str, log: &mut Log) {
    // Below 2^53, so that it is kept as it is.
    let number = world.chance.below(1 << 52);
    let payload = json!({"ok": true, "number": number});
    let name = name.parse().expect("a name");
    let command = Command::SignalRun { run_id, name, payload, transient: false };
    if ask(world, "ann", command).await.is_ok() {
        log.signals.push((run_id, number));
    }
}
