//! A write side over a journal in a folder of the test, whose worker is the test itself.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use chassis::clock::{Clock, SystemClock};
use chassis::journal::{Journal, RecordedEvent, SqliteJournal, SqliteOptions};
use chassis::telemetry::{self, LogFormat, Telemetry, TelemetryConfig};
use commands::{CommandService, CoordinatorConfig};
use domain::ids::{CommandId, RunId, WorkspaceId};
use domain::resource::Kind;
use protocol::command::StartRun;
use protocol::{
    Command, CommandEnvelope, Commands, Failure, FailureKind, Outcome, OutcomeResult, Receipt,
    Rejection, RunOutcome, RunTarget, Success, Task, Tasks,
};
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::watched::Watched;

/// No wait of a test takes longer than this, unless it fails.
const PATIENCE: Duration = Duration::from_secs(20);

/// A running write side. One worker, so that its messages are taken in the order they are sent.
pub(crate) struct Platform {
    pub(crate) service: Arc<CommandService>,
    pub(crate) tasks: Arc<dyn Tasks>,
    pub(crate) journal: Arc<Watched>,
    shutdown: CancellationToken,
    tracker: TaskTracker,
}

/// What a platform is started with where nothing else is said.
pub(crate) fn config() -> CoordinatorConfig {
    CoordinatorConfig { workers: 1, ..CoordinatorConfig::default() }
}

impl Platform {
    pub(crate) async fn start(folder: &Path) -> Self {
        Self::start_with(folder, &config(), Arc::new(SystemClock::new())).await
    }

    pub(crate) async fn start_with(
        folder: &Path,
        config: &CoordinatorConfig,
        clock: Arc<dyn Clock>,
    ) -> Self {
        let path = folder.join("journal.db");
        let sqlite = SqliteJournal::open(&path, SqliteOptions::default()).await;
        let journal = Arc::new(Watched::new(sqlite.expect("the journal opens")));
        let (shutdown, tracker) = (CancellationToken::new(), TaskTracker::new());
        let service = CommandService::start(
            Arc::clone(&journal) as Arc<dyn Journal>,
            clock,
            config,
            shutdown.clone(),
            &tracker,
        )
        .await
        .expect("the write side starts");
        Self { tasks: service.tasks(), service, journal, shutdown, tracker }
    }

    /// Stops, so that another one may take over the folder.
    pub(crate) async fn stop(self) {
        self.shutdown.cancel();
        self.tracker.close();
        self.tracker.wait().await;
        self.journal.inner.close().await;
    }

    pub(crate) fn envelope(&self, command: Command) -> CommandEnvelope {
        CommandEnvelope::new(
            CommandId::new(uuid::Uuid::now_v7()),
            self.service.defaults().workspace_id,
            "test",
            command,
        )
    }

    pub(crate) async fn execute(&self, command: Command) -> Result<Receipt, Rejection> {
        self.service.execute(self.envelope(command)).await
    }

    /// The command that starts a run of a definition.
    pub(crate) fn starting(&self, definition: &Value, input: Value) -> Command {
        let target = RunTarget::Inline {
            project_id: self.service.defaults().project_id,
            definition: serde_json::from_value(definition.clone()).expect("a definition"),
        };
        let labels = Default::default();
        Command::StartRun(Box::new(StartRun { target, input, labels, home: None, trigger: None }))
    }

    /// Starts a run of a definition.
    pub(crate) async fn run(&self, definition: &Value) -> RunId {
        let receipt = self.execute(self.starting(definition, json!({}))).await;
        receipt.expect("the run starts").id.parse().expect("a run's id")
    }

    /// Changes the default workspace or project.
    pub(crate) async fn revise(&self, kind: Kind, patch: Value) {
        let defaults = self.service.defaults();
        let id = match kind {
            Kind::Workspace => defaults.workspace_id.to_string(),
            _ => defaults.project_id.to_string(),
        };
        self.execute(Command::Revise { kind, id, patch }).await.expect("a revision");
    }

    /// The next tasks, at least one.
    pub(crate) async fn pull(&self) -> Vec<Task> {
        tokio::time::timeout(PATIENCE, self.tasks.pull(1_000)).await.expect("a task is owed")
    }

