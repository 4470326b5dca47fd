//! What is told of work while it is under way, and isn't kept: no journal has it, nobody
//! acknowledges it, and it may be lost. What came of the work stands in events.

use std::sync::Arc;

use async_trait::async_trait;
use chrono::{DateTime, Utc};
use domain::ids::{ProjectId, RunId, WorkflowId, WorkspaceId};
use futures::stream::BoxStream;
use serde::{Deserialize, Serialize};

use crate::event::Cursor;
use crate::rejection::Rejection;

/// Bytes of text that one message holds, at most.
pub const DELTA_BYTES: usize = 4 * 1024;

/// A message of a worker.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ephemeral {
    pub workspace_id: WorkspaceId,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub project_id: Option<ProjectId>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub workflow_id: Option<WorkflowId>,
    pub run_id: RunId,
    pub told_at: DateTime<Utc>,
    pub delta: LlmDelta,
}

/// A piece of what a model is answering.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct LlmDelta {
    #[schema(value_type = String)]
    pub node: Arc<str>,
    /// The step's name, in a task of steps.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub step: Option<String>,
    pub token: u64,
    /// From 1.
    pub attempt: u32,
    /// Which answer of the attempt (or of its step), from 1: a wrong one is repaired by another, a
    /// model that fails is followed by the next. The last one counts.
    pub answer: u32,
    /// How many pieces of the attempt (or of its step) came before; where one is missing, some were
    /// lost.
    pub index: u64,
    /// At most [`DELTA_BYTES`].
    pub text: String,
}

/// A message as readers of a stream see it, beside its events: [`crate::EventEnvelope`] without
/// what only a journal gives.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct EphemeralEnvelope {
    /// `true`: it is kept nowhere, and no cursor counts it.
    pub ephemeral: bool,
    /// `llm_delta`.
    pub event_type: String,
    pub event_version: u32,
    /// The position after which it was sent: of the last event before it in this stream, or of
    /// where this began.
    pub position: u64,
    /// The same as `<store epoch>:<position>`. To go on after it misses no event.
    #[schema(value_type = String)]
    pub cursor: Cursor,
    /// `run`.
    pub aggregate_type: String,
    /// `run_…`.
    pub aggregate_id: String,
    pub workspace_id: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub project_id: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub workflow_id: Option<String>,
    pub payload: LlmDelta,
    /// When the worker told it.
    pub recorded_at: DateTime<Utc>,
}

impl EphemeralEnvelope {
    /// A message, sent after a reader's last event.
    pub fn new(message: Ephemeral, after: Cursor) -> Self {
        let Ephemeral { workspace_id, project_id, workflow_id, run_id, told_at, delta } = message;
        Self {
            ephemeral: true,
            event_type: "llm_delta".to_owned(),
            event_version: 1,
            position: after.position,
            cursor: after,
            aggregate_type: "run".to_owned(),
            aggregate_id: run_id.to_string(),
            workspace_id: workspace_id.to_string(),
            project_id: project_id.map(|id| id.to_string()),
            workflow_id: workflow_id.map(|id| id.to_string()),
            payload: delta,
            recorded_at: told_at,
        }
    }
}

/// Which messages a reader wants. Absent fields don't narrow.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct EphemeralFilter {
    pub workspace_id: WorkspaceId,
    pub project_id: Option<ProjectId>,
    pub workflow_id: Option<WorkflowId>,
    pub run_id: Option<RunId>,
}

impl EphemeralFilter {
    /// Whether a message is wanted.
    pub fn holds(&self, message: &Ephemeral) -> bool {
        message.workspace_id == self.workspace_id
            && (self.project_id.is_none() || message.project_id == self.project_id)
            && (self.workflow_id.is_none() || message.workflow_id == self.workflow_id)
            && self.run_id.is_none_or(|run_id| message.run_id == run_id)
    }
}

/// Where workers tell. Never waits, and never fails: what doesn't fit is lost.
pub trait EphemeralSink: Send + Sync {
    /// Whether somebody may be listening. Cheap: it is asked before each message.
    fn is_heard(&self) -> bool;

    fn tell(&self, message: Ephemeral);
}

/// Where readers listen.
#[async_trait]
pub trait EphemeralSource: Send + Sync {
    /// What is told from now on. A reader that is slow misses some.
    async fn listen(
        &self,
        filter: EphemeralFilter,
    ) -> Result<BoxStream<'static, Ephemeral>, Rejection>;
}

/// A sink that nobody listens to.
#[derive(Debug, Clone, Copy, Default)]
pub struct Unheard;

impl EphemeralSink for Unheard {
    fn is_heard(&self) -> bool {
        false
    }

    fn tell(&self, _message: Ephemeral) {}
}
