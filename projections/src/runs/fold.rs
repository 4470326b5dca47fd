//! The fold of runs: a batch becomes one change per run, and the changes become three statements.
//!
//! Only the events that begin or end a run are decoded, and of others the usage where there is
//! some; a step costs a look at its type.

use std::collections::{BTreeMap, HashMap};

use chassis::journal::RecordedEvent;
use chrono::{DateTime, Utc};
use domain::codec;
use domain::run::event::{Admission, ParentRun};
use domain::run::{RunStatus, Usage};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use super::standing::{self, Stands, Stretches, Turns};
use crate::projection::FoldError;
use crate::store::dialect::Dialect;
use crate::store::sql::{Session, sql};

/// What a batch changes.
#[derive(Default)]
pub(super) struct Changes<'a> {
    runs: Vec<Change<'a>>,
    by_id: HashMap<&'a str, usize>,
    labels: Vec<(&'a str, String, String)>,
}

/// What a batch changes of one run; the names are those of the statements below.
#[derive(Serialize)]
struct Change<'a> {
    id: &'a str,
    #[serde(flatten)]
    started: Option<Started<'a>>,
    output: Option<&'a str>,
    error: Option<String>,
    error_message: Option<String>,
    sequence: u64,
    position: u64,
    ended_micros: Option<i64>,
    #[serde(skip)]
    turns: Turns,
    /// What they come to; of a run that is new in the batch, always.
    #[serde(flatten)]
    stands: Option<Stands>,
    undo_cause: Option<&'static str>,
    undo_total: Option<u64>,
    /// How many more of them than before.
    undone: u64,
    undo_failed: u64,
    undo_failures: Option<&'a str>,
    #[serde(flatten)]
    usage: Usage,
}

#[derive(Serialize)]
struct Started<'a> {
    workspace_id: &'a str,
    project_id: String,
    workflow_id: Option<String>,
    definition_id: String,
    definition_name: String,
    definition_version: u64,
    definition_hash: String,
    input: &'a str,
    labels: String,
    started_micros: i64,
    parent_run_id: Option<String>,
    root_run_id: Option<String>,
    started_by_trigger: Option<&'a str>,
    queue: Option<String>,
    queue_rank: Option<i64>,
}

#[derive(Deserialize)]
struct StartedPayload<'a> {
    project_id: String,
    workflow_id: Option<String>,
    definition: protocol::view::DefinitionRef,
    #[serde(borrow)]
    input: &'a RawValue,
    #[serde(borrow, default)]
    labels: Option<&'a RawValue>,
    started_at: DateTime<Utc>,
    #[serde(default)]
    parent: Option<ParentRun>,
    #[serde(borrow, default)]
    trigger: Option<&'a RawValue>,
    #[serde(default)]
    admission: Option<Admission>,
}

#[derive(Deserialize)]
struct OutputPayload<'a> {
    #[serde(borrow)]
    output: &'a RawValue,
}

#[derive(Deserialize)]
struct ErrorPayload<'a> {
    #[serde(borrow)]
    error: &'a RawValue,
}

#[derive(Deserialize)]
struct MessageOnly {
    message: String,
}

#[derive(Deserialize)]
struct CancelledPayload {
    reason: Option<String>,
    code: Option<String>,
}

#[derive(Deserialize)]
struct RetryPayload {
    #[serde(default)]
    retry_at: Option<DateTime<Utc>>,
}

#[derive(Deserialize)]
struct FailuresPayload<'a> {
    #[serde(borrow, default)]
    failures: Option<&'a RawValue>,
}

#[derive(Deserialize)]
struct CompensationPayload {
    status: RunStatus,
    total: u64,
}

#[derive(Deserialize)]
struct UsagePayload {
    #[serde(default)]
    usage: Usage,
}

pub(super) fn fold<'a>(events: &[&'a RecordedEvent]) -> Result<Changes<'a>, FoldError> {
    let mut changes = Changes::default();
    for event in events {
        changes.take(event).map_err(|error| FoldError::Event {
            position: event.position,
            reason: error.to_string(),
        })?;
    }
    Ok(changes)
}

