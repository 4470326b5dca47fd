//! What services ask of each other over a bus: subjects, calls and their answers.
//!
//! Every call is one JSON document and so is its answer, [`Answer`]. Subjects stand below the
//! prefix that the bus is configured with, as in `wonder.commands`.

use std::time::Duration;

use chrono::{DateTime, Utc};
use domain::ids::{RunId, WorkflowId, WorkspaceId};
use domain::resource::Kind;
use serde::{Deserialize, Serialize};

use crate::audit::AuditFilter;
use crate::bundle::BundleFrom;
use crate::command::CommandEnvelope;
use crate::comparison::Compare;
use crate::difference::DiffTo;
use crate::event::{Cursor, EventFilter};
use crate::explanation::Explain;
use crate::gate::{GateFilter, GateId};
use crate::log::LogFilter;
use crate::metric::MetricQuery;
use crate::query::{PageRequest, ResourceFilter, RunFilter, StateAt};
use crate::rejection::Rejection;
use crate::task::{Outcome, Task};

/// Where any coordinator takes [`CommandCall`]s: a queue group.
pub const COMMANDS: &str = "commands";
/// Where any projector takes [`QueryCall`]s: a queue group.
pub const QUERIES: &str = "queries";
/// Where any projector opens streams of events ([`FollowCall`]): a queue group.
pub const FOLLOW: &str = "queries.follow";
/// Where any projector opens streams of bundles ([`crate::audit::ExportAudit`]): a queue group. Each
/// message of the stream is an `Answer<String>`, whole lines of the bundle; after an error nothing
/// follows. The first message comes at once: the refusal, or the beginning.
pub const EXPORT: &str = "queries.export";
/// Told with the position of the newest event after a commit. A hint: nothing depends on it.
pub const JOURNAL_HEAD: &str = "journal.head";
/// Told when shards were released. A hint: they are found free without it, later.
pub const SHARDS_RELEASED: &str = "shards.released";
/// Told by who listens to ephemeral messages, at first and then each [`LISTENING_EVERY`]. A hint:
/// workers tell nothing for [`LISTENING_FOR`] after the last one.
pub const LISTENING: &str = "ephemeral.listening";
pub const LISTENING_EVERY: Duration = Duration::from_secs(2);
pub const LISTENING_FOR: Duration = Duration::from_secs(7);

/// Where a run's ephemeral messages are told, each an [`crate::Ephemeral`]; without a run, all of a
/// workspace's. They may be lost.
pub fn ephemeral_subject(workspace_id: WorkspaceId, run_id: Option<RunId>) -> String {
    let run = run_id.map_or_else(|| "*".to_owned(), |run_id| run_id.to_string());
    format!("ephemeral.of.{workspace_id}.{run}")
}

/// The pool of workers that takes tasks which name no other.
pub const DEFAULT_POOL: &str = "default";
/// Code of the refusal of a coordinator that doesn't own the run (any more): ask again.
pub const NOT_OWNER: &str = "not_owner";
/// The work queue of a pool's tasks: its name and its subjects. A pool has a queue of its own,
/// since NATS servers before 2.10 look through all subjects of a queue for a consumer that wants
/// some.
pub fn tasks_queue(pool: &str) -> (String, String) {
    (format!("TASKS_{}", pool.to_uppercase()), format!("tasks.{pool}.>"))
}

/// The work queue of outcomes: its name and its subjects.
pub fn outcomes_queue() -> (String, String) {
    ("OUTCOMES".to_owned(), "outcomes.>".to_owned())
}

/// The queue of log records for the store, its name and its subject: each message is a JSON array
/// of [`crate::LogRecord`]s.
pub fn logs_queue() -> (String, String) {
    ("LOGS".to_owned(), LOGS.to_owned())
}

/// The subject of log records, and the name of those who take them.
pub const LOGS: &str = "logs";
/// Bytes of records that wait, at most; what comes then is dropped by its sender.
pub const LOGS_BYTES: i64 = 16 * 1024 * 1024;
/// How long a record waits for a projector.
pub const LOGS_AGE: Duration = Duration::from_hours(24);

/// Bytes that each work queue may hold. Tasks in flight are bounded long before.
pub const QUEUE_BYTES: i64 = 256 * 1024 * 1024;
/// How long a call may take where nothing else is said.
pub const CALL_DEADLINE: Duration = Duration::from_secs(30);

/// Where the owner of a shard takes [`CommandCall`]s about its runs.
pub fn shard_commands(shard: u16) -> String {
    format!("commands.shard.{shard}")
}

/// Where outcomes of a shard's runs are left, in a work queue.
pub fn shard_outcomes(shard: u16) -> String {
    format!("outcomes.{shard}")
}

/// Where an attempt's task is left, in a work queue. Ids and numbers hold no separator.
pub fn task_subject(pool: &str, run_id: RunId, token: u64, attempt: u32) -> String {
    format!("tasks.{pool}.{run_id}.{token}.{attempt}")
}

/// Where the workers of a pool are told of [`crate::task::Abandoned`] work, a list at a time. Word
/// that nobody hears is lost.
pub fn tasks_abandoned(pool: &str) -> String {
    format!("abandoned.{pool}")
}

