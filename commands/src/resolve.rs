//! Looks up what a run needs: workflows, definitions, and what definitions refer to.
//!
//! Everything comes from the journal, never from a projection. Newest states are kept in memory
//! and follow every write of this process (see `resources::heads`), so that starting a run reads
//! nothing where nothing changed; versions are immutable and kept as they are.

use std::sync::Arc;

use domain::definition::{Definition, Resolved};
use domain::ids::{DefinitionId, ProjectId, WorkflowId, WorkspaceId};
use domain::resource::{
    ActionSpec, DefinitionSpec, Kind, ModelProfileSpec, ProjectSpec, PromptSpecSpec, Resource,
    Spec, WorkflowSpec, owned,
};
use domain::run::event::Pin;
use protocol::{Rejection, RejectionKind};

use crate::coordinator::Standing;
use crate::resources::heads::{Body, Heads};
use crate::resources::{refusal, scope};

mod providers;
mod references;

use references::Versions;

#[cfg(test)]
mod tests;

/// One version of something.
#[derive(Debug, Clone, PartialEq)]
pub struct Version<T> {
    pub id: String,
    /// Counted from 1.
    pub version: u64,
    pub spec: T,
}

/// Looks resources up for runs. Cheap to clone; made by [`crate::resources::Resources::resolver`].
#[derive(Clone)]
pub struct Resolver {
    heads: Arc<Heads>,
    uses: Arc<references::Uses>,
}

impl Resolver {
    pub(crate) fn new(heads: Arc<Heads>) -> Self {
        Self { heads, uses: Arc::default() }
    }

    /// A number that grows with every write of any resource: while it stays, everything that was
    /// looked up stays as it is.
    pub fn writes(&self) -> u64 {
        self.heads.writes()
    }

    /// Forgets what others have written, as [`crate::resources::Resources::catch_up`].
    ///
    /// # Errors
    /// Where the journal can't be read.
    pub(crate) async fn catch_up(&self) -> Result<(), Rejection> {
        self.heads.catch_up().await
    }

    /// A workflow of a workspace, as it is now.
    ///
    /// # Errors
    /// `not_found` (another workspace's too), `archived`, and `workflow_disabled`.
    pub async fn workflow(
        &self,
        workspace: WorkspaceId,
        id: WorkflowId,
    ) -> Result<WorkflowSpec, Rejection> {
        let text = id.to_string();
        let missing = || refusal::not_found(Kind::Workflow, &text);
        let head = self.heads.head(Kind::Workflow, &text).await?.ok_or_else(missing)?;
        let Some(Spec::Workflow(spec)) = head.resource.spec() else {
            return Err(missing());
        };
        if *head.workspace_id != *workspace.to_string() {
            return Err(missing());
        }
        if head.resource.is_archived() {
            return Err(refusal::archived(Kind::Workflow, spec.name.as_str()));
        }
        if !spec.enabled {
            return Err(Rejection::new(
                RejectionKind::Conflict,
                "workflow_disabled",
                format!("the workflow {} is disabled; enable it to start runs", spec.name),
            ));
        }
        Ok(spec.clone())
    }

    /// Checks that a project is a workspace's and that both are in use.
    ///
    /// # Errors
    /// `not_found` and `archived`.
    pub(crate) async fn project_in_use(
        &self,
        workspace: WorkspaceId,
        project: ProjectId,
    ) -> Result<(), Rejection> {
        scope::project(&self.heads, workspace, project).await
    }

    /// Whether a workflow is paused, as far as this process knows; `None` where there is none, or
    /// no such workflow. One that is archived isn't paused any more.
    ///
    /// # Errors
    /// The journal's own.
    pub(crate) async fn standing(
        &self,
        id: impl Into<Option<WorkflowId>> + Send,
    ) -> Result<Option<Standing>, Rejection> {
        let Some(id) = id.into() else { return Ok(None) };
        let head = self.heads.head(Kind::Workflow, &id.to_string()).await?;
        let resource = head.as_ref().map(|head| &head.resource);
        let Some((resource, revisions)) = resource.and_then(|one| Some((one, one.revisions()?)))
        else {
            return Ok(None);
        };
        let is_paused = match resource.spec() {
            Some(Spec::Workflow(workflow)) => workflow.paused && !resource.is_archived(),
            _ => false,
        };
        let version = revisions.latest + u64::from(resource.is_archived());
        Ok(Some(Standing { version, is_paused }))
    }

    /// A definition of a project by `name` (the newest version) or `name@version`.
    ///
    /// # Errors
    /// `invalid_reference`, `unknown_reference`, and `archived`.
    pub async fn definition(
        &self,
        project: ProjectId,
        reference: &str,
    ) -> Result<Version<Arc<DefinitionSpec>>, Rejection> {
        let (id, version) = self.current(project, Kind::WorkflowDefinition, reference).await?;
        match self.body(Kind::WorkflowDefinition, &id, version).await? {
            Body::Definition(spec) => Ok(Version { id, version, spec }),
            Body::Other(_) => Err(refusal::not_found(Kind::WorkflowDefinition, &id)),
        }
    }

