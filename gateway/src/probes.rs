//! Alive, ready and metrics of a process without an edge, on a listener of their own.

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::{Request, State};
use axum::http::{Method, StatusCode};
use axum::response::Response;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use crate::config::RenderMetrics;
use crate::connections::Connections;
use crate::edge::dress;
use crate::environment::SystemEnvironment;
use crate::health::Health;
use crate::operations;
use crate::problem::Problem;
use crate::server::ServeError;
use crate::trace::Trace;

/// How long a connection may take for a request's head, and lie idle before it.
const HEADER_TIMEOUT: Duration = Duration::from_secs(60);
const MAX_CONNECTIONS: usize = 256;

/// What a process says about itself.
#[derive(Clone)]
pub struct Operations {
    pub health: Arc<dyn Health>,
    pub metrics: RenderMetrics,
}

/// Serves `/livez`, `/readyz` and `/metrics` to whoever reaches the port, until `shutdown`.
/// Nobody signs in here: the port is for the inside.
pub async fn serve_operations(
    listener: TcpListener,
    operations: Operations,
    shutdown: CancellationToken,
) -> Result<(), ServeError> {
    let router = Router::new().fallback(handle).with_state((operations, shutdown.clone()));
    Connections::new(HEADER_TIMEOUT, MAX_CONNECTIONS, shutdown).serve(listener, router).await;
    Ok(())
}

async fn handle(
    State((operations, leaving)): State<(Operations, CancellationToken)>,
    request: Request,
) -> Response {
    let trace = Trace::of(request.headers(), &SystemEnvironment);
    let answered = answer(&operations, &leaving, request.method(), request.uri().path()).await;
    let mut response = answered.unwrap_or_else(|problem| problem.into_response(&trace.trace_id));
    dress(response.headers_mut(), &trace);
    response
}

async fn answer(
    operations: &Operations,
    leaving: &CancellationToken,
    method: &Method,
    path: &str,
) -> Result<Response, Problem> {
    if !matches!(path, "/livez" | "/readyz" | "/metrics") {
        let detail = "this process answers /livez, /readyz and /metrics; the api is elsewhere";
        return Err(Problem::not_found(detail));
    }
    if !matches!(*method, Method::GET | Method::HEAD) {
        let detail = format!("{path} takes GET only");
        return Err(Problem::new(StatusCode::METHOD_NOT_ALLOWED, "method_not_allowed", detail));
    }
    match path {
        "/livez" => operations::alive(),
        "/readyz" => operations::ready(&*operations.health, leaving).await,
        _ => Ok(operations::rendered(&operations.metrics)),
    }
}