/// What a queue is called in the read table.
pub(crate) fn queue_of(definition_id: &str, key: Option<&str>) -> String {
    key.map_or_else(|| definition_id.to_owned(), |key| format!("{definition_id}/{key}"))
}

/// Whether there may be a usage, without reading the whole.
fn has_usage(payload: &[u8]) -> bool {
    payload.windows(8).any(|window| window == b"\"usage\":")
}

impl<'a> Changes<'a> {
    fn take(&mut self, event: &'a RecordedEvent) -> Result<(), serde_json::Error> {
        let id: &'a str = &event.aggregate_id;
        let at = match self.runs.last() {
            Some(last) if last.id == id => self.runs.len() - 1,
            _ => *self.by_id.entry(id).or_insert_with(|| {
                self.runs.push(Change::of(id));
                self.runs.len() - 1
            }),
        };
        let change = &mut self.runs[at];
        change.sequence = event.sequence;
        change.position = event.position;
        change.turns.take(event)?;
        match &*event.event_type {
            "run_started" => {
                let labels = change.start(event)?;
                self.labels.extend(labels.into_iter().map(|(key, value)| (id, key, value)));
            }
            "task_succeeded" | "task_failed" => change.spend(event)?,
            "compensation_started" => {
                let started: CompensationPayload = serde_json::from_slice(&event.payload)?;
                change.undo_cause = Some(started.status.as_str());
                change.undo_total = Some(started.total);
            }
            "undo_succeeded" => {
                change.undone += 1;
                change.spend(event)?;
            }
            "undo_failed" => {
                let payload: RetryPayload = serde_json::from_slice(&event.payload)?;
                change.undo_failed += u64::from(payload.retry_at.is_none());
                change.spend(event)?;
            }
            "compensation_ended" => {
                let payload: FailuresPayload<'a> = serde_json::from_slice(&event.payload)?;
                change.undo_failures = payload.failures.map(RawValue::get);
            }
            "run_completed" => {
                let payload: OutputPayload<'a> = serde_json::from_slice(&event.payload)?;
                change.output = Some(payload.output.get());
                change.end(RunStatus::Completed, event);
            }
            "run_failed" => change.fail(RunStatus::Failed, event)?,
            "run_timed_out" => change.fail(RunStatus::TimedOut, event)?,
            "run_cancelled" => change.cancel(event)?,
            // What happens inside of a run moves its sequence and position only.
            _ => {}
        }
        Ok(())
    }

    /// Writes the changes. The caller owns the transaction.
    pub(super) async fn write(self, session: &mut Session<'_>) -> Result<(), FoldError> {
        let dialect = session.dialect();
        let position = self.runs.iter().map(|change| change.position).max().unwrap_or(0);
        let unfit = |reason: String| FoldError::Event { position, reason };
        let (mut new, mut known): (Vec<_>, Vec<_>) =
            self.runs.into_iter().partition(|change| change.started.is_some());
        let turned = known.iter().filter(|change| !change.turns.is_empty());
        let turned: Vec<&str> = turned.map(|change| change.id).collect();
        let stood = standing::known(session, &turned).await?;
        let mut stretches = Stretches::default();
        for change in &mut new {
            change.stands = Some(stretches.fold(change.id, &change.turns, None));
        }
        for change in known.iter_mut().filter(|change| !change.turns.is_empty()) {
            let stood = stood.get(change.id);
            change.stands = Some(stretches.fold(change.id, &change.turns, stood));
        }
        stretches.write(session).await?;
        if !new.is_empty() {
            let json = serde_json::to_string(&new).map_err(|error| unfit(error.to_string()))?;
            session.execute(sql(insert(dialect)).bind(json)).await?;
        }
        if !self.labels.is_empty() {
            let json =
                serde_json::to_string(&self.labels).map_err(|error| unfit(error.to_string()))?;
            session.execute(sql(insert_labels(dialect)).bind(json)).await?;
        }
        if !known.is_empty() {
            let json = serde_json::to_string(&known).map_err(|error| unfit(error.to_string()))?;
            let changed = session.execute(sql(update(dialect)).bind(json)).await?;
            if changed != known.len() as u64 {
                return Err(unfit("a run of this batch has no row".to_owned()));
            }
        }
        Ok(())
    }
}

