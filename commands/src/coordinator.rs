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
use chassis::journal::Journal;
use chassis::shards::Ownership;
use chrono::{DateTime, Utc};
use domain::ids::{Home, RunId, WorkflowId, WorkspaceId};
use domain::run;
use domain::run::event::{Dropped, QueueReason, RunStarted};
use domain::run::fork::Forking;
use futures::future::join_all;
use protocol::{Abandoned, Outcome, Receipt, Rejection, RunOutcome, Task, Tasks};
use tokio::sync::{mpsc, oneshot};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

mod actor;
mod admissions;
mod append;
mod children;
mod dispatch;
mod forking;
mod history;
mod load;
mod outcome;
mod parts;
mod plans;
mod recent;
mod refusal;
mod shards;
#[cfg(test)]
mod simulator;
mod timers;
mod worker;
mod workflows;

use actor::Settled;
pub(crate) use append::Cause;
pub(crate) use dispatch::{Attempt, Look};
pub(crate) use forking::{changed, child_at};
pub(crate) use history::{
    History, Moment, Sources, beginning as read_beginning, read as read_history,
};
pub(crate) use load::{Folded, LoadError, decode, fold, values_of};
pub(crate) use parts::Copying;
pub(crate) use plans::{LivePlan, Plans};
pub(crate) use refusal::{not_found, not_owner, of_command, refused, unavailable};
use worker::Worker;
pub(crate) use workflows::Standing;

use crate::prepared::{Preparations, Prepared};
use crate::resolve::Resolver;

/// Code of the refusal of an append that met another one.
pub(crate) const CONFLICT: &str = "conflict";
/// Code of the refusal of a start whose run is there already.
pub(crate) const RUN_ALREADY_STARTED: &str = "run_already_started";

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
/// Words of abandoned work that may wait to be told.
const ABANDONED: usize = 1_024;
/// How often it is looked for writes of resources.
const LOOK: Duration = Duration::from_millis(250);
/// Runs that are loaded at the same time at most.
const LOADS: usize = 64;
/// Messages that a worker's mailbox holds before senders wait.
const MAILBOX: usize = 16_384;

/// What a worker is told.
enum Message {
    Start(Box<Start>),
    /// A client's command to a run that is there.
    Command {
        run_id: RunId,
        command: Box<run::Command>,
        cause: Cause,
        reply: Reply<Receipt>,
    },
    Outcome(Outcome, Settled),
    /// The task of an attempt, for a worker that was told to fetch it.
    Task {
        run_id: RunId,
        token: u64,
        attempt: u32,
        reply: Reply<Option<Task>>,
    },
    Wait {
        run_id: RunId,
        workspace_id: WorkspaceId,
        reply: Reply<RunOutcome>,
    },
    Loaded {
        run_id: RunId,
        epoch: u64,
        loaded: Result<load::Loaded, load::LoadError>,
    },
    /// A run that was open when its shard was taken over.
    Recover(RunId),
    Own {
        shard: u16,
        epoch: u64,
    },
    Lose {
        shard: u16,
    },
    /// All runs were named that were open when a shard was taken over.
    Named {
        shard: u16,
        epoch: u64,
    },
    /// What a child needs was looked up, or it can't be started.
    ChildPrepared {
        child: RunId,
        prepared: Result<Box<Start>, Rejection>,
    },
    /// Some resource was written, by anybody.
    ResourcesWritten,
    /// A workflow was looked up.
    Workflow {
        workflow_id: WorkflowId,
        standing: Standing,
    },
    /// Until when runs of a home are counted that began before its shard was taken over.
    Counted {
        home: Home,
        until: DateTime<Utc>,
    },
    /// Attempts that were looked for in the queue.
    Checked(Vec<(Attempt, Look)>),
}

/// Told of a shard whose append was refused, with the epoch that it was thought to be owned under.
pub(crate) type Fenced = Arc<dyn Fn(u16, u64) + Send + Sync>;

/// Where tasks are once they have left the process.
#[async_trait]
pub(crate) trait TaskQueue: Send + Sync {
    /// Looks for attempts. Leaves out those of which it can't say anything at the moment.
    async fn look(&self, attempts: &[Attempt]) -> Vec<(Attempt, Look)>;
}

