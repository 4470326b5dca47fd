//! The coordinator: runs, as actors in memory over their journal.
//!
//! Runs are spread over a few workers by their id. A worker takes commands to a run in order,
//! decides, hands the events to the journal, and only after the commit answers and performs the
//! effects. One append of a run is under way at a time; what arrives meanwhile is decided together
//! and committed at once. What a run is owed is derived from its folded state, so a restart (or a
//! lost append) ends in loading the run and performing again what is still owed.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use chassis::bus;
use chassis::clock::Clock;
use chassis::journal::{Journal, ReadError};
use domain::ids::{RunId, WorkspaceId};
use domain::run::event::RunStarted;
use futures::future::join_all;
use protocol::{Outcome, Receipt, Rejection, RunOutcome, Task, Tasks};
use tokio::sync::{mpsc, oneshot};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

mod actor;
mod append;
mod dispatch;
mod load;
mod outcome;
mod plans;
mod recent;
mod refusal;
mod timers;
mod worker;

pub(crate) use append::Cause;
pub(crate) use plans::{LivePlan, Plans};
pub(crate) use refusal::{of_command, unavailable};
use worker::Worker;

use crate::prepared::Prepared;
use crate::resolve::Resolver;

/// How much a coordinator takes on.
#[derive(Debug, Clone)]
pub struct CoordinatorConfig {
    /// Workers that runs are spread over; default one per core, at most 8.
    pub workers: usize,
    /// Tasks on workers at the same time, over all runs; default 4,096.
    pub tasks_in_flight: usize,
    /// Tasks of one run on workers at the same time, where its project says nothing; default
    /// 500, at most 5,000.
    pub tasks_in_flight_per_run: usize,
    /// How long a run without work under way stays in memory; default 30 s.
    pub idle: Duration,
}

impl Default for CoordinatorConfig {
    fn default() -> Self {
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        Self {
            workers: cores.min(8),
            tasks_in_flight: 4_096,
            tasks_in_flight_per_run: 500,
            idle: Duration::from_secs(30),
        }
    }
}

/// Tasks of one run that are on workers at the same time at most, whoever wants more.
const TASKS_IN_FLIGHT_PER_RUN: usize = 5_000;
/// Messages that a worker's mailbox holds before senders wait.
const MAILBOX: usize = 16_384;

/// What a worker is told.
enum Message {
    Start(Box<Start>),
    Cancel {
        run_id: RunId,
        reason: Option<String>,
        cause: Cause,
        reply: Reply<Receipt>,
    },
    Outcome(Outcome),
    Wait {
        run_id: RunId,
        workspace_id: WorkspaceId,
        reply: Reply<RunOutcome>,
    },
    Loaded {
        run_id: RunId,
        loaded: Result<load::Loaded, load::LoadError>,
    },
    /// A run that was open when the process started.
    Recover(RunId),
}

/// See [`Message::Start`].
struct Start {
    run_id: RunId,
    started: RunStarted,
    plan: Arc<LivePlan>,
    tasks_in_flight: Option<usize>,
    cause: Cause,
    reply: Reply<Receipt>,
}

type Reply<T> = oneshot::Sender<Result<T, Rejection>>;

/// The handle to the workers.
pub(crate) struct Coordinator {
    mailboxes: Arc<[mpsc::Sender<Message>]>,
    tasks: bus::Receiver<Task>,
}

impl Coordinator {
    /// Starts the workers and takes up every run that still owes work.
    pub(crate) async fn start(
        journal: Arc<dyn Journal>,
        resolver: Arc<Resolver>,
        plans: Arc<Plans>,
        clock: Arc<dyn Clock>,
        config: &CoordinatorConfig,
        shutdown: CancellationToken,
        tracker: &TaskTracker,
    ) -> Result<Self, ReadError> {
        let workers = config.workers.max(1);
        let (task_sender, tasks) = bus::queue(config.tasks_in_flight.max(workers));
        let mut mailboxes = Vec::with_capacity(workers);
        for worker in 0..workers {
            let (sender, mailbox) = mpsc::channel(MAILBOX);
            let context = worker::Context {
                journal: Arc::clone(&journal),
                resolver: Arc::clone(&resolver),
                plans: Arc::clone(&plans),
                clock: Arc::clone(&clock),
                tasks: task_sender.clone(),
                mailbox: sender.downgrade(),
                tasks_in_flight: (config.tasks_in_flight / workers).max(1),
                tasks_in_flight_per_run: config.tasks_in_flight_per_run,
                idle: config.idle,
            };
            tracker.spawn(Worker::new(worker, context).run(mailbox, shutdown.clone()));
            mailboxes.push(sender);
        }
        let coordinator = Self { mailboxes: mailboxes.into(), tasks };
        coordinator.recover(&*journal).await?;
        Ok(coordinator)
    }

