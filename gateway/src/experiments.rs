//! Experiments: forks of many runs with one change. The runs are found here, and the rest goes on
//! by itself on the write side.

use std::collections::{BTreeMap, BTreeSet};

use axum::http::StatusCode;
use axum::response::Response;
use chrono::{DateTime, Utc};
use data_encoding::HEXLOWER;
use domain::definition::{Condition, Variant};
use domain::experiment::{self, LABEL, Terms, Tried};
use domain::ids::{CommandId, InvalidId, Name, RunId};
use domain::limits::{EXPERIMENT_AT_ONCE, EXPERIMENT_RUNS};
use domain::run::event::Effect;
use futures::{StreamExt, TryStreamExt, stream};
use protocol::{
    Command, CommandEnvelope, ExperimentPlan, ExperimentRefusal, ForkCall, ForkDefinition, ForkRun,
    PageRequest, PlannedFork, Receipt, Rejection, RejectionKind, RunFilter, RunStatus, RunView,
};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};
use sha2::{Digest, Sha256};

use crate::call::{Call, answer};
use crate::problem::Problem;
use crate::runs::{Nothing, definition_of};

/// Forks that go on at the same time, where the request doesn't say.
const AT_ONCE: usize = 4;
/// Runs that are read, or planned, at the same time.
const READ_AT_ONCE: usize = 8;
const PAGE_RUNS: u32 = 200;
/// Pages that are read for the runs of one experiment.
const PAGES: usize = 20;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Asked {
    name: Name,
    #[serde(default)]
    runs: Vec<RunId>,
    #[serde(default, rename = "where")]
    filter: Option<Where>,
    #[serde(default)]
    change: Change,
    #[serde(default)]
    allow: BTreeSet<Effect>,
    #[serde(default)]
    max_cost_micros: Option<u64>,
    #[serde(default)]
    at_once: Option<usize>,
    #[serde(default)]
    dry_run: bool,
    /// Read from the change.
    #[serde(skip)]
    definition: Option<ForkDefinition>,
}

/// The newest runs of which all of this holds.
#[derive(Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
struct Where {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    definition: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    project_id: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    workflow_id: Option<String>,
    #[serde(default = "ended")]
    status: Vec<RunStatus>,
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    labels: BTreeMap<String, String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    started_after: Option<DateTime<Utc>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    started_before: Option<DateTime<Utc>>,
    limit: usize,
}

fn ended() -> Vec<RunStatus> {
    vec![RunStatus::Completed, RunStatus::Failed]
}

#[derive(Default, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
struct Change {
    /// A name, or the definition itself.
    #[serde(skip_serializing_if = "Option::is_none")]
    definition: Option<Value>,
    #[serde(skip_serializing_if = "Map::is_empty")]
    with: Map<String, Value>,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    nodes: BTreeMap<String, Map<String, Value>>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    conditions: Vec<Condition>,
}

impl Asked {
    fn check(&self) -> Result<(), Problem> {
        let wrong = |pointer: &str, detail: String| {
            let problem = Problem::new(StatusCode::UNPROCESSABLE_ENTITY, "invalid_body", detail);
            Err(problem.at(pointer))
        };
        let limit = self.filter.as_ref().map(|filter| filter.limit);
        if self.runs.is_empty() == limit.is_none() {
            return wrong("/runs", "give either runs, or where".to_owned());
        }
        if self.runs.len() > EXPERIMENT_RUNS {
            return wrong("/runs", format!("an experiment has at most {EXPERIMENT_RUNS} runs"));
        }
        if limit.is_some_and(|limit| !(1..=EXPERIMENT_RUNS).contains(&limit)) {
            return wrong("/where/limit", format!("use 1 to {EXPERIMENT_RUNS}"));
        }
        if self.at_once.is_some_and(|count| !(1..=EXPERIMENT_AT_ONCE).contains(&count)) {
            return wrong("/at_once", format!("use 1 to {EXPERIMENT_AT_ONCE}"));
        }
        let Change { definition, with, nodes, conditions } = &self.change;
        let is_variant = !(with.is_empty() && nodes.is_empty() && conditions.is_empty());
        if definition.is_some() && is_variant {
            let detail = "another definition is the whole change: leave the rest of it out";
            return wrong("/change/definition", detail.to_owned());
        }
        Ok(())
    }

