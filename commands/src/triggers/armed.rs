//! Which triggers are in force here: those of enabled workflows on shards that are owned.

use std::collections::BTreeMap;
use std::sync::Arc;

use chassis::journal::all_ids;
use chassis::shards::Owned;
use chrono::{DateTime, Utc};
use domain::ids::{Name, ProjectId, WorkflowId, WorkspaceId};
use domain::resource::{self, Kind, Spec, WorkflowSpec};
use domain::trigger::{CompiledTrigger, TriggerKind, TriggerRef, TriggerSpec};
use futures::TryStreamExt;
use protocol::Rejection;

use super::log::Log;
use super::{Triggers, shard_of_workflow};
use crate::resources::refusal;
use crate::store::{Fault, payload};

/// A trigger in force.
#[derive(Clone)]
pub(super) struct Armed {
    pub(super) trigger: TriggerRef,
    pub(super) workspace_id: WorkspaceId,
    pub(super) project_id: ProjectId,
    pub(super) compiled: CompiledTrigger,
    pub(super) log: Log,
    /// The epoch of the shard's ownership.
    pub(super) epoch: u64,
    since: Since,
    /// The workflow's version that it stands in.
    version: u64,
}

/// When a trigger came into force in the form that it has: what was before isn't its business.
#[derive(Debug, Clone, Copy)]
struct Since {
    at: DateTime<Utc>,
    position: u64,
}

impl Armed {
    /// When it came into force.
    pub(super) const fn since(&self) -> DateTime<Utc> {
        self.since.at
    }

    /// The version of its workflow.
    pub(super) const fn version(&self) -> u64 {
        self.version
    }

    /// Scheduled times up to this one are done with.
    pub(super) fn done_at(&self) -> DateTime<Utc> {
        self.log.state.scheduled.map_or(self.since.at, |done| done.max(self.since.at))
    }

    /// Events up to this place are done with.
    pub(super) fn done_position(&self) -> u64 {
        self.log.state.position.map_or(self.since.position, |done| done.max(self.since.position))
    }
}

/// The triggers of one kind that are in force, and what they were found by.
pub(super) struct InForce {
    kind: TriggerKind,
    pub(super) armed: BTreeMap<TriggerRef, Armed>,
    /// The number of writes of resources before which they were looked for.
    writes: Option<u64>,
    owned: Arc<Owned>,
}

impl InForce {
    pub(super) fn of(kind: TriggerKind) -> Self {
        Self { kind, armed: BTreeMap::new(), writes: None, owned: Arc::default() }
    }

    /// Whether a workflow's triggers are looked after here.
    pub(super) fn owns(&self, workflow_id: WorkflowId) -> bool {
        self.owned.epochs.contains_key(&shard_of_workflow(workflow_id))
    }

    /// Looks again where a resource or the ownership of shards has changed; says whether.
    pub(super) async fn refresh(&mut self, triggers: &Triggers) -> Result<bool, Rejection> {
        triggers.resolver.catch_up().await?;
        let writes = triggers.heads.writes();
        let owned = Arc::clone(&triggers.ownership.borrow());
        if self.writes == Some(writes) && self.owned == owned {
            return Ok(false);
        }
        let mut before = std::mem::take(&mut self.armed);
        // Where this breaks off, everything is looked for and loaded again.
        self.writes = None;
        let failed = |error| refusal::of(Fault::Read(error), Kind::Workflow, "workflows");
        let mut workflows = all_ids(&*triggers.journal, Kind::Workflow.as_str());
        while let Some(id) = workflows.try_next().await.map_err(failed)? {
            let Ok(workflow_id) = id.parse::<WorkflowId>() else { continue };
            if let Some(epoch) = owned.epochs.get(&shard_of_workflow(workflow_id)) {
                self.arm(triggers, workflow_id, *epoch, &mut before).await?;
            }
        }
        (self.writes, self.owned) = (Some(writes), owned);
        Ok(true)
    }

    async fn arm(
        &mut self,
        triggers: &Triggers,
        workflow_id: WorkflowId,
        epoch: u64,
        before: &mut BTreeMap<TriggerRef, Armed>,
    ) -> Result<(), Rejection> {
        let id = workflow_id.to_string();
        let head = triggers.heads.head(Kind::Workflow, &id).await?;
        let Some(head) = head.filter(|head| !head.resource.is_archived()) else { return Ok(()) };
        let Some(Spec::Workflow(workflow)) = head.resource.spec() else { return Ok(()) };
        let Ok(workspace_id) = head.workspace_id.parse() else { return Ok(()) };
        let version = head.resource.version();
        for (name, spec) in &workflow.triggers {
            if !is_in_force(workflow, spec, self.kind) {
                continue;
            }
            let trigger = TriggerRef { workflow_id, name: name.clone() };
            let known = before.remove(&trigger);
            if let Some(known) = known.filter(|one| one.version == version && one.epoch == epoch) {
                self.armed.insert(trigger, known);
                continue;
            }
            let Some(since) = since(triggers, &id, name, self.kind).await? else { continue };
            let Ok(compiled) = CompiledTrigger::compile(spec) else {
                tracing::error!(workflow_id = id, %name, "a trigger's spec can't be compiled");
                continue;
            };
            let log = Log::load(&*triggers.journal, &trigger).await?;
            let project_id = workflow.project_id;
            let armed = Armed {
                trigger: trigger.clone(),
                workspace_id,
                project_id,
                compiled,
                log,
                epoch,
                since,
                version,
            };
            self.armed.insert(trigger, armed);
        }
        Ok(())
    }
}

fn is_in_force(workflow: &WorkflowSpec, trigger: &TriggerSpec, kind: TriggerKind) -> bool {
    let is_of_kind = trigger.source().is_some_and(|source| source.kind() == kind);
    workflow.enabled && trigger.enabled && is_of_kind
}

/// Since when a workflow's trigger is in force, without a break and started by the same.
async fn since(
    triggers: &Triggers,
    workflow_id: &str,
    name: &Name,
    kind: TriggerKind,
) -> Result<Option<Since>, Rejection> {
    let history = payload::history(&*triggers.journal, Kind::Workflow.as_str(), workflow_id, 0)
        .await
        .map_err(|fault| refusal::of(fault, Kind::Workflow, workflow_id))?;
    let mut since: Option<(Since, TriggerSpec)> = None;
    for (row, event) in history {
        let spec = match event {
            resource::Event::Created { spec, .. } | resource::Event::Revised { spec, .. } => *spec,
            resource::Event::Archived => return Ok(None),
        };
        let Spec::Workflow(workflow) = spec else { return Ok(None) };
        let trigger = workflow.triggers.get(name).filter(|one| is_in_force(&workflow, one, kind));
        since = match (trigger, since) {
            (None, _) => None,
            (Some(trigger), Some(before)) if trigger.is_like(&before.1) => Some(before),
            (Some(trigger), _) => {
                let since = Since { at: row.recorded_at, position: row.position };
                Some((since, trigger.clone()))
            }
        };
    }
    Ok(since.map(|(since, _)| since))
}
