//! The services, as traits. In one process the implementations are handed over directly.

use async_trait::async_trait;
use chrono::{DateTime, Utc};
use domain::ids::{RunId, WorkflowId, WorkspaceId};
use domain::resource::Kind;
use futures::stream::BoxStream;

use crate::audit::{AuditEntry, AuditFilter, AuditHeads, ExportAudit};
use crate::bundle::{BundleFrom, BundlePart};
use crate::command::{CommandEnvelope, Receipt};
use crate::comparison::{Compare, Comparison};
use crate::difference::{DiffTo, RunDiff};
use crate::event::{Cursor, EventEnvelope, EventFilter};
use crate::experiment::{ExperimentProgress, ExperimentReport};
use crate::explanation::{Explain, Explanation};
use crate::gate::{GateFilter, GateId, GateView};
use crate::log::{LogFilter, LogRecord};
use crate::metric::{MetricAnswer, MetricList, MetricQuery};
use crate::query::{EventPage, Page, PageRequest, ResourceFilter, RunFilter, StateAt};
use crate::rejection::Rejection;
use crate::task::{Abandoned, Outcome, Task};
use crate::trigger::TriggerView;
use crate::view::{
    ResourceView, RunOutcome, RunState, RunView, TimelineEntry, Verification, Waiting,
};

/// The write side.
#[async_trait]
pub trait Commands: Send + Sync {
    /// Does a command; what it did is durable when this returns. A refusal wrote nothing.
    async fn execute(&self, envelope: CommandEnvelope) -> Result<Receipt, Rejection>;

    /// Waits for a run's end, at most until the time-out; `None` where it hasn't ended by then.
    async fn wait(
        &self,
        workspace_id: WorkspaceId,
        run_id: RunId,
        timeout: std::time::Duration,
    ) -> Result<Option<RunOutcome>, Rejection>;
}

/// Reads of resources.
#[async_trait]
pub trait ResourceQueries: Send + Sync {
    async fn list(
        &self,
        workspace_id: Option<WorkspaceId>,
        filter: ResourceFilter,
        page: PageRequest,
    ) -> Result<Page<ResourceView>, Rejection>;

    /// `workspace_id` is `None` only for callers that see every workspace (sign-in, administration).
    async fn get(
        &self,
        workspace_id: Option<WorkspaceId>,
        kind: Kind,
        id: &str,
        min_position: Option<u64>,
    ) -> Result<ResourceView, Rejection>;

    /// The triggers of a workflow, in the order of their names; schedules with their next time
    /// after `now`.
    async fn triggers(
        &self,
        workspace_id: WorkspaceId,
        workflow_id: WorkflowId,
        now: DateTime<Utc>,
        min_position: Option<u64>,
    ) -> Result<Vec<TriggerView>, Rejection>;
}

/// Reads of runs.
#[async_trait]
pub trait RunQueries: Send + Sync {
    async fn list(
        &self,
        workspace_id: WorkspaceId,
        filter: RunFilter,
        page: PageRequest,
    ) -> Result<Page<RunView>, Rejection>;

    async fn get(
        &self,
        workspace_id: WorkspaceId,
        run_id: RunId,
        min_position: Option<u64>,
    ) -> Result<RunView, Rejection>;

    async fn state(
        &self,
        workspace_id: WorkspaceId,
        run_id: RunId,
        at: StateAt,
    ) -> Result<RunState, Rejection>;

    async fn timeline(
        &self,
        workspace_id: WorkspaceId,
        run_id: RunId,
    ) -> Result<Vec<TimelineEntry>, Rejection>;

    /// What each live token and each join of a run waits for.
    async fn waiting(&self, workspace_id: WorkspaceId, run_id: RunId)
    -> Result<Waiting, Rejection>;

    /// Why a run is where it is, and its tokens.
    async fn explain(
        &self,
        workspace_id: WorkspaceId,
        run_id: RunId,
        asked: Explain,
    ) -> Result<Explanation, Rejection>;

    /// What two moments of a run differ in, or two runs.
    async fn diff(
        &self,
        workspace_id: WorkspaceId,
        run_id: RunId,
        to: DiffTo,
    ) -> Result<RunDiff, Rejection>;

    /// What the forks of an experiment came to, beside their runs.
    async fn experiment(
        &self,
        workspace_id: WorkspaceId,
        name: &str,
        min_position: Option<u64>,
    ) -> Result<ExperimentReport, Rejection>;

    /// How far an experiment is: cheaper to know than what its forks came to.
    async fn experiment_progress(
        &self,
        workspace_id: WorkspaceId,
        name: &str,
    ) -> Result<ExperimentProgress, Rejection>;

