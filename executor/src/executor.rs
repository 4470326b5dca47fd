//! The executor: performs one task, and runs the loop that gets them.

use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Instant;

use futures::FutureExt;
use protocol::service::Tasks;
use protocol::task::{Failure, FailureKind, Outcome, OutcomeResult, Task};
use protocol::{EphemeralSink, Unheard};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use tracing::Instrument;

use crate::action::Services;
use crate::compiled::{Compiled, Shelf};
use crate::config::ExecutorConfig;
use crate::context::Context;
use crate::fault::{Ended, fault, permanent};
use crate::intake;
use crate::meters::Meters;
use crate::secrets::Used;

/// Why an executor can't be made.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The HTTP client can't be set up (no usable certificates, for example).
    #[error("the worker's http client can't be set up: {0}")]
    Client(#[from] reqwest::Error),
}

/// A worker. Holds nothing of a task when the task is over.
pub struct Executor {
    worker: Arc<Worker>,
    intake: Option<JoinHandle<()>>,
}

impl Executor {
    /// An executor without a loop, for [`Self::perform`].
    pub fn new(config: ExecutorConfig) -> Result<Self, StartError> {
        Self::telling(config, Arc::new(Unheard))
    }

    /// The same, telling what goes on.
    pub fn telling(
        config: ExecutorConfig,
        sink: Arc<dyn EphemeralSink>,
    ) -> Result<Self, StartError> {
        Ok(Self { worker: Arc::new(Worker::new(config, sink)?), intake: None })
    }

    /// Gets and performs tasks until the shutdown, or until the source is closed, and tells what
    /// goes on. Running tasks then have the configured grace to finish; the rest is abandoned and
    /// stays owed.
    ///
    /// # Panics
    ///
    /// Outside a tokio runtime.
    pub fn start(
        tasks: Arc<dyn Tasks>,
        sink: Arc<dyn EphemeralSink>,
        config: ExecutorConfig,
        shutdown: CancellationToken,
    ) -> Result<Self, StartError> {
        let worker = Arc::new(Worker::new(config, sink)?);
        let intake = tokio::spawn(intake::run(Arc::clone(&worker), tasks, shutdown));
        Ok(Self { worker, intake: Some(intake) })
    }

    /// Performs one attempt here and now.
    pub async fn perform(&self, task: &Task) -> Outcome {
        let compiled = self.worker.compiled(task);
        self.worker.perform(task, &compiled).await
    }

    /// Waits until the loop has ended.
    pub async fn join(self) {
        if let Some(intake) = self.intake
            && let Err(error) = intake.await
        {
            tracing::error!(%error, "the worker's loop ended abnormally");
        }
    }
}

/// What all tasks of an executor share.
pub(crate) struct Worker {
    pub(crate) config: ExecutorConfig,
    pub(crate) meters: Meters,
    services: Services,
    shelf: Shelf,
}

impl Worker {
    fn new(config: ExecutorConfig, sink: Arc<dyn EphemeralSink>) -> Result<Self, StartError> {
        Ok(Self {
            meters: Meters::new(),
            services: Services::new(&config, sink)?,
            shelf: Shelf::new(config.compiled_works),
            config,
        })
    }

    pub(crate) fn compiled(&self, task: &Task) -> Arc<Compiled> {
        // A defect in a compiler must not take the loop down with it.
        let get = AssertUnwindSafe(|| self.shelf.get(&task.work));
        std::panic::catch_unwind(get).unwrap_or_else(|_| Arc::new(Compiled::panicked()))
    }

    /// Performs a task that never waits, in this poll; `None` where it would have waited.
    pub(crate) fn perform_now(&self, task: &Task, compiled: &Compiled) -> Option<Outcome> {
        if !compiled.is_immediate() {
            return None;
        }
        let span = span(task, compiled);
        let _entered = span.enter();
        let started = Instant::now();
        let used = Used::default();
        let ended = used.within(self.guarded(task, compiled)).now_or_never()?;
        Some(self.outcome(task, compiled, started, ended, &used))
    }

    /// Performs a task within its attempt's time-out.
    pub(crate) async fn perform(&self, task: &Task, compiled: &Compiled) -> Outcome {
        let started = Instant::now();
        let used = Used::default();
        let work = used.within(self.guarded(task, compiled)).instrument(span(task, compiled));
        let ended = match task.timeout {
            None => work.await,
            Some(limit) => {
                tokio::time::timeout(limit.as_duration(), work).await.unwrap_or_else(|_| {
                    let message = format!("the attempt took longer than {limit}");
                    Err(fault(FailureKind::Timeout, "attempt_timeout", message))
                })
            }
        };
        self.outcome(task, compiled, started, ended, &used)
    }

    async fn guarded(&self, task: &Task, compiled: &Compiled) -> Ended {
        let context = Context { task, step: None, input: &task.input, steps: None };
        let ended = caught(compiled.perform(context, &self.services)).await;
        if ended.is_none() {
            tracing::error!(run_id = %task.run_id, node = %task.node, "an action panicked");
        }
        ended.unwrap_or_else(|| {
            let message = "the worker has a defect: the action panicked";
            Err(permanent("worker_panic", message))
        })
    }

    fn outcome(
        &self,
        task: &Task,
        compiled: &Compiled,
        started: Instant,
        ended: Ended,
        used: &Used,
    ) -> Outcome {
        let elapsed = started.elapsed();
        let result = match ended {
            Ok(success) => OutcomeResult::Success(success),
            Err(failure) => {
                failed(task, compiled, &failure);
                OutcomeResult::Failure(*failure)
            }
        };
        self.meters.ended(compiled.label, &result, elapsed.as_secs_f64());
        Outcome {
            run_id: task.run_id,
            token: task.token,
            attempt: task.attempt,
            result,
            duration_ms: u64::try_from(elapsed.as_millis()).unwrap_or(u64::MAX),
            secrets: used.names(),
        }
    }
}

/// Who tells of failed attempts, for filters of logs: there may be many.
const ATTEMPTS: &str = "executor::attempts";

/// Without the message, which may hold what others said: it stands in the run's events.
fn failed(task: &Task, compiled: &Compiled, failure: &Failure) {
    tracing::warn!(
        target: ATTEMPTS,
        workspace_id = %task.workspace_id,
        run_id = %task.run_id,
        node = %task.node,
        token = task.token,
        attempt = task.attempt,
        action = compiled.label.as_str(),
        kind = failure.kind.as_str(),
        code = failure.code,
        "an attempt failed"
    );
}

fn span(task: &Task, compiled: &Compiled) -> tracing::Span {
    tracing::debug_span!(
        "task",
        run_id = %task.run_id,
        token = task.token,
        attempt = task.attempt,
        node = %task.node,
        kind = compiled.label.as_str(),
    )
}

/// What a future yields; `None` where it panicked.
async fn caught<T>(work: impl Future<Output = T>) -> Option<T> {
    AssertUnwindSafe(work).catch_unwind().await.ok()
}

#[cfg(test)]
mod tests {
    use super::caught;

    #[tokio::test]
    async fn a_panic_is_caught_before_and_after_waiting() {
        assert_eq!(caught(async { 1 }).await, Some(1));
        assert_eq!(caught(async { panic!("at once") }).await, None::<()>);
        let later = async {
            tokio::task::yield_now().await;
            panic!("later")
        };
        assert_eq!(caught(later).await, None::<()>);
    }
}
