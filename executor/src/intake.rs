//! The loop: pulls batches, answers at once what never waits, and spawns the rest.

use std::sync::Arc;

use metrics::counter;
use protocol::service::Tasks;
use protocol::task::Outcome;
use tokio::sync::{Semaphore, mpsc};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::executor::Worker;
use crate::flights::Flights;

/// Tasks of one pull, and outcomes of one report.
const BATCH: usize = 256;

/// Runs until the shutdown, or until the source is closed. What is under way at the shutdown has
/// the grace to end and to be reported; what hasn't by then is dropped and stays owed.
pub(crate) async fn run(worker: Arc<Worker>, tasks: Arc<dyn Tasks>, shutdown: CancellationToken) {
    let (done, outbox) = mpsc::channel(BATCH);
    let mut reporter = tokio::spawn(report(Arc::clone(&tasks), outbox));
    let (mut running, flights) = (JoinSet::new(), Flights::default());
    let work = async {
        take(&worker, &tasks, &shutdown, &mut running, &flights, done).await;
        let rest = async {
            while running.join_next().await.is_some() {}
            drop((&mut reporter).await);
        };
        tokio::join!(tasks.stop(), rest);
    };
    let grace = worker.config.grace;
    let overdue = async {
        shutdown.cancelled().await;
        tokio::time::sleep(grace).await;
    };
    tokio::select! {
        () = work => return,
        () = give_up(&tasks, &flights) => {}
        () = overdue => {}
    }
    tracing::warn!(
        waiting = running.len(),
        grace_ms = u64::try_from(grace.as_millis()).unwrap_or(u64::MAX),
        "tasks were abandoned at shutdown and stay owed"
    );
    reporter.abort();
    running.shutdown().await;
}

/// Pulls and begins tasks; those that never wait are ended and reported here.
async fn take(
    worker: &Arc<Worker>,
    tasks: &Arc<dyn Tasks>,
    shutdown: &CancellationToken,
    running: &mut JoinSet<()>,
    flights: &Flights,
    done: mpsc::Sender<Outcome>,
) {
    let concurrency = worker.config.concurrency.clamp(1, Semaphore::MAX_PERMITS);
    let room = Arc::new(Semaphore::new(concurrency));
    while let Some(batch) = pull(tasks, &room, shutdown).await {
        let mut outcomes = Vec::new();
        for task in batch {
            let compiled = worker.compiled(&task);
            if let Some(outcome) = worker.perform_now(&task, &compiled) {
                outcomes.push(outcome);
                continue;
            }
            // Only this loop takes permits, and it pulled no more tasks than there were.
            let Ok(permit) = Arc::clone(&room).acquire_owned().await else {
                break;
            };
            let (worker, tasks, done) = (Arc::clone(worker), Arc::clone(tasks), done.clone());
            let flight = flights.begin(&task, &worker.meters.in_flight);
            running.spawn(async move {
                let outcome = match &flight {
                    Some(flight) => flight.perform(worker.perform(&task, &compiled)).await,
                    None => None,
                };
                drop(flight);
                match outcome {
                    // The reporter ends only after the last sender.
                    Some(outcome) => drop(done.send(outcome).await),
                    None => tasks.gave_up(task.run_id, task.token, task.attempt).await,
                }
                drop(permit);
            });
        }
        if !outcomes.is_empty() {
            tasks.report(outcomes).await;
        }
        while running.try_join_next().is_some() {}
        // A source that always has tasks must not keep this thread from other work.
        tokio::task::consume_budget().await;
    }
}

/// The next tasks, no more than there is room for; `None` at the end.
async fn pull(
    tasks: &Arc<dyn Tasks>,
    room: &Semaphore,
    shutdown: &CancellationToken,
) -> Option<Vec<protocol::task::Task>> {
    let batch = async {
        let first = room.acquire().await.ok()?;
        let limit = (room.available_permits() + 1).min(BATCH);
        drop(first);
        Some(tasks.pull(limit).await).filter(|batch| !batch.is_empty())
    };
    tokio::select! {
        biased;
        () = shutdown.cancelled() => None,
        batch = batch => batch,
    }
}

/// Gives up work as nobody waits for it any more. Never ends.
async fn give_up(tasks: &Arc<dyn Tasks>, flights: &Flights) {
    loop {
        let given_up: usize = tasks.abandoned().await.iter().map(|one| flights.give_up(one)).sum();
        if given_up > 0 {
            tracing::debug!(tasks = given_up, "gave up what nobody waits for");
            counter!("wonder_tasks_given_up_total").increment(given_up as u64);
        }
    }
}

async fn report(tasks: Arc<dyn Tasks>, mut outbox: mpsc::Receiver<Outcome>) {
    let mut outcomes = Vec::with_capacity(BATCH);
    while outbox.recv_many(&mut outcomes, BATCH).await > 0 {
        tasks.report(std::mem::take(&mut outcomes)).await;
    }
}