/// Where all workers of a pool are asked which of some attempts they hold: the question is a JSON
/// array of [`AttemptId`]s, and so is the answer of each that holds some of them.
pub fn tasks_held(pool: &str) -> String {
    format!("held.{pool}")
}

/// One attempt of a run: the run, the token, and the attempt's number.
pub type AttemptId = (RunId, u64, u32);

/// What a call is answered with.
pub type Answer<T> = Result<T, Rejection>;

/// Calls of the write side.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum CommandCall {
    /// Answered with a [`crate::Receipt`]. A command about a run goes to its shard's owner.
    ///
    /// Its sender repeats it where no answer came. It is done once all the same: whoever does it
    /// remembers it by its idempotency key or, where it has none, by the envelope's id, also
    /// where it starts or cancels a run.
    Execute(Box<CommandEnvelope>),
    /// A start; answered with a [`crate::StartAnswer`]. It goes to the owner of the shard that
    /// [`crate::command::StartRun::home`] names, and without that to the one of
    /// [`crate::run_of`] its id. Repeated as above.
    Start(Box<CommandEnvelope>),
    /// A fork or a retry; answered with a [`crate::StartAnswer`]. It goes to the owner of the run
    /// that it is made of, and from there to its own home, where that is another one. Repeated as
    /// above.
    Fork {
        envelope: Box<CommandEnvelope>,
        /// Where it was sent on to, by the coordinator that was asked first.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        home: Option<crate::StartHome>,
    },
    /// Answered with `()`, by whoever is there.
    Ping,
    /// Answered with `Option<RunOutcome>`, at the shard's owner.
    Wait { workspace_id: WorkspaceId, run_id: RunId, timeout_ms: u64 },
    /// The whole task of an attempt, for workers that got a [`TaskMessage::Fetch`]. Answered with
    /// `Option<Task>`, `None` where the attempt isn't owed any more; at the shard's owner.
    Task { run_id: RunId, token: u64, attempt: u32 },
    /// Outcomes of one shard's runs. Answered with `()` once all are durable or refused for good;
    /// at the shard's owner.
    Report(Vec<Outcome>),
}

/// A message of the work queue of tasks.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum TaskMessage {
    Task(Box<Task>),
    /// The task is too large for a message: it is asked for with [`CommandCall::Task`].
    Fetch {
        run_id: RunId,
        token: u64,
        attempt: u32,
    },
}

/// Calls of the read side, each answered with what the query of the same name answers.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum QueryCall {
    ListResources {
        workspace_id: Option<WorkspaceId>,
        filter: ResourceFilter,
        page: PageRequest,
    },
    GetResource {
        workspace_id: Option<WorkspaceId>,
        kind: Kind,
        id: String,
        min_position: Option<u64>,
    },
    Triggers {
        workspace_id: WorkspaceId,
        workflow_id: WorkflowId,
        now: DateTime<Utc>,
        min_position: Option<u64>,
    },
    ListRuns {
        workspace_id: WorkspaceId,
        filter: RunFilter,
        page: PageRequest,
    },
    GetRun {
        workspace_id: WorkspaceId,
        run_id: RunId,
        min_position: Option<u64>,
    },
    RunState {
        workspace_id: WorkspaceId,
        run_id: RunId,
        at: StateAt,
    },
    RunTimeline {
        workspace_id: WorkspaceId,
        run_id: RunId,
    },
    RunWaiting {
        workspace_id: WorkspaceId,
        run_id: RunId,
    },
    ExplainRun {
        workspace_id: WorkspaceId,
        run_id: RunId,
        asked: Explain,
    },
    DiffRun {
        workspace_id: WorkspaceId,
        run_id: RunId,
        to: DiffTo,
    },
    Experiment {
        workspace_id: WorkspaceId,
        name: String,
        min_position: Option<u64>,
    },
    ExperimentProgress {
        workspace_id: WorkspaceId,
        name: String,
    },
    VerifyRun {
        workspace_id: WorkspaceId,
        run_id: RunId,
    },
    Compare {
        workspace_id: WorkspaceId,
        asked: Box<Compare>,
    },
    BundleRun {
        workspace_id: WorkspaceId,
        run_id: RunId,
        from: BundleFrom,
    },
    ListGates {
        workspace_id: WorkspaceId,
        filter: GateFilter,
        page: PageRequest,
    },
    GetGate {
        workspace_id: WorkspaceId,
        gate: GateId,
        min_position: Option<u64>,
    },
    QueryMetric {
        workspace_id: WorkspaceId,
        asked: Box<MetricQuery>,
    },
    ListMetrics {
        workspace_id: WorkspaceId,
        min_position: Option<u64>,
    },
    EventPage {
        filter: EventFilter,
        after: Option<Cursor>,
        limit: u32,
    },
    EventHead,
    ListAudit {
        workspace_id: WorkspaceId,
        filter: AuditFilter,
        page: PageRequest,
    },
    AuditHeads {
        after: u64,
        limit: u32,
    },
    ListLogs {
        workspace_id: Option<WorkspaceId>,
        filter: LogFilter,
        page: PageRequest,
    },
}

/// Asks for a stream of events: history and then live ones. Each message of the stream is an
/// `Answer<Vec<EventEnvelope>>`; after an error nothing follows. The first message comes at once:
/// the refusal, or an empty list where no event is at hand.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct FollowCall {
    pub filter: EventFilter,
    pub after: Option<Cursor>,
}