/// What a coordinator works over.
pub(crate) struct Surroundings {
    pub journal: Arc<dyn Journal>,
    pub resolver: Arc<Resolver>,
    pub plans: Arc<Plans>,
    pub preparations: Arc<Preparations>,
    pub clock: Arc<dyn Clock>,
    pub ownership: Ownership,
    pub fenced: Fenced,
    pub queue: Option<Arc<dyn TaskQueue>>,
}

/// Whether a run that is started begins.
enum Verdict {
    Begins,
    Waits(QueueReason),
    IsDropped(Dropped),
}

/// See [`Message::Start`].
struct Start {
    run_id: RunId,
    started: RunStarted,
    plan: Arc<LivePlan>,
    tasks_in_flight: Option<usize>,
    /// How its workflow stands, where it has one.
    standing: Option<Standing>,
    /// Found by the run's worker.
    verdict: Verdict,
    /// The history that it begins with, where it is forked.
    fork: Option<Box<Forking>>,
    cause: Cause,
    reply: Reply<Receipt>,
}

type Reply<T> = oneshot::Sender<Result<T, Rejection>>;

/// The handle to the workers. Clones share them.
#[derive(Clone)]
pub(crate) struct Coordinator {
    mailboxes: Arc<[mpsc::Sender<Message>]>,
    tasks: bus::Receiver<Task>,
    abandoned: bus::Receiver<Abandoned>,
}

impl Coordinator {
    /// Starts the workers. They take up the runs of the shards that are owned now, and of others
    /// as they come.
    pub(crate) async fn start(
        around: Surroundings,
        config: &CoordinatorConfig,
        shutdown: CancellationToken,
        tracker: &TaskTracker,
    ) -> Self {
        let workers = config.workers.max(1);
        let tasks_waiting = config.tasks_in_flight.max(workers);
        let (task_sender, tasks) = bus::queue(tasks_waiting + workers * dispatch::TURN);
        let (abandoned_sender, abandoned) = bus::queue(ABANDONED);
        let others = Arc::new(worker::Others::default());
        let mut mailboxes = Vec::with_capacity(workers);
        for worker in 0..workers {
            let (sender, mailbox) = mpsc::channel(MAILBOX);
            let context = worker::Context {
                journal: Arc::clone(&around.journal),
                resolver: Arc::clone(&around.resolver),
                plans: Arc::clone(&around.plans),
                preparations: Arc::clone(&around.preparations),
                clock: Arc::clone(&around.clock),
                tasks: task_sender.clone(),
                tasks_waiting,
                abandoned: abandoned_sender.clone(),
                mailbox: sender.downgrade(),
                tasks_in_flight: (config.tasks_in_flight / workers).max(1),
                tasks_in_flight_per_run: config.tasks_in_flight_per_run,
                idle: config.idle,
                queue: around.queue.clone(),
                loads: (LOADS / workers).max(1),
                fenced: Arc::clone(&around.fenced),
                others: Arc::clone(&others),
            };
            tracker.spawn(Worker::new(worker, context).run(mailbox, shutdown.clone()));
            mailboxes.push(sender);
        }
        let coordinator = Self { mailboxes: mailboxes.into(), tasks, abandoned };
        let owned = around.ownership.borrow().epochs.clone();
        for (shard, epoch) in &owned {
            coordinator.tell_all(|| Message::Own { shard: *shard, epoch: *epoch }).await;
        }
        let shards = shards::follow(coordinator.clone(), around.journal, around.ownership, owned);
        let written = follow_resources(coordinator.clone(), around.resolver);
        let end = shutdown.clone();
        tracker.spawn(async move { end.run_until_cancelled(shards).await });
        tracker.spawn(async move { shutdown.run_until_cancelled(written).await });
        coordinator
    }

    /// Starts a run; answers once its first events are durable.
    pub(crate) async fn start_run(
        &self,
        run_id: RunId,
        started: RunStarted,
        standing: Option<Standing>,
        prepared: &Prepared,
        cause: Cause,
    ) -> Result<Receipt, Rejection> {
        let (reply, answer) = oneshot::channel();
        let plan = Arc::clone(&prepared.plan);
        let tasks_in_flight = prepared.tasks_in_flight;
        let (verdict, fork) = (Verdict::Begins, None);
        let start =
            Start { run_id, started, plan, tasks_in_flight, standing, verdict, fork, cause, reply };
        self.send(run_id, Message::Start(Box::new(start))).await;
        answered(answer).await
    }

