//! Queries, answered by any projector. A read may always be repeated.

use async_trait::async_trait;
use chrono::{DateTime, Utc};
use domain::ids::{RunId, WorkflowId, WorkspaceId};
use domain::resource::Kind;
use protocol::bundle::{BundleFrom, BundlePart};
use protocol::remote::{QUERIES, QueryCall};
use protocol::{
    Compare, Comparison, DiffTo, ExperimentProgress, ExperimentReport, Explain, Explanation,
    GateFilter, GateId, GateQueries, GateView, MetricAnswer, MetricList, MetricQueries,
    MetricQuery, Page, PageRequest, Rejection, ResourceFilter, ResourceQueries, ResourceView,
    RunDiff, RunFilter, RunQueries, RunState, RunView, StateAt, TimelineEntry, TriggerView,
    Verification, Waiting,
};
use serde::de::DeserializeOwned;

use super::{Effect, Remote, TOO_LARGE};

impl Remote {
    pub(super) async fn query<T: DeserializeOwned>(&self, call: QueryCall) -> Result<T, Rejection> {
        self.ask(QUERIES, &call, Effect::Reads).await
    }

    /// Asks for a page, and for a smaller one where the bus can't carry it: a page may be shorter
    /// than its limit.
    pub(super) async fn query_page<T: DeserializeOwned>(
        &self,
        mut limit: u32,
        call: impl Fn(u32) -> QueryCall + Sync,
    ) -> Result<T, Rejection> {
        loop {
            match self.query(call(limit)).await {
                Err(refused) if limit > 1 && refused.code == TOO_LARGE => limit /= 4,
                answer => return answer,
            }
            limit = limit.max(1);
        }
    }
}

#[async_trait]
impl ResourceQueries for Remote {
    async fn list(
        &self,
        workspace_id: Option<WorkspaceId>,
        filter: ResourceFilter,
        page: PageRequest,
    ) -> Result<Page<ResourceView>, Rejection> {
        self.query_page(page.limit, |limit| {
            let (filter, page) = (filter.clone(), PageRequest { limit, ..page.clone() });
            QueryCall::ListResources { workspace_id, filter, page }
        })
        .await
    }

    async fn get(
        &self,
        workspace_id: Option<WorkspaceId>,
        kind: Kind,
        id: &str,
        min_position: Option<u64>,
    ) -> Result<ResourceView, Rejection> {
        let id = id.to_owned();
        self.query(QueryCall::GetResource { workspace_id, kind, id, min_position }).await
    }

    async fn triggers(
        &self,
        workspace_id: WorkspaceId,
        workflow_id: WorkflowId,
        now: DateTime<Utc>,
        min_position: Option<u64>,
    ) -> Result<Vec<TriggerView>, Rejection> {
        self.query(QueryCall::Triggers { workspace_id, workflow_id, now, min_position }).await
    }
}

#[async_trait]
impl RunQueries for Remote {
    async fn list(
        &self,
        workspace_id: WorkspaceId,
        filter: RunFilter,
        page: PageRequest,
    ) -> Result<Page<RunView>, Rejection> {
        self.query_page(page.limit, |limit| {
            let (filter, page) = (filter.clone(), PageRequest { limit, ..page.clone() });
            QueryCall::ListRuns { workspace_id, filter, page }
        })
        .await
    }

    async fn get(
        &self,
        workspace_id: WorkspaceId,
        run_id: RunId,
        min_position: Option<u64>,
    ) -> Result<RunView, Rejection> {
        self.query(QueryCall::GetRun { workspace_id, run_id, min_position }).await
    }

    async fn state(
        &self,
        workspace_id: WorkspaceId,
        run_id: RunId,
        at: StateAt,
    ) -> Result<RunState, Rejection> {
        self.query(QueryCall::RunState { workspace_id, run_id, at }).await
    }

    async fn timeline(
        &self,
        workspace_id: WorkspaceId,
        run_id: RunId,
    ) -> Result<Vec<TimelineEntry>, Rejection> {
        self.query(QueryCall::RunTimeline { workspace_id, run_id }).await
    }

    async fn waiting(
        &self,
        workspace_id: WorkspaceId,
        run_id: RunId,
    ) -> Result<Waiting, Rejection> {
        self.query(QueryCall::RunWaiting { workspace_id, run_id }).await
    }

    async fn explain(
        &self,
        workspace_id: WorkspaceId,
        run_id: RunId,
        asked: Explain,
    ) -> Result<Explanation, Rejection> {
        self.query(QueryCall::ExplainRun { workspace_id, run_id, asked }).await
    }

    async fn diff(
        &self,
        workspace_id: WorkspaceId,
        run_id: RunId,
        to: DiffTo,
    ) -> Result<RunDiff, Rejection> {
        self.query(QueryCall::DiffRun { workspace_id, run_id, to }).await
    }

    async fn experiment(
        &self,
        workspace_id: WorkspaceId,
        name: &str,
        min_position: Option<u64>,
    ) -> Result<ExperimentReport, Rejection> {
        let name = name.to_owned();
        self.query(QueryCall::Experiment { workspace_id, name, min_position }).await
    }

    async fn experiment_progress(
        &self,
        workspace_id: WorkspaceId,
        name: &str,
    ) -> Result<ExperimentProgress, Rejection> {
        let name = name.to_owned();
        self.query(QueryCall::ExperimentProgress { workspace_id, name }).await
    }

    async fn verify(
        &self,
        workspace_id: WorkspaceId,
        run_id: RunId,
    ) -> Result<Verification, Rejection> {
        self.query(QueryCall::VerifyRun { workspace_id, run_id }).await
    }

    async fn compare(
        &self,
        workspace_id: WorkspaceId,
        asked: Compare,
    ) -> Result<Comparison, Rejection> {
        self.query(QueryCall::Compare { workspace_id, asked: Box::new(asked) }).await
    }

    async fn bundle(
        &self,
        workspace_id: WorkspaceId,
        run_id: RunId,
        from: BundleFrom,
    ) -> Result<BundlePart, Rejection> {
        self.query(QueryCall::BundleRun { workspace_id, run_id, from }).await
    }
}

#[async_trait]
impl GateQueries for Remote {
    async fn list(
        &self,
        workspace_id: WorkspaceId,
        filter: GateFilter,
        page: PageRequest,
    ) -> Result<Page<GateView>, Rejection> {
        self.query_page(page.limit, |limit| {
            let (filter, page) = (filter.clone(), PageRequest { limit, ..page.clone() });
            QueryCall::ListGates { workspace_id, filter, page }
        })
        .await
    }

    async fn get(
        &self,
        workspace_id: WorkspaceId,
        gate: GateId,
        min_position: Option<u64>,
    ) -> Result<GateView, Rejection> {
        self.query(QueryCall::GetGate { workspace_id, gate, min_position }).await
    }
}

#[async_trait]
impl MetricQueries for Remote {
    async fn query(
        &self,
        workspace_id: WorkspaceId,
        asked: MetricQuery,
    ) -> Result<MetricAnswer, Rejection> {
        // The inherent method of the same name sends a call.
        Self::query(self, QueryCall::QueryMetric { workspace_id, asked: Box::new(asked) }).await
    }

    async fn list(
        &self,
        workspace_id: WorkspaceId,
        min_position: Option<u64>,
    ) -> Result<MetricList, Rejection> {
        Self::query(self, QueryCall::ListMetrics { workspace_id, min_position }).await
    }
}
