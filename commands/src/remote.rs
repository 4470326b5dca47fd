//! The write side for other processes: takes commands and outcomes from the bus, shard by shard as
//! they are owned.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use chassis::bus::{Consumer, ConsumerOptions, Delivery, Handler, Nats, NatsError, Served};
use chassis::shards::Ownership;
use futures::StreamExt;
use futures::future::{join_all, try_join_all};
use futures::stream::FuturesUnordered;
use protocol::remote::{Answer, COMMANDS, CommandCall, shard_commands, shard_outcomes};
use protocol::{Commands, Outcome, Rejection, RejectionKind};
use serde::Serialize;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::coordinator::unavailable;
use crate::queues::Queues;
use crate::service::CommandService;

/// Calls that may be under way at the same time, on each subject.
const CALLS: usize = 4_096;
/// The queue group of the subjects.
const GROUP: &str = "commands";
/// How long an outcome may be on its way into the journal before it is delivered again.
const ACK_WAIT: Duration = Duration::from_secs(5);
/// How soon an outcome is delivered again that came to who doesn't own its shard any more.
const ELSEWHERE: Duration = Duration::from_millis(50);
/// Outcomes of one shard that may be on their way.
const OUTCOMES: usize = 2_048;
/// Outcomes that are pulled at a time.
const BATCH: usize = 512;

/// Takes commands that any coordinator may take. What is returned serves them and the shards that
/// are owned until `stop`, and ends when everything under way is answered.
///
/// # Errors
/// Where NATS is away, or has something otherwise than asked for.
pub async fn serve(
    nats: Nats,
    service: Arc<CommandService>,
    queues: Arc<Queues>,
    ownership: Ownership,
    stop: CancellationToken,
) -> Result<impl Future<Output = ()> + Send + 'static, NatsError> {
    let calls = Arc::new(Calls { service });
    let any = nats.serve(COMMANDS, GROUP, Arc::clone(&calls) as _, CALLS).await?;
    Ok(async move {
        serve_shards(nats, &calls, &queues, ownership, stop, any).await;
    })
}

async fn serve_shards(
    nats: Nats,
    calls: &Arc<Calls>,
    queues: &Queues,
    mut ownership: Ownership,
    stop: CancellationToken,
    any: Served,
) {
    let mut shards: BTreeMap<u16, Shard> = BTreeMap::new();
    loop {
        let owned = Arc::clone(&ownership.borrow_and_update());
        let lost: Vec<u16> =
            shards.keys().filter(|shard| !owned.epochs.contains_key(shard)).copied().collect();
        let lost = lost.into_iter().filter_map(|shard| shards.remove(&shard));
        join_all(lost.map(Shard::stop)).await;
        for shard in owned
            .epochs
            .keys()
            .filter(|shard| !shards.contains_key(shard))
            .copied()
            .collect::<Vec<_>>()
        {
            match Shard::serve(&nats, calls, queues, &ownership, shard).await {
                Ok(served) => {
                    shards.insert(shard, served);
                }
                // It is tried again below.
                Err(error) => tracing::warn!(shard, %error, "a shard can't be served yet"),
            }
        }
        let is_complete = owned.epochs.keys().all(|shard| shards.contains_key(shard));
        tokio::select! {
            () = stop.cancelled() => break,
            changed = ownership.changed() => {
                if changed.is_err() {
                    stop.cancelled().await;
                    break;
                }
            }
            () = tokio::time::sleep(Duration::from_secs(1)), if !is_complete => {}
        }
    }
    any.stop().await;
    join_all(shards.into_values().map(Shard::stop)).await;
}

/// Publishes what the coordinator hands out, until its queue is closed and empty, or `stop`.
pub async fn relay(service: Arc<CommandService>, queues: Arc<Queues>, stop: CancellationToken) {
    queues.relay(service.tasks(), stop).await;
}

/// A shard that is served.
struct Shard {
    calls: Served,
    stop: CancellationToken,
    outcomes: JoinHandle<()>,
}

