//! Gates: list, read, answer.

use axum::http::StatusCode;
use axum::response::Response;
use domain::resource::Scope;
use domain::run::event::Decision;
use protocol::{AnswerGate, Command, GateFilter, GateId, GateStatus};
use serde::Deserialize;
use serde_json::Value;

use crate::auth::Caller;
use crate::call::{Call, answer, done};
use crate::problem::Problem;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Answered {
    decision: Decision,
    #[serde(default)]
    value: Value,
    #[serde(default)]
    comment: Option<String>,
}

/// `GET /gates`.
pub(crate) async fn list(call: Call) -> Result<Response, Problem> {
    let owned = |name| call.asked(name).map(str::to_owned);
    let status = match call.asked("status") {
        None => None,
        Some("open") => Some(GateStatus::Open),
        Some("closed") => Some(GateStatus::Closed),
        Some(_) => return Err(Problem::parameter("status", "use open or closed")),
    };
    let filter = GateFilter {
        status,
        assignee: owned("assignee"),
        role: owned("role"),
        workflow_id: owned("workflow_id"),
        run_id: owned("run_id"),
    };
    let workspace = call.caller()?.workspace_id;
    let page = call.edge.gateway.gates.list(workspace, filter, call.page()?).await?;
    answer(StatusCode::OK, &page)
}

/// `GET /gates/{id}`.
pub(crate) async fn get(call: Call) -> Result<Response, Problem> {
    let workspace = call.caller()?.workspace_id;
    let position = call.min_position()?;
    let view = call.edge.gateway.gates.get(workspace, gate_id(&call)?, position).await?;
    answer(StatusCode::OK, &view)
}

/// `POST /gates/{id}/answers`: whoever is signed in answers.
pub(crate) async fn post_answer(call: Call) -> Result<Response, Problem> {
    let gate = gate_id(&call)?;
    let Answered { decision, value, comment } = call.json()?;
    let roles = roles(call.caller()?);
    let answered = Box::new(AnswerGate { decision, value, comment, roles });
    let receipt = call.execute(Command::AnswerGate { gate, answer: answered }).await?;
    done(&receipt)
}

/// An id that can't be one names nothing that exists.
fn gate_id(call: &Call) -> Result<GateId, Problem> {
    let id = call.segment("id").parse();
    id.map_err(|error: protocol::gate::InvalidGateId| Problem::not_found(error.to_string()))
}

/// The roles of a caller: the scopes that its key has.
fn roles(caller: &Caller) -> Vec<String> {
    [Scope::Read, Scope::Run, Scope::Write, Scope::Admin]
        .into_iter()
        .filter(|scope| caller.may(*scope))
        .map(|scope| scope.as_str().to_owned())
        .collect()
}
