//! The command service: takes commands from the edge to resources and runs.

use std::collections::BTreeMap;
use std::sync::atomic::AtomicU64;
use std::sync::{Arc, Weak};
use std::time::Duration;

use async_trait::async_trait;
use chassis::clock::Clock;
use chassis::journal::Journal;
use domain::definition::{Definition, Problem, content_hash};
use domain::ids::{DefinitionId, ProjectId, RunId, WorkflowId, WorkspaceId};
use domain::resource::{DefinitionSpec, Spec};
use domain::run::event::{DefinitionRef, RunStarted};
use domain::run::{self, check_start};
use protocol::command::StartRun;
use protocol::{
    Command, CommandEnvelope, Commands, Receipt, Rejection, RejectionKind, RunOutcome, RunTarget,
    StartAnswer, StartHome, Tasks, run_of, shard_of,
};
use serde_json::Value;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::coordinator::{
    CONFLICT, Cause, Coordinator, CoordinatorConfig, Plans, RUN_ALREADY_STARTED, Surroundings,
    TaskQueue, of_command, unavailable,
};
use crate::experiments::Experiments;
use crate::prepared::{Preparations, Prepared};
use crate::resolve::{Resolver, Version};
use crate::resources::scope::publishable;
use crate::resources::{Defaults, Resources};
use crate::retention::Archivist;
use crate::store::inbox::Remembered;
use crate::store::metadata;
use crate::triggers::Triggers;

mod access;
mod fork;
mod foundation;
mod of_run;
mod rerun;
mod retention;

use fork::Asker;
pub use foundation::Foundation;
use of_run::of_run;

/// The write side of one process.
pub struct CommandService {
    journal: Arc<dyn Journal>,
    clock: Arc<dyn Clock>,
    resources: Resources,
    resolver: Arc<Resolver>,
    preparations: Arc<Preparations>,
    coordinator: Coordinator,
    triggers: Triggers,
    archivist: Arc<Archivist>,
    experiments: Arc<Experiments>,
    defaults: Defaults,
}

/// Why the write side didn't start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    #[error("the default workspace can't be made: {0}")]
    Defaults(Rejection),
}

/// What a run is started from.
struct Target {
    workflow_id: Option<WorkflowId>,
    prepared: Arc<Prepared>,
    /// The beginning of the run that is done again.
    origin: Option<RunStarted>,
}

/// What a run is started with.
struct Given {
    input: Value,
    labels: BTreeMap<String, String>,
}

impl CommandService {
    /// Starts the write side of a process that has its journal for itself. See
    /// [`CommandService::start_over`].
    ///
    /// # Errors
    /// Where the journal can't be read or written.
    pub async fn start(
        journal: Arc<dyn Journal>,
        clock: Arc<dyn Clock>,
        config: &CoordinatorConfig,
        shutdown: CancellationToken,
        tracker: &TaskTracker,
    ) -> Result<Arc<Self>, StartError> {
        let foundation = Foundation::alone(journal, clock);
        Self::start_over(foundation, config, shutdown, tracker).await
    }

    /// Starts a write side: makes the default workspace and project where they are missing, and
    /// takes up every run of its shards that still owes work. It ends with `shutdown`; the tracker
    /// knows when it has.
    ///
    /// # Errors
    /// Where the journal can't be read or written.
    pub async fn start_over(
        foundation: Foundation,
        config: &CoordinatorConfig,
        shutdown: CancellationToken,
        tracker: &TaskTracker,
    ) -> Result<Arc<Self>, StartError> {
        let queue = foundation.queues.clone().map(|queues| queues as Arc<dyn TaskQueue>);
        Self::start_with(foundation, queue, config, shutdown, tracker).await
    }

