//! Signals: to one run, and to every open run with some labels.

use std::collections::BTreeMap;

use axum::http::StatusCode;
use axum::response::Response;
use domain::ids::{Name, RunId};
use domain::limits::SIGNAL_RUNS;
use futures::StreamExt;
use futures::stream;
use protocol::{Command, CommandEnvelope, PageRequest, Rejection, RunFilter, RunStatus};
use serde::Deserialize;
use serde_json::{Value, json};

use crate::call::{Call, answer, done};
use crate::problem::Problem;

/// Runs that are told at the same time.
const AT_ONCE: usize = 64;
/// Runs of a page.
const PAGE_RUNS: u32 = 200;

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct Signal {
    #[serde(default)]
    payload: Value,
    #[serde(default)]
    transient: bool,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct SignalByLabels {
    labels: BTreeMap<String, String>,
    name: Name,
    #[serde(default)]
    payload: Value,
    #[serde(default)]
    transient: bool,
}

/// `POST /runs/{id}/signals/{name}`.
pub(crate) async fn to_run(call: Call) -> Result<Response, Problem> {
    let run_id: RunId = call.id()?;
    let name: Name = call.segment("name").parse().map_err(|error: domain::ids::InvalidName| {
        Problem::new(StatusCode::UNPROCESSABLE_ENTITY, "invalid_name", error.to_string())
    })?;
    let Signal { payload, transient } = call.optional()?;
    let receipt = call.execute(Command::SignalRun { run_id, name, payload, transient }).await?;
    done(&receipt)
}

/// `POST /signals`: to each run with these labels that hasn't ended. Each run takes or refuses it
/// alone; one that ended meanwhile is neither told nor listed.
pub(crate) async fn by_labels(call: Call) -> Result<Response, Problem> {
    let SignalByLabels { labels, name, payload, transient } = call.json()?;
    if labels.is_empty() {
        let detail = "give at least one label: a signal to every run is never meant";
        let status = StatusCode::UNPROCESSABLE_ENTITY;
        return Err(Problem::new(status, "invalid_body", detail).at("/labels"));
    }
    let runs = open_runs(&call, labels).await?;
    let envelopes = runs.into_iter().map(|run_id| {
        let (name, payload) = (name.clone(), payload.clone());
        let command = Command::SignalRun { run_id, name, payload, transient };
        Ok((run_id, of_its_own(call.envelope(command)?, run_id)))
    });
    let envelopes = envelopes.collect::<Result<Vec<_>, Problem>>()?;
    let commands = &call.edge.gateway.commands;
    let told = stream::iter(envelopes)
        .map(|(run_id, envelope)| async move { (run_id, commands.execute(envelope).await) });
    let told: Vec<(RunId, Result<_, Rejection>)> = told.buffered(AT_ONCE).collect().await;
    let (mut run_ids, mut refused, mut position) = (Vec::new(), Vec::new(), 0);
    for (run_id, done) in told {
        match done {
            Ok(receipt) => {
                position = position.max(receipt.position);
                run_ids.push(run_id);
            }
            Err(ended) if ended.code == "run_ended" => {}
            Err(Rejection { code, message, .. }) => {
                refused.push(json!({"run_id": run_id, "code": code, "detail": message}));
            }
        }
    }
    let body = json!({"run_ids": run_ids, "refused": refused, "position": position});
    answer(StatusCode::OK, &body)
}

async fn open_runs(call: &Call, labels: BTreeMap<String, String>) -> Result<Vec<RunId>, Problem> {
    let workspace = call.caller()?.workspace_id;
    use RunStatus::{Paused, Queued, Running, Waiting};
    let filter = RunFilter {
        status: vec![Queued, Running, Waiting, Paused],
        labels: labels.into_iter().collect(),
        ..RunFilter::default()
    };
    let (mut runs, mut cursor, min_position) = (Vec::new(), None, call.min_position()?);
    loop {
        let page = PageRequest { limit: PAGE_RUNS, cursor, min_position };
        let page = call.edge.gateway.runs.list(workspace, filter.clone(), page).await?;
        runs.extend(page.items.iter().filter_map(|run| run.id.parse::<RunId>().ok()));
        if runs.len() > SIGNAL_RUNS {
            let detail = format!(
                "more than {SIGNAL_RUNS} open runs have these labels: give more labels, or signal \
                 them one by one"
            );
            let status = StatusCode::UNPROCESSABLE_ENTITY;
            return Err(Problem::new(status, "too_many_runs", detail).at("/labels"));
        }
        cursor = page.next_cursor;
        if cursor.is_none() {
            return Ok(runs);
        }
    }
}

/// A command of several that one request makes: each is remembered by a key of its own.
fn of_its_own(envelope: CommandEnvelope, run_id: RunId) -> CommandEnvelope {
    let key = envelope.idempotency_key.as_ref().map(|key| format!("{key}/{run_id}"));
    CommandEnvelope { idempotency_key: key, ..envelope }
}
