//! A run at a moment, what each of its tokens did, why it is where it is, and what moments and runs
//! differ in.

use axum::http::StatusCode;
use axum::response::Response;
use domain::ids::RunId;
use protocol::{DiffTo, Explain, StateAt};
use serde_json::json;

use crate::call::{Call, answer};
use crate::problem::Problem;

/// `GET /runs/{id}/state`.
pub(crate) async fn state(call: Call) -> Result<Response, Problem> {
    let at = moment(&call, "at")?;
    let workspace = call.caller()?.workspace_id;
    let state = call.edge.gateway.runs.state(workspace, call.id()?, at).await?;
    answer(StatusCode::OK, &state)
}

/// `GET /runs/{id}/timeline`.
pub(crate) async fn timeline(call: Call) -> Result<Response, Problem> {
    let workspace = call.caller()?.workspace_id;
    let items = call.edge.gateway.runs.timeline(workspace, call.id()?).await?;
    answer(StatusCode::OK, &json!({ "items": items }))
}

/// `GET /runs/{id}/explain`.
pub(crate) async fn explain(call: Call) -> Result<Response, Problem> {
    let asked = Explain {
        token: call.asked_as("token")?,
        node: call.asked("node").map(str::to_owned),
        at: moment(&call, "at")?,
    };
    if asked.token.is_some() && asked.node.is_some() {
        return Err(Problem::parameter("node", "ask for a token or for a node, not for both"));
    }
    let workspace = call.caller()?.workspace_id;
    let explanation = call.edge.gateway.runs.explain(workspace, call.id()?, asked).await?;
    answer(StatusCode::OK, &explanation)
}

/// `GET /runs/{id}/diff`.
pub(crate) async fn diff(call: Call) -> Result<Response, Problem> {
    let to = match call.asked_as::<RunId>("other")? {
        Some(_) if call.asked("from").or(call.asked("to")).is_some() => {
            return Err(Problem::parameter("other", "ask for another run or for two moments"));
        }
        Some(other) => DiffTo::Run(other),
        None if call.asked("from").is_none() => {
            let detail = "say from which moment on, or which other run to compare with (other)";
            return Err(Problem::parameter("from", detail));
        }
        None => DiffTo::Moments { from: moment(&call, "from")?, to: moment(&call, "to")? },
    };
    let workspace = call.caller()?.workspace_id;
    let diff = call.edge.gateway.runs.diff(workspace, call.id()?, to).await?;
    answer(StatusCode::OK, &diff)
}

/// A moment of a run: a sequence or a time; the last one where none is given.
fn moment(call: &Call, name: &'static str) -> Result<StateAt, Problem> {
    Ok(call.asked_as(name)?.unwrap_or(StateAt::Latest))
}
