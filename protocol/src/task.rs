//! Tasks and outcomes: what the coordinator hands to workers, and what comes back.

use std::collections::BTreeMap;
use std::sync::Arc;

use domain::definition::{ActionKind, Step};
use domain::ids::{ProjectId, RunId, WorkflowId, WorkspaceId};
use domain::resource::{ModelProfileSpec, PromptSpecSpec};
use domain::span::Span;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::view::Usage;

/// One attempt at one node, with everything that a worker needs. Never holds a secret's value.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Task {
    pub workspace_id: WorkspaceId,
    /// Absent from older coordinators.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub project_id: Option<ProjectId>,
    /// Where the run is a workflow's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub workflow_id: Option<WorkflowId>,
    pub run_id: RunId,
    /// The token, counted within the run.
    pub token: u64,
    /// From 1.
    pub attempt: u32,
    /// The node's name.
    pub node: Arc<str>,
    /// What to do; shared by all tasks of a node, so that compiled forms can be kept by `Work::key`.
    pub work: Arc<Work>,
    /// The mapped input.
    pub input: Value,
    /// `{id, attempt, started_at}` for expressions.
    pub run: Value,
    /// How long the attempt may take on the worker.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timeout: Option<Span>,
}

impl Task {
    /// The stable idempotency key of the attempt's external effects: `<run>/<token>`, the same
    /// for all attempts of a token at its node.
    pub fn idempotency_key(&self) -> String {
        format!("{}/{}", self.run_id, self.token)
    }
}

const fn yes() -> bool {
    true
}

fn is_yes(repeatable: &bool) -> bool {
    *repeatable
}

/// The work of a node.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Work {
    /// Content address of this work: the same key means the same work.
    pub key: String,
    /// One action, or the steps of a task.
    pub body: WorkBody,
    /// Whether the attempt may be made again where a worker vanished with it.
    #[serde(default = "yes", skip_serializing_if = "is_yes")]
    pub repeatable: bool,
    /// Model profiles that the actions may use, by name; fallbacks included.
    #[serde(default)]
    pub models: BTreeMap<String, ModelProfileSpec>,
    /// Prompt specs that the actions use, by the reference that stands in `with.prompt_spec`.
    #[serde(default)]
    pub prompts: BTreeMap<String, PromptSpecSpec>,
    /// The project's default model profile.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub default_model: Option<String>,
}

/// See [`Work::body`].
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum WorkBody {
    Action(WorkAction),
    Steps(Vec<WorkStep>),
}

/// One step of a task, with its action resolved.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct WorkStep {
    pub step: Step,
    pub action: WorkAction,
}

/// An action, resolved: references replaced, overrides laid over.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct WorkAction {
    pub kind: ActionKind,
    /// The configuration with its `${…}` and templates, evaluated by the worker over `input`,
    /// `run` and (in a task of steps) `steps`.
    pub with: Map<String, Value>,
    /// JSON Schema that the result must satisfy.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub output_schema: Option<Value>,
}

/// Work that nobody waits for any more: its run has ended, or its branches were cancelled.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Abandoned {
    pub run_id: RunId,
    /// Empty means all tasks of the run.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub tokens: Vec<u64>,
}

/// What became of one attempt.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Outcome {
    pub run_id: RunId,
    pub token: u64,
    pub attempt: u32,
    pub result: OutcomeResult,
    /// From the worker's start of the attempt to its end.
    pub duration_ms: u64,
    /// The names of the secrets that the attempt was given, in order, at most
    /// [`Outcome::SECRETS`].
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub secrets: Vec<String>,
}

impl Outcome {
    /// Names of secrets that an outcome holds.
    pub const SECRETS: usize = 8;
}

/// See [`Outcome::result`].
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum OutcomeResult {
    Success(Success),
    Failure(Failure),
}

/// An attempt that succeeded.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Success {
    pub result: Value,
    #[serde(default, skip_serializing_if = "Usage::is_empty")]
    pub usage: Usage,
}

/// An attempt that failed.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Failure {
    pub kind: FailureKind,
    /// Stable, `snake_case`: `http_status`, `connect`, `rate_limited`, `schema_mismatch` …
    pub code: String,
    pub message: String,
    #[serde(default, skip_serializing_if = "Value::is_null")]
    pub detail: Value,
    /// The far side's wish (`Retry-After`); the next attempt isn't made sooner.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retry_after: Option<Span>,
    /// What the failed attempt had used up all the same.
    #[serde(default, skip_serializing_if = "Usage::is_empty")]
    pub usage: Usage,
}

pub use domain::run::FailureKind;
