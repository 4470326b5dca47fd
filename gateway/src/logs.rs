//! The log store: what the processes of the platform warned of.

use axum::http::StatusCode;
use axum::response::Response;
use protocol::LogFilter;

use crate::call::{Call, answer};
use crate::problem::Problem;

/// `GET /logs`. Records of all workspaces, and those of none, are the platform's administrator's.
pub(crate) async fn list(call: Call) -> Result<Response, Problem> {
    let page = call.page()?;
    let owned = |name| call.asked(name).map(str::to_owned);
    let filter = LogFilter {
        level: call.asked_as("level")?,
        role: owned("role"),
        run_id: owned("run_id"),
        tree: call.asked_as("tree")?.unwrap_or(false),
        trace_id: owned("trace_id"),
        from: call.asked_time("from")?,
        to: call.asked_time("to")?,
        q: owned("q"),
    };
    if filter.tree && filter.run_id.is_none() {
        return Err(Problem::parameter("tree", "name a run of the tree as run_id"));
    }
    let caller = call.caller()?;
    let workspace = (!caller.platform).then_some(caller.workspace_id);
    answer(StatusCode::OK, &call.edge.gateway.logs.list(workspace, filter, page).await?)
}
