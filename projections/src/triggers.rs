//! Triggers: one row per trigger with what has come of it. What a trigger is stands in its
//! workflow.
//!
//! The rows are written with those of runs, in one projection, since a run's first event says which
//! trigger started it.

use chrono::{DateTime, Utc};
use domain::ids::{WorkflowId, WorkspaceId};
use domain::resource::{Kind, WorkflowSpec};
use domain::trigger::{Schedule, Source, TriggerSpec};
use protocol::{Rejection, ResourceQueries, TriggerView};
use sqlx::FromRow;

use crate::runs::time;
use crate::store::sql::sql;
use crate::{Projections, refusal};

pub(crate) mod fold;

#[derive(FromRow)]
struct Row {
    name: String,
    runs: i64,
    last_micros: Option<i64>,
    last_run_id: Option<String>,
    failures: i64,
    last_error: Option<String>,
    last_missed: Option<String>,
}

impl Projections {
    /// See [`ResourceQueries::triggers`].
    pub(crate) async fn triggers_of(
        &self,
        workspace_id: WorkspaceId,
        workflow_id: WorkflowId,
        now: DateTime<Utc>,
        min_position: Option<u64>,
    ) -> Result<Vec<TriggerView>, Rejection> {
        let seen = self.wait_for(&self.runs, min_position).await?;
        let id = workflow_id.to_string();
        let workspace = Some(workspace_id);
        let workflow =
            ResourceQueries::get(self, workspace, Kind::Workflow, &id, min_position).await?;
        let spec: WorkflowSpec = serde_json::from_value(workflow.spec)
            .map_err(|error| refusal::damaged(&format!("the row of {id}"), &error))?;
        let query =
            sql("select name, runs, last_micros, last_run_id, failures, last_error, last_missed \
             from triggers where workflow_id = $1 and workspace_id = $2")
            .bind(id.clone())
            .bind(workspace_id.to_string());
        let rows: Vec<Row> = seen.rows(query).await?;
        let is_enabled = spec.enabled && !workflow.archived;
        let views = spec.triggers.iter().map(|(name, trigger)| {
            let row = rows.iter().find(|row| row.name == name.as_str());
            view(&id, name.as_str(), trigger, is_enabled, row, now)
        });
        views.collect()
    }
}

fn view(
    workflow_id: &str,
    name: &str,
    trigger: &TriggerSpec,
    is_enabled: bool,
    row: Option<&Row>,
    now: DateTime<Utc>,
) -> Result<TriggerView, Rejection> {
    let damaged =
        |error| refusal::damaged(&format!("the row of {workflow_id}'s trigger {name}"), &error);
    let enabled = is_enabled && trigger.enabled;
    let source = trigger.source();
    let next_at = match source {
        Some(Source::Schedule(schedule)) if enabled => {
            Schedule::compile(schedule).ok().and_then(|schedule| schedule.next_after(now))
        }
        _ => None,
    };
    let error = row.and_then(|row| row.last_error.as_deref());
    let missed = row.and_then(|row| row.last_missed.as_deref());
    Ok(TriggerView {
        workflow_id: workflow_id.to_owned(),
        name: name.to_owned(),
        kind: source.map_or_else(String::new, |source| source.kind().as_str().to_owned()),
        enabled,
        spec: serde_json::to_value(trigger).map_err(damaged)?,
        next_at,
        runs: row.map_or(0, |row| row.runs.unsigned_abs()),
        last_at: row.and_then(|row| row.last_micros).map(time),
        last_run_id: row.and_then(|row| row.last_run_id.clone()),
        failures: row.map_or(0, |row| row.failures.unsigned_abs()),
        last_error: error.map(serde_json::from_str).transpose().map_err(damaged)?,
        last_missed: missed.map(serde_json::from_str).transpose().map_err(damaged)?,
    })
}
