//! Experiments: forks of many runs with one change. A request starts as many as may go on at once,
//! and is repeated until all have ended; what it has started is found by its name.

use std::collections::{BTreeMap, BTreeSet};

use axum::http::StatusCode;
use axum::response::Response;
use chrono::{DateTime, Utc};
use data_encoding::HEXLOWER;
use domain::definition::{Condition, Variant};
use domain::experiment::{BUDGET_LABEL, CHANGE_LABEL, LABEL, Started, next};
use domain::ids::{CommandId, Name, RunId};
use domain::limits::{EXPERIMENT_AT_ONCE, EXPERIMENT_RUNS};
use domain::run::event::{Effect, Experiment};
use futures::{StreamExt, TryStreamExt, stream};
use protocol::{
    Command, CommandEnvelope, ExperimentFork, ExperimentPlan, ExperimentProgress,
    ExperimentRefusal, ForkCall, ForkDefinition, ForkExperiment, ForkRun, PageRequest, PlannedFork,
    Receipt, Rejection, RejectionKind, RunFilter, RunStatus, RunView, StateAt,
};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};
use sha2::{Digest, Sha256};

use crate::call::{Call, answer};
use crate::problem::Problem;
use crate::runs::definition_of;

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
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Where {
    #[serde(default)]
    definition: Option<String>,
    #[serde(default)]
    project_id: Option<String>,
    #[serde(default)]
    workflow_id: Option<String>,
    #[serde(default = "ended")]
    status: Vec<RunStatus>,
    #[serde(default)]
    labels: BTreeMap<String, String>,
    #[serde(default)]
    started_after: Option<DateTime<Utc>>,
    #[serde(default)]
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

    fn fork(&self, run_id: RunId, budget: Option<u64>) -> Command {
        let Change { with, nodes, conditions, .. } = &self.change;
        let variant =
            Variant { with: with.clone(), nodes: nodes.clone(), conditions: conditions.clone() };
        let experiment = Experiment {
            name: self.name.to_string(),
            allow: self.allow.clone(),
            max_cost_micros: budget,
        };
        let labels = [
            (LABEL, Some(self.name.to_string())),
            (CHANGE_LABEL, Some(self.mark())),
            (BUDGET_LABEL, budget.map(|budget| budget.to_string())),
        ];
        let labels = labels.into_iter().filter_map(|(key, value)| Some((key.to_owned(), value?)));
        Command::ForkRun(Box::new(ForkRun {
            definition: self.definition.clone(),
            labels: Some(labels.collect()),
            experiment: Some(Box::new(ForkExperiment { experiment, variant })),
            dry_run: self.dry_run,
            ..ForkRun::unchanged(run_id, StateAt::Sequence(1))
        }))
    }
}

