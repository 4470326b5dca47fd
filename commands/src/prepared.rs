//! What starting a run of a definition takes, kept until any resource changes.
//!
//! Starts of the same definition come thousands a second, and their references, the workspace's
//! providers and the project's limits change seldom: they are looked up once, and again after a
//! write of any resource.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use chrono::{DateTime, Utc};
use domain::definition::Plan;
use domain::ids::{CommandId, DefinitionId, Home, ProjectId, RunId, WorkspaceId};
use domain::resource::DefinitionSpec;
use domain::run::check_start;
use domain::run::event::{Admission, DefinitionRef, RunStarted};
use protocol::{Rejection, RejectionKind};
use serde_json::Value;

use crate::coordinator::{LivePlan, Plans, of_command};
use crate::resolve::Resolver;

/// A version of a definition, ready to start.
#[derive(Debug)]
pub(crate) struct Prepared {
    pub(crate) project_id: ProjectId,
    pub(crate) definition: DefinitionRef,
    pub(crate) plan: Arc<LivePlan>,
    /// See [`Resolver::tasks_in_flight_per_run`].
    pub(crate) tasks_in_flight: Option<usize>,
}

impl Prepared {
    /// What the admission of a run goes by, where its definition bounds its runs.
    pub(crate) fn admission(
        &self,
        input: &Value,
        labels: usize,
        now: DateTime<Utc>,
    ) -> Result<Option<Admission>, Rejection> {
        let plan = &self.plan.plan;
        if plan.admission().is_none() {
            return Ok(None);
        }
        let input = check_start(plan, input, labels).map_err(|refusal| of_command(&refusal))?;
        admission_of(plan, &input, now)
    }

    /// The first event of a run that isn't a child: of no workflow, with no labels, and with no
    /// turn to wait for.
    pub(crate) fn started(
        &self,
        run_id: RunId,
        input: Value,
        now: DateTime<Utc>,
        by: &str,
    ) -> RunStarted {
        RunStarted {
            run_id,
            project_id: self.project_id,
            workflow_id: None,
            definition: self.definition.clone(),
            pins: self.plan.pins.clone(),
            // Filled in by the decision.
            start: String::new(),
            input,
            labels: BTreeMap::new(),
            started_at: now,
            deadline: None,
            started_by: Some(by.to_owned()),
            parent: None,
            trigger: None,
            admission: None,
            forked_from: None,
            rerun_of: None,
        }
    }

    /// The run that a command starts, among those that it takes turns with.
    pub(crate) fn run_in_queue(&self, command_id: CommandId, admission: &Admission) -> RunId {
        let home = Home::of_queue(self.definition.id, admission.key.as_deref());
        RunId::in_queue(command_id, home)
    }
}

/// What the admission of a run goes by, by a plan, over an input that is checked.
pub(crate) fn admission_of(
    plan: &Plan,
    input: &Value,
    now: DateTime<Utc>,
) -> Result<Option<Admission>, Rejection> {
    let Some(admission) = plan.admission() else { return Ok(None) };
    admission.of_run(input, now).map(Some).map_err(|problem| {
        let message = format!("the run can't be admitted: {}", problem.message);
        let refused = Rejection::new(RejectionKind::Invalid, "admission_failed", message);
        refused.at(problem.pointer.clone()).with_problems(vec![problem])
    })
}

/// Versions that are kept; beyond, all are forgotten and prepared again when they are needed.
const KEPT: usize = 1_024;

type Key = (WorkspaceId, DefinitionId, u64);

/// The prepared versions of this process.
pub(crate) struct Preparations {
    resolver: Arc<Resolver>,
    plans: Arc<Plans>,
    /// With the number of writes before which each was made.
    kept: Mutex<HashMap<Key, (u64, Arc<Prepared>)>>,
}

impl Preparations {
    pub(crate) fn new(resolver: Arc<Resolver>, plans: Arc<Plans>) -> Self {
        Self { resolver, plans, kept: Mutex::default() }
    }

    /// The plans of this process.
    pub(crate) fn plans(&self) -> &Plans {
        &self.plans
    }

    /// A version of a definition, as a run that starts in a workspace now has to follow it.
    ///
    /// # Errors
    /// Those of [`Resolver::resolved_for_start`], and `invalid_definition`.
    pub(crate) async fn get(
        &self,
        workspace_id: WorkspaceId,
        id: DefinitionId,
        version: u64,
        spec: &DefinitionSpec,
    ) -> Result<Arc<Prepared>, Rejection> {
        let key = (workspace_id, id, version);
        let writes = self.resolver.writes();
        if let Some((at, prepared)) = self.kept().get(&key)
            && *at == writes
        {
            return Ok(Arc::clone(prepared));
        }
        let definition = DefinitionRef {
            id,
            name: spec.definition.name.to_string(),
            version,
            hash: spec.hash.clone(),
        };
        let resolved = self.resolver.resolved_for_start(workspace_id, spec).await?;
        let plan = self
            .plans
            .get(&definition, &spec.definition, &resolved)
            .map_err(crate::service::invalid_definition)?;
        let project_id = spec.project_id;
        let tasks_in_flight = self.resolver.tasks_in_flight_per_run(project_id).await?;
        let prepared = Arc::new(Prepared { project_id, definition, plan, tasks_in_flight });
        let mut kept = self.kept();
        if kept.len() >= KEPT {
            kept.clear();
        }
        kept.insert(key, (writes, Arc::clone(&prepared)));
        Ok(prepared)
    }

    /// The same of a project's definition by `name` or `name@version`, as it is now.
    ///
    /// # Errors
    /// As above, those of [`Resolver::definition`], and the journal's own.
    pub(crate) async fn by_reference(
        &self,
        workspace_id: WorkspaceId,
        project_id: ProjectId,
        reference: &str,
    ) -> Result<Arc<Prepared>, Rejection> {
        self.resolver.catch_up().await?;
        let found = self.resolver.definition(project_id, reference).await?;
        let id = crate::service::parsed(&found.id)?;
        self.get(workspace_id, id, found.version, &found.spec).await
    }

    fn kept(&self) -> MutexGuard<'_, HashMap<Key, (u64, Arc<Prepared>)>> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