    /// Decides a run's history again, and compares.
    async fn verify(
        &self,
        workspace_id: WorkspaceId,
        run_id: RunId,
    ) -> Result<Verification, Rejection>;

    /// Compares two versions of a definition, and rehearses recorded runs of the first one by the
    /// second.
    async fn compare(
        &self,
        workspace_id: WorkspaceId,
        asked: Compare,
    ) -> Result<Comparison, Rejection>;

    /// A part of a run's bundle: the run, its children, and what they refer to, as lines.
    async fn bundle(
        &self,
        workspace_id: WorkspaceId,
        run_id: RunId,
        from: BundleFrom,
    ) -> Result<BundlePart, Rejection>;
}

/// Reads of gates.
#[async_trait]
pub trait GateQueries: Send + Sync {
    async fn list(
        &self,
        workspace_id: WorkspaceId,
        filter: GateFilter,
        page: PageRequest,
    ) -> Result<Page<GateView>, Rejection>;

    async fn get(
        &self,
        workspace_id: WorkspaceId,
        gate: GateId,
        min_position: Option<u64>,
    ) -> Result<GateView, Rejection>;
}

/// Reads of metrics over runs.
#[async_trait]
pub trait MetricQueries: Send + Sync {
    /// A metric over time.
    async fn query(
        &self,
        workspace_id: WorkspaceId,
        asked: MetricQuery,
    ) -> Result<MetricAnswer, Rejection>;

    /// The metrics that exist.
    async fn list(
        &self,
        workspace_id: WorkspaceId,
        min_position: Option<u64>,
    ) -> Result<MetricList, Rejection>;
}

/// The journal as readers see it.
#[async_trait]
pub trait Events: Send + Sync {
    /// At most `limit` events (1 to 1,000) after a cursor; from the first one where it is `None`.
    async fn page(
        &self,
        filter: EventFilter,
        after: Option<Cursor>,
        limit: u32,
    ) -> Result<EventPage, Rejection>;

    /// History and then live events, without a gap or a duplicate. Ends with an error where the
    /// reader lags too far behind, or the store's epoch isn't the cursor's.
    async fn follow(
        &self,
        filter: EventFilter,
        after: Option<Cursor>,
    ) -> Result<BoxStream<'static, Result<EventEnvelope, Rejection>>, Rejection>;

    /// The cursor of the newest event.
    async fn head(&self) -> Result<Cursor, Rejection>;
}

/// Reads of the audit log and of the audit chain.
#[async_trait]
pub trait AuditQueries: Send + Sync {
    /// Who did what, newest first.
    async fn list(
        &self,
        workspace_id: WorkspaceId,
        filter: AuditFilter,
        page: PageRequest,
    ) -> Result<Page<AuditEntry>, Rejection>;

    /// Signed heads of the chain after a position, in order, at most `limit` (1 to 1,000).
    async fn heads(&self, after: u64, limit: u32) -> Result<AuditHeads, Rejection>;

    /// A part of history as a bundle (see [`domain::audit::bundle`]), in pieces of whole lines. One
    /// that ends with an error isn't whole.
    async fn export(
        &self,
        asked: ExportAudit,
    ) -> Result<BoxStream<'static, Result<String, Rejection>>, Rejection>;
}

/// Reads of the log store.
#[async_trait]
pub trait LogQueries: Send + Sync {
    /// What processes told, newest first: of one workspace, or all, where `workspace_id` is `None`.
    async fn list(
        &self,
        workspace_id: Option<WorkspaceId>,
        filter: LogFilter,
        page: PageRequest,
    ) -> Result<Page<LogRecord>, Rejection>;
}

/// Where workers get tasks and leave outcomes.
#[async_trait]
pub trait Tasks: Send + Sync {
    /// Waits for tasks and takes at most `limit` of them; empty when the source is closed.
    async fn pull(&self, limit: usize) -> Vec<Task>;

    /// Hands outcomes back. Returns when they are taken over (embedded: by the coordinator's
    /// queue; over a broker: by the broker).
    async fn report(&self, outcomes: Vec<Outcome>);

    /// Says that nothing will be pulled any more: what was got ahead of a pull goes to somebody
    /// else. Outcomes may still be reported.
    async fn stop(&self) {}

    /// Waits for word of work that nobody waits for any more. Word may get lost; then the work ends
    /// by itself, and its outcome is refused. Cancel-safe.
    async fn abandoned(&self) -> Vec<Abandoned> {
        std::future::pending().await
    }

    /// An attempt was given up, and has no outcome: nobody is to make it again.
    async fn gave_up(&self, _run_id: RunId, _token: u64, _attempt: u32) {}
}