impl<'a> Change<'a> {
    fn of(id: &'a str) -> Self {
        Self {
            id,
            started: None,
            output: None,
            error: None,
            error_message: None,
            sequence: 0,
            position: 0,
            ended_micros: None,
            turns: Turns::default(),
            stands: None,
            undo_cause: None,
            undo_total: None,
            undone: 0,
            undo_failed: 0,
            undo_failures: None,
            usage: Usage::default(),
        }
    }

    fn start(
        &mut self,
        event: &'a RecordedEvent,
    ) -> Result<BTreeMap<String, String>, serde_json::Error> {
        let payload: StartedPayload<'a> = serde_json::from_slice(&event.payload)?;
        let labels = match payload.labels {
            None => BTreeMap::new(),
            Some(stored) => {
                let plain = codec::value(stored.get().as_bytes(), &|_| None)
                    .map_err(serde::de::Error::custom)?;
                serde_json::from_value(plain)?
            }
        };
        let admission = payload.admission;
        let definition_id = payload.definition.id;
        self.started = Some(Started {
            workspace_id: &event.workspace_id,
            project_id: payload.project_id,
            workflow_id: payload.workflow_id,
            definition_id: definition_id.clone(),
            definition_name: payload.definition.name,
            definition_version: payload.definition.version,
            definition_hash: payload.definition.hash,
            input: payload.input.get(),
            labels: serde_json::to_string(&labels)?,
            started_micros: payload.started_at.timestamp_micros(),
            parent_run_id: payload.parent.map(|parent| parent.run_id.to_string()),
            root_run_id: payload.parent.map(|parent| parent.root_run_id.to_string()),
            started_by_trigger: payload.trigger.map(RawValue::get),
            queue_rank: admission.as_ref().map(|admission| admission.rank.timestamp_micros()),
            queue: admission.map(|one| queue_of(&definition_id, one.key.as_deref())),
        });
        Ok(labels)
    }

    fn spend(&mut self, event: &RecordedEvent) -> Result<(), serde_json::Error> {
        if has_usage(&event.payload) {
            let payload: UsagePayload = serde_json::from_slice(&event.payload)?;
            self.usage.add(&payload.usage);
        }
        Ok(())
    }

    fn end(&mut self, status: RunStatus, event: &RecordedEvent) {
        let at = event.recorded_at.timestamp_micros();
        self.turns.end(status, at);
        self.ended_micros = Some(at);
    }

    fn fail(&mut self, status: RunStatus, event: &RecordedEvent) -> Result<(), serde_json::Error> {
        let payload: ErrorPayload<'_> = serde_json::from_slice(&event.payload)?;
        // A message or a whole error may have moved out of the event; then it can't be searched.
        let message = serde_json::from_str(payload.error.get());
        self.error_message = message.ok().map(|error: MessageOnly| error.message);
        self.error = Some(payload.error.get().to_owned());
        self.end(status, event);
        Ok(())
    }

    /// A cancelled run has an error where a reason was given.
    fn cancel(&mut self, event: &RecordedEvent) -> Result<(), serde_json::Error> {
        let payload: CancelledPayload = serde_json::from_slice(&event.payload)?;
        if let Some(reason) = payload.reason {
            let code = payload.code.unwrap_or_else(|| "cancelled".to_owned());
            let error = serde_json::json!({"code": code, "kind": "cancelled", "message": reason});
            self.error = Some(error.to_string());
            self.error_message = Some(reason);
        }
        self.end(RunStatus::Cancelled, event);
        Ok(())
    }
}

