//! Coordinators over one database.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use chassis::clock::{Clock, SystemClock};
use chassis::database::Database;
use chassis::journal::{Journal, PostgresJournal, PostgresOptions};
use chassis::scratch::ScratchDatabase;
use chassis::shards::{Ownership, sole_owner};
use commands::{CommandService, CoordinatorConfig, Foundation, Writes};
use domain::ids::CommandId;
use protocol::command::StartRun;
use protocol::{Command, CommandEnvelope, Commands, Receipt, Rejection, RunTarget, SHARDS};
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// No wait of a test takes longer than this, unless it fails.
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);

/// One process's write side.
pub(crate) struct Side {
    pub(crate) service: Arc<CommandService>,
    pub(crate) journal: Arc<PostgresJournal>,
    shutdown: CancellationToken,
    tracker: TaskTracker,
    _database: Database,
}

impl Side {
    /// A write side without runs of its own: resources only.
    pub(crate) async fn of_resources(scratch: &ScratchDatabase) -> Self {
        Self::start(scratch, sole_owner(SHARDS)).await
    }

    /// A write side with the runs of the shards that it owns.
    pub(crate) async fn start(scratch: &ScratchDatabase, ownership: Ownership) -> Self {
        let database = scratch.connect().await;
        let journal = PostgresJournal::open(&database, PostgresOptions::default()).await;
        let journal = journal.expect("the journal opens");
        let clock: Arc<dyn Clock> = Arc::new(SystemClock::new());
        let foundation = Foundation {
            journal: Arc::clone(&journal) as Arc<dyn Journal>,
            clock,
            writes: Writes::Postgres(Arc::clone(&journal)),
            ownership,
            shards: None,
            queues: None,
            everywhere: None,
            archives: None,
        };
        let (shutdown, tracker) = (CancellationToken::new(), TaskTracker::new());
        let config = CoordinatorConfig::default();
        let service =
            CommandService::start_over(foundation, &config, shutdown.clone(), &tracker).await;
        let service = service.expect("the write side starts");
        Self { service, journal, shutdown, tracker, _database: database }
    }

    pub(crate) async fn execute(&self, command: Command) -> Result<Receipt, Rejection> {
        self.send(&self.envelope(command)).await
    }

    pub(crate) async fn send(&self, envelope: &CommandEnvelope) -> Result<Receipt, Rejection> {
        let done = tokio::time::timeout(PATIENCE, self.service.execute(envelope.clone()));
        done.await.expect("an answer")
    }

    pub(crate) fn envelope(&self, command: Command) -> CommandEnvelope {
        CommandEnvelope::new(
            CommandId::new(uuid::Uuid::now_v7()),
            self.service.defaults().workspace_id,
            "test",
            command,
        )
    }

    /// The command that creates a resource of the default project.
    pub(crate) fn creating(&self, kind: &str, mut members: Value) -> Command {
        members["project_id"] = json!(self.service.defaults().project_id);
        let spec = json!({"kind": kind, "spec": members});
        Command::Create(serde_json::from_value(spec).expect("a readable spec"))
    }

    /// The command that starts a run of a definition.
    pub(crate) fn starting(&self, definition: &Value) -> Command {
        let target = RunTarget::Inline {
            project_id: self.service.defaults().project_id,
            definition: serde_json::from_value(definition.clone()).expect("a definition"),
        };
        let (input, labels) = (json!({}), Default::default());
        Command::StartRun(Box::new(StartRun { target, input, labels, home: None, trigger: None }))
    }

    pub(crate) async fn stop(self) {
        self.shutdown.cancel();
        self.tracker.close();
        self.tracker.wait().await;
        self.journal.close().await;
    }
}

/// A definition of so many steps in a row, each a transform.
pub(crate) fn sequence(name: &str, steps: usize) -> Value {
    let node = json!({"action": {"kind": "transform", "with": {"value": 1}}});
    let nodes: BTreeMap<String, Value> =
        (0..steps).map(|step| (format!("s{step}"), node.clone())).collect();
    let transitions: Vec<Value> = (1..steps)
        .map(|step| json!({"from": format!("s{}", step - 1), "to": format!("s{step}")}))
        .collect();
    json!({"name": name, "start": "s0", "nodes": nodes, "transitions": transitions})
}
