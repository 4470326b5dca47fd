//! The services behind the edge, in memory, and a client that speaks to its router.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use axum::body::Body;
use axum::http::{HeaderMap, Request, StatusCode};
use axum::{Router, body::to_bytes};
use chrono::{DateTime, TimeDelta, Utc};
use domain::ids::{ExperimentId, ProjectId, RunId, WorkflowId, WorkspaceId};
use domain::resource::Kind;
use gateway::{AuthConfig, Dependency, Environment, Gateway, GatewayConfig, Health, Readiness};
use protocol::bundle::{BundleFrom, BundlePart};
use protocol::*;
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;
use tower::ServiceExt as _;
use uuid::Uuid;

mod audit;
mod bundles;
mod events;
mod experiments;
mod logs;
mod metrics;
mod time_travel;

pub(crate) fn home() -> WorkspaceId {
    WorkspaceId::derived("", "default")
}

pub(crate) fn run_id() -> RunId {
    RunId::derived("", "a run")
}

pub(crate) fn start_time() -> DateTime<Utc> {
    DateTime::from_timestamp(1_790_000_000, 0).expect("a time")
}

/// What the fakes know and saw.
#[derive(Default)]
pub(crate) struct World {
    pub(crate) commands: Mutex<Vec<CommandEnvelope>>,
    pub(crate) refuse: Mutex<Option<Rejection>>,
    pub(crate) resources: Mutex<HashMap<String, ResourceView>>,
    pub(crate) events: Mutex<Vec<EventEnvelope>>,
    /// Told to whoever listens first, all at once.
    pub(crate) ephemerals: Mutex<Vec<Ephemeral>>,
    pub(crate) listened: Mutex<Vec<EphemeralFilter>>,
    pub(crate) lag: Mutex<bool>,
    /// What somebody has typed into a run, and how many bytes of its bundle come before.
    pub(crate) typed_in: Mutex<(String, usize)>,
    pub(crate) pages: Mutex<Vec<PageRequest>>,
    pub(crate) filters: Mutex<Vec<RunFilter>>,
    /// Runs of a page, beside the one.
    pub(crate) more_runs: Mutex<usize>,
    pub(crate) gate_filters: Mutex<Vec<GateFilter>>,
    pub(crate) metric_queries: Mutex<Vec<MetricQuery>>,
    pub(crate) audit_filters: Mutex<Vec<AuditFilter>>,
    pub(crate) log_filters: Mutex<Vec<(Option<WorkspaceId>, LogFilter)>>,
    pub(crate) exports: Mutex<Vec<ExportAudit>>,
    pub(crate) outcome: Mutex<Option<RunOutcome>>,
    /// How many reads at a position find the read model behind it.
    pub(crate) behind: Mutex<u32>,
    /// How a run that ends in its first append ended.
    pub(crate) ended: Mutex<Option<RunOutcome>>,
    pub(crate) panics: Mutex<bool>,
    pub(crate) seconds: Mutex<i64>,
    pub(crate) reads: Mutex<u32>,
}

fn missing() -> Rejection {
    Rejection::new(RejectionKind::NotFound, "not_found", "no such thing")
}

#[async_trait]
impl Commands for World {
    async fn execute(&self, envelope: CommandEnvelope) -> Result<Receipt, Rejection> {
        assert!(!*self.panics.lock().expect("lock"), "a defect");
        if let Some(refusal) = self.refuse.lock().expect("lock").clone() {
            return Err(refusal);
        }
        let id = match &envelope.command {
            Command::Create(spec) => domain::resource::id_of(spec, envelope.workspace_id),
            Command::Revise { id, .. } | Command::Archive { id, .. } => id.clone(),
            Command::StartRun(_) => run_id().to_string(),
            other => other.run_id().map(|run_id| run_id.to_string()).unwrap_or_default(),
        };
        let dropped = match &envelope.command {
            Command::ArchiveRun(asked) => Some(Box::new(RunDropped {
                run_id: id.clone(),
                keep: asked.keep,
                events: 9,
                dropped: 7,
                bytes: 812,
                dry_run: asked.dry_run,
                position: 0,
            })),
            _ => None,
        };
        let experiment = experiments::begun(
            ExperimentId::of(envelope.workspace_id, "cheaper"),
            &envelope.command,
        );
        let created = matches!(envelope.command, Command::Create(_) | Command::StartRun(_));
        self.commands.lock().expect("lock").push(envelope);
        let outcome = self.ended.lock().expect("lock").clone();
        let (at, queued) = (start_time(), false);
        Ok(Receipt {
            id,
            version: 1,
            position: 17,
            created,
            at,
            queued,
            outcome,
            dropped,
            experiment,
            ..Receipt::default()
        })
    }

