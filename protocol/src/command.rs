//! Commands: what clients ask to happen, and the receipt of what did.

use std::collections::BTreeMap;

use chrono::{DateTime, Utc};
use domain::access;
use domain::definition::Definition;
use domain::experiment;
use domain::ids::{CommandId, DefinitionId, Name, ProjectId, RunId, WorkflowId, WorkspaceId};
use domain::resource::{Kind, Spec};
use domain::run::event::{Decision, TriggeredBy};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::experiment::ExperimentProgress;
use crate::fork::{ForkPlan, ForkRun};
use crate::gate::GateId;
use crate::retention::{ArchiveRun, RunDropped};
use crate::view::RunOutcome;

/// Who asks. Recorded with every event.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Actor(pub String);

/// From where somebody asks, as the edge saw it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct Origin {
    /// The address at the other end of the connection: of a proxy, where there is one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub address: Option<String>,
    /// What the client calls itself, at most [`Origin::USER_AGENT_BYTES`] of it. It may be anything.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub user_agent: Option<String>,
}

impl Origin {
    /// Bytes of a user agent that are kept.
    pub const USER_AGENT_BYTES: usize = 200;

    /// From an address, by what calls itself so: visible ASCII, a byte a character.
    pub fn new(address: Option<std::net::IpAddr>, user_agent: Option<&str>) -> Self {
        let user_agent = user_agent.map(|text| text.chars().take(Self::USER_AGENT_BYTES).collect());
        Self { address: address.map(|address| address.to_string()), user_agent }
    }
}

/// A command with all that surrounds it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct CommandEnvelope {
    pub id: CommandId,
    pub workspace_id: WorkspaceId,
    pub actor: Actor,
    /// Recorded with every event, like who asks; absent where nobody outside does.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub origin: Option<Box<Origin>>,
    /// The client's `Idempotency-Key`: the same key gives the same answer for 24 hours.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub idempotency_key: Option<String>,
    /// SHA-256 (hexadecimal) of what was asked, so that a key can't be used for something else.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fingerprint: Option<String>,
    /// The aggregate version that the client saw (`If-Match`).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expected_version: Option<u64>,
    /// The W3C `traceparent` of the request.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub traceparent: Option<String>,
    pub command: Command,
}

impl CommandEnvelope {
    /// A command with nothing around it but who asks.
    pub fn new(id: CommandId, workspace_id: WorkspaceId, actor: &str, command: Command) -> Self {
        Self {
            id,
            workspace_id,
            actor: Actor(actor.to_owned()),
            origin: None,
            idempotency_key: None,
            fingerprint: None,
            expected_version: None,
            traceparent: None,
            command,
        }
    }
}

/// What can be asked.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Command {
    /// Creates a resource; for a workflow definition: publishes a version, or answers the
    /// existing one where the content is the same.
    Create(Box<Spec>),
    /// Changes a resource by a JSON merge patch (RFC 7386) over its spec.
    Revise { kind: Kind, id: String, patch: Value },
    /// Takes a resource out of use. Its history stays.
    Archive { kind: Kind, id: String },
    /// Starts a run.
    StartRun(Box<StartRun>),
    /// Starts the run of a webhook. Whoever does it checks the signature over the body; of the
    /// envelope the workspace doesn't count, since whoever signs isn't signed in.
    DeliverWebhook(Box<Webhook>),
    /// Cancels a run.
    CancelRun {
        run_id: RunId,
        reason: Option<String>,
        /// Whether it undoes its work before it ends, where its definition says so.
        #[serde(default = "yes")]
        compensate: bool,
    },
    /// Sends a signal to a run. One that is transient isn't kept for a wait that comes later.
    SignalRun {
        run_id: RunId,
        name: Name,
        payload: Value,
        #[serde(default)]
        transient: bool,
    },
    /// Answers a gate.
    AnswerGate { gate: GateId, answer: Box<AnswerGate> },
    /// Stops handing a run's work to workers, and its timers.
    PauseRun { run_id: RunId, reason: Option<String> },
    /// Goes on with a paused run.
    ResumeRun { run_id: RunId },
    /// Starts a run that goes on from an event of another one.
    ForkRun(Box<ForkRun>),
    /// Starts a run that goes on where a failed one failed: a fork of it, whose last attempts are
    /// made again.
    RetryRun {
        run_id: RunId,
        /// Only say what would happen.
        #[serde(default)]
        dry_run: bool,
    },
    /// Begins an experiment, or goes on with it. It goes on by itself from then on.
    StartExperiment(Box<experiment::Asked>),
    /// Begins no more forks of an experiment, and cancels those that go on.
    StopExperiment { name: Name },
    /// Drops content of a run that has ended.
    ArchiveRun(Box<ArchiveRun>),
    /// Holds a run: nothing of it is dropped until it is released.
    HoldRun { run_id: RunId, reason: String },
    /// Releases a run that is held.
    ReleaseRun { run_id: RunId, reason: Option<String> },
    /// Records an access, once where [`domain::access`] says so.
    RecordAccess(access::Event),
}