    /// A definition by its id: a version, or the newest one. A version is answered even where the
    /// definition is archived by now, since runs may still follow it.
    ///
    /// # Errors
    /// `not_found`, and `archived` where no version is given.
    pub async fn definition_by_id(
        &self,
        id: DefinitionId,
        version: impl Into<Option<u64>> + Send,
    ) -> Result<Version<Arc<DefinitionSpec>>, Rejection> {
        let (kind, id) = (Kind::WorkflowDefinition, id.to_string());
        let version = match version.into() {
            Some(version) => version,
            None => self.newest(kind, &id).await?.ok_or_else(|| refusal::not_found(kind, &id))?,
        };
        match self.body(kind, &id, version).await? {
            Body::Definition(spec) => Ok(Version { id, version, spec }),
            Body::Other(_) => Err(refusal::not_found(kind, &id)),
        }
    }

    /// An action of a project by `name` or `name@version`.
    ///
    /// # Errors
    /// `invalid_reference`, `unknown_reference`, and `archived`.
    pub async fn action(
        &self,
        project: ProjectId,
        reference: &str,
    ) -> Result<Version<ActionSpec>, Rejection> {
        let (id, version) = self.current(project, Kind::Action, reference).await?;
        self.spec(id, version).await
    }

    /// A prompt spec of a project by `name` or `name@version`.
    ///
    /// # Errors
    /// `invalid_reference`, `unknown_reference`, and `archived`.
    pub async fn prompt_spec(
        &self,
        project: ProjectId,
        reference: &str,
    ) -> Result<Version<PromptSpecSpec>, Rejection> {
        let (id, version) = self.current(project, Kind::PromptSpec, reference).await?;
        self.spec(id, version).await
    }

    /// A model profile of a project by `name` or `name@version`, without its fallbacks.
    ///
    /// # Errors
    /// `invalid_reference`, `unknown_reference`, and `archived`.
    pub async fn model_profile(
        &self,
        project: ProjectId,
        reference: &str,
    ) -> Result<Version<ModelProfileSpec>, Rejection> {
        let (id, version) = self.current(project, Kind::ModelProfile, reference).await?;
        self.spec(id, version).await
    }

    /// The version of its project's definition that has this content already; `None` where none
    /// has, or where the definition is archived.
    ///
    /// # Errors
    /// The journal's own.
    pub async fn published(
        &self,
        project: ProjectId,
        definition: &Definition,
        hash: &str,
    ) -> Result<Option<(DefinitionId, u64)>, Rejection> {
        let kind = Kind::WorkflowDefinition;
        let id = owned(kind, project, definition.name.as_str());
        let Some(head) = self.heads.head(kind, &id).await? else {
            return Ok(None);
        };
        let version = match &head.resource {
            Resource::Live(revisions) => revisions.version_of(hash),
            Resource::Absent | Resource::Archived(_) => None,
        };
        Ok(version.and_then(|version| Some((id.parse().ok()?, version))))
    }

    /// Everything that a definition refers to: at the newest versions, or at exactly the pinned
    /// ones (for a run that goes on).
    ///
    /// # Errors
    /// `unknown_reference` with one problem per reference that leads nowhere; the journal's own.
    pub async fn resolved(
        &self,
        definition: &DefinitionSpec,
        pins: Option<&[Pin]>,
    ) -> Result<Resolved, Rejection> {
        let versions = pins.map_or(Versions::Newest, Versions::Pinned);
        Ok(references::resolve(self, definition, versions).await?.resolved)
    }

    /// The same at the newest versions, for a run that starts in a workspace.
    ///
    /// # Errors
    /// As above, and `provider_not_allowed` for a model that the workspace doesn't allow.
    pub async fn resolved_for_start(
        &self,
        workspace: WorkspaceId,
        definition: &DefinitionSpec,
    ) -> Result<Resolved, Rejection> {
        let found = references::resolve(self, definition, Versions::Newest).await?;
        self.allowed(workspace, found).await
    }

    /// The same for a fork: at the versions that its run has of what they both refer to, and else at
    /// the newest.
    ///
    /// # Errors
    /// As above.
    pub(crate) async fn resolved_beside(
        &self,
        workspace: WorkspaceId,
        definition: &DefinitionSpec,
        pins: &[Pin],
    ) -> Result<Resolved, Rejection> {
        let found = references::resolve(self, definition, Versions::Beside(pins)).await?;
        self.allowed(workspace, found).await
    }