    async fn wait(
        &self,
        _: WorkspaceId,
        _: RunId,
        _: Duration,
    ) -> Result<Option<RunOutcome>, Rejection> {
        Ok(self.outcome.lock().expect("lock").clone())
    }
}

#[async_trait]
impl ResourceQueries for World {
    async fn list(
        &self,
        workspace_id: Option<WorkspaceId>,
        filter: ResourceFilter,
        page: PageRequest,
    ) -> Result<Page<ResourceView>, Rejection> {
        self.pages.lock().expect("lock").push(page);
        let resources = self.resources.lock().expect("lock");
        let fits = |view: &&ResourceView| {
            view.kind == filter.kind
                && workspace_id.is_none_or(|workspace| workspace.to_string() == view.workspace_id)
        };
        let items = resources.values().filter(fits).cloned().collect();
        Ok(Page { items, next_cursor: Some("next".to_owned()) })
    }

    async fn get(
        &self,
        workspace_id: Option<WorkspaceId>,
        kind: Kind,
        id: &str,
        _: Option<u64>,
    ) -> Result<ResourceView, Rejection> {
        *self.reads.lock().expect("lock") += 1;
        let found = self.resources.lock().expect("lock").get(id).cloned();
        found
            .filter(|view| view.kind == kind)
            .filter(|view| workspace_id.is_none_or(|own| own.to_string() == view.workspace_id))
            .ok_or_else(missing)
    }

    async fn triggers(
        &self,
        _: WorkspaceId,
        _: WorkflowId,
        _: DateTime<Utc>,
        _: Option<u64>,
    ) -> Result<Vec<TriggerView>, Rejection> {
        Ok(Vec::new())
    }
}

pub(crate) fn run_view() -> RunView {
    RunView {
        id: run_id().to_string(),
        workspace_id: home().to_string(),
        project_id: "prj_x".to_owned(),
        workflow_id: None,
        status: RunStatus::Completed,
        waiting_on: WaitKinds::default(),
        definition: protocol::view::DefinitionRef {
            id: "wfd_x".to_owned(),
            name: "demo".to_owned(),
            version: 1,
            hash: "00".to_owned(),
        },
        input: json!({}),
        output: Some(json!({"ok": true})),
        error: None,
        labels: [("team".to_owned(), "red".to_owned())].into(),
        sequence: 3,
        position: 3,
        started_at: start_time(),
        ended_at: Some(start_time()),
        usage: Usage::default(),
        parent_run_id: None,
        root_run_id: None,
        compensation: None,
        trigger: None,
        forked_from: None,
        archived: None,
        held: None,
        rerun_of: None,
    }
}

#[async_trait]
impl RunQueries for World {
    async fn list(
        &self,
        _: WorkspaceId,
        filter: RunFilter,
        page: PageRequest,
    ) -> Result<Page<RunView>, Rejection> {
        self.filters.lock().expect("lock").push(filter);
        self.pages.lock().expect("lock").push(page);
        let more = *self.more_runs.lock().expect("lock");
        Ok(Page { items: vec![run_view(); 1 + more], next_cursor: None })
    }

    async fn get(
        &self,
        own: WorkspaceId,
        id: RunId,
        position: Option<u64>,
    ) -> Result<RunView, Rejection> {
        let mut behind = self.behind.lock().expect("lock");
        if position.is_some() && *behind > 0 {
            *behind -= 1;
            let code = "position_not_reached";
            return Err(Rejection::new(RejectionKind::Unavailable, code, "it is behind"));
        }
        Some(run_view()).filter(|_| own == home() && id == run_id()).ok_or_else(missing)
    }