    /// The same, over any queue.
    pub(crate) async fn start_with(
        foundation: Foundation,
        queue: Option<Arc<dyn TaskQueue>>,
        config: &CoordinatorConfig,
        shutdown: CancellationToken,
        tracker: &TaskTracker,
    ) -> Result<Arc<Self>, StartError> {
        let Foundation { journal, clock, writes, ownership, shards, everywhere, queues, archives } =
            foundation;
        let resources = Resources::over(Arc::clone(&journal), Arc::clone(&clock), writes);
        let defaults = resources.ensure_defaults().await.map_err(StartError::Defaults)?;
        let resolver = Arc::new(resources.resolver());
        let plans = Arc::new(Plans::default());
        let preparations = Arc::new(Preparations::new(Arc::clone(&resolver), Arc::clone(&plans)));
        let around = Surroundings {
            journal: Arc::clone(&journal),
            resolver: Arc::clone(&resolver),
            plans,
            preparations: Arc::clone(&preparations),
            clock: Arc::clone(&clock),
            ownership: ownership.clone(),
            fenced: Arc::new(move |shard, epoch| {
                if let Some(shards) = &shards {
                    shards.lost(shard, epoch);
                }
            }),
            queue,
        };
        let coordinator = Coordinator::start(around, config, shutdown.clone(), tracker).await;
        let triggers = Triggers {
            journal: Arc::clone(&journal),
            clock: Arc::clone(&clock),
            heads: resources.heads(),
            resolver: Arc::clone(&resolver),
            preparations: Arc::clone(&preparations),
            coordinator: coordinator.clone(),
            everywhere: everywhere.clone(),
            ownership,
            nats: queues.map(|queues| queues.nats().clone()),
            workspace_id: defaults.workspace_id,
            secrets: Arc::default(),
        };
        triggers.run(&shutdown, tracker);
        let archivist = Arc::new(Archivist {
            journal: Arc::clone(&journal),
            clock: Arc::clone(&clock),
            ownership: triggers.ownership.clone(),
            workspace_id: defaults.workspace_id,
            archives,
            decisions: tokio::sync::Mutex::default(),
            releases: AtomicU64::default(),
        });
        let sweep = Arc::clone(&archivist).sweep(Arc::clone(&resolver));
        tracker.spawn(shutdown.clone().run_until_cancelled_owned(sweep));
        let service = Arc::new_cyclic(|here: &Weak<Self>| {
            let experiments = Arc::new(Experiments {
                journal: Arc::clone(&journal),
                clock: Arc::clone(&clock),
                ownership: triggers.ownership.clone(),
                here: Weak::clone(here) as _,
                everywhere,
                shutdown,
                tracker: tracker.clone(),
                known: Default::default(),
            });
            Self {
                journal,
                clock,
                resources,
                resolver,
                preparations,
                coordinator,
                triggers,
                archivist,
                experiments,
                defaults,
            }
        });
        Arc::clone(&service.experiments).run();
        Ok(service)
    }

    /// Where executors get tasks and leave outcomes.
    pub fn tasks(&self) -> Arc<dyn Tasks> {
        self.coordinator.tasks()
    }

    /// The runs, for what is reported and asked from outside of the process.
    pub(crate) const fn coordinator(&self) -> &Coordinator {
        &self.coordinator
    }

    /// The workspace and the project that are always there.
    pub const fn defaults(&self) -> Defaults {
        self.defaults
    }

    /// Starts a run of which another process asked, where it belongs here; else says where that is.
    ///
    /// A run with a concurrency key lives where all runs of the key do. The definition says which
    /// that is, and it may change between two repetitions of a start: so the first answer fixes
    /// what the target means, and only then the run is started.
    pub(crate) async fn start_at_home(
        &self,
        mut envelope: CommandEnvelope,
    ) -> Result<StartAnswer, Rejection> {
        let Some((start, given)) = taken(&mut envelope.command) else {
            return self.execute(envelope).await.map(StartAnswer::from);
        };
        self.start_run(&envelope, &start, given, true).await
    }

    async fn start_run(
        &self,
        envelope: &CommandEnvelope,
        start: &StartRun,
        given: Given,
        from_afar: bool,
    ) -> Result<StartAnswer, Rejection> {
        let remembered = envelope.idempotency_key.as_ref().map(|_| Remembered::of(envelope));
        if let Some(remembered) = &remembered
            && let Some(receipt) = self.recalled(remembered).await?
        {
            return Ok(receipt.into());
        }
        self.resources.catch_up().await?;
        let Target { workflow_id, prepared, origin } = self.target(envelope, start, &given).await?;
        let rerun_of = origin.as_ref().map(|origin| origin.run_id);
        let given = match origin {
            Some(RunStarted { input, labels, .. }) => Given { input, labels },
            None => given,
        };
        let admission = prepared.admission(&given.input, given.labels.len(), self.clock.now())?;
        // A command that comes twice starts the same run, and so only one.
        let run_id = match &admission {
            None => run_of(envelope.id),
            Some(admission) => prepared.run_in_queue(envelope.id, admission),
        };
        if from_afar && start.home.is_none() && admission.is_some() {
            // Done before, if the definition has got its key since then.
            if let Some(receipt) = self.triggers.started(run_of(envelope.id)).await? {
                return Ok(receipt.into());
            }
            let DefinitionRef { id: definition_id, version, .. } = prepared.definition;
            let shard = shard_of(run_id);
            return Ok(StartAnswer::Elsewhere(StartHome { shard, definition_id, version }));
        }
        let started = RunStarted {
            workflow_id,
            labels: given.labels,
            trigger: start.trigger.clone(),
            admission,
            rerun_of,
            ..prepared.started(run_id, given.input, self.clock.now(), &envelope.actor.0)
        };
        let cause = cause(envelope, remembered.clone());
        let standing = self.resolver.standing(workflow_id).await?;
        let done = self.coordinator.start_run(run_id, started, standing, &prepared, cause).await;
        match self.settled(done, remembered.as_ref()).await {
            // In the second case the run has left memory since then.
            Err(refused) if matches!(&*refused.code, RUN_ALREADY_STARTED | CONFLICT) => {
                let started = self.triggers.started(run_id).await?;
                let started = started.map(StartAnswer::from);
                started.ok_or_else(|| unavailable("the run is being started, try again"))
            }
            done => done.map(StartAnswer::from),
        }
    }

