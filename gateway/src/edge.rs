//! What surrounds every request: trace, sign-in, limits, time-out, panics, metrics, headers.
//!
//! One function instead of a stack of layers: the order is plain to see, and a run's start costs
//! no boxed service per concern.

use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::extract::Request;
use axum::http::request::Parts;
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};
use axum::response::Response;
use futures::FutureExt as _;
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;
use tracing::Instrument as _;

use crate::auth::{self, KeyCache};
use crate::body::Incoming;
use crate::call::{Call, query_of};
use crate::config::{AuthConfig, Gateway};
use crate::headers;
use crate::problem::Problem;
use crate::refusals::{Asked, Refusals};
use crate::route::{Permission, Route};
use crate::socket;
use crate::trace::Trace;

/// The service's shared state.
pub(crate) struct Edge {
    pub(crate) gateway: Gateway,
    pub(crate) keys: KeyCache,
    pub(crate) refusals: Refusals,
    /// Cancelled when a shutdown was asked for; requests are still taken for a while.
    pub(crate) leaving: CancellationToken,
    requests: Arc<Semaphore>,
    streams: Arc<Semaphore>,
}

impl Edge {
    pub(crate) fn new(gateway: Gateway, leaving: CancellationToken) -> Self {
        let requests = Arc::new(Semaphore::new(gateway.config.max_requests));
        let streams = Arc::new(Semaphore::new(gateway.config.max_streams));
        let (keys, refusals) = (KeyCache::default(), Refusals::new());
        Self { gateway, keys, refusals, leaving, requests, streams }
    }
}

/// Answers a request, whatever happens. Without a route it says why there is none.
pub(crate) async fn handle(
    edge: Arc<Edge>,
    route: Result<&'static Route, StatusCode>,
    request: Request,
) -> Response {
    let started = Instant::now();
    let trace = Trace::of(request.headers(), &*edge.gateway.environment);
    let (parts, body) = request.into_parts();
    let body = Incoming::new(body, &parts.headers);
    let method = parts.method.clone();
    let template = route.map_or("unmatched", |route| route.path);
    let span = tracing::info_span!(
        "request",
        %method,
        route = template,
        trace_id = %trace.trace_id,
        status = tracing::field::Empty,
        duration_ms = tracing::field::Empty,
    );
    let asked = route.map(|route| Asked::of(route, &parts, &trace));
    let served = Arc::clone(&edge);
    let work = async {
        match &asked {
            Ok(asked) => serve(served, parts, body, trace.clone(), asked).await,
            Err(status) => Err(unmatched(&served, *status, &parts)),
        }
    };
    let caught = AssertUnwindSafe(work).catch_unwind().instrument(span.clone()).await;
    let answered = caught.unwrap_or_else(|_| {
        span.in_scope(|| tracing::error!("request panicked"));
        Err(Problem::internal())
    });
    if let (Err(problem), Ok(asked)) = (&answered, &asked) {
        edge.refusals.note(&edge.gateway, asked, problem);
    }
    let mut response = answered.unwrap_or_else(|problem| problem.into_response(&trace.trace_id));
    let elapsed = started.elapsed();
    span.record("status", response.status().as_u16());
    span.record("duration_ms", u64::try_from(elapsed.as_millis()).unwrap_or(u64::MAX));
    measure(method.as_str(), template, response.status(), elapsed);
    dress(response.headers_mut(), &trace);
    response
}

fn unmatched(edge: &Edge, status: StatusCode, parts: &Parts) -> Problem {
    let path: String = parts.uri.path().chars().take(200).collect();
    if status == StatusCode::METHOD_NOT_ALLOWED {
        let detail = format!("{path} doesn't take {}; see /docs", parts.method);
        return Problem::new(status, "method_not_allowed", detail);
    }
    let keys = matches!(edge.gateway.config.auth, AuthConfig::Keys { .. });
    tracing::debug!(keys, "no such route");
    Problem::not_found(format!("there is nothing at {path}; see /docs"))
}

async fn serve(
    edge: Arc<Edge>,
    mut parts: Parts,
    body: Incoming,
    trace: Trace,
    asked: &Asked,
) -> Result<Response, Problem> {
    let route = asked.route;
    let public = route.permission == Permission::Public;
    if route.socket {
        socket::sign_in(&mut parts.headers);
    }
    let streaming = route.socket
        || route.download.is_some()
        || route.streams && headers::wants_stream(&parts.headers);
    let pool = if streaming { &edge.streams } else { &edge.requests };
    let place = match pool.clone().try_acquire_owned() {
        Ok(place) => Some(place),
        Err(_) if public => None,
        Err(_) => {
            let detail = "too many requests or streams at the same time; try again";
            return Err(Problem::new(StatusCode::TOO_MANY_REQUESTS, "overloaded", detail));
        }
    };
    let wait = if route.waits { headers::wait(&parts.headers)? } else { None };
    let time = edge.gateway.config.request_timeout + wait.unwrap_or(Duration::ZERO);
    let work = async {
        let caller = auth::admit(&edge, &parts.headers, asked).await?;
        let query = query_of(&parts.uri, route)?;
        let body = body.read(route, &mut parts.headers).await?;
        let edge = Arc::clone(&edge);
        let (place, held) = if streaming { (place, None) } else { (None, place) };
        let call = Call { edge, route, parts, body, query, trace, caller, place };
        let answer = (route.handler)(call).await;
        drop(held);
        answer
    };
    let late = |_| {
        let detail = "the answer took too long; a command may still take effect: \
                      repeat it with the same idempotency-key";
        Problem::new(StatusCode::SERVICE_UNAVAILABLE, "timeout", detail)
    };
    tokio::time::timeout(time, work).await.map_err(late)?
}

fn measure(method: &str, route: &'static str, status: StatusCode, elapsed: Duration) {
    let method = match method {
        "GET" | "HEAD" => "GET",
        "POST" => "POST",
        "PATCH" => "PATCH",
        "DELETE" => "DELETE",
        _ => "other",
    };
    let counted = metrics::counter!(
        "wonder_http_requests_total",
        "method" => method,
        "route" => route,
        "status" => status.as_u16().to_string(),
    );
    counted.increment(1);
    metrics::histogram!("wonder_http_request_seconds", "route" => route)
        .record(elapsed.as_secs_f64());
}

/// Headers that every answer has; those that a handler set stay.
pub(crate) fn dress(headers: &mut HeaderMap, trace: &Trace) {
    const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
    const TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");
    for (name, value) in [(REQUEST_ID, &trace.trace_id), (TRACEPARENT, &trace.traceparent)] {
        if let Ok(value) = HeaderValue::from_str(value) {
            headers.insert(name, value);
        }
    }
    for (name, value) in [
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (header::REFERRER_POLICY, "no-referrer"),
        (header::X_FRAME_OPTIONS, "DENY"),
        (header::CONTENT_SECURITY_POLICY, "default-src 'none'; frame-ancestors 'none'"),
        (header::CACHE_CONTROL, "no-store"),
    ] {
        headers.entry(name).or_insert(HeaderValue::from_static(value));
    }
}