    async fn state(&self, own: WorkspaceId, id: RunId, at: StateAt) -> Result<RunState, Rejection> {
        let state = json!({"at": format!("{at:?}")});
        let view = RunQueries::get(self, own, id, None).await?;
        let status = view.status;
        Ok(RunState { run_id: view.id, sequence: 3, at: start_time(), status, state })
    }

    async fn timeline(&self, own: WorkspaceId, id: RunId) -> Result<Vec<TimelineEntry>, Rejection> {
        RunQueries::get(self, own, id, None).await.map(|_| Vec::new())
    }

    async fn waiting(&self, own: WorkspaceId, id: RunId) -> Result<Waiting, Rejection> {
        let view = RunQueries::get(self, own, id, None).await?;
        Ok(Waiting {
            run_id: view.id,
            sequence: 3,
            status: view.status,
            pause: None,
            compensation: None,
            deadline: None,
            items: Vec::new(),
            left_out: 0,
        })
    }

    async fn explain(
        &self,
        own: WorkspaceId,
        id: RunId,
        asked: Explain,
    ) -> Result<Explanation, Rejection> {
        RunQueries::get(self, own, id, None)
            .await
            .map(|view| time_travel::explanation(view, &asked))
    }

    async fn diff(&self, own: WorkspaceId, id: RunId, to: DiffTo) -> Result<RunDiff, Rejection> {
        RunQueries::get(self, own, id, None).await.map(|view| time_travel::diff(view, &to))
    }

    async fn experiment(
        &self,
        _: WorkspaceId,
        name: &str,
        _: Option<u64>,
    ) -> Result<ExperimentReport, Rejection> {
        Ok(ExperimentReport { name: name.to_owned(), ..ExperimentReport::default() })
    }

    async fn experiment_progress(
        &self,
        own: WorkspaceId,
        name: &str,
    ) -> Result<ExperimentProgress, Rejection> {
        let id = ExperimentId::of(own, name);
        let commands = self.commands.lock().expect("lock");
        let asked = commands.iter().rev().filter_map(|one| experiments::begun(id, &one.command));
        asked.map(|progress| *progress).next().ok_or_else(missing)
    }

    async fn verify(&self, own: WorkspaceId, id: RunId) -> Result<Verification, Rejection> {
        let view = RunQueries::get(self, own, id, None).await?;
        Ok(Verification { run_id: view.id, verified: true, events: 3, difference: None })
    }

    async fn bundle(
        &self,
        own: WorkspaceId,
        id: RunId,
        from: BundleFrom,
    ) -> Result<BundlePart, Rejection> {
        let view = RunQueries::get(self, own, id, None).await?;
        let typed_in = self.typed_in.lock().expect("lock").clone();
        bundles::part(own, &view, from, *self.lag.lock().expect("lock"), typed_in)
    }

    async fn compare(&self, own: WorkspaceId, asked: Compare) -> Result<Comparison, Rejection> {
        assert_eq!(own, home());
        let to = match asked.to {
            ComparedTo::Version(version) => Some(version),
            ComparedTo::Definition(_) => None,
        };
        let rehearsal = RehearsalView { runs: asked.runs.into(), ..Default::default() };
        Ok(Comparison {
            definition_id: asked.definition_id.to_string(),
            from: asked.from,
            to,
            changes: Vec::new(),
            changes_left_out: 0,
            rehearsal,
        })
    }
}

#[async_trait]
impl GateQueries for World {
    async fn list(
        &self,
        _: WorkspaceId,
        filter: GateFilter,
        page: PageRequest,
    ) -> Result<Page<GateView>, Rejection> {
        self.gate_filters.lock().expect("lock").push(filter);
        self.pages.lock().expect("lock").push(page);
        Ok(Page { items: Vec::new(), next_cursor: None })
    }

    async fn get(
        &self,
        _: WorkspaceId,
        gate: GateId,
        _: Option<u64>,
    ) -> Result<GateView, Rejection> {
        let message = format!("there is no gate {gate}");
        Err(Rejection::new(RejectionKind::NotFound, "not_found", message))
    }
}

#[async_trait]
impl Health for World {
    async fn readiness(&self) -> Readiness {
        let ready = !*self.lag.lock().expect("lock");
        let name = "runs".to_owned();
        Readiness::of(vec![Dependency { name, ready, detail: None, lag: Some(2) }])
    }
}

