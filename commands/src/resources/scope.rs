//! Whether a command may touch what it names: the tenant's own, existing, in use.

use std::sync::Arc;

use chrono::{DateTime, Utc};
use domain::definition::{Plan, content_hash, validate};
use domain::ids::{ProjectId, WorkspaceId};
use domain::resource::{
    self, ApiKeySpec, Change, DefinitionSpec, Kind, Spec, WorkflowSpec, check_id, id_of, owned,
};
use protocol::command::{Command, CommandEnvelope};
use protocol::{Rejection, RejectionKind};

use crate::resolve::Resolver;
use crate::resources::heads::{Head, Heads};
use crate::resources::{Asked, refusal};

/// Checks a command's surroundings and names the resource that it is for.
pub(crate) async fn check(
    heads: &Arc<Heads>,
    envelope: &CommandEnvelope,
    at: DateTime<Utc>,
) -> Result<Asked, Rejection> {
    let workspace = envelope.workspace_id;
    match &envelope.command {
        Command::Create(spec) => create(heads, workspace, spec).await,
        Command::Revise { kind, id, patch } => {
            let head = own(heads, workspace, *kind, id).await?;
            if let Some(project_id) = head.resource.revisions().and_then(|known| known.project_id())
            {
                project(heads, workspace, project_id).await?;
            }
            let change = Change::Revise(patch.clone());
            if *kind == Kind::Workflow {
                revised_workflow(heads, &head, &change, at).await?;
            }
            Ok(asked(*kind, id, change, &head.workspace_id))
        }
        Command::Archive { kind, id } => {
            let head = own(heads, workspace, *kind, id).await?;
            Ok(asked(*kind, id, Change::Archive, &head.workspace_id))
        }
        Command::StartRun(_)
        | Command::DeliverWebhook(_)
        | Command::CancelRun { .. }
        | Command::SignalRun { .. }
        | Command::AnswerGate { .. }
        | Command::PauseRun { .. }
        | Command::ResumeRun { .. }
        | Command::ForkRun(_)
        | Command::RetryRun { .. }
        | Command::ArchiveRun(_)
        | Command::HoldRun { .. }
        | Command::ReleaseRun { .. }
        | Command::StartExperiment(_)
        | Command::StopExperiment { .. }
        | Command::RecordAccess(_) => Err(Rejection::new(
            RejectionKind::Internal,
            "not_a_resource_command",
            "this command isn't about a resource",
        )),
    }
}

/// Checks that a project is this workspace's and that both are in use.
pub(crate) async fn project(
    heads: &Heads,
    workspace: WorkspaceId,
    project: ProjectId,
) -> Result<(), Rejection> {
    live_workspace(heads, workspace).await?;
    let head = own(heads, workspace, Kind::Project, &project.to_string()).await?;
    live(&head)
}

fn asked(kind: Kind, id: &str, change: Change, workspace_id: &Arc<str>) -> Asked {
    Asked { kind, id: id.to_owned(), change, workspace_id: Arc::clone(workspace_id) }
}

async fn create(
    heads: &Arc<Heads>,
    workspace: WorkspaceId,
    spec: &Spec,
) -> Result<Asked, Rejection> {
    let mut spec = spec.clone();
    let id = id_of(&spec, workspace);
    let mut owner = workspace.to_string();
    if let Some(project_id) = spec.project_id() {
        project(heads, workspace, project_id).await.map_err(|refusal| refusal.at("/project_id"))?;
    }
    match &mut spec {
        // A workspace is its own tenant, whoever made it.
        Spec::Workspace(_) => owner.clone_from(&id),
        Spec::Project(_) => live_workspace(heads, workspace).await?,
        Spec::ApiKey(spec) => api_key(heads, workspace, spec).await?,
        Spec::WorkflowDefinition(spec) => {
            publishable(&Resolver::new(Arc::clone(heads)), workspace, spec).await?;
        }
        Spec::Workflow(spec) => bound(heads, spec).await?,
        Spec::Action(_) | Spec::PromptSpec(_) | Spec::ModelProfile(_) => {}
    }
    let kind = spec.kind();
    Ok(asked(kind, &id, Change::Create(Box::new(spec)), &owner.into()))
}

