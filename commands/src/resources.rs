//! The write side of resources: creates, revises and archives them.
//!
//! Decisions load from the journal, never from projections. Each command is one append or
//! nothing; a repeated command gets its first answer.

use std::sync::Arc;

use chassis::clock::Clock;
use chassis::journal::Journal;
use domain::ids::{CommandId, ProjectId, WorkspaceId};
use domain::resource::{
    self, Change, Kind, ProjectLimits, ProjectSpec, Spec, WorkspaceSpec, id_of,
};
use protocol::command::{Command, CommandEnvelope, Receipt};
use protocol::{Rejection, RejectionKind};

use crate::resolve::Resolver;
use crate::store::inbox::Remembered;
use crate::store::{self, Done, Fault, Repository, Writes, metadata};

pub(crate) mod heads;
pub(crate) mod refusal;
pub(crate) mod scope;

#[cfg(test)]
pub(crate) mod tests;

use heads::{Head, Heads};

/// How often a command meets a faster writer before it is refused.
const ATTEMPTS: u32 = 6;
/// The name of the workspace and of the project that are always there.
const DEFAULT: &str = "default";

/// Executes commands on resources. Cheap to clone; all clones share what they know.
#[derive(Clone)]
pub struct Resources {
    inner: Arc<Inner>,
}

/// The workspace and the project that are always there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Defaults {
    pub workspace_id: WorkspaceId,
    pub project_id: ProjectId,
}

struct Inner {
    writes: Writes,
    journal: Arc<dyn Journal>,
    clock: Arc<dyn Clock>,
    heads: Arc<Heads>,
}

/// A command that passed the checks of its surroundings.
pub(crate) struct Asked {
    kind: Kind,
    id: String,
    change: Change,
    /// The workspace that the events belong to.
    workspace_id: Arc<str>,
}

impl Resources {
    /// The resources of a journal that this process alone writes.
    pub fn new(journal: Arc<dyn Journal>, clock: Arc<dyn Clock>) -> Self {
        Self::over(journal, clock, Writes::Journal)
    }

    /// The resources of a journal. What is known in memory is brought up to date by
    /// [`Resources::catch_up`], where other processes write resources too.
    pub(crate) fn over(journal: Arc<dyn Journal>, clock: Arc<dyn Clock>, writes: Writes) -> Self {
        let heads = Arc::new(Heads::new(Arc::clone(&journal)));
        Self { inner: Arc::new(Inner { writes, journal, clock, heads }) }
    }

    /// Forgets what others have written: from here on everything is known that was durable when
    /// this was called.
    ///
    /// # Errors
    /// Where the journal can't be read.
    pub(crate) async fn catch_up(&self) -> Result<(), Rejection> {
        self.inner.heads.catch_up().await
    }

    /// What is known of resources in memory.
    pub(crate) fn heads(&self) -> Arc<Heads> {
        Arc::clone(&self.inner.heads)
    }

    /// Looks resources up for runs, and knows of every write at once.
    pub fn resolver(&self) -> Resolver {
        Resolver::new(Arc::clone(&self.inner.heads))
    }

    /// Executes `create`, `revise` or `archive`. The receipt's `version` is the aggregate's; for
    /// a workflow definition it is the version that has the content. A refusal wrote nothing; a
    /// caller that goes away doesn't undo what it asked for.
    ///
    /// # Errors
    /// A typed refusal: `not_found`, `already_exists`, `name_archived`, `archived`,
    /// `version_mismatch`, `immutable`, `invalid_spec`, `invalid_definition`,
    /// `idempotency_key_reused`, and the journal's own.
    pub async fn execute(&self, envelope: &CommandEnvelope) -> Result<Receipt, Rejection> {
        let (inner, envelope) = (Arc::clone(&self.inner), envelope.clone());
        // A task of its own: what is known in memory must learn of a commit even where the
        // caller's future is dropped halfway.
        let task = tokio::spawn(async move { inner.execute(&envelope).await });
        task.await.unwrap_or_else(|error| {
            tracing::error!(%error, "a command on a resource did not end");
            Err(Rejection::new(
                RejectionKind::Internal,
                "command_aborted",
                "the command did not end; read the resource before repeating it",
            ))
        })
    }