    /// What tells the forks of one change from those of another one.
    fn mark(&self) -> String {
        let text = json!([self.change, self.allow]).to_string();
        HEXLOWER.encode(&Sha256::digest(text)[..6])
    }

    /// All of it, as it is kept, on runs that were found.
    fn on(&self, call: &Call, runs: &[RunView]) -> Result<experiment::Asked, Problem> {
        let Change { with, nodes, conditions, .. } = &self.change;
        let tried = |run: &RunView| {
            let run_id = run.id.parse().map_err(|error: InvalidId| {
                tracing::error!(%error, "a run has no id");
                Problem::internal()
            })?;
            Ok(Tried { run_id, cost_micros: run.usage.cost_micros })
        };
        let caller = call.caller()?;
        Ok(experiment::Asked {
            workspace_id: caller.workspace_id,
            name: self.name.clone(),
            mark: self.mark(),
            definition: self.definition.clone(),
            variant: Variant {
                with: with.clone(),
                nodes: nodes.clone(),
                conditions: conditions.clone(),
            },
            allow: self.allow.clone(),
            terms: Terms {
                by: caller.actor.0.clone(),
                runs: runs.iter().map(tried).collect::<Result<_, Problem>>()?,
                filter: self.filter.as_ref().map(|filter| json!(filter)),
                at_once: self.at_once.unwrap_or(AT_ONCE),
                max_cost_micros: self.max_cost_micros,
            },
        })
    }
}

/// `POST /experiments`.
pub(crate) async fn run(call: Call) -> Result<Response, Problem> {
    let mut asked: Asked = call.json()?;
    asked.check()?;
    if let Some(definition) = &asked.change.definition {
        asked.definition = Some(definition_of(&call, definition, "/change/definition")?);
    }
    let runs = runs_of(&call, &asked).await?;
    let kept = asked.on(&call, &runs)?;
    if asked.dry_run {
        return answer(StatusCode::OK, &planned(&call, &kept).await?);
    }
    done(&call, Command::StartExperiment(Box::new(kept))).await
}

/// `POST /experiments/{name}/stop`.
pub(crate) async fn stop(call: Call) -> Result<Response, Problem> {
    let Nothing {} = call.optional()?;
    let name = call.segment("name");
    let found = name.parse().map_err(|_| Problem::not_found(no_experiment(name)))?;
    done(&call, Command::StopExperiment { name: found }).await
}

/// Does a command to an experiment, and answers how far it is.
async fn done(call: &Call, command: Command) -> Result<Response, Problem> {
    // Asked for twice, it does nothing: no key is needed for that.
    let envelope =
        CommandEnvelope { idempotency_key: None, fingerprint: None, ..call.envelope(command)? };
    let receipt = call.edge.gateway.commands.execute(envelope).await?;
    answer(StatusCode::OK, &*receipt.experiment.ok_or_else(Problem::internal)?)
}

/// `GET /experiments/{name}/progress`.
pub(crate) async fn progress(call: Call) -> Result<Response, Problem> {
    let (workspace, name) = (call.caller()?.workspace_id, call.segment("name"));
    let progress = call.edge.gateway.runs.experiment_progress(workspace, name).await?;
    answer(StatusCode::OK, &progress)
}

fn no_experiment(name: &str) -> String {
    format!("there is no experiment {:?} here", name.chars().take(80).collect::<String>())
}

/// `GET /experiments/{name}`.
pub(crate) async fn report(call: Call) -> Result<Response, Problem> {
    let (workspace, position) = (call.caller()?.workspace_id, call.min_position()?);
    let name = call.segment("name");
    let report = call.edge.gateway.runs.experiment(workspace, name, position).await?;
    answer(StatusCode::OK, &report)
}

