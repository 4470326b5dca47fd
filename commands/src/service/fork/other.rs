//! The definition that the fork of an experiment follows: that of its run, with something different.

use std::sync::Arc;

use domain::definition::{NoVariant, Variant, content_hash, validate};
use domain::ids::DefinitionId;
use domain::resource::DefinitionSpec;
use domain::run::event::DefinitionRef;
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
        let hash = content_hash(&definition).map_err(|error| internal(&error.to_string()))?;
        let spec = DefinitionSpec { project_id, definition, hash: hash.clone() };
        let resolved = self.resolver.resolved_beside(workspace_id, &spec, &header.pins).await?;
        let name = spec.definition.name.to_string();
        let problems = validate::check(&spec.definition);
        if !problems.is_empty() {
            return Err(invalid_definition(problems));
        }
        // Before it is published: it may not compile.
        let id = DefinitionId::derived(&project_id.to_string(), &name);
        let tried = DefinitionRef { id, name, version: 0, hash: hash.clone() };
        let plans = self.preparations.plans();
        let plan = plans.get(&tried, &spec.definition, &resolved).map_err(invalid_definition)?;
        let known = self.resolver.published(project_id, &spec.definition, &hash).await?;
        let (id, version) = match known {
            Some(known) => known,
            None if is_tried => (tried.id, tried.version),
            None => {
                let receipt = self.publish(envelope, spec).await?;
                (parsed(&receipt.id)?, receipt.version)
            }
        };
        Ok(Some((DefinitionRef { id, version, ..tried }, plan)))
    }
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