    /// The next task, which comes alone.
    pub(crate) async fn pull_one(&self) -> Task {
        let mut tasks = self.pull().await;
        assert_eq!(tasks.len(), 1, "{tasks:?}");
        tasks.remove(0)
    }

    /// The next tasks, at least so many.
    pub(crate) async fn pull_many(&self, count: usize) -> Vec<Task> {
        let mut tasks = self.pull().await;
        while tasks.len() < count {
            tasks.extend(self.pull().await);
        }
        tasks
    }

    pub(crate) async fn succeed(&self, task: &Task, result: Value) {
        let success = Success { result, usage: Default::default() };
        self.report(task, OutcomeResult::Success(success)).await;
    }

    pub(crate) async fn fail(&self, task: &Task, kind: FailureKind) {
        let failure = Failure {
            kind,
            code: "test".to_owned(),
            message: "the test says so".to_owned(),
            detail: Value::Null,
            retry_after: None,
            usage: Default::default(),
        };
        self.report(task, OutcomeResult::Failure(failure)).await;
    }

    async fn report(&self, task: &Task, result: OutcomeResult) {
        let Task { run_id, token, attempt, .. } = *task;
        self.tasks
            .report(vec![Outcome {
                run_id,
                token,
                attempt,
                result,
                duration_ms: 1,
                secrets: Vec::new(),
            }])
            .await;
    }

    /// How a run ends.
    pub(crate) async fn end_of(&self, run_id: RunId) -> RunOutcome {
        let workspace_id = self.service.defaults().workspace_id;
        let end = self.service.wait(workspace_id, run_id, PATIENCE).await;
        end.expect("the run is there").expect("the run ends")
    }

    /// What somebody of another workspace gets when cancelling a run. It loads the run where it
    /// isn't in memory, and changes nothing.
    pub(crate) async fn cancel_from_elsewhere(&self, run_id: RunId) -> Rejection {
        let mut envelope =
            self.envelope(Command::CancelRun { run_id, reason: None, compensate: true });
        envelope.workspace_id = WorkspaceId::derived("", "elsewhere");
        self.service.execute(envelope).await.expect_err("not theirs")
    }

    /// The types of a run's events.
    pub(crate) async fn events(&self, run_id: RunId) -> Vec<String> {
        let events = self.journal.inner.load("run", &run_id.to_string(), 0, 1_000).await;
        let event_type = |event: RecordedEvent| event.event_type.to_string();
        events.expect("the journal is there").into_iter().map(event_type).collect()
    }
}

/// The metrics of this process.
pub(crate) fn metrics() -> Telemetry {
    let config = TelemetryConfig {
        version: "0",
        commit: "test",
        filter: "off".to_owned(),
        format: LogFormat::Auto,
        records: None,
    };
    telemetry::init(&config).expect("the only one of this process")
}

/// A folder for a journal.
pub(crate) fn folder() -> tempfile::TempDir {
    tempfile::tempdir().expect("a folder")
}

/// A node whose action the test performs.
pub(crate) fn node() -> Value {
    json!({"action": {"kind": "mock", "with": {"result": {}}}})
}

/// A definition of steps one after the other.
pub(crate) fn sequence(steps: usize) -> Value {
    let nodes: serde_json::Map<_, _> = (0..steps).map(|at| (format!("s{at}"), node())).collect();
    let transitions: Vec<_> = (1..steps)
        .map(|at| json!({"from": format!("s{}", at - 1), "to": format!("s{at}")}))
        .collect();
    json!({"name": "sequence", "start": "s0", "nodes": nodes, "transitions": transitions})
}

/// A definition of one step, branches at once, and a join.
pub(crate) fn fan_out(branches: usize) -> Value {
    json!({
        "name": "fan-out", "start": "begin",
        "nodes": {"begin": {"compute": {"state.begun": true}}, "work": node(),
            "end": {"compute": {"state.ended": true}}},
        "transitions": [
            {"from": "begin", "to": "work", "spawn": branches, "group": "all"},
            {"from": "work", "to": "end", "join": {"group": "all", "wait": "all",
                "merge": {"strategy": "collect", "into": "state.results"}}},
        ],
        "output": {"results": "${state.results}"},
    })
}