impl Shard {
    async fn serve(
        nats: &Nats,
        calls: &Arc<Calls>,
        queues: &Queues,
        ownership: &Ownership,
        shard: u16,
    ) -> Result<Self, NatsError> {
        let consumer = queues.outcomes.consumer(ConsumerOptions {
            durable: format!("shard-{shard}"),
            filter: shard_outcomes(shard),
            ack_wait: ACK_WAIT,
            max_ack_pending: 2 * OUTCOMES as i64,
        });
        let consumer = consumer.await?;
        let subject = shard_commands(shard);
        let served = nats.serve(&subject, GROUP, Arc::clone(calls) as _, CALLS).await?;
        let stop = CancellationToken::new();
        let (service, ownership) = (Arc::clone(&calls.service), ownership.clone());
        let is_owned = move || ownership.borrow().epochs.contains_key(&shard);
        let outcomes = tokio::spawn(take_outcomes(service, consumer, is_owned, stop.clone()));
        Ok(Self { calls: served, stop, outcomes })
    }

    /// Takes nothing more, and returns when what was taken is answered and settled.
    async fn stop(self) {
        self.stop.cancel();
        self.calls.stop().await;
        if let Err(error) = self.outcomes.await {
            tracing::error!(%error, "the loop that takes outcomes ended abnormally");
        }
    }
}

/// Hands outcomes to the coordinator, and acknowledges each once it is durable.
async fn take_outcomes(
    service: Arc<CommandService>,
    mut consumer: Consumer,
    is_owned: impl Fn() -> bool + Clone + Send + 'static,
    stop: CancellationToken,
) {
    let mut under_way = FuturesUnordered::new();
    loop {
        let room = OUTCOMES.saturating_sub(under_way.len()).min(BATCH);
        tokio::select! {
            () = stop.cancelled() => break,
            Some(()) = under_way.next() => {}
            deliveries = consumer.pull(room), if room > 0 => {
                for delivery in deliveries {
                    under_way.push(take(&service, delivery, is_owned.clone()).await);
                }
            }
        }
    }
    consumer.close().await;
    while under_way.next().await.is_some() {}
}

/// Hands one outcome over; what is returned ends when it is settled.
async fn take<F: Fn() -> bool>(
    service: &CommandService,
    delivery: Delivery,
    is_owned: F,
) -> impl Future<Output = ()> + use<F> {
    let outcome: Result<Outcome, _> = serde_json::from_slice(&delivery.body);
    let settled = match outcome {
        Ok(outcome) => Some(service.coordinator().report(outcome).await),
        Err(error) => {
            let subject = &delivery.subject;
            tracing::error!(subject, %error, "an outcome can't be read, its attempt stays owed");
            None
        }
    };
    async move {
        let is_done = match settled {
            Some(settled) => settled.await.is_ok(),
            None => true,
        };
        // One that isn't done comes again by itself, or soon where another coordinator waits for it.
        if is_done {
            delivery.ack().await;
        } else if !is_owned() {
            delivery.nak_after(ELSEWHERE).await;
        }
    }
}

/// Answers calls.
struct Calls {
    service: Arc<CommandService>,
}

#[async_trait]
impl Handler for Calls {
    async fn handle(&self, body: Bytes) -> Bytes {
        let call = match serde_json::from_slice::<CommandCall>(&body) {
            Ok(call) => call,
            Err(error) => {
                let message = format!("the call can't be read: {error}");
                let rejection = Rejection::new(RejectionKind::Malformed, "invalid_call", message);
                return answer::<()>(Err(rejection));
            }
        };
        match call {
            CommandCall::Ping => answer(Ok(())),
            CommandCall::Execute(envelope) => answer(self.service.execute(*envelope).await),
            CommandCall::Start(envelope) => answer(self.service.start_at_home(*envelope).await),
            CommandCall::Fork { envelope, home } => {
                answer(self.service.fork_at_home(*envelope, home).await)
            }
            CommandCall::Wait { workspace_id, run_id, timeout_ms } => {
                let timeout = Duration::from_millis(timeout_ms);
                answer(self.service.wait(workspace_id, run_id, timeout).await)
            }
            CommandCall::Task { run_id, token, attempt } => {
                answer(self.service.coordinator().task(run_id, token, attempt).await)
            }
            CommandCall::Report(outcomes) => {
                let mut settled = Vec::with_capacity(outcomes.len());
                for outcome in outcomes {
                    settled.push(self.service.coordinator().report(outcome).await);
                }
                let settled = try_join_all(settled).await;
                let taken = settled.map(drop);
                answer(taken.map_err(|_| unavailable("an outcome wasn't taken, try again")))
            }
        }
    }
}

fn answer<T: Serialize>(answer: Answer<T>) -> Bytes {
    serde_json::to_vec(&answer).map(Bytes::from).unwrap_or_else(|error| {
        tracing::error!(%error, "an answer has no json form");
        Bytes::new()
    })
}
