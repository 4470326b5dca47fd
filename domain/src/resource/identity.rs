//! Who a resource is: its kind, its name, its owner, and the id that follows from them.

use crate::ids::{
    ActionId, ApiKeyId, DefinitionId, InvalidId, ModelProfileId, Name, ProjectId, PromptSpecId,
    WorkflowId, WorkspaceId,
};
use crate::resource::{Kind, Spec};

/// The id of the resource that a spec describes, from its owner and name. `workspace` owns
/// projects and API keys; all others say themselves who owns them.
pub fn id_of(spec: &Spec, workspace: WorkspaceId) -> String {
    let name = spec.name().as_str();
    match spec {
        Spec::Workspace(_) => WorkspaceId::derived("", name).to_string(),
        Spec::Project(_) => ProjectId::derived(&workspace.to_string(), name).to_string(),
        Spec::ApiKey(_) => ApiKeyId::derived(&workspace.to_string(), name).to_string(),
        Spec::WorkflowDefinition(spec) => owned(Kind::WorkflowDefinition, spec.project_id, name),
        Spec::Workflow(spec) => owned(Kind::Workflow, spec.project_id, name),
        Spec::Action(spec) => owned(Kind::Action, spec.project_id, name),
        Spec::PromptSpec(spec) => owned(Kind::PromptSpec, spec.project_id, name),
        Spec::ModelProfile(spec) => owned(Kind::ModelProfile, spec.project_id, name),
    }
}

/// The id of the resource of a kind that a project owns under a name. (Of a workspace, a project
/// or an API key, whose owner isn't a project, it is an id that nobody has.)
pub fn owned(kind: Kind, project: ProjectId, name: &str) -> String {
    let owner = project.to_string();
    match kind {
        Kind::Workspace => WorkspaceId::derived(&owner, name).to_string(),
        Kind::Project => ProjectId::derived(&owner, name).to_string(),
        Kind::WorkflowDefinition => DefinitionId::derived(&owner, name).to_string(),
        Kind::Workflow => WorkflowId::derived(&owner, name).to_string(),
        Kind::Action => ActionId::derived(&owner, name).to_string(),
        Kind::PromptSpec => PromptSpecId::derived(&owner, name).to_string(),
        Kind::ModelProfile => ModelProfileId::derived(&owner, name).to_string(),
        Kind::ApiKey => ApiKeyId::derived(&owner, name).to_string(),
    }
}

/// Whether a text is an id of a kind.
pub fn check_id(kind: Kind, text: &str) -> Result<(), InvalidId> {
    match kind {
        Kind::Workspace => text.parse::<WorkspaceId>().map(drop),
        Kind::Project => text.parse::<ProjectId>().map(drop),
        Kind::WorkflowDefinition => text.parse::<DefinitionId>().map(drop),
        Kind::Workflow => text.parse::<WorkflowId>().map(drop),
        Kind::Action => text.parse::<ActionId>().map(drop),
        Kind::PromptSpec => text.parse::<PromptSpecId>().map(drop),
        Kind::ModelProfile => text.parse::<ModelProfileId>().map(drop),
        Kind::ApiKey => text.parse::<ApiKeyId>().map(drop),
    }
}

impl Kind {
    /// The kind in a sentence.
    pub const fn words(self) -> &'static str {
        match self {
            Self::Workspace => "workspace",
            Self::Project => "project",
            Self::WorkflowDefinition => "workflow definition",
            Self::Workflow => "workflow",
            Self::Action => "action",
            Self::PromptSpec => "prompt spec",
            Self::ModelProfile => "model profile",
            Self::ApiKey => "API key",
        }
    }
}

impl Spec {
    /// The kind of resource that the spec describes.
    pub const fn kind(&self) -> Kind {
        match self {
            Self::Workspace(_) => Kind::Workspace,
            Self::Project(_) => Kind::Project,
            Self::WorkflowDefinition(_) => Kind::WorkflowDefinition,
            Self::Workflow(_) => Kind::Workflow,
            Self::Action(_) => Kind::Action,
            Self::PromptSpec(_) => Kind::PromptSpec,
            Self::ModelProfile(_) => Kind::ModelProfile,
            Self::ApiKey(_) => Kind::ApiKey,
        }
    }

    /// The name under which the owner knows the resource.
    pub const fn name(&self) -> &Name {
        match self {
            Self::Workspace(spec) => &spec.name,
            Self::Project(spec) => &spec.name,
            Self::WorkflowDefinition(spec) => &spec.definition.name,
            Self::Workflow(spec) => &spec.name,
            Self::Action(spec) => &spec.name,
            Self::PromptSpec(spec) => &spec.name,
            Self::ModelProfile(spec) => &spec.name,
            Self::ApiKey(spec) => &spec.name,
        }
    }

    /// The project that owns the resource; `None` for workspaces, projects and API keys.
    pub const fn project_id(&self) -> Option<ProjectId> {
        match self {
            Self::Workspace(_) | Self::Project(_) | Self::ApiKey(_) => None,
            Self::WorkflowDefinition(spec) => Some(spec.project_id),
            Self::Workflow(spec) => Some(spec.project_id),
            Self::Action(spec) => Some(spec.project_id),
            Self::PromptSpec(spec) => Some(spec.project_id),
            Self::ModelProfile(spec) => Some(spec.project_id),
        }
    }
}