    /// Makes the workspace `default` and its project `default` where they aren't there yet.
    ///
    /// # Errors
    /// What [`Resources::execute`] answers, except that they are there already.
    pub async fn ensure_defaults(&self) -> Result<Defaults, Rejection> {
        let name = DEFAULT.parse().map_err(|error| {
            Rejection::new(RejectionKind::Internal, "invalid_name", format!("{error}"))
        })?;
        let workspace_id = WorkspaceId::derived("", DEFAULT);
        let project_id = ProjectId::derived(&workspace_id.to_string(), DEFAULT);
        let workspace = WorkspaceSpec { name, description: None, allowed_providers: Vec::new() };
        let project = ProjectSpec {
            retention: None,
            name: workspace.name.clone(),
            description: None,
            default_model: None,
            limits: ProjectLimits::default(),
        };
        for spec in [Spec::Workspace(workspace), Spec::Project(project)] {
            let id = id_of(&spec, workspace_id);
            if self.inner.heads.head(spec.kind(), &id).await?.is_some() {
                continue;
            }
            let envelope = CommandEnvelope::new(
                CommandId::new(self.inner.clock.uuid_v7()),
                workspace_id,
                "system",
                Command::Create(Box::new(spec)),
            );
            match self.execute(&envelope).await {
                Err(rejection) if rejection.code != "already_exists" => return Err(rejection),
                Ok(_) | Err(_) => {}
            }
        }
        Ok(Defaults { workspace_id, project_id })
    }

    /// Checks that a project is this workspace's and that both are in use.
    ///
    /// # Errors
    /// `not_found`, also for another workspace's project, and `archived`.
    pub async fn authorise_project(
        &self,
        workspace: WorkspaceId,
        project: ProjectId,
    ) -> Result<(), Rejection> {
        scope::project(&self.inner.heads, workspace, project).await
    }
}

impl Inner {
    async fn execute(&self, envelope: &CommandEnvelope) -> Result<Receipt, Rejection> {
        let remembered = Remembered::of(envelope);
        if let Some(answer) = self.recall(&remembered).await? {
            return answer;
        }
        for _ in 0..ATTEMPTS {
            self.heads.catch_up().await?;
            let outcome = match self.attempt(envelope, &remembered).await {
                Ok(done) if done.written => return Ok(done.receipt),
                Err(Refused::Fault(Fault::Duplicate(recalled), ..)) => {
                    return remembered.answer(&recalled);
                }
                Ok(done) => Some(Ok(done.receipt)),
                Err(Refused::Fault(Fault::Conflict, ..)) => None,
                Err(Refused::Fault(fault, kind, id)) => Some(Err(refusal::of(fault, kind, &id))),
                Err(Refused::Scope(refusal)) => Some(Err(refusal)),
            };
            // What was in the way may be the same command, sent twice and done meanwhile.
            if let Some(answer) = self.recall(&remembered).await? {
                return answer;
            }
            if let Some(outcome) = outcome {
                return outcome;
            }
        }
        Err(Rejection::new(
            RejectionKind::Overloaded,
            "contended",
            "many writers change this resource at once; try again",
        ))
    }

    /// The answer that the command got before, if it was done.
    async fn recall(
        &self,
        remembered: &Remembered,
    ) -> Result<Option<Result<Receipt, Rejection>>, Rejection> {
        let recalled = self
            .journal
            .recall(&remembered.key)
            .await
            .map_err(|error| refusal::of(Fault::Read(error), Kind::Workspace, "the inbox"))?;
        Ok(recalled.map(|recalled| remembered.answer(&recalled)))
    }

    async fn attempt(
        &self,
        envelope: &CommandEnvelope,
        remembered: &Remembered,
    ) -> Result<Answer, Refused> {
        let at = self.clock.now();
        let asked = scope::check(&self.heads, envelope, at).await.map_err(Refused::Scope)?;
        let Asked { kind, id, change, workspace_id } = asked;
        let repository = Repository::new(
            self.writes.clone(),
            Arc::clone(&self.journal),
            Arc::clone(&self.clock),
            Arc::clone(&workspace_id),
            metadata::of(envelope),
            at,
            remembered.clone(),
        );
        let expected_version = envelope.expected_version;
        let command = resource::Command { change, expected_version, at };
        let writing = self.heads.writing(&id);
        let done = match store::execute(repository, kind, &id, command).await {
            Ok(done) => done,
            Err(fault) => {
                drop(writing);
                return Err(Refused::Fault(fault, kind, id));
            }
        };
        writing.wrote(Head { workspace_id, resource: done.resource });
        let Done { version, position, at, created, written, .. } = done;
        let receipt = Receipt { id, version, position, created, at, ..Receipt::default() };
        Ok(Answer { receipt, written })
    }
}

/// An answer, and whether it took an append.
struct Answer {
    receipt: Receipt,
    written: bool,
}

/// Why an attempt came to nothing.
enum Refused {
    /// By what surrounds the resource.
    Scope(Rejection),
    /// By the resource itself or by the journal.
    Fault(Fault, Kind, String),
}
