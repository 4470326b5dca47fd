//! Tasks to perform, and a server on loopback that records what it is asked.

use std::collections::{BTreeMap, VecDeque};
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use axum::body::{Body, Bytes};
use axum::extract::State;
use axum::http::{HeaderMap, Method, Response, Uri};
use axum::response::IntoResponse;
use domain::definition::ActionKind;
use executor::{Environment, Executor, ExecutorConfig};
use protocol::task::{Failure, OutcomeResult, Success, Task, Work, WorkAction, WorkBody, WorkStep};
use serde_json::{Map, Value, json};

/// One request as it arrived.
#[derive(Debug, Clone)]
pub(crate) struct Seen {
    pub(crate) method: Method,
    pub(crate) uri: Uri,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Bytes,
}

impl Seen {
    pub(crate) fn json(&self) -> Value {
        serde_json::from_slice(&self.body).expect("a JSON body")
    }

    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).and_then(|value| value.to_str().ok())
    }
}

#[derive(Default)]
struct Script {
    answers: VecDeque<Response<Body>>,
    seen: Vec<Seen>,
}

/// A server that gives its answers in order.
#[derive(Clone)]
pub(crate) struct Server {
    pub(crate) address: SocketAddr,
    script: Arc<Mutex<Script>>,
}

impl Server {
    pub(crate) async fn start() -> Self {
        let script = Arc::new(Mutex::new(Script::default()));
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("an address");
        let app = axum::Router::new().fallback(answer).with_state(Arc::clone(&script));
        tokio::spawn(async move { axum::serve(listener, app).await });
        Self { address, script }
    }

    pub(crate) fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }

    pub(crate) fn then(&self, answer: impl IntoResponse) -> &Self {
        self.script.lock().expect("script").answers.push_back(answer.into_response());
        self
    }

    pub(crate) fn then_json(&self, status: u16, body: Value) -> &Self {
        let status = axum::http::StatusCode::from_u16(status).expect("a status");
        self.then((status, axum::Json(body)))
    }

    pub(crate) fn seen(&self) -> Vec<Seen> {
        self.script.lock().expect("script").seen.clone()
    }
}

async fn answer(
    State(script): State<Arc<Mutex<Script>>>,
    method: Method,
    uri: Uri,
    headers: HeaderMap,
    body: Bytes,
) -> Response<Body> {
    let mut script = script.lock().expect("script");
    script.seen.push(Seen { method, uri, headers, body });
    script.answers.pop_front().unwrap_or_else(|| {
        (axum::http::StatusCode::IM_A_TEAPOT, "the script has ended").into_response()
    })
}

/// A configuration that lets loopback addresses through and knows one key.
pub(crate) fn config() -> ExecutorConfig {
    let keys = BTreeMap::from([("TEST_API_KEY".to_owned(), "sk-test-1".to_owned())]);
    ExecutorConfig {
        allow_private_hosts: vec!["127.0.0.1".parse().expect("a host")],
        environment: Environment::Fixed(Arc::new(keys)),
        ..ExecutorConfig::default()
    }
}

pub(crate) fn executor() -> Executor {
    Executor::new(config()).expect("an executor")
}

pub(crate) fn action(kind: ActionKind, with: Value) -> WorkAction {
    let with: Map<String, Value> = serde_json::from_value(with).expect("an object");
    WorkAction { kind, with, output_schema: None }
}

pub(crate) fn work(body: WorkBody) -> Work {
    Work {
        key: uuid::Uuid::now_v7().to_string(),
        repeatable: true,
        body,
        models: BTreeMap::new(),
        prompts: BTreeMap::new(),
        default_model: None,
    }
}

pub(crate) fn task_of(work: Work, input: Value) -> Task {
    Task {
        workspace_id: domain::ids::WorkspaceId::new(uuid::Uuid::from_u128(1)),
        project_id: Some(domain::ids::ProjectId::new(uuid::Uuid::from_u128(4))),
        workflow_id: Some(domain::ids::WorkflowId::new(uuid::Uuid::from_u128(5))),
        run_id: domain::ids::RunId::new(uuid::Uuid::from_u128(2)),
        token: 7,
        attempt: 1,
        node: "node".into(),
        work: Arc::new(work),
        input,
        run: json!({"id": "run_x", "attempt": 1, "started_at": "2024-01-01T00:00:00Z"}),
        timeout: None,
    }
}

pub(crate) fn task(kind: ActionKind, with: Value, input: Value) -> Task {
    task_of(work(WorkBody::Action(action(kind, with))), input)
}

/// Steps as `{step…, action: {kind, with}}`.
pub(crate) fn steps(steps: Value, input: Value) -> Task {
    let steps: Vec<domain::definition::Step> = serde_json::from_value(steps).expect("steps");
    let resolved = steps.into_iter().map(|step| {
        let kind = step.action.kind.expect("an inline action");
        let action = WorkAction { kind, with: step.action.with.clone(), output_schema: None };
        WorkStep { step, action }
    });
    task_of(work(WorkBody::Steps(resolved.collect())), input)
}

pub(crate) async fn success(executor: &Executor, task: &Task) -> Success {
    match executor.perform(task).await.result {
        OutcomeResult::Success(success) => success,
        OutcomeResult::Failure(failure) => panic!("it failed: {failure:?}"),
    }
}

pub(crate) async fn failure(executor: &Executor, task: &Task) -> Failure {
    match executor.perform(task).await.result {
        OutcomeResult::Failure(failure) => failure,
        OutcomeResult::Success(success) => panic!("it succeeded: {success:?}"),
    }
}
