//! Operations: alive, ready, metrics, and what describes the API.

use axum::body::Body;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::Response;
use serde_json::json;
use tokio_util::sync::CancellationToken;

use crate::call::{Call, answer};
use crate::config::RenderMetrics;
use crate::error_pages;
use crate::health::{Health, Readiness};
use crate::openapi;
use crate::problem::Problem;
use crate::reference;

const PAGE_POLICY: &str = "default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; \
                           form-action 'none'; frame-ancestors 'none'";

fn text(media: &'static str, body: impl Into<Body>) -> Response {
    let mut response = Response::new(body.into());
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static(media));
    response
}

fn page(html: String) -> Response {
    let mut response = text("text/html; charset=utf-8", html);
    let policy = HeaderValue::from_static(PAGE_POLICY);
    response.headers_mut().insert(header::CONTENT_SECURITY_POLICY, policy);
    response
}

/// `GET /livez`: the process answers.
pub(crate) async fn livez(_: Call) -> Result<Response, Problem> {
    alive()
}

pub(crate) fn alive() -> Result<Response, Problem> {
    answer(StatusCode::OK, &json!({"alive": true}))
}

/// `GET /readyz`: each dependency; not ready as soon as a shutdown was asked for.
pub(crate) async fn readyz(call: Call) -> Result<Response, Problem> {
    ready(&*call.edge.gateway.health, &call.edge.leaving).await
}

pub(crate) async fn ready(
    health: &dyn Health,
    leaving: &CancellationToken,
) -> Result<Response, Problem> {
    let readiness = match leaving.is_cancelled() {
        true => Readiness::leaving(),
        false => health.readiness().await,
    };
    let ready = readiness.ready;
    answer(if ready { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE }, &readiness)
}

/// `GET /metrics`: Prometheus text.
pub(crate) async fn metrics(call: Call) -> Result<Response, Problem> {
    Ok(rendered(&call.edge.gateway.metrics))
}

pub(crate) fn rendered(metrics: &RenderMetrics) -> Response {
    text("text/plain; version=0.0.4; charset=utf-8", metrics())
}

/// `GET /openapi.json`.
pub(crate) async fn openapi(_: Call) -> Result<Response, Problem> {
    answer(StatusCode::OK, openapi::document())
}

/// `GET /docs`: the reference, made of the same document.
pub(crate) async fn docs(_: Call) -> Result<Response, Problem> {
    Ok(page(reference::page(openapi::document())))
}

/// `GET /docs/errors/{code}`.
pub(crate) async fn error_page(call: Call) -> Result<Response, Problem> {
    let code = call.segment("code");
    let found = error_pages::find(code).map(|source| page(error_pages::html(code, source)));
    found.ok_or_else(|| Problem::not_found("there is no error with this code; see /docs"))
}
