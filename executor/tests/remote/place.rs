//! The coordinator's ends of the queues, and workers beside them.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use chassis::bus::{
    Consumer, ConsumerOptions, Handler, Message, Nats, NatsOptions, Served, WorkQueue,
    WorkQueueOptions,
};
use chassis::scratch::nats::ScratchNats;
use domain::definition::ActionKind;
use domain::ids::{RunId, WorkspaceId};
use executor::{Executor, ExecutorConfig, RemoteTasks};
use protocol::remote::{
    Answer, CommandCall, DEFAULT_POOL, NOT_OWNER, QUEUE_BYTES, TaskMessage, outcomes_queue,
    shard_commands, task_subject, tasks_queue,
};
use protocol::task::{Failure, Outcome, OutcomeResult, Task, Work, WorkAction, WorkBody};
use protocol::{Rejection, RejectionKind, Tasks, Unheard, shard_of};
use serde::Serialize;
use serde_json::{Value, json};
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

/// What a test waits for comes within this.
pub(crate) const BOUND: Duration = Duration::from_secs(20);
/// How long the workers of these tests may give no sign of life.
pub(crate) const ACK_WAIT: Duration = Duration::from_millis(900);

pub(crate) fn run_id() -> RunId {
    RunId::derived("", "a run")
}

/// An attempt of the mock action, with the result 1 where `with` says nothing else.
pub(crate) fn task(token: u64, with: Value) -> Task {
    let Value::Object(with) = with else { panic!("an object") };
    let action = WorkAction { kind: ActionKind::Mock, with, output_schema: None };
    let work = Work {
        repeatable: true,
        key: Uuid::now_v7().to_string(),
        body: WorkBody::Action(action),
        models: Default::default(),
        prompts: Default::default(),
        default_model: None,
    };
    Task {
        workspace_id: WorkspaceId::derived("", "default"),
        project_id: None,
        workflow_id: None,
        run_id: run_id(),
        token,
        attempt: 1,
        node: "node".into(),
        work: Arc::new(work),
        input: json!({}),
        run: json!({}),
        timeout: None,
    }
}

/// One that must not be made twice.
pub(crate) fn unrepeatable(token: u64, with: Value) -> Task {
    let task = task(token, with);
    let work = Work { repeatable: false, ..(*task.work).clone() };
    Task { work: Arc::new(work), ..task }
}

pub(crate) fn subject(task: &Task) -> String {
    task_subject(DEFAULT_POOL, task.run_id, task.token, task.attempt)
}

pub(crate) fn raw(subject: String, body: impl Into<Bytes>) -> Message {
    Message { subject, id: Uuid::new_v4().to_string(), body: body.into() }
}

pub(crate) fn message(task: &Task) -> Message {
    let body = serde_json::to_vec(&TaskMessage::Task(Box::new(task.clone())));
    raw(subject(task), body.expect("json"))
}

pub(crate) fn fetch(task: &Task) -> Message {
    let Task { run_id, token, attempt, .. } = *task;
    let body = serde_json::to_vec(&TaskMessage::Fetch { run_id, token, attempt });
    raw(subject(task), body.expect("json"))
}

/// The queues, as a coordinator sees them.
pub(crate) struct Place {
    /// Of its own: queues reserve room in a server's store.
    pub(crate) server: ScratchNats,
    options: NatsOptions,
    pub(crate) nats: Nats,
    pub(crate) tasks: WorkQueue,
    outcomes: Consumer,
}

impl Place {
    pub(crate) async fn new() -> Self {
        let server = ScratchNats::start().await;
        let options = server.options();
        let nats = Nats::connect(&options).await.expect("nats runs");
        let open = async |queue| {
            let options = WorkQueueOptions::of(queue, QUEUE_BYTES);
            WorkQueue::open(&nats, options).await.expect("a queue")
        };
        let tasks = open(tasks_queue(DEFAULT_POOL)).await;
        let outcomes = ConsumerOptions {
            durable: "test".to_owned(),
            filter: "outcomes.>".to_owned(),
            ack_wait: Duration::from_secs(30),
            max_ack_pending: 20_000,
        };
        let outcomes = open(outcomes_queue()).await.consumer(outcomes).await.expect("a consumer");
        Self { server, options, nats, tasks, outcomes }
    }

    /// A worker's end of the queues, on a connection of its own.
    pub(crate) async fn worker(&self, concurrency: usize) -> Arc<RemoteTasks> {
        let nats = Nats::connect(&self.options).await.expect("nats runs");
        let connected = RemoteTasks::connect_with(nats, DEFAULT_POOL, concurrency, ACK_WAIT).await;
        connected.expect("a worker's end")
    }

    /// A worker that performs tasks.
    pub(crate) async fn executor(&self, grace: Duration) -> Running {
        let tasks = self.worker(64).await;
        let config = ExecutorConfig { concurrency: 64, grace, ..ExecutorConfig::default() };
        let shutdown = CancellationToken::new();
        let watched = Arc::new(Watched { tasks, pulled: Mutex::default(), reports: Notify::new() });
        let source = Arc::clone(&watched);
        let executor = Executor::start(source, Arc::new(Unheard), config, shutdown.clone());
        let executor = executor.expect("an executor");
        Running { executor, watched, shutdown }
    }