    /// Does a command to a run that is there.
    async fn command_run(
        &self,
        envelope: &CommandEnvelope,
        run_id: RunId,
        command: run::Command,
    ) -> Result<Receipt, Rejection> {
        // Remembered also without a key of the client's: the edge repeats a command whose answer
        // it has lost.
        let remembered = Remembered::of(envelope);
        if let Some(receipt) = self.recalled(&remembered).await? {
            return Ok(receipt);
        }
        let cause = cause(envelope, Some(remembered.clone()));
        let done = self.coordinator.command(run_id, command, cause).await;
        self.settled(done, Some(&remembered)).await
    }

    async fn recalled(&self, remembered: &Remembered) -> Result<Option<Receipt>, Rejection> {
        let recalled = self.journal.recall(&remembered.key).await;
        match recalled.map_err(|_| unavailable("the journal is unavailable, try again"))? {
            Some(recalled) => remembered.answer(&recalled).map(Some),
            None => Ok(None),
        }
    }

    /// A command that failed may have lost against its own repetition: then that one's answer is
    /// the answer.
    async fn settled(
        &self,
        done: Result<Receipt, Rejection>,
        remembered: Option<&Remembered>,
    ) -> Result<Receipt, Rejection> {
        if let (Err(_), Some(remembered)) = (&done, remembered)
            && let Some(receipt) = self.recalled(remembered).await?
        {
            return Ok(receipt);
        }
        done
    }

    async fn target(
        &self,
        envelope: &CommandEnvelope,
        start: &StartRun,
        given: &Given,
    ) -> Result<Target, Rejection> {
        let workspace_id = envelope.workspace_id;
        let mut origin = None;
        let (workflow_id, id, definition) = match &start.target {
            RunTarget::Rerun { run_id, version } => {
                let found = self.beginning(workspace_id, *run_id).await?;
                let workflow_id = found.workflow_id;
                let (id, version) = self.version_again(workspace_id, &found, *version).await?;
                let (id, version) = match start.home {
                    Some(home) => (home.definition_id, Some(home.version)),
                    None => (id, version),
                };
                origin = Some(found);
                (workflow_id, id, self.resolver.definition_by_id(id, version).await?)
            }
            RunTarget::Workflow(workflow_id) => {
                let workflow = self.resolver.workflow(workspace_id, *workflow_id).await?;
                self.resources.authorise_project(workspace_id, workflow.project_id).await?;
                let (id, version) = match start.home {
                    Some(home) => (home.definition_id, Some(home.version)),
                    None => (workflow.definition_id, workflow.definition_version),
                };
                (Some(*workflow_id), id, self.resolver.definition_by_id(id, version).await?)
            }
            RunTarget::Named { project_id, .. } | RunTarget::Inline { project_id, .. }
                if let Some(home) = start.home =>
            {
                self.resources.authorise_project(workspace_id, *project_id).await?;
                let (id, version) = (home.definition_id, Some(home.version));
                (None, id, self.resolver.definition_by_id(id, version).await?)
            }
            RunTarget::Named { project_id, reference } => {
                self.resources.authorise_project(workspace_id, *project_id).await?;
                let definition = self.resolver.definition(*project_id, reference).await?;
                (None, parsed(&definition.id)?, definition)
            }
            RunTarget::Inline { project_id, definition } => {
                let (id, version) =
                    self.published(envelope, *project_id, definition, given).await?;
                (None, id, self.resolver.definition_by_id(id, Some(version)).await?)
            }
        };
        let Version { version, spec, .. } = definition;
        let prepared = self.preparations.get(workspace_id, id, version, &spec).await?;
        Ok(Target { workflow_id, prepared, origin })
    }

