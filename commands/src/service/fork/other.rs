//! The definition that a fork follows instead of its run's: one that came with the command, or of
//! an experiment the run's own with something different.

use std::sync::Arc;

use domain::definition::{Definition, NoVariant, Variant, content_hash, validate};
use domain::ids::{DefinitionId, ProjectId, WorkspaceId};
use domain::resource::DefinitionSpec;
use domain::run::event::{DefinitionRef, Pin};
use domain::run::state::Header;
use protocol::{CommandEnvelope, Rejection, RejectionKind};

use crate::coordinator::LivePlan;
use crate::service::{CommandService, internal, invalid_definition, parsed};

impl CommandService {
    /// The definition of a run with something different, published where nothing is only tried, at
    /// the versions that the run has of what it refers to; `None` where that is the same.
    pub(super) async fn other_of(
        &self,
        envelope: &CommandEnvelope,
        header: &Header,
        plan: &LivePlan,
        variant: &Variant,
        is_tried: bool,
    ) -> Result<Option<(DefinitionRef, Arc<LivePlan>)>, Rejection> {
        let (workspace_id, project_id) = (envelope.workspace_id, header.project_id);
        let DefinitionRef { id, version, .. } = header.definition;
        let own = self.resolver.definition_by_id(id, Some(version)).await?;
        let other =
            variant.of(&own.spec.definition, &plan.plan).map_err(|error| no_variant(&error))?;
        let Some(definition) = other else { return Ok(None) };
        let spec = spec_of(project_id, definition)?;
        let laid_out = self.laid_out(workspace_id, spec, Some(&header.pins)).await?;
        let LaidOut { mut definition, plan, spec } = laid_out;
        let known = self.resolver.published(project_id, &spec.definition, &spec.hash).await?;
        match known {
            Some(known) => (definition.id, definition.version) = known,
            None if is_tried => {}
            None => {
                let receipt = self.publish(envelope, spec).await?;
                (definition.id, definition.version) = (parsed(&receipt.id)?, receipt.version);
            }
        }
        Ok(Some((definition, plan)))
    }

    /// A definition that came with a command: as it is published, or as it is to be.
    pub(super) async fn inline_of(
        &self,
        workspace_id: WorkspaceId,
        project_id: ProjectId,
        definition: Definition,
    ) -> Result<(DefinitionRef, Arc<LivePlan>, Option<DefinitionSpec>), Rejection> {
        let spec = spec_of(project_id, definition)?;
        let known = self.resolver.published(project_id, &spec.definition, &spec.hash).await?;
        if let Some((id, version)) = known {
            let found = self.resolver.definition_by_id(id, Some(version)).await?;
            let found = self.preparations.get(workspace_id, id, version, &found.spec).await?;
            return Ok((found.definition.clone(), Arc::clone(&found.plan), None));
        }
        let LaidOut { definition, plan, spec } = self.laid_out(workspace_id, spec, None).await?;
        Ok((definition, plan, Some(spec)))
    }

    /// Checks a definition before it is published: at these versions of what it refers to, or at
    /// the newest.
    async fn laid_out(
        &self,
        workspace_id: WorkspaceId,
        spec: DefinitionSpec,
        pins: Option<&[Pin]>,
    ) -> Result<LaidOut, Rejection> {
        let resolved = match pins {
            Some(pins) => self.resolver.resolved_beside(workspace_id, &spec, pins).await?,
            None => self.resolver.resolved_for_start(workspace_id, &spec).await?,
        };
        let name = spec.definition.name.to_string();
        let problems = validate::check(&spec.definition);
        if !problems.is_empty() {
            return Err(invalid_definition(problems));
        }
        let id = DefinitionId::derived(&spec.project_id.to_string(), &name);
        let definition = DefinitionRef { id, name, version: 0, hash: spec.hash.clone() };
        let plans = self.preparations.plans();
        let plan =
            plans.get(&definition, &spec.definition, &resolved).map_err(invalid_definition)?;
        Ok(LaidOut { definition, plan, spec })
    }
}

fn spec_of(project_id: ProjectId, definition: Definition) -> Result<DefinitionSpec, Rejection> {
    let hash = content_hash(&definition).map_err(|error| internal(&error.to_string()))?;
    Ok(DefinitionSpec { project_id, definition, hash })
}

/// A definition that isn't published: what it will be called, at version 0.
struct LaidOut {
    definition: DefinitionRef,
    plan: Arc<LivePlan>,
    spec: DefinitionSpec,
}

fn no_variant(error: &NoVariant) -> Rejection {
    let message = error.to_string();
    match error {
        NoVariant::NoNode(_) | NoVariant::NoTransition { .. } => {
            Rejection::new(RejectionKind::Invalid, "experiment_change", message).at("/change")
        }
        NoVariant::Invalid(problems) => invalid_definition(problems.clone()).at("/change"),
    }
}
