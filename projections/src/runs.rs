//! Runs: one row per run, as lists and reads show it.
//!
//! Input, output and error stand in the row as the journal stores them, so values above 64 KiB
//! stay in the payload table. Reading one run resolves them; lists show `null` instead.

use std::collections::BTreeMap;

use async_trait::async_trait;
use chassis::journal::{Journal, RecordedEvent};
use chrono::{DateTime, Utc};
use domain::experiment::LABEL;
use domain::ids::{RunId, WorkspaceId};
use domain::run::event::Compensation;
use domain::run::state::WaitKinds;
use domain::run::{RunStatus, Usage};
use domain::{hold, retention, trigger};
use protocol::bundle::{BundleFrom, BundlePart};
use protocol::view::DefinitionRef;
use protocol::{
    Compare, Comparison, DiffTo, ExperimentProgress, ExperimentReport, Explain, Explanation, Page,
    PageRequest, Rejection, RunDiff, RunFilter, RunQueries, RunState, RunView, StateAt,
    TimelineEntry, Verification, Waiting,
};
use serde_json::Value;
use sqlx::FromRow;

use crate::cursor::{After, Asked, Listed};
use crate::payload::Blobs;
use crate::projection::{FoldError, Projection};
use crate::store::dialect::Dialect;
use crate::store::sql::{Session, sql};
use crate::{Projections, compensation, gates, refusal, triggers};

mod archived;
mod fold;
mod held;
mod standing;

pub(crate) const NAME: &str = "runs";
/// The aggregate type of runs in the journal.
pub(crate) const AGGREGATE: &str = "run";
/// Bytes of a row beside its values.
const ROW_BYTES: usize = 1_024;

pub(crate) struct Runs;

#[async_trait]
impl Projection for Runs {
    fn name(&self) -> &'static str {
        NAME
    }

    fn version(&self) -> i64 {
        5
    }

    fn tables(&self) -> &'static [(&'static str, &'static str)] {
        &[
            ("runs", "id"),
            ("run_labels", "run_id"),
            ("run_stretches", "run_id"),
            ("gates", "id"),
            ("gate_people", "gate_id"),
            ("triggers", "id"),
        ]
    }

    fn waits_for_forks(&self) -> bool {
        true
    }

    fn concerns(&self, event: &RecordedEvent) -> bool {
        [AGGREGATE, trigger::AGGREGATE, retention::AGGREGATE, hold::AGGREGATE]
            .contains(&&*event.aggregate_type)
    }

    async fn apply(
        &self,
        session: &mut Session<'_>,
        journal: &dyn Journal,
        events: &[&RecordedEvent],
    ) -> Result<(), FoldError> {
        let position = events.last().map_or(0, |event| event.position);
        triggers::fold::fold(events)?.write(session, position).await?;
        let of_runs: Vec<_> =
            events.iter().copied().filter(|event| &*event.aggregate_type == AGGREGATE).collect();
        fold_runs(session, &of_runs, position).await?;
        archived::fold_again(session, journal, events).await?;
        held::fold(session, events).await
    }
}

/// Folds events of runs. The caller owns the transaction.
async fn fold_runs(
    session: &mut Session<'_>,
    events: &[&RecordedEvent],
    position: u64,
) -> Result<(), FoldError> {
    let gates = gates::fold::fold(session, events).await?;
    fold::fold(events)?.write(session).await?;
    gates.write(session, position).await
}

#[derive(FromRow)]
struct Row {
    id: String,
    workspace_id: String,
    project_id: String,
    workflow_id: Option<String>,
    status: String,
    definition_id: String,
    definition_name: String,
    definition_version: i64,
    definition_hash: String,
    input: String,
    output: Option<String>,
    error: Option<String>,
    labels: String,
    sequence: i64,
    position: i64,
    started_micros: i64,
    ended_micros: Option<i64>,
    input_tokens: i64,
    output_tokens: i64,
    cost_micros: i64,
    parent_run_id: Option<String>,
    root_run_id: Option<String>,
    undo_cause: Option<String>,
    undo_total: Option<i64>,
    undone: i64,
    undo_failed: i64,
    undo_failures: Option<String>,
    started_by_trigger: Option<String>,
    waits: i64,
    forked_from: Option<String>,
    rerun_of: Option<String>,
    archived: Option<String>,
    held: Option<String>,
}