    /// The version that has an inline definition's content; published now where none has, and
    /// only where the run that it came for can start.
    async fn published(
        &self,
        envelope: &CommandEnvelope,
        project_id: ProjectId,
        definition: &Definition,
        given: &Given,
    ) -> Result<(DefinitionId, u64), Rejection> {
        self.resources.authorise_project(envelope.workspace_id, project_id).await?;
        let hash = content_hash(definition).map_err(|error| internal(&error.to_string()))?;
        if let Some(known) = self.resolver.published(project_id, definition, &hash).await? {
            return Ok(known);
        }
        let mut spec = DefinitionSpec { project_id, definition: definition.clone(), hash };
        let plan = publishable(&self.resolver, envelope.workspace_id, &mut spec).await?;
        check_start(&plan, &given.input, given.labels.len())
            .map_err(|refusal| of_command(&refusal))?;
        let receipt = self.publish(envelope, spec).await?;
        Ok((parsed(&receipt.id)?, receipt.version))
    }

    async fn publish(
        &self,
        envelope: &CommandEnvelope,
        spec: DefinitionSpec,
    ) -> Result<Receipt, Rejection> {
        let publish = CommandEnvelope {
            id: domain::ids::CommandId::new(self.clock.uuid_v7()),
            idempotency_key: None,
            expected_version: None,
            workspace_id: envelope.workspace_id,
            actor: envelope.actor.clone(),
            origin: envelope.origin.clone(),
            fingerprint: envelope.fingerprint.clone(),
            traceparent: envelope.traceparent.clone(),
            command: Command::Create(Box::new(Spec::WorkflowDefinition(spec))),
        };
        self.resources.execute(&publish).await
    }
}

/// The refusal of a definition with its problems.
pub(crate) fn invalid_definition(problems: Vec<Problem>) -> Rejection {
    let count = problems.len();
    let message =
        format!("the definition has {count} problem{}", if count == 1 { "" } else { "s" });
    Rejection::new(RejectionKind::Invalid, "invalid_definition", message).with_problems(problems)
}

pub(crate) fn parsed(id: &str) -> Result<DefinitionId, Rejection> {
    id.parse().map_err(|error: domain::ids::InvalidId| internal(&error.to_string()))
}

fn internal(message: &str) -> Rejection {
    Rejection::new(RejectionKind::Internal, "internal", message)
}

/// A start, and apart from it what may be large: moved rather than copied.
fn taken(command: &mut Command) -> Option<(StartRun, Given)> {
    let Command::StartRun(start) = command else { return None };
    let (input, labels) = (std::mem::take(&mut start.input), std::mem::take(&mut start.labels));
    Some(((**start).clone(), Given { input, labels }))
}

fn cause(envelope: &CommandEnvelope, remembered: Option<Remembered>) -> Cause {
    Cause { workspace_id: envelope.workspace_id, metadata: metadata::of(envelope), remembered }
}

#[async_trait]
impl Commands for CommandService {
    async fn execute(&self, mut envelope: CommandEnvelope) -> Result<Receipt, Rejection> {
        if let Some((start, given)) = taken(&mut envelope.command) {
            return match self.start_run(&envelope, &start, given, false).await? {
                StartAnswer::Done(receipt) => Ok(*receipt),
                StartAnswer::Elsewhere(_) => Err(internal("the start belongs elsewhere")),
            };
        }
        if matches!(envelope.command, Command::ForkRun(_) | Command::RetryRun { .. }) {
            return match self.begin_fork(&envelope, Asker::Here).await? {
                StartAnswer::Done(receipt) => Ok(*receipt),
                StartAnswer::Elsewhere(_) => Err(internal("the fork belongs elsewhere")),
            };
        }
        if let Some(done) = self.retain(&envelope).await {
            return done;
        }
        if let Some((run_id, command)) = of_run(&mut envelope)? {
            return self.command_run(&envelope, run_id, command).await;
        }
        match &envelope.command {
            Command::RecordAccess(event) => self.record_access(&envelope, event.clone()).await,
            Command::StartExperiment(_) | Command::StopExperiment { .. } => {
                self.experiments.execute(&envelope).await
            }
            Command::DeliverWebhook(webhook) => self.triggers.deliver(&envelope, webhook).await,
            _ => self.resources.execute(&envelope).await,
        }
    }

    async fn wait(
        &self,
        workspace_id: WorkspaceId,
        run_id: RunId,
        timeout: Duration,
    ) -> Result<Option<RunOutcome>, Rejection> {
        match tokio::time::timeout(timeout, self.coordinator.wait(workspace_id, run_id)).await {
            Ok(outcome) => outcome.map(Some),
            Err(_) => Ok(None),
        }
    }
}