    async fn allowed(
        &self,
        workspace: WorkspaceId,
        found: references::Found,
    ) -> Result<Resolved, Rejection> {
        let head = self.heads.head(Kind::Workspace, &workspace.to_string()).await?;
        if let Some(Spec::Workspace(workspace)) = head.as_ref().and_then(|one| one.resource.spec())
        {
            providers::check(&workspace.allowed_providers, &found.models)?;
        }
        Ok(found.resolved)
    }

    /// How many tasks of one run may be on workers at the same time, if the project says so.
    ///
    /// # Errors
    /// The journal's own.
    pub async fn tasks_in_flight_per_run(
        &self,
        project: ProjectId,
    ) -> Result<Option<usize>, Rejection> {
        let project = self.project(project).await?;
        let limit = project.and_then(|project| project.limits.tasks_in_flight_per_run);
        Ok(limit.map(|limit| usize::try_from(limit).unwrap_or(usize::MAX)))
    }

    /// A project as it is now.
    ///
    /// # Errors
    /// The journal's own.
    pub(crate) async fn project(&self, id: ProjectId) -> Result<Option<ProjectSpec>, Rejection> {
        let head = self.heads.head(Kind::Project, &id.to_string()).await?;
        Ok(match head.as_ref().and_then(|one| one.resource.spec()) {
            Some(Spec::Project(project)) => Some(project.clone()),
            Some(_) | None => None,
        })
    }

    /// The id and the version that a reference means now.
    async fn current(
        &self,
        project: ProjectId,
        kind: Kind,
        reference: &str,
    ) -> Result<(String, u64), Rejection> {
        let (name, wanted) = split(kind, reference)?;
        let id = owned(kind, project, name);
        let Some(newest) = self.newest(kind, &id).await? else {
            let message =
                format!("the project has no {} named {name:?}; create it first", kind.words());
            return Err(unknown(message));
        };
        match wanted {
            Some(version) if version > newest => {
                let words = kind.words();
                Err(unknown(format!("the newest version of the {words} {name} is {newest}")))
            }
            Some(version) => Ok((id, version)),
            None => Ok((id, newest)),
        }
    }

    /// The newest version of a resource that is in use; `None` where there is no such resource.
    async fn newest(&self, kind: Kind, id: &str) -> Result<Option<u64>, Rejection> {
        let Some(head) = self.heads.head(kind, id).await? else {
            return Ok(None);
        };
        let Some(revisions) = head.resource.revisions() else {
            return Ok(None);
        };
        if head.resource.is_archived() {
            return Err(refusal::archived(kind, revisions.name().as_str()));
        }
        Ok(Some(revisions.latest))
    }

    async fn body(&self, kind: Kind, id: &str, version: u64) -> Result<Body, Rejection> {
        let body = self.heads.version(kind, id, version).await?;
        body.ok_or_else(|| refusal::not_found(kind, &format!("{id}@{version}")))
    }

    async fn spec<T: OfKind>(&self, id: String, version: u64) -> Result<Version<T>, Rejection> {
        let body = self.body(T::KIND, &id, version).await?;
        let spec = match &body {
            Body::Other(spec) => T::of(spec),
            Body::Definition(_) => None,
        };
        let spec = spec.cloned().ok_or_else(|| refusal::not_found(T::KIND, &id))?;
        Ok(Version { id, version, spec })
    }
}

/// The content of one kind of resource, taken out of a [`Spec`].
trait OfKind: Clone {
    const KIND: Kind;
    fn of(spec: &Spec) -> Option<&Self>;
}

macro_rules! of_kind {
    ($($content:ident = $kind:ident;)*) => {$(
        impl OfKind for $content {
            const KIND: Kind = Kind::$kind;
            fn of(spec: &Spec) -> Option<&Self> {
                match spec {
                    Spec::$kind(spec) => Some(spec),
                    _ => None,
                }
            }
        }
    )*};
}

of_kind! {
    ActionSpec = Action;
    PromptSpecSpec = PromptSpec;
    ModelProfileSpec = ModelProfile;
}

/// Takes `name` or `name@version` apart.
fn split(kind: Kind, reference: &str) -> Result<(&str, Option<u64>), Rejection> {
    let (name, version) = match reference.split_once('@') {
        None => (reference, None),
        Some((name, version)) => (name, Some(version.parse::<u64>().unwrap_or(0))),
    };
    if name.parse::<domain::ids::Name>().is_err() || version == Some(0) {
        let shown: String = reference.chars().take(80).collect();
        return Err(Rejection::new(
            RejectionKind::Invalid,
            "invalid_reference",
            format!(
                "{shown:?} is not a reference to a {}; write name or name@version (from 1)",
                kind.words()
            ),
        ));
    }
    Ok((name, version))
}

fn unknown(message: String) -> Rejection {
    Rejection::new(RejectionKind::Invalid, "unknown_reference", message)
}
