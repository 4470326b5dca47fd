//! Events of a workspace or of a run: pages of history, or a live stream.

use axum::http::{HeaderMap, StatusCode};
use axum::response::Response;
use domain::ids::{ProjectId, RunId, WorkflowId};
use protocol::{Cursor, EphemeralFilter, EventFilter, RejectionKind};

use crate::call::{Call, answer};
use crate::ephemeral::{Ephemerals, Listened};
use crate::feed::{Feed, Followed};
use crate::headers::wants_stream;
use crate::problem::Problem;
use crate::runs::labels;
use crate::{socket, sse};

/// `GET /events`.
pub(crate) async fn all(mut call: Call) -> Result<Response, Problem> {
    let filter = of_workspace(&call)?;
    if !wants_stream(&call.parts.headers) {
        return page(&call, filter).await;
    }
    let after = cursor(&call)?;
    let ephemerals = ephemerals(&call, None, after).await?;
    let followed = Followed { filter, after, run: None, speed: None, ephemerals };
    Ok(sse::respond(Feed::open(&mut call, followed).await?))
}

/// `GET /runs/{id}/events`.
pub(crate) async fn of_run(mut call: Call) -> Result<Response, Problem> {
    let id: RunId = call.id()?;
    let (filter, first) = of_one_run(&call, id).await?;
    let speed = call.asked_as("speed")?;
    if !wants_stream(&call.parts.headers) {
        if speed.is_some() {
            let detail = "a page has no speed: ask for a stream, with accept: text/event-stream";
            return Err(Problem::parameter("speed", detail));
        }
        return page(&call, filter).await;
    }
    let after = cursor(&call)?;
    let ephemerals = ephemerals(&call, Some((id, first)), after).await?;
    let followed = Followed { filter, after, run: Some(id), speed, ephemerals };
    Ok(sse::respond(follow_run(&mut call, id, followed).await?))
}

/// `GET /stream`.
pub(crate) async fn stream(mut call: Call) -> Result<Response, Problem> {
    let upgrade = socket::upgrade(&mut call.parts).await?;
    let (after, speed) = (call.asked_as("after")?, call.asked_as("speed")?);
    let feed = match call.asked_as("run_id")? {
        Some(id) => {
            for name in ["aggregate_type", "aggregate_id", "project_id", "workflow_id", "label"] {
                if call.asked(name).is_some() {
                    return Err(Problem::parameter(name, "leave it out: run_id says it"));
                }
            }
            let (filter, first) = of_one_run(&call, id).await?;
            let ephemerals = ephemerals(&call, Some((id, first)), after).await?;
            let followed = Followed { filter, after, run: Some(id), speed, ephemerals };
            follow_run(&mut call, id, followed).await?
        }
        None if speed.is_some() => {
            return Err(Problem::parameter("speed", "only a run is replayed: name it as run_id"));
        }
        None => {
            let filter = of_workspace(&call)?;
            let ephemerals = ephemerals(&call, None, after).await?;
            let followed = Followed { filter, after, run: None, speed, ephemerals };
            Feed::open(&mut call, followed).await?
        }
    };
    Ok(socket::respond(call, upgrade, feed))
}

/// What is told of work under way, where the reader of a stream asks for it. Of a run, whose first
/// position is given, not before what has happened until now.
async fn ephemerals(
    call: &Call,
    run: Option<(RunId, u64)>,
    after: Option<Cursor>,
) -> Result<Option<Ephemerals>, Problem> {
    if !call.asked_as("ephemeral")?.unwrap_or(false) {
        return Ok(None);
    }
    if call.asked("speed").is_some() {
        let detail = "a replay has none: what was told then is kept nowhere";
        return Err(Problem::parameter("ephemeral", detail));
    }
    for name in ["aggregate_type", "aggregate_id"] {
        if call.asked(name).is_some() {
            let detail = "ephemeral messages are those of runs: name one as run_id";
            return Err(Problem::parameter(name, detail));
        }
    }
    let workspace_id = call.caller()?.workspace_id;
    let (project_id, workflow_id) = (call.asked_as("project_id")?, call.asked_as("workflow_id")?);
    let (run_id, labels) = (run.map(|(run_id, _)| run_id), labels(call)?);
    let from = match run {
        // The read model may not know it yet.
        Some((id, first)) => match call.edge.gateway.runs.get(workspace_id, id, None).await {
            Ok(view) => view.position,
            Err(_) => first,
        },
        None => 0,
    };
    let filter = EphemeralFilter { workspace_id, project_id, workflow_id, run_id };
    Ephemerals::open(call, Listened { filter, labels, after, from }).await.map(Some)
}

fn of_workspace(call: &Call) -> Result<EventFilter, Problem> {
    let owned = |name| call.asked(name).map(str::to_owned);
    Ok(EventFilter {
        workspace_id: Some(call.caller()?.workspace_id.to_string()),
        aggregate_type: owned("aggregate_type"),
        aggregate_id: owned("aggregate_id"),
        event_type: owned("type"),
        project_id: call.asked_as::<ProjectId>("project_id")?.map(|id| id.to_string()),
        workflow_id: call.asked_as::<WorkflowId>("workflow_id")?.map(|id| id.to_string()),
        labels: labels(call)?,
    })
}

/// The events of a run that is there, of the type that is asked for; and the position of its first
/// one.
async fn of_one_run(call: &Call, id: RunId) -> Result<(EventFilter, u64), Problem> {
    let any = EventFilter {
        workspace_id: Some(call.caller()?.workspace_id.to_string()),
        aggregate_type: Some("run".to_owned()),
        aggregate_id: Some(id.to_string()),
        ..EventFilter::default()
    };
    // The journal knows a run before the read model does.
    let first = call.edge.gateway.events.page(any.clone(), None, 1).await?.items.pop();
    let missing = || Problem::not_found(format!("there is no run {id}"));
    let first = first.ok_or_else(missing)?.position;
    Ok((EventFilter { event_type: call.asked("type").map(str::to_owned), ..any }, first))
}

async fn follow_run(call: &mut Call, id: RunId, followed: Followed) -> Result<Feed, Problem> {
    if let Some(after) = followed.after
        && has_ended(call, id, after).await?
    {
        return Ok(Feed::ended(call, after));
    }
    Feed::open(call, followed).await
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
    if call.asked("ephemeral").is_some() {
        let detail = "a page has none: ask for a stream, with accept: text/event-stream";
        return Err(Problem::parameter("ephemeral", detail));
    }
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
