//! The write side without a process: a journal's file, the command service, and its task queue,
//! so that a test can be the worker.

use std::path::Path;
use std::sync::Arc;

use chassis::clock::{Clock, SystemClock};
use chassis::journal::{Journal, SqliteJournal, SqliteOptions};
use commands::{CommandService, CoordinatorConfig};
use domain::definition::Definition;
use domain::ids::{CommandId, RunId};
use protocol::command::StartRun;
use protocol::{
    Command, CommandEnvelope, Commands, Outcome, OutcomeResult, Receipt, Rejection, RunOutcome,
    RunTarget, Success, Tasks,
};
use serde_json::Value;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::records::Records;
use crate::wait::within;

/// A running write side.
pub struct Writer {
    pub service: Arc<CommandService>,
    pub tasks: Arc<dyn Tasks>,
    pub journal: Arc<SqliteJournal>,
    clock: Arc<dyn Clock>,
    shutdown: CancellationToken,
    tracker: TaskTracker,
}

impl Writer {
    /// Starts it on the journal of a folder; makes one where there is none.
    pub async fn start(folder: &Path) -> Self {
        Self::start_by(folder, Arc::new(SystemClock::new())).await
    }

    /// The same by a clock of the test's.
    pub async fn start_by(folder: &Path, clock: Arc<dyn Clock>) -> Self {
        let path = folder.join("journal.db");
        let journal = SqliteJournal::open(&path, SqliteOptions::default()).await;
        let journal = journal.expect("the journal can be opened");
        let (shutdown, tracker) = (CancellationToken::new(), TaskTracker::new());
        let service = CommandService::start(
            Arc::clone(&journal) as Arc<dyn Journal>,
            Arc::clone(&clock),
            &CoordinatorConfig::default(),
            shutdown.clone(),
            &tracker,
        )
        .await
        .expect("the write side starts");
        Self { tasks: service.tasks(), service, journal, clock, shutdown, tracker }
    }

    /// Does a command as the default workspace's test actor.
    pub async fn execute(&self, command: Command) -> Result<Receipt, Rejection> {
        let envelope = CommandEnvelope::new(
            CommandId::new(self.clock.uuid_v7()),
            self.service.defaults().workspace_id,
            "test",
            command,
        );
        within("a command", self.service.execute(envelope)).await
    }

    /// Starts a run of an inline definition.
    pub async fn start_run(&self, definition: &Value, input: Value) -> RunId {
        let definition: Definition =
            serde_json::from_value(definition.clone()).expect("the definition has its shape");
        let target = RunTarget::Inline {
            project_id: self.service.defaults().project_id,
            definition: Box::new(definition),
        };
        let start =
            StartRun { target, input, labels: Default::default(), home: None, trigger: None };
        let receipt = self.execute(Command::StartRun(Box::new(start))).await;
        receipt.expect("the run starts").id.parse().expect("a run's id")
    }

    /// A run's outcome, once it has one.
    pub async fn end_of(&self, run_id: RunId) -> RunOutcome {
        let workspace_id = self.service.defaults().workspace_id;
        let patience = std::time::Duration::from_secs(60);
        let ended = self.service.wait(workspace_id, run_id, patience).await;
        ended.expect("the run is known").expect("the run ends within a minute")
    }

    /// A worker that answers every task at once with 1, until the write side ends.
    pub fn answer_everything(&self) -> JoinHandle<()> {
        let tasks = Arc::clone(&self.tasks);
        tokio::spawn(async move {
            loop {
                let pulled = tasks.pull(64).await;
                if pulled.is_empty() {
                    return;
                }
                let success = Success { result: Value::from(1), usage: Default::default() };
                let outcomes = pulled.iter().map(|task| Outcome {
                    run_id: task.run_id,
                    token: task.token,
                    attempt: task.attempt,
                    result: OutcomeResult::Success(success.clone()),
                    duration_ms: 1,
                    secrets: Vec::new(),
                });
                tasks.report(outcomes.collect()).await;
            }
        })
    }

    /// Every event so far.
    pub async fn records(&self) -> Records {
        Records::of(&*self.journal).await
    }

    /// Ends it; what is owed stays owed in the journal.
    pub async fn stop(self) {
        self.shutdown.cancel();
        self.tracker.close();
        within("the write side to stop", self.tracker.wait()).await;
        self.journal.close().await;
    }
}
