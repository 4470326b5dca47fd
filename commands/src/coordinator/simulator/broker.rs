//! Work queues that lose, repeat and shuffle messages, and the workers behind them.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use protocol::{
    Failure, FailureKind, Outcome, OutcomeResult, Success, Task, Tasks, Usage, shard_of,
};
use serde_json::json;

use super::chance::mixed;
use super::world::World;
use crate::coordinator::{Attempt, Look, TaskQueue};

/// After how long a message that nobody has acknowledged is delivered again.
const ACK_WAIT: Duration = Duration::from_secs(5);

/// The messages that are in the queues.
#[derive(Debug, Default)]
pub(super) struct Broker(Mutex<Messages>);

#[derive(Debug, Default)]
struct Messages {
    /// Raised when everything is lost at once.
    generation: u64,
    tasks: BTreeMap<Attempt, u32>,
    outcomes: BTreeMap<u16, u32>,
}

impl Broker {
    fn messages(&self) -> MutexGuard<'_, Messages> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Loses all messages.
    pub(super) fn wipe(&self) {
        let mut messages = self.messages();
        let generation = messages.generation + 1;
        *messages = Messages { generation, ..Messages::default() };
    }

    fn is_of(&self, generation: u64) -> bool {
        self.messages().generation == generation
    }

    fn count<K: Ord>(map: &mut BTreeMap<K, u32>, key: K, by: i64) {
        let count = map.entry(key).or_default();
        *count = u32::try_from(i64::from(*count) + by).unwrap_or(0);
    }
}

/// The queue as a coordinator sees it when it looks for what it has handed out.
pub(super) struct View(pub(super) Arc<World>);

#[async_trait]
impl TaskQueue for View {
    async fn look(&self, attempts: &[Attempt]) -> Vec<(Attempt, Look)> {
        let world = &self.0;
        tokio::time::sleep(world.chance.up_to(Duration::from_millis(50))).await;
        let messages = world.broker.messages();
        let holds = |count: Option<&u32>| count.is_some_and(|count| *count > 0);
        let mut looked = Vec::new();
        for attempt in attempts {
            if world.is_rough() && world.chance.one_in(20) {
                continue;
            }
            let look = match () {
                () if holds(messages.tasks.get(attempt)) => Look::Found,
                () if holds(messages.outcomes.get(&shard_of(attempt.0))) => Look::Doubtful,
                () => Look::Missing,
            };
            looked.push((*attempt, look));
        }
        looked
    }
}

/// Carries what a coordinator hands out to workers, until it hands out nothing any more.
pub(super) async fn relay(world: Arc<World>, tasks: Arc<dyn Tasks>) {
    loop {
        let batch = tasks.pull(64).await;
        if batch.is_empty() {
            return;
        }
        for task in batch {
            let (rough, chance) = (world.is_rough(), &world.chance);
            if rough && chance.one_in(25) {
                world.troubles.note("a task was lost");
                continue;
            }
            let copies = if rough && chance.one_in(15) { 2 } else { 1 };
            if copies > 1 {
                world.troubles.note("a task was repeated");
            }
            for _ in 0..copies {
                tokio::spawn(carry(Arc::clone(&world), task.clone()));
            }
        }
    }
}

/// One message: delivered to workers until one has done it.
async fn carry(world: Arc<World>, task: Task) {
    let (broker, chance) = (&world.broker, &world.chance);
    let attempt = (task.run_id, task.token, task.attempt);
    let generation = broker.messages().generation;
    Broker::count(&mut broker.messages().tasks, attempt, 1);
    loop {
        let late = world.is_rough() && chance.one_in(40);
        let longest = Duration::from_millis(if late { 20_000 } else { 800 });
        tokio::time::sleep(chance.up_to(longest)).await;
        if !broker.is_of(generation) {
            return;
        }
        // A worker dies with it now and then.
        if !(world.is_rough() && chance.one_in(25)) {
            break;
        }
        world.troubles.note("a worker died");
        tokio::time::sleep(ACK_WAIT).await;
    }
    let outcome = outcome_of(world.seed, &task);
    let copies = if world.is_rough() { 1 + chance.below(3) } else { 1 };
    if copies > 1 {
        world.troubles.note("an outcome was repeated");
    }
    for _ in 0..copies {
        tokio::spawn(report(Arc::clone(&world), outcome.clone()));
    }
    if broker.is_of(generation) {
        Broker::count(&mut broker.messages().tasks, attempt, -1);
    }
}

/// One outcome: given to the owner of its run until it is settled.
async fn report(world: Arc<World>, outcome: Outcome) {
    let (broker, shard) = (&world.broker, shard_of(outcome.run_id));
    let generation = broker.messages().generation;
    Broker::count(&mut broker.messages().outcomes, shard, 1);
    let late = world.is_rough() && world.chance.one_in(20);
    let longest = Duration::from_millis(if late { 40_000 } else { 200 });
    tokio::time::sleep(world.chance.up_to(longest)).await;
    while broker.is_of(generation) {
        let settled = match world.owner_of(shard) {
            Some(service) => {
                let settled = service.coordinator().report(outcome.clone()).await;
                matches!(tokio::time::timeout(ACK_WAIT, settled).await, Ok(Ok(())))
            }
            None => false,
        };
        if settled {
            Broker::count(&mut broker.messages().outcomes, shard, -1);
            return;
        }
        world.troubles.note("an outcome wasn't taken");
        tokio::time::sleep(Duration::from_millis(500)).await;
    }
}

/// What an attempt comes to: the same whoever makes it, and however often.
fn outcome_of(seed: u64, task: &Task) -> Outcome {
    let run = task.run_id.bits().as_u128() as u64;
    let choice = mixed(seed ^ mixed(run ^ mixed(task.token << 8 | u64::from(task.attempt))));
    let failure = |kind| {
        OutcomeResult::Failure(Failure {
            kind,
            code: "simulated".to_owned(),
            message: "the simulator says so".to_owned(),
            detail: json!(null),
            retry_after: None,
            usage: Usage::default(),
        })
    };
    let result = match choice % 16 {
        0 => failure(FailureKind::Transient),
        1 => failure(FailureKind::Permanent),
        2 => failure(FailureKind::Timeout),
        _ => {
            let result = json!({"token": task.token, "attempt": task.attempt});
            OutcomeResult::Success(Success { result, usage: Usage::default() })
        }
    };
    let Task { run_id, token, attempt, .. } = *task;
    Outcome { run_id, token, attempt, result, duration_ms: choice % 1_000, secrets: Vec::new() }
}
