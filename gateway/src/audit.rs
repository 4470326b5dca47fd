//! The audit log, and the signed heads of the audit chain.

use axum::http::StatusCode;
use axum::response::Response;
use protocol::{AuditFilter, AuditResult};

use crate::call::{Call, answer};
use crate::problem::Problem;

/// `GET /audit`.
pub(crate) async fn list(call: Call) -> Result<Response, Problem> {
    let page = call.page()?;
    let filter = filter(&call)?;
    let workspace = call.caller()?.workspace_id;
    answer(StatusCode::OK, &call.edge.gateway.audit.list(workspace, filter, page).await?)
}

fn filter(call: &Call) -> Result<AuditFilter, Problem> {
    let owned = |name| call.asked(name).map(str::to_owned);
    let result = match call.asked("result") {
        None => None,
        Some("done") => Some(AuditResult::Done),
        Some("failed") => Some(AuditResult::Failed),
        Some(_) => return Err(Problem::parameter("result", "use done or failed")),
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

/// `GET /audit/heads`.
pub(crate) async fn heads(call: Call) -> Result<Response, Problem> {
    let limit = call.limit(100, 1_000)?;
    let after = call.asked_as("after")?.unwrap_or(0);
    answer(StatusCode::OK, &call.edge.gateway.audit.heads(after, limit).await?)
}