    /// Starts a run with the history of another one; answers once all of it is durable.
    pub(crate) async fn fork_run(
        &self,
        forking: Forking,
        started: RunStarted,
        standing: Option<Standing>,
        plan: Arc<LivePlan>,
        tasks_in_flight: Option<usize>,
        cause: Cause,
    ) -> Result<Receipt, Rejection> {
        let (reply, answer) = oneshot::channel();
        let (run_id, verdict) = (forking.forked.run_id, Verdict::Begins);
        let fork = Some(Box::new(forking));
        let start =
            Start { run_id, started, plan, tasks_in_flight, standing, verdict, fork, cause, reply };
        self.send(run_id, Message::Start(Box::new(start))).await;
        answered(answer).await
    }

    /// Does a client's command to a run; answers once its events are durable.
    pub(crate) async fn command(
        &self,
        run_id: RunId,
        command: run::Command,
        cause: Cause,
    ) -> Result<Receipt, Rejection> {
        let (reply, answer) = oneshot::channel();
        let command = Box::new(command);
        self.send(run_id, Message::Command { run_id, command, cause, reply }).await;
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

    /// Takes an outcome. What is returned resolves once the outcome is durable or refused for good,
    /// and fails where it has to be given again.
    pub(crate) async fn report(&self, outcome: Outcome) -> oneshot::Receiver<()> {
        let (settled, is_settled) = oneshot::channel();
        self.send(outcome.run_id, Message::Outcome(outcome, Some(settled))).await;
        is_settled
    }

    /// The task of an attempt; `None` where it isn't owed any more.
    pub(crate) async fn task(
        &self,
        run_id: RunId,
        token: u64,
        attempt: u32,
    ) -> Result<Option<Task>, Rejection> {
        let (reply, answer) = oneshot::channel();
        self.send(run_id, Message::Task { run_id, token, attempt, reply }).await;
        answered(answer).await
    }

    /// Where workers get tasks and leave outcomes.
    pub(crate) fn tasks(&self) -> Arc<dyn Tasks> {
        Arc::new(Queue {
            tasks: self.tasks.clone(),
            abandoned: self.abandoned.clone(),
            mailboxes: Arc::clone(&self.mailboxes),
        })
    }

    async fn tell_all(&self, message: impl Fn() -> Message) {
        for mailbox in &*self.mailboxes {
            // A worker that has ended needs to know nothing.
            drop(mailbox.send(message()).await);
        }
    }

    /// A message that can't be delivered drops its reply, which the caller sees as unavailable.
    async fn send(&self, run_id: RunId, message: Message) {
        drop(mailbox_of(&self.mailboxes, run_id).send(message).await);
    }
}

/// Tells the workers when resources were written, by this process or by others.
async fn follow_resources(coordinator: Coordinator, resolver: Arc<Resolver>) {
    let mut known = None;
    loop {
        // What can't be read now is read the next time.
        if let Err(error) = resolver.catch_up().await {
            tracing::debug!(%error, "can't look for writes of resources");
        }
        let writes = resolver.writes();
        if known != Some(writes) {
            known = Some(writes);
            coordinator.tell_all(|| Message::ResourcesWritten).await;
        }
        tokio::time::sleep(LOOK).await;
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
    abandoned: bus::Receiver<Abandoned>,
    mailboxes: Arc<[mpsc::Sender<Message>]>,
}

#[async_trait]
impl Tasks for Queue {
    async fn pull(&self, limit: usize) -> Vec<Task> {
        let mut tasks = Vec::new();
        self.tasks.recv_many(&mut tasks, limit).await;
        tasks
    }

    async fn abandoned(&self) -> Vec<Abandoned> {
        let mut words = Vec::new();
        if self.abandoned.recv_many(&mut words, ABANDONED).await == 0 {
            // No more is told.
            std::future::pending::<()>().await;
        }
        words
    }

    async fn report(&self, outcomes: Vec<Outcome>) {
        let mut late = Vec::new();
        for outcome in outcomes {
            let mailbox = mailbox_of(&self.mailboxes, outcome.run_id);
            if let Err(mpsc::error::TrySendError::Full(message)) =
                mailbox.try_send(Message::Outcome(outcome, None))
            {
                late.push(mailbox.send(message));
            }
        }
        join_all(late).await;
    }
}
