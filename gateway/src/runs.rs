//! Runs: start, list, read, cancel, their state at a moment and their timeline.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use axum::http::{HeaderName, HeaderValue, StatusCode};
use axum::response::Response;
use domain::definition::parse::parse_value;
use domain::definition::validate;
use domain::ids::{ProjectId, RunId, WorkflowId};
use domain::limits::INPUT_BYTES;
use domain::resource::Scope;
use protocol::command::StartRun;
use protocol::{
    Command, ForkDefinition, Receipt, RerunVersion, RunFilter, RunOutcome, RunStatus, RunTarget,
    RunView, WaitKind,
};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use serde_json::value::RawValue;

use crate::call::{Call, answer, done, located, tagged};
use crate::definitions::project;
use crate::problem::Problem;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct StartWorkflow {
    #[serde(default = "empty")]
    input: Box<RawValue>,
    #[serde(default)]
    labels: BTreeMap<String, String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct StartDefinition {
    definition: Box<RawValue>,
    #[serde(default)]
    project_id: Option<ProjectId>,
    #[serde(default = "empty")]
    input: Box<RawValue>,
    #[serde(default)]
    labels: BTreeMap<String, String>,
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct Reason {
    #[serde(default)]
    reason: Option<String>,
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct Cancel {
    #[serde(default)]
    reason: Option<String>,
    #[serde(default)]
    compensate: Option<bool>,
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct Rerun {
    #[serde(default)]
    version: RerunVersion,
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Nothing {}

fn empty() -> Box<RawValue> {
    // An absent input is an empty object, which every schema of properties can judge.
    RawValue::from_string("{}".to_owned()).unwrap_or_default()
}

/// What a start answers; the outcome's fields where the client waited and the run ended in time.
#[derive(Serialize)]
struct Started<'a> {
    id: &'a str,
    status: RunStatus,
    version: u64,
    position: u64,
    at: chrono::DateTime<chrono::Utc>,
    #[serde(flatten)]
    ended: Option<Ended>,
}

#[derive(Serialize)]
struct Ended {
    output: Option<Value>,
    error: Option<protocol::RunError>,
    usage: protocol::Usage,
    ended_at: chrono::DateTime<chrono::Utc>,
}

/// `POST /workflows/{id}/runs`.
pub(crate) async fn start_workflow(call: Call) -> Result<Response, Problem> {
    let target = RunTarget::Workflow(call.id::<WorkflowId>()?);
    let body: StartWorkflow = call.json()?;
    start(call, target, &body.input, body.labels).await
}

/// `POST /runs`: a definition inline, or by name.
pub(crate) async fn start_definition(call: Call) -> Result<Response, Problem> {
    let body: StartDefinition = call.json()?;
    let project_id = project(&call, body.project_id)?;
    let definition = value_at(&body.definition, "/definition")?;
    let target = match definition_of(&call, &definition, "/definition")? {
        ForkDefinition::Named(reference) => RunTarget::Named { project_id, reference },
        ForkDefinition::Inline(definition) => RunTarget::Inline { project_id, definition },
    };
    start(call, target, &body.input, body.labels).await
}

/// A definition inline, or by name.
pub(crate) fn definition_of(
    call: &Call,
    given: &Value,
    pointer: &str,
) -> Result<ForkDefinition, Problem> {
    if let Value::String(reference) = given {
        return Ok(ForkDefinition::Named(reference.clone()));
    }
    call.caller()?.require(Scope::Write, "an inline definition is published first")?;
    let definition = parse_value(given).map_err(|found| Problem::definition(found, pointer))?;
    let found = validate::check(&definition);
    if found.is_empty() {
        Ok(ForkDefinition::Inline(Box::new(definition)))
    } else {
        Err(Problem::definition(found, pointer))
    }
}

/// `POST /runs/{id}/rerun`.
pub(crate) async fn rerun(call: Call) -> Result<Response, Problem> {
    let run_id: RunId = call.id()?;
    let Rerun { version } = call.optional()?;
    start_of(call, RunTarget::Rerun { run_id, version }, Value::Null, BTreeMap::new()).await
}

async fn start(
    call: Call,
    target: RunTarget,
    input: &RawValue,
    labels: BTreeMap<String, String>,
) -> Result<Response, Problem> {
    if input.get().len() > INPUT_BYTES {
        let detail = format!("the input may have at most {INPUT_BYTES} bytes");
        let status = StatusCode::PAYLOAD_TOO_LARGE;
        return Err(Problem::new(status, "body_too_large", detail).at("/input"));
    }
    check_labels(&labels)?;
    let input = value_at(input, "/input")?;
    start_of(call, target, input, labels).await
}

async fn start_of(
    call: Call,
    target: RunTarget,
    input: Value,
    labels: BTreeMap<String, String>,
) -> Result<Response, Problem> {
    let command =
        Command::StartRun(Box::new(StartRun { target, input, labels, home: None, trigger: None }));
    begun(call, command).await
}

/// Begins a run, or says what that would do.
pub(crate) async fn begun(call: Call, command: Command) -> Result<Response, Problem> {
    call.wait()?;
    let mut receipt = call.execute(command).await?;
    match receipt.plan.take() {
        Some(plan) => answer(StatusCode::OK, &plan),
        None => started(&call, receipt).await,
    }
}

/// The answer of a start, with the run's outcome where the client waits and it ends in time.
async fn started(call: &Call, mut receipt: Receipt) -> Result<Response, Problem> {
    let wait = call.wait()?;
    let mut outcome = receipt.outcome.take();
    if let (Some(wait), None) = (wait, &outcome) {
        let id = receipt.id.parse().map_err(|_| Problem::internal())?;
        outcome = wait_for(call, id, wait).await?;
    }
    let (status, version, position) = match &outcome {
        Some(outcome) => (outcome.status, outcome.sequence, outcome.position),
        None if receipt.queued => (RunStatus::Queued, receipt.version, receipt.position),
        None => (RunStatus::Running, receipt.version, receipt.position),
    };
    let ended = outcome.map(|RunOutcome { output, error, usage, ended_at, .. }| Ended {
        output,
        error,
        usage,
        ended_at,
    });
    let id = receipt.id.as_str();
    let body = Started { id, status, version, position, at: receipt.at, ended };
    let response = tagged(answer(StatusCode::CREATED, &body)?, version);
    let response = located(response, &format!("/api/v1/runs/{id}"));
    Ok(preferred(response, wait))
}

pub(crate) fn value_at(text: &RawValue, pointer: &str) -> Result<Value, Problem> {
    serde_json::from_str(text.get()).map_err(|error| {
        Problem::new(StatusCode::BAD_REQUEST, "invalid_json", error.to_string()).at(pointer)
    })
}

pub(crate) fn check_labels(labels: &BTreeMap<String, String>) -> Result<(), Problem> {
    domain::labels::check(labels).map_err(|(below, detail)| {
        let status = StatusCode::UNPROCESSABLE_ENTITY;
        Problem::new(status, "invalid_body", detail).at(format!("/labels{below}"))
    })
}

/// Waits for the run's end; a shutdown ends the wait early, as if the time were up.
async fn wait_for(call: &Call, id: RunId, time: Duration) -> Result<Option<RunOutcome>, Problem> {
    let gateway = &call.edge.gateway;
    let workspace = call.caller()?.workspace_id;
    tokio::select! {
        ended = gateway.commands.wait(workspace, id, time) => Ok(ended?),
        () = gateway.shutdown.cancelled() => Ok(None),
    }
}

fn preferred(mut response: Response, wait: Option<Duration>) -> Response {
    const APPLIED: HeaderName = HeaderName::from_static("preference-applied");
    if let Some(wait) = wait
        && let Ok(value) = HeaderValue::from_str(&format!("wait={}", wait.as_secs()))
    {
        response.headers_mut().insert(APPLIED, value);
    }
    response
}

/// `GET /runs`.
pub(crate) async fn list(call: Call) -> Result<Response, Problem> {
    let owned = |name| call.asked(name).map(str::to_owned);
    let status = call.asked_all("status").flat_map(|list| list.split(',')).map(parse_status);
    let waiting_on = call.asked_all("waiting_on").flat_map(|list| list.split(',')).map(parse_wait);
    let filter = RunFilter {
        project_id: owned("project_id"),
        workflow_id: owned("workflow_id"),
        parent: call.asked_as::<RunId>("parent")?.map(|id| id.to_string()),
        definition: owned("definition"),
        status: status.collect::<Result<_, _>>()?,
        labels: labels(&call)?,
        started_after: call.asked_time("started_after")?,
        started_before: call.asked_time("started_before")?,
        waiting_on: waiting_on.collect::<Result<_, _>>()?,
        as_of: call.asked_time("as_of")?,
        q: owned("q"),
        of_experiment: call.asked("experiment").map(parse_experiment).transpose()?.flatten(),
    };
    let workspace = call.caller()?.workspace_id;
    let page = call.edge.gateway.runs.list(workspace, filter, call.page()?).await?;
    answer(StatusCode::OK, &page)
}

/// The labels that runs are to have, all of them.
pub(crate) fn labels(call: &Call) -> Result<Vec<(String, String)>, Problem> {
    let labels = call.asked_all("label").map(|label| {
        let pair = label.split_once('=').filter(|(key, _)| !key.is_empty());
        let wrong = || Problem::parameter("label", "write key=value");
        pair.map(|(key, value)| (key.to_owned(), value.to_owned())).ok_or_else(wrong)
    });
    labels.collect()
}

fn parse_status(text: &str) -> Result<RunStatus, Problem> {
    let wrong = |_| {
        let detail =
            "use queued, running, waiting, paused, completed, failed, cancelled or timed_out";
        Problem::parameter("status", detail)
    };
    serde_json::from_value(Value::String(text.to_owned())).map_err(wrong)
}

fn parse_wait(text: &str) -> Result<WaitKind, Problem> {
    let wrong = |_| {
        let detail = "use task, timer, retry, signal, gate, child, mutex or queue";
        Problem::parameter("waiting_on", detail)
    };
    serde_json::from_value(Value::String(text.to_owned())).map_err(wrong)
}

/// Whether runs of experiments are wanted alone, or all others; or both.
fn parse_experiment(text: &str) -> Result<Option<bool>, Problem> {
    match text {
        "any" => Ok(None),
        "only" => Ok(Some(true)),
        "exclude" => Ok(Some(false)),
        _ => Err(Problem::parameter("experiment", "use any, only or exclude")),
    }
}

/// `GET /runs/{id}`.
pub(crate) async fn get(call: Call) -> Result<Response, Problem> {
    let id: RunId = call.id()?;
    let position: Option<u64> = call.min_position()?;
    let wait = call.wait()?;
    let view = match wait {
        Some(time) => seen_ended(&call, id, time, position).await?,
        None => seen(&call, id, position).await?,
    };
    Ok(preferred(tagged(answer(StatusCode::OK, &view)?, view.sequence), wait))
}

async fn seen(call: &Call, id: RunId, position: Option<u64>) -> Result<RunView, Problem> {
    let workspace = call.caller()?.workspace_id;
    Ok(call.edge.gateway.runs.get(workspace, id, position).await?)
}

/// The run once it has ended and the read model says so; as it is there where the time is up. A
/// read model that is behind has the whole of that time too.
async fn seen_ended(
    call: &Call,
    id: RunId,
    time: Duration,
    position: Option<u64>,
) -> Result<RunView, Problem> {
    let deadline = Instant::now() + time;
    let ended = wait_for(call, id, time).await?.map(|outcome| outcome.position);
    let stops = &call.edge.gateway.shutdown;
    while ended.is_some() && Instant::now() < deadline && !stops.is_cancelled() {
        match seen(call, id, position.max(ended)).await {
            Err(problem) if problem.code == "position_not_reached" => {}
            answered => return answered,
        }
    }
    seen(call, id, position).await
}

/// `POST /runs/{id}/cancel`.
pub(crate) async fn cancel(call: Call) -> Result<Response, Problem> {
    let run_id: RunId = call.id()?;
    let Cancel { reason, compensate } = call.optional()?;
    let compensate = compensate.unwrap_or(true);
    let receipt = call.execute(Command::CancelRun { run_id, reason, compensate }).await?;
    done(&receipt)
}

/// `POST /runs/{id}/pause`.
pub(crate) async fn pause(call: Call) -> Result<Response, Problem> {
    let run_id: RunId = call.id()?;
    let Reason { reason } = call.optional()?;
    let receipt = call.execute(Command::PauseRun { run_id, reason }).await?;
    done(&receipt)
}

/// `POST /runs/{id}/resume`.
pub(crate) async fn resume(call: Call) -> Result<Response, Problem> {
    let run_id: RunId = call.id()?;
    let Nothing {} = call.optional()?;
    let receipt = call.execute(Command::ResumeRun { run_id }).await?;
    done(&receipt)
}

/// `GET /runs/{id}/waiting`.
pub(crate) async fn waiting(call: Call) -> Result<Response, Problem> {
    let workspace = call.caller()?.workspace_id;
    let waiting = call.edge.gateway.runs.waiting(workspace, call.id()?).await?;
    answer(StatusCode::OK, &waiting)
}

/// `POST /runs/{id}/verify`.
pub(crate) async fn verify(call: Call) -> Result<Response, Problem> {
    let Nothing {} = call.optional()?;
    let workspace = call.caller()?.workspace_id;
    let verification = call.edge.gateway.runs.verify(workspace, call.id()?).await?;
    answer(StatusCode::OK, &verification)
}

#[cfg(test)]
mod tests {
    #[test]
    fn an_absent_input_is_an_empty_object() {
        assert_eq!(super::empty().get(), "{}");
    }
}