async fn planned(call: &Call, asked: &experiment::Asked) -> Result<ExperimentPlan, Problem> {
    let runs: Vec<RunId> = asked.terms.runs.iter().map(|tried| tried.run_id).collect();
    let plans = stream::iter(runs)
        .map(|run_id| async move { (run_id.to_string(), forked(call, asked, run_id).await) });
    let mut plan = ExperimentPlan { name: asked.name.to_string(), ..ExperimentPlan::default() };
    let plans: Vec<_> = plans.buffered(READ_AT_ONCE).collect().await;
    for (run_id, planned) in plans {
        match planned {
            Ok(Receipt { plan: Some(one), .. }) => {
                // What is called at once stands among the recorded calls too, if it was made before.
                let is_new = |call: &&ForkCall| {
                    one.later.items.iter().all(|recorded| recorded.node != call.node)
                };
                let new = one.calls.items.iter().filter(is_new).count() as u64;
                let (calls, usage) = (one.later.count + new, one.later.usage);
                plan.calls += calls;
                plan.adopted += one.adopted.count;
                plan.usage.add(&usage);
                let (status, adopted) = (one.status, one.adopted.count);
                plan.items.push(PlannedFork { run_id, status, adopted, calls, usage });
            }
            Ok(_) => return Err(Problem::internal()),
            Err(refusal) => plan.refused.push(refusal_of(run_id, refusal)?),
        }
    }
    Ok(plan)
}

/// What the fork of a run would do.
async fn forked(
    call: &Call,
    asked: &experiment::Asked,
    run_id: RunId,
) -> Result<Receipt, Rejection> {
    let fork = ForkRun::of_experiment(asked, run_id, asked.terms.max_cost_micros);
    let command = Command::ForkRun(Box::new(ForkRun { dry_run: true, ..fork }));
    let internal = |_| Rejection::new(RejectionKind::Internal, "internal", "no command");
    let envelope = call.envelope(command).map_err(internal)?;
    let owner = envelope.workspace_id.to_string();
    let command = CommandEnvelope {
        id: CommandId::derived(&owner, &format!("{}/{run_id}", asked.name)),
        idempotency_key: None,
        fingerprint: None,
        ..envelope
    };
    call.edge.gateway.commands.execute(command).await
}

/// What is refused of one run is told with it; what may pass is told instead of all.
fn refusal_of(run_id: String, refusal: Rejection) -> Result<ExperimentRefusal, Problem> {
    match refusal.kind {
        RejectionKind::Unavailable | RejectionKind::Internal => Err(refusal.into()),
        _ => Ok(ExperimentRefusal { run_id, code: refusal.code, detail: refusal.message }),
    }
}

/// The runs that are to be forked.
async fn runs_of(call: &Call, asked: &Asked) -> Result<Vec<RunView>, Problem> {
    let workspace = call.caller()?.workspace_id;
    let Some(of) = &asked.filter else {
        let unique: BTreeSet<RunId> = asked.runs.iter().copied().collect();
        let runs = &call.edge.gateway.runs;
        let read = stream::iter(unique).map(|id| runs.get(workspace, id, None));
        return Ok(read.buffered(READ_AT_ONCE).try_collect().await?);
    };
    let filter = RunFilter {
        project_id: of.project_id.clone(),
        workflow_id: of.workflow_id.clone(),
        definition: of.definition.clone(),
        status: of.status.clone(),
        labels: of.labels.clone().into_iter().collect(),
        started_after: of.started_after,
        started_before: of.started_before,
        ..RunFilter::default()
    };
    // Forks of experiments aren't tried in turn.
    listed(call, filter, |run| !run.labels.contains_key(LABEL), of.limit).await
}

async fn listed(
    call: &Call,
    filter: RunFilter,
    wanted: impl Fn(&RunView) -> bool,
    limit: usize,
) -> Result<Vec<RunView>, Problem> {
    let workspace = call.caller()?.workspace_id;
    let (mut found, mut cursor, min_position) = (Vec::new(), None, call.min_position()?);
    for _ in 0..PAGES {
        let page = PageRequest { limit: PAGE_RUNS, cursor, min_position };
        let page = call.edge.gateway.runs.list(workspace, filter.clone(), page).await?;
        found.extend(page.items.into_iter().filter(|run| wanted(run)));
        cursor = page.next_cursor;
        if cursor.is_none() || found.len() >= limit {
            break;
        }
    }
    found.truncate(limit);
    Ok(found)
}