    /// The consumer that all workers of the pool share.
    pub(crate) async fn pool(&self) -> Consumer {
        let options = ConsumerOptions {
            durable: format!("pool-{DEFAULT_POOL}"),
            filter: tasks_queue(DEFAULT_POOL).1,
            ack_wait: ACK_WAIT,
            max_ack_pending: 20_000,
        };
        self.tasks.consumer(options).await.expect("a consumer")
    }

    pub(crate) async fn publish(&self, messages: Vec<Message>) {
        for published in self.tasks.publish(messages).await {
            published.expect("it is published");
        }
    }

    pub(crate) async fn give(&self, tasks: &[Task]) {
        self.publish(tasks.iter().map(message).collect()).await;
    }

    /// The next outcomes, so many at least.
    pub(crate) async fn outcomes(&mut self, count: usize) -> Vec<Outcome> {
        let mut outcomes = Vec::new();
        let arrive = async {
            while outcomes.len() < count {
                for delivery in self.outcomes.pull(256).await {
                    outcomes.push(serde_json::from_slice(&delivery.body).expect("an outcome"));
                    delivery.ack().await;
                }
            }
        };
        let arrived = tokio::time::timeout(BOUND, arrive).await;
        assert!(arrived.is_ok(), "only {} of {count} outcomes came in time", outcomes.len());
        outcomes
    }

    /// Waits until a task has left the queue.
    pub(crate) async fn is_done(&self, subject: &str) {
        let leave = async {
            while self.tasks.holds(subject).await.expect("nats runs") {
                tokio::task::yield_now().await;
            }
        };
        tokio::time::timeout(BOUND, leave).await.expect("it leaves the queue in time");
    }

    /// Serves the calls to the run's owner.
    pub(crate) async fn owner(&self, script: Vec<Bytes>) -> (Arc<Owner>, Served) {
        let owner = Arc::new(Owner { asked: Mutex::default(), script: Mutex::new(script.into()) });
        let subject = shard_commands(shard_of(run_id()));
        let served = self.nats.serve(&subject, "owner", owner.clone(), 10).await;
        (owner, served.expect("it is served"))
    }
}

pub(crate) fn tokens(outcomes: &[Outcome]) -> Vec<u64> {
    let mut tokens: Vec<_> = outcomes.iter().map(|outcome| outcome.token).collect();
    tokens.sort_unstable();
    tokens
}

pub(crate) fn failure(outcome: &Outcome) -> &Failure {
    match &outcome.result {
        OutcomeResult::Failure(failure) => failure,
        OutcomeResult::Success(success) => panic!("it succeeded: {success:?}"),
    }
}

/// A worker with its loop.
pub(crate) struct Running {
    executor: Executor,
    watched: Arc<Watched>,
    shutdown: CancellationToken,
}

impl Running {
    /// Waits until it has begun so many tasks.
    pub(crate) async fn has_begun(&self, count: usize) {
        let begun = async {
            while *self.watched.pulled.lock().expect("lock") < count {
                tokio::task::yield_now().await;
            }
        };
        tokio::time::timeout(BOUND, begun).await.expect("they begin in time");
    }

    /// Waits until it wants to report an outcome.
    pub(crate) async fn reports(&self) {
        let reports = self.watched.reports.notified();
        tokio::time::timeout(BOUND, reports).await.expect("it reports in time");
    }

    /// Ends it in good order.
    pub(crate) async fn stop(self) {
        self.shutdown.cancel();
        self.executor.join().await;
        self.watched.tasks.close().await;
    }
}

/// Counts what the executor gets.
struct Watched {
    tasks: Arc<RemoteTasks>,
    pulled: Mutex<usize>,
    reports: Notify,
}

#[async_trait]
impl Tasks for Watched {
    async fn pull(&self, limit: usize) -> Vec<Task> {
        let tasks = self.tasks.pull(limit).await;
        *self.pulled.lock().expect("lock") += tasks.len();
        tasks
    }

    async fn report(&self, outcomes: Vec<Outcome>) {
        self.reports.notify_one();
        self.tasks.report(outcomes).await;
    }

    async fn stop(&self) {
        self.tasks.stop().await;
    }
}

pub(crate) fn ok<T: Serialize>(value: T) -> Bytes {
    let answer: Answer<T> = Ok(value);
    serde_json::to_vec(&answer).expect("json").into()
}

pub(crate) fn not_owner() -> Bytes {
    let rejection = Rejection::new(RejectionKind::Unavailable, NOT_OWNER, "it has moved");
    serde_json::to_vec(&Answer::<()>::Err(rejection)).expect("json").into()
}

/// Answers by a script, and keeps what it was asked.
pub(crate) struct Owner {
    asked: Mutex<Vec<CommandCall>>,
    script: Mutex<VecDeque<Bytes>>,
}

impl Owner {
    pub(crate) fn asked(&self) -> Vec<CommandCall> {
        self.asked.lock().expect("lock").clone()
    }

    pub(crate) async fn was_asked(&self) {
        let asked = async {
            while self.asked.lock().expect("lock").is_empty() {
                tokio::task::yield_now().await;
            }
        };
        tokio::time::timeout(BOUND, asked).await.expect("it is asked in time");
    }
}

#[async_trait]
impl Handler for Owner {
    async fn handle(&self, body: Bytes) -> Bytes {
        let call = serde_json::from_slice(&body).expect("a call");
        self.asked.lock().expect("lock").push(call);
        let answer = self.script.lock().expect("lock").pop_front();
        answer.unwrap_or_else(not_owner)
    }
}