const COLUMNS: &str = "id, workspace_id, project_id, workflow_id, status, definition_id, \
    definition_name, definition_version, definition_hash, input, output, error, labels, \
    sequence, position, started_micros, ended_micros, input_tokens, output_tokens, cost_micros, \
    parent_run_id, root_run_id, undo_cause, undo_total, undone, undo_failed, undo_failures, \
    started_by_trigger, waits, forked_from, rerun_of, archived, held";

/// Runs as they were at the time `$14`: those that had been started, with where they stood.
/// Without a time, as they are.
fn source(as_of: bool) -> String {
    if !as_of {
        return "runs".to_owned();
    }
    let ended = "ended_micros is not null and ended_micros <= $14";
    let known = |column: &str| format!("case when {ended} then {column} end as {column}");
    let columns = COLUMNS.split(", ").chain(["error_message"]).map(|column| match column {
        "status" => format!(
            "case when {ended} then runs.status else coalesce(stretch.status, 'running') end \
             as status"
        ),
        "waits" => format!(
            "case when {ended} then 0 else coalesce(stretch.waits, {}) end as waits",
            WaitKinds::TASK.bits()
        ),
        "output" | "error" | "error_message" | "ended_micros" | "undo_cause" => known(column),
        other => other.to_owned(),
    });
    let columns: Vec<String> = columns.collect();
    format!(
        "(select {} from runs left join run_stretches as stretch on stretch.run_id = runs.id \
            and stretch.from_micros <= $14 \
            and (stretch.to_micros is null or stretch.to_micros > $14) \
         where started_micros <= $14) as runs",
        columns.join(", ")
    )
}

/// Both databases compare without regard to the case of ASCII letters, and of no others.
fn filter(dialect: Dialect, of_parent: bool) -> String {
    // Children are few among all runs: an equality alone finds them by their index.
    let parent = if of_parent { "parent_run_id = $13" } else { "cast($13 as text) is null" };
    let (statuses, labels) = (dialect.each("$5"), dialect.each("$6"));
    format!(
        "workspace_id = $1 \
         and ($2 is null or project_id = $2) \
         and ($3 is null or workflow_id = $3) \
         and ($4 is null or definition_name = $4) \
         and ($5 is null or status in (select wanted.value ->> 0 from {statuses} as wanted)) \
         and ($6 is null or not exists (select 1 from {labels} as wanted where not exists \
            (select 1 from run_labels where run_id = runs.id \
             and key = wanted.value ->> 0 and run_labels.value = wanted.value ->> 1))) \
         and ($7 is null or started_micros > $7) \
         and ($8 is null or started_micros < $8) \
         and ($9 is null or lower(id) like $9 escape '\\' \
            or lower(definition_name) like $9 escape '\\' \
            or lower(error_message) like $9 escape '\\') \
         and ($10 is null or (started_micros, id) < ($10, $11)) \
         and ($15 is null or (waits & $15) <> 0) \
         and ($16 is null or $16 = case when exists (select 1 from run_labels \
            where run_id = runs.id and key = '{LABEL}') then 1 else 0 end) \
         and {parent}"
    )
}

#[async_trait]
impl RunQueries for Projections {
    async fn list(
        &self,
        workspace_id: WorkspaceId,
        filter: RunFilter,
        page: PageRequest,
    ) -> Result<Page<RunView>, Rejection> {
        let asked = Asked::read(&page, &workspace_id.to_string(), &filter)?;
        let seen = self.wait_for(&self.runs, page.min_position).await?;
        if filter.labels.iter().any(|(key, value)| key.contains('\0') || value.contains('\0')) {
            // No label holds it, and PostgreSQL doesn't take it in JSON.
            return Ok(Page { items: Vec::new(), next_cursor: None });
        }
        let waits: WaitKinds = filter.waiting_on.iter().copied().collect();
        let statuses: Vec<_> = filter.status.iter().map(|status| [status.as_str()]).collect();
        let json = |present: bool, value: Value| present.then(|| value.to_string());
        let narrowed = self::filter(self.store.readers().dialect(), filter.parent.is_some());
        let source = source(filter.as_of.is_some());
        let query = sql(format!(
            "select {COLUMNS} from {source} where {narrowed} \
             and ($14 is null or started_micros <= $14) \
             order by started_micros desc, id desc limit $12"
        ))
        .bind(workspace_id.to_string())
        .bind(filter.project_id)
        .bind(filter.workflow_id)
        .bind(filter.definition)
        .bind(json(!statuses.is_empty(), serde_json::json!(statuses)))
        .bind(json(!filter.labels.is_empty(), serde_json::json!(filter.labels)))
        .bind(filter.started_after.map(|at| at.timestamp_micros()))
        .bind(filter.started_before.map(|at| at.timestamp_micros()))
        .bind(filter.q.as_deref().filter(|q| !q.is_empty()).map(containing))
        .bind(asked.micros())
        .bind(asked.id())
        .bind(asked.rows())
        .bind(filter.parent)
        .bind(filter.as_of.map(|at| at.timestamp_micros()))
        .bind(Some(waits).filter(|waits| !waits.is_empty()).map(|waits| i64::from(waits.bits())))
        .bind(filter.of_experiment.map(i64::from));
        asked.page(seen.rows(query).await?, |row: Row| row.view(None))
    }

