//! The loop: batches, what is answered at once, and the end.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use domain::definition::ActionKind::Mock;
use domain::ids::RunId;
use executor::{Executor, ExecutorConfig};
use protocol::Unheard;
use protocol::service::Tasks;
use protocol::task::{Abandoned, Outcome, OutcomeResult, Task};
use serde_json::json;
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use crate::support::{config, task};

#[derive(Default)]
struct Source {
    tasks: Mutex<VecDeque<Task>>,
    reports: Mutex<Vec<Vec<Outcome>>>,
    reported: Notify,
    pulled: Notify,
    /// Whether an exhausted source closes, or waits for ever.
    closes: bool,
    /// Word of abandoned work, once it is to be told.
    abandoned: Mutex<Vec<Abandoned>>,
    tell: Notify,
    gave_up: Mutex<Vec<u64>>,
}

#[async_trait]
impl Tasks for Source {
    async fn pull(&self, limit: usize) -> Vec<Task> {
        let batch: Vec<_> = {
            let mut tasks = self.tasks.lock().expect("tasks");
            let count = tasks.len().min(limit);
            tasks.drain(..count).collect()
        };
        self.pulled.notify_one();
        if batch.is_empty() && !self.closes {
            std::future::pending::<()>().await;
        }
        batch
    }

    async fn report(&self, outcomes: Vec<Outcome>) {
        self.reports.lock().expect("reports").push(outcomes);
        self.reported.notify_one();
    }

    async fn abandoned(&self) -> Vec<Abandoned> {
        self.tell.notified().await;
        std::mem::take(&mut self.abandoned.lock().expect("words"))
    }

    async fn gave_up(&self, _: RunId, token: u64, _: u32) {
        self.gave_up.lock().expect("tokens").push(token);
        self.reported.notify_one();
    }
}

fn source(tasks: Vec<Task>, closes: bool) -> Arc<Source> {
    Arc::new(Source { tasks: Mutex::new(tasks.into()), closes, ..Source::default() })
}

fn numbered(with: serde_json::Value, count: u64) -> Vec<Task> {
    let first = task(Mock, with, json!({}));
    (0..count).map(|token| Task { token, ..first.clone() }).collect()
}

async fn run(source: &Arc<Source>, config: ExecutorConfig) {
    let shutdown = CancellationToken::new();
    let executor =
        Executor::start(source.clone(), Arc::new(Unheard), config, shutdown).expect("an executor");
    executor.join().await;
}

#[tokio::test]
async fn tasks_that_never_wait_are_reported_as_the_batch_they_came_in() {
    let source = source(numbered(json!({"result": 1}), 300), true);
    run(&source, config()).await;
    let reports = source.reports.lock().expect("reports");
    assert_eq!(reports.iter().map(Vec::len).collect::<Vec<_>>(), [256, 44]);
    let tokens: Vec<_> = reports.iter().flatten().map(|outcome| outcome.token).collect();
    assert_eq!(tokens, (0..300).collect::<Vec<_>>());
}

#[tokio::test]
async fn waiting_tasks_are_bounded_and_all_are_reported() {
    let tasks = numbered(json!({"result": 1, "delay": "1ms"}), 50);
    let source = source(tasks, true);
    run(&source, ExecutorConfig { concurrency: 4, ..config() }).await;
    let reports = source.reports.lock().expect("reports");
    let mut tokens: Vec<_> = reports.iter().flatten().map(|outcome| outcome.token).collect();
    tokens.sort_unstable();
    assert_eq!(tokens, (0..50).collect::<Vec<_>>());
}

#[tokio::test]
async fn a_shutdown_lets_running_tasks_finish() {
    let source = source(numbered(json!({"result": 1, "delay": "50ms"}), 1), false);
    let shutdown = CancellationToken::new();
    let executor = Executor::start(source.clone(), Arc::new(Unheard), config(), shutdown.clone())
        .expect("an executor");
    source.pulled.notified().await;
    source.pulled.notified().await;
    shutdown.cancel();
    executor.join().await;
    let reports = source.reports.lock().expect("reports");
    assert!(matches!(reports[0][0].result, OutcomeResult::Success(_)));
}

#[tokio::test]
async fn a_task_that_outlasts_the_grace_is_abandoned_without_an_outcome() {
    let source = source(numbered(json!({"delay": "1h"}), 1), false);
    let shutdown = CancellationToken::new();
    let config = ExecutorConfig { grace: Duration::from_millis(10), ..config() };
    let executor = Executor::start(source.clone(), Arc::new(Unheard), config, shutdown.clone())
        .expect("an executor");
    source.pulled.notified().await;
    source.pulled.notified().await;
    shutdown.cancel();
    executor.join().await;
    assert!(source.reports.lock().expect("reports").is_empty());
}

#[tokio::test]
async fn what_nobody_waits_for_is_given_up_also_where_it_comes_later() {
    let source = source(numbered(json!({"delay": "1h"}), 3), false);
    source.tasks.lock().expect("tasks").iter_mut().for_each(|task| task.token += 1);
    let shutdown = CancellationToken::new();
    let config = ExecutorConfig { concurrency: 2, ..config() };
    let executor = Executor::start(source.clone(), Arc::new(Unheard), config, shutdown.clone())
        .expect("an executor");
    let run_id = source.tasks.lock().expect("tasks")[0].run_id;
    source.pulled.notified().await;
    *source.abandoned.lock().expect("words") = vec![Abandoned { run_id, tokens: vec![2] }];
    source.tell.notify_one();
    source.reported.notified().await;
    assert_eq!(*source.gave_up.lock().expect("tokens"), [2]);
    *source.abandoned.lock().expect("words") = vec![Abandoned { run_id, tokens: vec![] }];
    source.tell.notify_one();
    while source.gave_up.lock().expect("tokens").len() < 3 {
        source.reported.notified().await;
    }
    let mut gave_up = source.gave_up.lock().expect("tokens").clone();
    gave_up.sort_unstable();
    assert_eq!(gave_up, [1, 2, 3]);
    assert!(source.reports.lock().expect("reports").is_empty());
    shutdown.cancel();
    executor.join().await;
}