fn insert(dialect: Dialect) -> String {
    format!(
        "insert into runs (id, workspace_id, project_id, workflow_id, status, definition_id, \
            definition_name, definition_version, definition_hash, input, output, error, \
            error_message, labels, sequence, position, started_micros, ended_micros, \
            input_tokens, output_tokens, cost_micros, paused_micros, parent_run_id, \
            root_run_id, queued_micros, queue, queue_rank, undo_cause, undo_total, undone, \
            undo_failed, undo_failures, started_by_trigger, waits) \
        select change.value ->> 'id', change.value ->> 'workspace_id', \
            change.value ->> 'project_id', change.value ->> 'workflow_id', \
            change.value ->> 'status', change.value ->> 'definition_id', \
            change.value ->> 'definition_name', \
            cast(change.value ->> 'definition_version' as bigint), \
            change.value ->> 'definition_hash', change.value ->> 'input', \
            change.value ->> 'output', change.value ->> 'error', \
            change.value ->> 'error_message', change.value ->> 'labels', \
            cast(change.value ->> 'sequence' as bigint), \
            cast(change.value ->> 'position' as bigint), \
            cast(change.value ->> 'started_micros' as bigint), \
            cast(change.value ->> 'ended_micros' as bigint), \
            cast(change.value ->> 'input_tokens' as bigint), \
            cast(change.value ->> 'output_tokens' as bigint), \
            cast(change.value ->> 'cost_micros' as bigint), \
            cast(change.value ->> 'paused_micros' as bigint), \
            change.value ->> 'parent_run_id', change.value ->> 'root_run_id', \
            cast(change.value ->> 'queued_micros' as bigint), \
            change.value ->> 'queue', cast(change.value ->> 'queue_rank' as bigint), \
            change.value ->> 'undo_cause', cast(change.value ->> 'undo_total' as bigint), \
            cast(change.value ->> 'undone' as bigint), \
            cast(change.value ->> 'undo_failed' as bigint), \
            change.value ->> 'undo_failures', change.value ->> 'started_by_trigger', \
            cast(change.value ->> 'waits' as bigint) \
        from {} as change",
        dialect.each("$1")
    )
}

fn insert_labels(dialect: Dialect) -> String {
    format!(
        "insert into run_labels (run_id, key, value) \
        select label.value ->> 0, label.value ->> 1, label.value ->> 2 from {} as label",
        dialect.each("$1")
    )
}

fn update(dialect: Dialect) -> String {
    let stands = |name: &str| {
        format!(
            "case when change.value ->> 'stood' is not null \
                then cast(change.value ->> '{name}' as bigint) else {name} end"
        )
    };
    let (paused, queued) = (stands("paused_micros"), stands("queued_micros"));
    format!(
        "update runs set status = coalesce(change.value ->> 'status', status), \
            waits = coalesce(cast(change.value ->> 'waits' as bigint), waits), \
            output = coalesce(change.value ->> 'output', output), \
            error = coalesce(change.value ->> 'error', error), \
            error_message = coalesce(change.value ->> 'error_message', error_message), \
            sequence = cast(change.value ->> 'sequence' as bigint), \
            position = cast(change.value ->> 'position' as bigint), \
            ended_micros = coalesce(cast(change.value ->> 'ended_micros' as bigint), \
                ended_micros), \
            input_tokens = input_tokens + cast(change.value ->> 'input_tokens' as bigint), \
            output_tokens = output_tokens + cast(change.value ->> 'output_tokens' as bigint), \
            cost_micros = cost_micros + cast(change.value ->> 'cost_micros' as bigint), \
            paused_micros = {paused}, queued_micros = {queued}, \
            undo_cause = coalesce(change.value ->> 'undo_cause', undo_cause), \
            undo_total = coalesce(cast(change.value ->> 'undo_total' as bigint), undo_total), \
            undone = undone + cast(change.value ->> 'undone' as bigint), \
            undo_failed = undo_failed + cast(change.value ->> 'undo_failed' as bigint), \
            undo_failures = coalesce(change.value ->> 'undo_failures', undo_failures) \
        from {} as change where runs.id = change.value ->> 'id'",
        dialect.each("$1")
    )
}