/// `POST /experiments`.
pub(crate) async fn run(call: Call) -> Result<Response, Problem> {
    let mut asked: Asked = call.json()?;
    asked.check()?;
    if let Some(definition) = &asked.change.definition {
        asked.definition = Some(definition_of(&call, definition, "/change/definition")?);
    }
    let mut left = runs_of(&call, &asked).await?;
    if asked.dry_run {
        return answer(StatusCode::OK, &planned(&call, &asked, left).await?);
    }
    let forks = labelled(&call, &asked.name).await?;
    let mark = asked.mark();
    if forks.iter().any(|fork| fork.labels.get(CHANGE_LABEL) != Some(&mark)) {
        let detail = format!(
            "the experiment {} has forks with another change, or other effects that are allowed: \
             give this one a name of its own",
            asked.name
        );
        return Err(Problem::new(StatusCode::CONFLICT, "experiment_differs", detail));
    }
    let total = left.len();
    left.retain(|run| !forks.iter().any(|fork| origin(fork) == Some(&run.id)));
    let mut started: Vec<Started> = forks.iter().map(as_started).collect();
    let mut items: Vec<ExperimentFork> = forks.iter().map(as_fork).collect();
    let (mut refused, mut position, mut is_capped) = (Vec::new(), 0, false);
    let at_once = asked.at_once.unwrap_or(AT_ONCE);
    let mut left = left.into_iter().peekable();
    while let Some(run) = left.peek() {
        let next = next(&started, &[run.usage.cost_micros], at_once, asked.max_cost_micros);
        is_capped = next.is_capped;
        let Some(budget) = next.budgets.first().copied() else { break };
        let run_id = run.id.clone();
        left.next();
        match forked(&call, &asked, &run_id, budget).await {
            Ok(receipt) => {
                position = position.max(receipt.position);
                started.push(Started { has_ended: false, cost_micros: 0, budget_micros: budget });
                let status = RunStatus::Running;
                items.push(ExperimentFork { run_id, fork_id: receipt.id, status });
            }
            Err(refusal) => refused.push(refusal_of(run_id, refusal)?),
        }
    }
    let running = started.iter().filter(|one| !one.has_ended).count();
    let left = left.count();
    let status = match () {
        () if running > 0 => "running",
        () if is_capped => "capped",
        () if left > 0 => "running",
        () => "ended",
    };
    let progress = ExperimentProgress {
        name: asked.name.to_string(),
        status: status.to_owned(),
        runs: total as u64,
        running: running as u64,
        left: left as u64,
        spent_micros: started.iter().map(|one| one.cost_micros).sum(),
        refused,
        items,
        position,
    };
    answer(StatusCode::OK, &progress)
}

/// `GET /experiments/{name}`.
pub(crate) async fn report(call: Call) -> Result<Response, Problem> {
    let (workspace, position) = (call.caller()?.workspace_id, call.min_position()?);
    let name = call.segment("name");
    let report = call.edge.gateway.runs.experiment(workspace, name, position).await?;
    answer(StatusCode::OK, &report)
}

async fn planned(
    call: &Call,
    asked: &Asked,
    runs: Vec<RunView>,
) -> Result<ExperimentPlan, Problem> {
    let plans = stream::iter(runs.into_iter().map(|run| run.id)).map(|run_id| async move {
        let planned = forked(call, asked, &run_id, asked.max_cost_micros).await;
        (run_id, planned)
    });
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

/// A fork of a run: the same one, however often it is asked for.
async fn forked(
    call: &Call,
    asked: &Asked,
    run_id: &str,
    budget: Option<u64>,
) -> Result<Receipt, Rejection> {
    let internal = |_| Rejection::new(RejectionKind::Internal, "internal", "no command");
    let id: RunId = run_id.parse().map_err(|error: domain::ids::InvalidId| {
        Rejection::new(RejectionKind::Internal, "internal", error.to_string())
    })?;
    let envelope = call.envelope(asked.fork(id, budget)).map_err(internal)?;
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

fn origin(fork: &RunView) -> Option<&String> {
    fork.forked_from.as_ref().map(|from| &from.run_id)
}

fn as_started(fork: &RunView) -> Started {
    Started {
        has_ended: fork.status.is_terminal(),
        cost_micros: fork.usage.cost_micros,
        budget_micros: fork.labels.get(BUDGET_LABEL).and_then(|budget| budget.parse().ok()),
    }
}

fn as_fork(fork: &RunView) -> ExperimentFork {
    let run_id = origin(fork).cloned().unwrap_or_default();
    ExperimentFork { run_id, fork_id: fork.id.clone(), status: fork.status }
}

/// The forks that were started so far, the oldest first.
async fn labelled(call: &Call, name: &Name) -> Result<Vec<RunView>, Problem> {
    let labels = vec![(LABEL.to_owned(), name.to_string())];
    let filter = RunFilter { labels, ..RunFilter::default() };
    let mut forks = listed(call, filter, |run| run.forked_from.is_some(), usize::MAX).await?;
    forks.reverse();
    Ok(forks)
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
