//! The audit log, exports of history, and the signed heads of the audit chain. Who reads the log or
//! exports is recorded before anything is given out.

use axum::http::StatusCode;
use axum::response::Response;
use bytes::Bytes;
use domain::access;
use futures::StreamExt as _;
use protocol::{AuditFilter, AuditResult, Command, ExportAudit};

use crate::call::{Call, answer};
use crate::download;
use crate::problem::Problem;

/// `GET /audit`.
pub(crate) async fn list(call: Call) -> Result<Response, Problem> {
    let page = call.page()?;
    let filter = filter(&call)?;
    let workspace = call.caller()?.workspace_id;
    let mut asked = serde_json::to_value(&filter).unwrap_or_default();
    if let Some(members) = asked.as_object_mut() {
        members.retain(|_, member| !member.is_null());
    }
    call.execute(Command::RecordAccess(access::Event::AuditRead { filter: asked })).await?;
    answer(StatusCode::OK, &call.edge.gateway.audit.list(workspace, filter, page).await?)
}

fn filter(call: &Call) -> Result<AuditFilter, Problem> {
    let owned = |name| call.asked(name).map(str::to_owned);
    let result = match call.asked("result") {
        None => None,
        Some("done") => Some(AuditResult::Done),
        Some("failed") => Some(AuditResult::Failed),
        Some("refused") => Some(AuditResult::Refused),
        Some(_) => return Err(Problem::parameter("result", "use done, failed or refused")),
    };
    Ok(AuditFilter {
        actor: owned("actor"),
        action: owned("action"),
        resource_type: owned("resource_type"),
        resource_id: owned("resource_id"),
        run_id: owned("run_id"),
        result,
        after: call.asked_time("after")?,
        before: call.asked_time("before")?,
    })
}

/// `GET /audit/export`: a bundle. An answer that breaks off has no end, and is no bundle.
pub(crate) async fn export(call: Call) -> Result<Response, Problem> {
    let position = |name: &str| {
        let wrong = || Problem::parameter(name, "write a position: a whole number, 1 or more");
        let parse = |text: &str| text.parse().ok().filter(|at| *at > 0).ok_or_else(wrong);
        call.asked(name).map(parse).transpose()
    };
    let (from, to) = (position("from")?, position("to")?);
    let all_workspaces = call.asked_as("all_workspaces")?.unwrap_or(false);
    let caller = call.caller()?;
    if all_workspaces && !caller.platform {
        let detail = "the events of all workspaces are for the platform's administrator: leave \
                      all_workspaces out";
        return Err(Problem::new(StatusCode::FORBIDDEN, "forbidden", detail));
    }
    let asked = ExportAudit {
        workspace_id: (!all_workspaces).then_some(caller.workspace_id),
        from,
        to,
        at: call.edge.gateway.environment.now(),
        by: caller.actor.0.clone(),
    };
    let pieces = call.edge.gateway.audit.export(asked).await?;
    let exported = access::Event::AuditExported { from, to, all_workspaces };
    call.execute(Command::RecordAccess(exported)).await?;
    let pieces = pieces.map(|piece| piece.map(Bytes::from));
    Ok(download::respond(call, "audit.ndjson", pieces))
}

/// `GET /audit/heads`.
pub(crate) async fn heads(call: Call) -> Result<Response, Problem> {
    let limit = call.limit(100, 1_000)?;
    let after = call.asked_as("after")?.unwrap_or(0);
    answer(StatusCode::OK, &call.edge.gateway.audit.heads(after, limit).await?)
}