const fn yes() -> bool {
    true
}

impl Command {
    /// The run that it is about, where that is there already.
    pub const fn run_id(&self) -> Option<RunId> {
        match self {
            Self::CancelRun { run_id, .. }
            | Self::SignalRun { run_id, .. }
            | Self::PauseRun { run_id, .. }
            | Self::ResumeRun { run_id }
            | Self::HoldRun { run_id, .. }
            | Self::ReleaseRun { run_id, .. }
            | Self::RetryRun { run_id, .. } => Some(*run_id),
            Self::ForkRun(fork) => Some(fork.run_id),
            Self::ArchiveRun(asked) => Some(asked.run_id),
            Self::AnswerGate { gate, .. } => Some(gate.run_id),
            Self::Create(_)
            | Self::Revise { .. }
            | Self::Archive { .. }
            | Self::StartRun(_)
            | Self::DeliverWebhook(_)
            | Self::StartExperiment(_)
            | Self::StopExperiment { .. }
            | Self::RecordAccess(_) => None,
        }
    }
}

/// See [`Command::AnswerGate`]. Whoever asks is who answers.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct AnswerGate {
    pub decision: Decision,
    #[serde(default)]
    pub value: Value,
    #[serde(default)]
    pub comment: Option<String>,
    /// The roles of whoever asks.
    #[serde(default)]
    pub roles: Vec<String>,
}

/// What to start.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct StartRun {
    pub target: RunTarget,
    pub input: Value,
    #[serde(default)]
    pub labels: BTreeMap<String, String>,
    /// Where it was sent on to, by the coordinator that was asked first.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub home: Option<StartHome>,
    /// What has happened that it is started for, where no client asks for it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub trigger: Option<TriggeredBy>,
}

/// What a start is answered with.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum StartAnswer {
    Done(Box<Receipt>),
    /// Nothing was done: it is to be asked there, with this as its `home`.
    Elsewhere(StartHome),
}

impl From<Receipt> for StartAnswer {
    fn from(receipt: Receipt) -> Self {
        Self::Done(Box::new(receipt))
    }
}

/// Where the runs are that have the same concurrency key as a run that is to be started, and the
/// version that the target was found to mean. It holds for every repetition, so that they all mean
/// the same run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct StartHome {
    pub shard: u16,
    pub definition_id: DefinitionId,
    pub version: u64,
}

/// A webhook as it came: nothing of it is checked yet.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Webhook {
    pub workflow_id: WorkflowId,
    /// The name of the workflow's trigger.
    pub trigger: Name,
    /// `webhook-id`, `webhook-timestamp` and `webhook-signature`; empty where they are missing.
    pub id: String,
    pub timestamp: String,
    pub signature: String,
    /// All headers that are texts, by their names in lower case.
    pub headers: BTreeMap<String, String>,
    /// The body, byte for byte.
    pub body: String,
}

impl Webhook {
    /// The run that it starts: the same for each delivery of what it tells.
    pub fn run_id(&self) -> RunId {
        RunId::triggered(self.workflow_id, &self.trigger, &self.id)
    }
}

/// The definition that a run follows.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RunTarget {
    /// A workflow: its pinned version, or the latest.
    Workflow(WorkflowId),
    /// A definition of a project by `name` or `name@version`.
    Named { project_id: ProjectId, reference: String },
    /// A definition that came with the command; it is published first.
    Inline { project_id: ProjectId, definition: Box<Definition> },
    /// What another run followed, with its input and its labels: nothing else of the start counts.
    Rerun { run_id: RunId, version: RerunVersion },
}

/// The version that a rerun follows.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum RerunVersion {
    /// That of the run.
    #[default]
    Pinned,
    /// The one that a start would follow now: the workflow's, or else the newest.
    Latest,
}

/// What a command did. It is durable when this is answered.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Receipt {
    /// The aggregate: `run_…`, `wf_…` and so on.
    pub id: String,
    /// The aggregate's version (its last sequence) after the command.
    pub version: u64,
    /// The journal position of the command's last event; queries take it as `min_position`.
    pub position: u64,
    /// Whether this call made the aggregate (or the version).
    pub created: bool,
    pub at: DateTime<Utc>,
    /// Whether the run that was started waits for its admission.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub queued: bool,
    /// A run's outcome, where the caller waited for it and it ended in time.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub outcome: Option<RunOutcome>,
    /// What a fork would do, where only that was asked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub plan: Option<Box<ForkPlan>>,
    /// How far an experiment is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub experiment: Option<Box<ExperimentProgress>>,
    /// What was dropped of a run.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dropped: Option<Box<RunDropped>>,
}
