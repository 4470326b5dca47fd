//! Clients: they ask until they are answered, and keep a log of what was acknowledged.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use domain::codec;
use domain::ids::{CommandId, DefinitionId, Home, RunId};
use domain::rate::Book;
use domain::run::event::Decision;
use domain::run::state::{Live, Phase};
use domain::run::{Event, Run};
use graphs::{PEOPLE, SIGNALS};
use protocol::command::{AnswerGate, StartRun};
use protocol::gate::GateId;
use protocol::{
    Actor, Command, CommandEnvelope, Commands, Receipt, Rejection, RejectionKind, RunTarget,
    run_of, shard_of,
};
use serde_json::{Value, json};

use super::world::World;

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

/// The runs as their events tell.
#[derive(Default)]
pub(super) struct Views {
    position: u64,
    pub(super) runs: BTreeMap<RunId, View>,
    /// How fast runs began.
    rates: Book,
}

#[derive(Default)]
pub(super) struct View {
    pub(super) run: Run,
    pub(super) events: Vec<Event>,
}

impl Views {
    /// Reads what is new.
    pub(super) fn follow(&mut self, world: &World) {
        for recorded in world.store.events_after(self.position) {
            self.position = recorded.position;
            if &*recorded.aggregate_type != "run" {
                continue;
            }
            let run_id = recorded.aggregate_id.parse().expect("a run's id");
            let event: Event = codec::decode(
                &recorded.event_type,
                recorded.event_version,
                &recorded.payload,
                &|hash| world.store.payload(hash),
            )
            .expect("what was stored is read");
            let view = self.runs.entry(run_id).or_default();
            let entered = self.rates.enter(&view.run, &event, recorded.recorded_at);
            entered.unwrap_or_else(|problem| panic!("{run_id}: {problem}"));
            view.run.evolve(&event, recorded.recorded_at);
            view.events.push(event);
        }
    }

    /// The last event that was read.
    pub(super) const fn position(&self) -> u64 {
        self.position
    }

    pub(super) fn live(&self) -> Vec<(RunId, &Live)> {
        self.runs.iter().filter_map(|(run_id, view)| Some((*run_id, view.run.live()?))).collect()
    }
}

/// Asks whoever owns the run until somebody answers.
pub(super) async fn ask(
    world: &World,
    actor: &str,
    command: Command,
) -> Result<Receipt, Rejection> {
    let id = CommandId::new(world.chance.uuid());
    let is_start = matches!(command, Command::StartRun(_));
    let run_id = if is_start { Some(run_of(id)) } else { command.run_id() };
    ask_at(world, actor, command, id, run_id).await
}

/// Asks whoever owns what is beside a run.
async fn ask_at(
    world: &World,
    actor: &str,
    command: Command,
    id: CommandId,
    run_id: Option<RunId>,
) -> Result<Receipt, Rejection> {
    loop {
        let service = match run_id {
            Some(run_id) => world.owner_of(shard_of(run_id)),
            None => world.any(),
        };
        let Some(service) = service else {
            tokio::time::sleep(AGAIN).await;
            continue;
        };
        let envelope = CommandEnvelope {
            id,
            workspace_id: service.defaults().workspace_id,
            actor: Actor(actor.to_owned()),
            idempotency_key: None,
            fingerprint: None,
            expected_version: None,
            traceparent: None,
            command: command.clone(),
        };
        match tokio::time::timeout(PATIENCE, service.execute(envelope)).await {
            Ok(Ok(receipt)) => return Ok(receipt),
            Ok(Err(rejection)) if !may_pass(&rejection) => return Err(rejection),
            Ok(Err(_)) | Err(_) => tokio::time::sleep(AGAIN).await,
        }
    }
}

/// Whether the same may be asked again.
fn may_pass(rejection: &Rejection) -> bool {
    rejection.kind == RejectionKind::Unavailable || rejection.code == "conflict"
}

/// Publishes a definition; answers its id.
pub(super) async fn publish(world: &World, definition: Value) -> DefinitionId {
    let project_id = world.any().expect("a coordinator lives").defaults().project_id;
    let spec = json!({"project_id": project_id, "definition": definition, "hash": ""});
    let spec = serde_json::from_value(spec).expect("a definition");
    let spec = domain::resource::Spec::WorkflowDefinition(spec);
    let receipt = ask(world, "ann", Command::Create(Box::new(spec))).await;
    receipt.expect("it is published").id.parse().expect("an id")
}

/// Starts a run of a published definition that counts its runs by their user.
pub(super) async fn start_counted(
    world: &World,
    (id, name): (DefinitionId, &str),
    user: &str,
) -> RunId {
    let project_id = world.any().expect("a coordinator lives").defaults().project_id;
    let target = RunTarget::Named { project_id, reference: name.to_owned() };
    let (input, labels) = (json!({"user": user}), BTreeMap::new());
    let start = StartRun { target, input, labels, home: None, trigger: None };
    let command = Command::StartRun(Box::new(start));
    let home = Home::of_queue(id, Some(user)).first_run();
    let command_id = CommandId::new(world.chance.uuid());
    let receipt = ask_at(world, "ann", command, command_id, Some(home)).await;
    receipt.expect("it starts").id.parse().expect("a run's id")
}

/// Starts a run, with so many items.
pub(super) async fn start(world: &World, definition: &Value, items: u64) -> RunId {
    let project_id = world.any().expect("a coordinator lives").defaults().project_id;
    let definition = serde_json::from_value(definition.clone()).expect("a definition");
    let input = json!({"items": (0..items).collect::<Vec<_>>()});
    let target = RunTarget::Inline { project_id, definition };
    let start = StartRun { target, input, labels: BTreeMap::new(), home: None, trigger: None };
    let receipt = ask(world, "ann", Command::StartRun(Box::new(start))).await;
    receipt.expect("it starts").id.parse().expect("a run's id")
}

/// Does what nobody needs, to any run that lives.
pub(super) async fn play(world: &Arc<World>, views: &mut Views, log: &mut Log) {
    views.follow(world);
    let live = views.live();
    let Some((run_id, live)) = world.chance.pick(&live).copied() else { return };
    match world.chance.below(12) {
        0..=1 => drop(ask(world, "ann", Command::PauseRun { run_id, reason: None }).await),
        2..=4 => drop(ask(world, "ann", Command::ResumeRun { run_id }).await),
        5..=7 => {
            let name = SIGNALS[usize::from(world.chance.one_in(2))];
            signal(world, run_id, name, log).await;
        }
        8..=10 => {
            if let Some((command, person)) = answer(live, run_id, world.chance.one_in(4)) {
                drop(ask(world, person, command).await);
            }
        }
        _ => {
            let compensate = world.chance.one_in(2);
            let command = Command::CancelRun { run_id, reason: None, compensate };
            if world.chance.one_in(3) && ask(world, "ann", command).await.is_ok() {
                log.cancelled.push(run_id);
            }
        }
    }
}

/// Does what the runs need that wait for somebody; answers whether all have ended.
pub(super) async fn nurse(world: &Arc<World>, views: &mut Views, log: &mut Log) -> bool {
    views.follow(world);
    let mut needed = Vec::new();
    let mut signals = Vec::new();
    let live = views.live();
    for (run_id, live) in &live {
        if live.pause.as_ref().is_some_and(|pause| !pause.by_parent) {
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