    async fn get(
        &self,
        workspace_id: WorkspaceId,
        run_id: RunId,
        min_position: Option<u64>,
    ) -> Result<RunView, Rejection> {
        let seen = self.wait_for(&self.runs, min_position).await?;
        let query = sql(format!("select {COLUMNS} from runs where id = $1 and workspace_id = $2"))
            .bind(run_id.to_string())
            .bind(workspace_id.to_string());
        let row: Option<Row> = seen.row(query).await?;
        let row = row.ok_or_else(|| refusal::not_found("run", &run_id.to_string()))?;
        let blobs =
            Blobs::fetch(self.journal.as_ref(), row.values()).await.map_err(refusal::journal)?;
        row.view(Some(&blobs))
    }

    async fn state(
        &self,
        workspace_id: WorkspaceId,
        run_id: RunId,
        at: StateAt,
    ) -> Result<RunState, Rejection> {
        self.histories().run_at(workspace_id, run_id, at).await
    }

    async fn timeline(
        &self,
        workspace_id: WorkspaceId,
        run_id: RunId,
    ) -> Result<Vec<TimelineEntry>, Rejection> {
        self.histories().run_timeline(workspace_id, run_id).await
    }

    async fn waiting(
        &self,
        workspace_id: WorkspaceId,
        run_id: RunId,
    ) -> Result<Waiting, Rejection> {
        self.run_waiting(workspace_id, run_id).await
    }

    async fn explain(
        &self,
        workspace_id: WorkspaceId,
        run_id: RunId,
        asked: Explain,
    ) -> Result<Explanation, Rejection> {
        let mut explanation = self.histories().explained(workspace_id, run_id, asked).await?;
        self.count_ahead(run_id, &mut explanation.waiting).await?;
        Ok(explanation)
    }

    async fn diff(
        &self,
        workspace_id: WorkspaceId,
        run_id: RunId,
        to: DiffTo,
    ) -> Result<RunDiff, Rejection> {
        self.histories().differing(workspace_id, run_id, to).await
    }

    async fn experiment(
        &self,
        workspace_id: WorkspaceId,
        name: &str,
        min_position: Option<u64>,
    ) -> Result<ExperimentReport, Rejection> {
        self.experimented(workspace_id, name, min_position).await
    }

    async fn experiment_progress(
        &self,
        workspace_id: WorkspaceId,
        name: &str,
    ) -> Result<ExperimentProgress, Rejection> {
        self.progress_of(workspace_id, name).await
    }

    async fn verify(
        &self,
        workspace_id: WorkspaceId,
        run_id: RunId,
    ) -> Result<Verification, Rejection> {
        self.histories().run_verified(workspace_id, run_id).await
    }

    async fn compare(
        &self,
        workspace_id: WorkspaceId,
        asked: Compare,
    ) -> Result<Comparison, Rejection> {
        self.compared(workspace_id, &asked).await
    }

    async fn bundle(
        &self,
        workspace_id: WorkspaceId,
        run_id: RunId,
        from: BundleFrom,
    ) -> Result<BundlePart, Rejection> {
        self.bundled(workspace_id, run_id, from).await
    }
}

impl Listed for Row {
    fn place(&self) -> After {
        After { micros: self.started_micros, id: self.id.clone() }
    }

    fn bytes(&self) -> usize {
        self.values().map(<[u8]>::len).sum::<usize>() + self.labels.len() + ROW_BYTES
    }
}

impl Row {
    fn values(&self) -> impl Iterator<Item = &[u8]> {
        let rest = [&self.output, &self.error, &self.undo_failures].into_iter().flatten();
        std::iter::once(&self.input).chain(rest).map(String::as_bytes)
    }

