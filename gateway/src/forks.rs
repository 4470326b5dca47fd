//! Forks of runs.

use std::collections::BTreeMap;

use axum::http::StatusCode;
use axum::response::Response;
use domain::ids::RunId;
use domain::limits::INPUT_BYTES;
use domain::run::event::{Adopt, FailureKind, RunError};
use protocol::{Command, ForkOutcome, ForkRun, StateAt};
use serde::Deserialize;
use serde_json::Value;
use serde_json::value::RawValue;

use crate::call::Call;
use crate::problem::Problem;
use crate::runs::{begun, check_labels, definition_of, value_at};

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Fork {
    at: Value,
    #[serde(default)]
    adopt: Adopt,
    #[serde(default)]
    input: Option<Box<RawValue>>,
    #[serde(default)]
    state: Option<Box<RawValue>>,
    #[serde(default)]
    branches: BTreeMap<u64, Box<RawValue>>,
    #[serde(default)]
    outcomes: BTreeMap<u64, Outcome>,
    #[serde(default)]
    definition: Option<Box<RawValue>>,
    #[serde(default)]
    labels: Option<BTreeMap<String, String>>,
    #[serde(default)]
    dry_run: bool,
}

/// One of both.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Outcome {
    #[serde(default)]
    result: Option<Box<RawValue>>,
    #[serde(default)]
    error: Option<Failure>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Failure {
    code: String,
    #[serde(default)]
    message: String,
    #[serde(default = "permanent")]
    kind: FailureKind,
}

const fn permanent() -> FailureKind {
    FailureKind::Permanent
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct Retry {
    #[serde(default)]
    dry_run: bool,
}

/// `POST /runs/{id}/retry`.
pub(crate) async fn retry(call: Call) -> Result<Response, Problem> {
    let run_id: RunId = call.id()?;
    let Retry { dry_run } = call.optional()?;
    begun(call, Command::RetryRun { run_id, dry_run }).await
}

/// `POST /runs/{id}/fork`.
pub(crate) async fn fork(call: Call) -> Result<Response, Problem> {
    let run_id: RunId = call.id()?;
    let body: Fork = call.json()?;
    if let Some(labels) = &body.labels {
        check_labels(labels)?;
    }
    let input = body.input.as_deref().map(|input| bounded(input, "/input")).transpose()?;
    let state = body.state.as_deref().map(|patch| object(patch, "/state")).transpose()?;
    let definition = body.definition.as_deref().map(|definition| {
        definition_of(&call, &value_at(definition, "/definition")?, "/definition")
    });
    let branches = body
        .branches
        .iter()
        .map(|(token, patch)| Ok((*token, object(patch, &format!("/branches/{token}"))?)));
    let outcomes = body
        .outcomes
        .into_iter()
        .map(|(token, outcome)| Ok((token, given(outcome, &format!("/outcomes/{token}"))?)));
    let asked = ForkRun {
        run_id,
        at: at(&body.at)?,
        adopt: body.adopt,
        input,
        state,
        branches: branches.collect::<Result<_, Problem>>()?,
        outcomes: outcomes.collect::<Result<_, Problem>>()?,
        definition: definition.transpose()?,
        labels: body.labels,
        experiment: None,
        dry_run: body.dry_run,
    };
    begun(call, Command::ForkRun(Box::new(asked))).await
}

/// A sequence, or a time.
fn at(value: &Value) -> Result<StateAt, Problem> {
    let text = value.as_str().map(str::to_owned).or_else(|| value.as_u64().map(|n| n.to_string()));
    let wrong = || {
        let detail = "write a sequence of the run, 1 or more, as in 12, or an rfc 3339 time, as in \
                      \"2026-01-31T12:00:00Z\"";
        Problem::new(StatusCode::UNPROCESSABLE_ENTITY, "invalid_body", detail).at("/at")
    };
    text.as_deref().and_then(|text| text.parse().ok()).ok_or_else(wrong)
}

fn bounded(text: &RawValue, pointer: &str) -> Result<Value, Problem> {
    if text.get().len() > INPUT_BYTES {
        let detail = format!("it may have at most {INPUT_BYTES} bytes");
        let status = StatusCode::PAYLOAD_TOO_LARGE;
        return Err(Problem::new(status, "body_too_large", detail).at(pointer));
    }
    value_at(text, pointer)
}

/// A merge patch of `state`, which has names.
fn object(text: &RawValue, pointer: &str) -> Result<Value, Problem> {
    let value = bounded(text, pointer)?;
    if value.is_object() {
        return Ok(value);
    }
    let detail = "a patch of state is an object: names with what they become, or null";
    Err(Problem::new(StatusCode::UNPROCESSABLE_ENTITY, "invalid_body", detail).at(pointer))
}

fn given(outcome: Outcome, pointer: &str) -> Result<ForkOutcome, Problem> {
    match (outcome.result, outcome.error) {
        (Some(result), None) => {
            Ok(ForkOutcome::Result(bounded(&result, &format!("{pointer}/result"))?))
        }
        (None, Some(Failure { code, message, kind })) => {
            let error = RunError { kind, ..RunError::permanent(&code, message) };
            Ok(ForkOutcome::Error(error))
        }
        (Some(_), Some(_)) | (None, None) => {
            let detail = "an outcome is a result or an error";
            let status = StatusCode::UNPROCESSABLE_ENTITY;
            Err(Problem::new(status, "invalid_body", detail).at(pointer))
        }
    }
}