/// Refuses a definition with any problem, or with a reference that leads nowhere; gives a sound
/// one its hash, and its plan.
pub(crate) async fn publishable(
    resolver: &Resolver,
    workspace: WorkspaceId,
    spec: &mut DefinitionSpec,
) -> Result<Plan, Rejection> {
    let problems = validate::check(&spec.definition);
    if !problems.is_empty() {
        return Err(crate::service::invalid_definition(problems));
    }
    spec.hash = content_hash(&spec.definition).map_err(|error| {
        Rejection::new(RejectionKind::Invalid, "invalid_definition", error.to_string())
    })?;
    let resolved = resolver.resolved_for_start(workspace, spec).await?;
    Plan::compile(&spec.definition, &resolved).map_err(crate::service::invalid_definition)
}

async fn api_key(
    heads: &Heads,
    workspace: WorkspaceId,
    spec: &ApiKeySpec,
) -> Result<(), Rejection> {
    if spec.workspace_id != workspace {
        let id = spec.workspace_id.to_string();
        return Err(refusal::not_found(Kind::Workspace, &id).at("/workspace_id"));
    }
    live_workspace(heads, workspace).await
}

/// Checks that a workflow's definition is there, of the same project, in use, and has the version.
async fn bound(heads: &Heads, spec: &WorkflowSpec) -> Result<(), Rejection> {
    let kind = Kind::WorkflowDefinition;
    let id = spec.definition_id.to_string();
    let missing = || refusal::not_found(kind, &id).at("/definition_id");
    let head = heads.head(kind, &id).await?.ok_or_else(missing)?;
    let revisions = head.resource.revisions().ok_or_else(missing)?;
    // The id follows from the project, so another project's definition shows by its id.
    if id != owned(kind, spec.project_id, revisions.name().as_str()) {
        return Err(missing());
    }
    live(&head).map_err(|refusal| refusal.at("/definition_id"))?;
    match spec.definition_version {
        Some(version) if version > revisions.latest => {
            let message =
                format!("the newest version of {} is {}", revisions.name(), revisions.latest);
            Err(Rejection::new(RejectionKind::Invalid, "unknown_version", message)
                .at("/definition_version"))
        }
        Some(_) | None => Ok(()),
    }
}

/// Checks what a workflow would be bound to after a patch. What the patch itself does wrong is
/// refused where it is decided.
async fn revised_workflow(
    heads: &Heads,
    head: &Head,
    change: &Change,
    at: DateTime<Utc>,
) -> Result<(), Rejection> {
    let command = resource::Command { change: change.clone(), expected_version: None, at };
    let Ok(decision) = resource::decide(&head.resource, &command) else {
        return Ok(());
    };
    for event in &decision.events {
        if let Some((_, Spec::Workflow(spec))) = event.revision() {
            bound(heads, spec).await?;
        }
    }
    Ok(())
}

/// A resource of this workspace. Another workspace's is as if it weren't there.
async fn own(
    heads: &Heads,
    workspace: WorkspaceId,
    kind: Kind,
    id: &str,
) -> Result<Arc<Head>, Rejection> {
    check_id(kind, id).map_err(|_| refusal::not_found(kind, id))?;
    match heads.head(kind, id).await? {
        Some(head) if *head.workspace_id == *workspace.to_string() => Ok(head),
        Some(_) | None => Err(refusal::not_found(kind, id)),
    }
}

async fn live_workspace(heads: &Heads, workspace: WorkspaceId) -> Result<(), Rejection> {
    let head = own(heads, workspace, Kind::Workspace, &workspace.to_string()).await?;
    live(&head)
}

fn live(head: &Head) -> Result<(), Rejection> {
    match head.resource.revisions() {
        Some(revisions) if head.resource.is_archived() => {
            Err(refusal::archived(revisions.kind(), revisions.name().as_str()))
        }
        Some(_) | None => Ok(()),
    }
}