struct Clock(Arc<World>);

impl Environment for Clock {
    fn now(&self) -> DateTime<Utc> {
        start_time() + TimeDelta::seconds(*self.0.seconds.lock().expect("lock"))
    }
    fn id(&self) -> Uuid {
        Uuid::from_u128(1)
    }
    fn random(&self) -> Uuid {
        Uuid::from_u128(0x0af7_6519_16cd_43dd_8448_eb21_1c80_319c)
    }
    fn secret(&self) -> [u8; 32] {
        [7; 32]
    }
}

fn default_project(workspace: WorkspaceId) -> ProjectId {
    ProjectId::derived(&workspace.to_string(), "default")
}

/// The edge with its fakes.
pub(crate) struct Client {
    pub(crate) world: Arc<World>,
    pub(crate) shutdown: CancellationToken,
    pub(crate) router: Router,
}

/// An answer, read whole.
pub(crate) struct Answer {
    pub(crate) status: StatusCode,
    pub(crate) headers: HeaderMap,
    pub(crate) text: String,
}

impl Answer {
    pub(crate) fn json(&self) -> Value {
        serde_json::from_str(&self.text).unwrap_or_else(|_| panic!("not json: {}", self.text))
    }

    /// The code of a problem, whose shape is checked.
    #[track_caller]
    pub(crate) fn code(&self) -> String {
        let problem = self.json();
        assert_eq!(self.header("content-type"), "application/problem+json");
        assert_eq!(problem["status"], self.status.as_u16());
        let code = problem["code"].as_str().expect("a code").to_owned();
        assert_eq!(problem["type"], format!("/docs/errors/{code}"));
        assert_eq!(problem["trace_id"], self.header("x-request-id"));
        assert!(problem["title"].is_string() && problem["detail"].is_string());
        code
    }

    pub(crate) fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", |value| value.to_str().expect("ascii"))
    }
}

pub(crate) fn gateway(world: &Arc<World>, auth: AuthConfig) -> Gateway {
    Gateway {
        commands: world.clone(),
        resources: world.clone(),
        runs: world.clone(),
        gates: world.clone(),
        run_metrics: world.clone(),
        events: world.clone(),
        ephemerals: world.clone(),
        audit: world.clone(),
        logs: world.clone(),
        environment: Arc::new(Clock(world.clone())),
        config: GatewayConfig::new(auth, default_project),
        health: world.clone(),
        metrics: Arc::new(|| "up 1\n".to_owned()),
        shutdown: CancellationToken::new(),
    }
}

impl Client {
    pub(crate) fn dev() -> Self {
        Self::new(AuthConfig::Dev { workspace_id: home() })
    }

    pub(crate) fn new(auth: AuthConfig) -> Self {
        let world = Arc::new(World::default());
        let gateway = gateway(&world, auth);
        let shutdown = gateway.shutdown.clone();
        Self { world, shutdown, router: gateway::router(gateway) }
    }

    pub(crate) async fn send(&self, request: Request<Body>) -> Answer {
        let response = self.router.clone().oneshot(request).await.expect("an answer");
        let (parts, body) = response.into_parts();
        let bytes = to_bytes(body, usize::MAX).await.expect("a body");
        let text = String::from_utf8(bytes.to_vec()).expect("text");
        Answer { status: parts.status, headers: parts.headers, text }
    }

    pub(crate) async fn call(
        &self,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        body: impl Into<Body>,
    ) -> Answer {
        let mut request = Request::builder().method(method).uri(path);
        if !headers.iter().any(|(name, _)| *name == "host") {
            request = request.header("host", "localhost:8080");
        }
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        self.send(request.body(body.into()).expect("a request")).await
    }

    pub(crate) async fn get(&self, path: &str) -> Answer {
        self.call("GET", path, &[], Body::empty()).await
    }

    pub(crate) async fn post(&self, path: &str, body: impl Into<Body>) -> Answer {
        self.call("POST", path, &[("content-type", "application/json")], body).await
    }

    pub(crate) fn last_command(&self) -> CommandEnvelope {
        self.world.commands.lock().expect("lock").last().cloned().expect("a command")
    }
}
