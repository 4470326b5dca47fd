//! Events of a workspace or of a run: pages of history, or a live stream.

use axum::http::{HeaderMap, StatusCode};
use axum::response::Response;
use domain::ids::RunId;
use protocol::{Cursor, EventFilter, RejectionKind};

use crate::call::{Call, answer};
use crate::headers::wants_stream;
use crate::problem::Problem;
use crate::sse;

/// `GET /events`.
pub(crate) async fn all(call: Call) -> Result<Response, Problem> {
    let owned = |name| call.asked(name).map(str::to_owned);
    let filter = EventFilter {
        workspace_id: Some(call.caller()?.workspace_id.to_string()),
        aggregate_type: owned("aggregate_type"),
        aggregate_id: owned("aggregate_id"),
        event_type: owned("type"),
    };
    if wants_stream(&call.parts.headers) {
        let after = cursor(&call)?;
        return sse::open(call, filter, after, None, None).await;
    }
    page(&call, filter).await
}

/// `GET /runs/{id}/events`.
pub(crate) async fn of_run(mut call: Call) -> Result<Response, Problem> {
    let id: RunId = call.id()?;
    let workspace = call.caller()?.workspace_id;
    let filter = EventFilter {
        workspace_id: Some(workspace.to_string()),
        aggregate_type: Some("run".to_owned()),
        aggregate_id: Some(id.to_string()),
        event_type: call.asked("type").map(str::to_owned),
    };
    // The journal knows a run before the read model does.
    let any = EventFilter { event_type: None, ..filter.clone() };
    if call.edge.gateway.events.page(any, None, 1).await?.items.is_empty() {
        return Err(Problem::not_found(format!("there is no run {id}")));
    }
    let speed = call.asked_as("speed")?;
    if !wants_stream(&call.parts.headers) {
        if speed.is_some() {
            let detail = "a page has no speed: ask for a stream, with accept: text/event-stream";
            return Err(Problem::parameter("speed", detail));
        }
        return page(&call, filter).await;
    }
    let after = cursor(&call)?;
    if let Some(after) = after
        && has_ended(&call, id, after).await?
    {
        return Ok(sse::ended(&mut call, after));
    }
    sse::open(call, filter, after, Some(id), speed).await
}

/// Whether a run's last event stands at the reader's cursor or before it, so that nothing can
/// follow.
async fn has_ended(call: &Call, id: RunId, after: Cursor) -> Result<bool, Problem> {
    let gateway = &call.edge.gateway;
    let workspace = call.caller()?.workspace_id;
    let head = gateway.events.head().await?;
    if head.epoch != after.epoch || after.position > head.position {
        return Ok(false);
    }
    match gateway.runs.get(workspace, id, Some(after.position)).await {
        Ok(view) => Ok(view.ended_at.is_some() && view.position <= after.position),
        Err(rejection) if rejection.kind == RejectionKind::Unavailable => Ok(false),
        Err(rejection) => Err(rejection.into()),
    }
}

async fn page(call: &Call, filter: EventFilter) -> Result<Response, Problem> {
    let limit = call.limit(100, 1_000)?;
    let after = call.asked_as("after")?;
    let page = call.edge.gateway.events.page(filter, after, limit).await?;
    answer(StatusCode::OK, &page)
}

/// Where a stream goes on: `Last-Event-ID`, which a reconnecting browser sends, before `?after=`.
fn cursor(call: &Call) -> Result<Option<Cursor>, Problem> {
    match last_event_id(&call.parts.headers) {
        None => call.asked_as("after"),
        Some(text) => {
            let parsed = text.parse().map(Some);
            parsed.map_err(|error| Problem::header("Last-Event-ID", error))
        }
    }
}

fn last_event_id(headers: &HeaderMap) -> Option<&str> {
    headers.get("last-event-id").map(|value| value.to_str().unwrap_or("?"))
}