    /// The view; without stored values at hand, what refers to one is `null`.
    fn view(self, blobs: Option<&Blobs>) -> Result<RunView, Rejection> {
        let id = self.id.clone();
        let unreadable =
            |reason: &dyn std::fmt::Display| refusal::damaged(&format!("the row of {id}"), reason);
        let value = |stored: &str| Blobs::value(blobs, stored).map_err(|e| unreadable(&e));
        let error = match self.error.as_deref().map(value).transpose()? {
            None | Some(Value::Null) => None,
            Some(error) => Some(serde_json::from_value(error).map_err(|e| unreadable(&e))?),
        };
        let status: RunStatus =
            serde_json::from_value(Value::String(self.status)).map_err(|e| unreadable(&e))?;
        let trigger = self.started_by_trigger.as_deref().map(serde_json::from_str).transpose();
        let trigger = trigger.map_err(|e| unreadable(&e))?;
        let forked_from = self.forked_from.as_deref().map(serde_json::from_str).transpose();
        let forked_from = forked_from.map_err(|e| unreadable(&e))?;
        let archived = self.archived.as_deref().map(serde_json::from_str).transpose();
        let archived = archived.map_err(|e| unreadable(&e))?;
        let held = self.held.as_deref().map(serde_json::from_str).transpose();
        let held = held.map_err(|e| unreadable(&e))?;
        let labels: BTreeMap<String, String> =
            serde_json::from_str(&self.labels).map_err(|e| unreadable(&e))?;
        let failures = self.undo_failures.as_deref().map(value).transpose()?;
        let failures = match failures {
            None | Some(Value::Null) => Vec::new(),
            Some(failures) => serde_json::from_value(failures).map_err(|e| unreadable(&e))?,
        };
        let compensation = self.undo_cause.as_deref().map(|cause| {
            let record = Compensation {
                total: self.undo_total.unwrap_or(0).unsigned_abs(),
                undone: self.undone.unsigned_abs(),
                failed: self.undo_failed.unsigned_abs(),
                failures,
            };
            compensation::view(cause, &record)
        });
        Ok(RunView {
            compensation,
            input: value(&self.input)?,
            output: self.output.as_deref().map(value).transpose()?,
            error,
            id: self.id,
            workspace_id: self.workspace_id,
            project_id: self.project_id,
            workflow_id: self.workflow_id,
            status,
            definition: DefinitionRef {
                id: self.definition_id,
                name: self.definition_name,
                version: self.definition_version.unsigned_abs(),
                hash: self.definition_hash,
            },
            labels,
            sequence: self.sequence.unsigned_abs(),
            position: self.position.unsigned_abs(),
            started_at: time(self.started_micros),
            ended_at: self.ended_micros.map(time),
            usage: Usage {
                input_tokens: self.input_tokens.unsigned_abs(),
                output_tokens: self.output_tokens.unsigned_abs(),
                cost_micros: self.cost_micros.unsigned_abs(),
            },
            parent_run_id: self.parent_run_id,
            root_run_id: self.root_run_id,
            trigger,
            waiting_on: WaitKinds::from_bits(u8::try_from(self.waits).unwrap_or_default()),
            forked_from,
            archived,
            held,
            rerun_of: self.rerun_of,
        })
    }
}

#[derive(FromRow)]
struct Counted {
    count: i64,
}

impl Projections {
    /// How many runs of its queue wait before one, as far as the read model is.
    pub(crate) async fn ahead_of(&self, run_id: RunId) -> Result<u64, Rejection> {
        let query = sql("select count(*) as count from runs as own join runs as other \
             on other.queue = own.queue and other.queued_micros is not null \
             and (other.queue_rank, other.id) < (own.queue_rank, own.id) where own.id = $1")
        .bind(run_id.to_string());
        let row: Option<Counted> =
            self.store.readers().row(query).await.map_err(refusal::storage)?;
        Ok(row.map_or(0, |row| row.count.unsigned_abs()))
    }
}

/// A `like` pattern for lower-case texts that contain another.
pub(crate) fn containing(text: &str) -> String {
    let mut pattern = String::from("%");
    for character in text.to_ascii_lowercase().chars() {
        if matches!(character, '%' | '_' | '\\') {
            pattern.push('\\');
        }
        pattern.push(character);
    }
    pattern.push('%');
    pattern
}

pub(crate) fn time(micros: i64) -> DateTime<Utc> {
    DateTime::from_timestamp_micros(micros).unwrap_or(DateTime::UNIX_EPOCH)
}