    async fn recover(&self, journal: &dyn Journal) -> Result<(), ReadError> {
        let mut count = 0_u64;
        for shard in 0..protocol::SHARDS {
            let mut after: Arc<str> = Arc::from("");
            loop {
                let open = journal.open_aggregates("run", shard, &after, 1_000).await?;
                let Some(last) = open.last() else { break };
                after = Arc::clone(last);
                for id in &open {
                    match id.parse() {
                        Ok(run_id) => self.send(run_id, Message::Recover(run_id)).await,
                        Err(_) => {
                            tracing::error!(id = &**id, "open run has an id that can't be read");
                        }
                    }
                    count += 1;
                }
            }
        }
        if count > 0 {
            tracing::info!(runs = count, "took up open runs");
        }
        Ok(())
    }

    /// Starts a run; answers once its first events are durable.
    pub(crate) async fn start_run(
        &self,
        run_id: RunId,
        started: RunStarted,
        prepared: &Prepared,
        cause: Cause,
    ) -> Result<Receipt, Rejection> {
        let (reply, answer) = oneshot::channel();
        let plan = Arc::clone(&prepared.plan);
        let tasks_in_flight = prepared.tasks_in_flight;
        let start = Start { run_id, started, plan, tasks_in_flight, cause, reply };
        self.send(run_id, Message::Start(Box::new(start))).await;
        answered(answer).await
    }

    /// Cancels a run.
    pub(crate) async fn cancel(
        &self,
        run_id: RunId,
        reason: Option<String>,
        cause: Cause,
    ) -> Result<Receipt, Rejection> {
        let (reply, answer) = oneshot::channel();
        self.send(run_id, Message::Cancel { run_id, reason, cause, reply }).await;
        answered(answer).await
    }

    /// Waits for a run's end, for as long as the caller does.
    pub(crate) async fn wait(
        &self,
        workspace_id: WorkspaceId,
        run_id: RunId,
    ) -> Result<RunOutcome, Rejection> {
        let (reply, answer) = oneshot::channel();
        self.send(run_id, Message::Wait { run_id, workspace_id, reply }).await;
        answered(answer).await
    }

    /// Where workers get tasks and leave outcomes.
    pub(crate) fn tasks(&self) -> Arc<dyn Tasks> {
        Arc::new(Queue { tasks: self.tasks.clone(), mailboxes: Arc::clone(&self.mailboxes) })
    }

    /// A message that can't be delivered drops its reply, which the caller sees as unavailable.
    async fn send(&self, run_id: RunId, message: Message) {
        drop(mailbox_of(&self.mailboxes, run_id).send(message).await);
    }
}

async fn answered<T>(answer: oneshot::Receiver<Result<T, Rejection>>) -> Result<T, Rejection> {
    answer.await.unwrap_or_else(|_| Err(unavailable("the coordinator is shutting down")))
}

/// Runs are 128-bit ids; the low bits are random or hashed.
fn worker_of(run_id: RunId, workers: usize) -> usize {
    let low = run_id.bits().as_u128() as u64;
    usize::try_from(low % workers as u64).unwrap_or(0)
}

fn mailbox_of(mailboxes: &[mpsc::Sender<Message>], run_id: RunId) -> &mpsc::Sender<Message> {
    &mailboxes[worker_of(run_id, mailboxes.len())]
}

/// The in-process end that executors hold.
struct Queue {
    tasks: bus::Receiver<Task>,
    mailboxes: Arc<[mpsc::Sender<Message>]>,
}

#[async_trait]
impl Tasks for Queue {
    async fn pull(&self, limit: usize) -> Vec<Task> {
        let mut tasks = Vec::new();
        self.tasks.recv_many(&mut tasks, limit).await;
        tasks
    }

    async fn report(&self, outcomes: Vec<Outcome>) {
        let mut late = Vec::new();
        for outcome in outcomes {
            let mailbox = mailbox_of(&self.mailboxes, outcome.run_id);
            if let Err(mpsc::error::TrySendError::Full(message)) =
                mailbox.try_send(Message::Outcome(outcome))
            {
                late.push(mailbox.send(message));
            }
        }
        join_all(late).await;
    }
}
