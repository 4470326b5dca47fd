//! What each kind of resource holds.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::definition::{ActionKind, Definition, Retry};
use crate::ids::{DefinitionId, Name, ProjectId, WorkspaceId};
use crate::retention::Policy;
use crate::span::Span;
use crate::trigger::Triggers;

/// The kinds of resources; the text is the aggregate type in the journal.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    Workspace,
    Project,
    WorkflowDefinition,
    Workflow,
    Action,
    PromptSpec,
    ModelProfile,
    ApiKey,
}

impl Kind {
    /// All kinds.
    pub const ALL: [Self; 8] = [
        Self::Workspace,
        Self::Project,
        Self::WorkflowDefinition,
        Self::Workflow,
        Self::Action,
        Self::PromptSpec,
        Self::ModelProfile,
        Self::ApiKey,
    ];

    /// The name in the journal, in JSON and in messages.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Workspace => "workspace",
            Self::Project => "project",
            Self::WorkflowDefinition => "workflow_definition",
            Self::Workflow => "workflow",
            Self::Action => "action",
            Self::PromptSpec => "prompt_spec",
            Self::ModelProfile => "model_profile",
            Self::ApiKey => "api_key",
        }
    }

    /// The prefix of the ids of this kind, without the underscore.
    pub const fn id_prefix(self) -> &'static str {
        match self {
            Self::Workspace => "ws",
            Self::Project => "prj",
            Self::WorkflowDefinition => "wfd",
            Self::Workflow => "wf",
            Self::Action => "act",
            Self::PromptSpec => "ps",
            Self::ModelProfile => "mp",
            Self::ApiKey => "key",
        }
    }
}

/// A resource's content, whole.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", content = "spec", rename_all = "snake_case")]
pub enum Spec {
    Workspace(WorkspaceSpec),
    Project(ProjectSpec),
    WorkflowDefinition(DefinitionSpec),
    Workflow(WorkflowSpec),
    Action(ActionSpec),
    PromptSpec(PromptSpecSpec),
    ModelProfile(ModelProfileSpec),
    ApiKey(ApiKeySpec),
}

/// A tenant.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct WorkspaceSpec {
    pub name: Name,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub description: Option<String>,
    /// Providers that its runs may call; empty allows all.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub allowed_providers: Vec<Provider>,
}

/// A project of a workspace.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ProjectSpec {
    pub name: Name,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub description: Option<String>,
    /// The model profile of `llm` actions that name none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub default_model: Option<Name>,
    #[serde(default)]
    pub limits: ProjectLimits,
    /// What is kept of its runs once they have ended; absent keeps all of them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retention: Option<Policy>,
}

/// What a project's runs may take.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ProjectLimits {
    /// Tasks of one run that may be on workers at the same time; default 500, at most 5,000.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tasks_in_flight_per_run: Option<u32>,
}

/// One version of a workflow definition.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DefinitionSpec {
    pub project_id: ProjectId,
    pub definition: Definition,
    /// SHA-256 of the definition's canonical JSON, as 64 hexadecimal digits.
    pub hash: String,
}

/// A definition bound to a project under a name of its own.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct WorkflowSpec {
    pub project_id: ProjectId,
    pub name: Name,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub description: Option<String>,
    pub definition_id: DefinitionId,
    /// The pinned version; absent means the latest at each start.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub definition_version: Option<u64>,
    /// Whether runs may start.
    #[serde(default = "enabled")]
    pub enabled: bool,
    /// What starts runs by itself, by name.
    #[serde(default, skip_serializing_if = "Triggers::is_empty")]
    pub triggers: Triggers,
    /// Whether its runs stand still; new ones are taken, and wait.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub paused: bool,
}

const fn enabled() -> bool {
    true
}

/// One version of a reusable action.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ActionSpec {
    pub project_id: ProjectId,
    pub name: Name,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub description: Option<String>,
    pub action: ActionKind,
    #[serde(default, skip_serializing_if = "Map::is_empty")]
    pub with: Map<String, Value>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub input_schema: Option<Value>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub output_schema: Option<Value>,
    /// Used where the node declares no retry.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retry: Option<Retry>,
    /// Used where the node declares no time-out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timeout: Option<Span>,
    /// Used where the node doesn't say whether an attempt may be repeated.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub repeatable: Option<bool>,
}

/// One version of a prompt.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PromptSpecSpec {
    pub project_id: ProjectId,
    pub name: Name,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub description: Option<String>,
    /// The system text, a Jinja template over the action's input.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub system: Option<String>,
    /// The user text, a Jinja template over the action's input.
    pub template: String,
    /// JSON Schema of the variables.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub variables_schema: Option<Value>,
    /// JSON Schema of the answer: structured output.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub output_schema: Option<Value>,
}

/// Who answers an `llm` action.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Provider {
    /// OpenAI-compatible chat completions.
    Openai,
    /// Anthropic messages.
    Anthropic,
    /// The built-in model without a network: deterministic texts.
    Mock,
}

/// A model with its parameters and prices.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ModelProfileSpec {
    pub project_id: ProjectId,
    pub name: Name,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub description: Option<String>,
    pub provider: Provider,
    /// The provider's name of the model.
    pub model: String,
    /// The API's base URL; absent means the provider's own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub base_url: Option<String>,
    /// The worker's environment variable that holds the API key. The key itself is never stored.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub api_key_env: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub temperature: Option<f64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_tokens: Option<u32>,
    #[serde(default)]
    pub prices: Prices,
    /// Profiles that are tried in turn where this one fails.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub fallback: Vec<Fallback>,
}

/// Prices in millionths of a currency unit per million tokens (so 3.00 is 3,000,000).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Prices {
    pub input_micros: u64,
    pub output_micros: u64,
}

/// The name of another model profile of the same project.
pub type Fallback = Name;

/// What an API key may do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Scope {
    /// Read everything of the workspace.
    Read,
    /// Start, cancel and otherwise steer runs.
    Run,
    /// Create, revise and archive resources.
    Write,
    /// Manage workspaces and API keys.
    Admin,
}

impl Scope {
    /// The text in JSON.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Read => "read",
            Self::Run => "run",
            Self::Write => "write",
            Self::Admin => "admin",
        }
    }
}

/// An API key. The secret is shown once and never stored.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ApiKeySpec {
    pub workspace_id: WorkspaceId,
    pub name: Name,
    /// SHA-256 of the secret (256 random bits), as 64 hexadecimal digits.
    pub secret_hash: String,
    pub scopes: Vec<Scope>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expires_at: Option<chrono::DateTime<chrono::Utc>>,
}
