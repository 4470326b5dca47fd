//! The fold of runs: a batch becomes one change per run, and the changes become three statements.
//!
//! Only the events that begin or end a run are decoded, and of others the usage where there is
//! some; a step costs a look at its type.

use std::collections::{BTreeMap, HashMap};

use chassis::journal::RecordedEvent;
use chrono::{DateTime, Utc};
use domain::codec;
use domain::run::event::{Admission, ForkedFrom, ParentRun};
use domain::run::{RunStatus, Usage};
use protocol::event::is_shared;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use super::standing::{self, Stands, Stretches, Turns};
use crate::projection::FoldError;
use crate::store::sql::{Session, sql};

mod statements;

use statements::{insert, insert_labels, update};

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
    /// Of a run that was forked before the batch.
    other: Option<Other<'a>>,
    #[serde(flatten)]
    usage: Usage,
}

/// What a fork has otherwise than the other run.
#[derive(Serialize)]
struct Other<'a> {
    input: Option<&'a str>,
    definition: Option<protocol::view::DefinitionRef>,
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
    forked_from: Option<String>,
    rerun_of: Option<String>,
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
    #[serde(default)]
    forked_from: Option<ForkedFrom>,
    #[serde(default)]
    rerun_of: Option<String>,
}

#[derive(Deserialize)]
struct ForkedPayload<'a> {
    #[serde(borrow, default)]
    input: Option<&'a RawValue>,
    #[serde(default)]
    definition: Option<protocol::view::DefinitionRef>,
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

fn forked_from(fork: &ForkedFrom) -> Result<String, serde_json::Error> {
    let (run_id, sequence) = (fork.run_id.to_string(), fork.sequence);
    serde_json::to_string(&protocol::ForkedFrom { run_id, sequence })
}

/// Whether there may be a usage, without reading the whole.
fn has_usage(payload: &[u8]) -> bool {
    codec::mentions(payload, "\"usage\":")
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
            "run_forked" => change.fork(event)?,
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
            other: None,
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
        let (admission, fork) = (payload.admission, payload.forked_from);
        let started_at = fork.map_or(payload.started_at, |fork| fork.at);
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
            started_micros: started_at.timestamp_micros(),
            parent_run_id: payload.parent.map(|parent| parent.run_id.to_string()),
            root_run_id: payload.parent.map(|parent| parent.root_run_id.to_string()),
            started_by_trigger: payload.trigger.map(RawValue::get),
            queue_rank: admission.as_ref().map(|admission| admission.rank.timestamp_micros()),
            queue: admission.map(|one| queue_of(&definition_id, one.key.as_deref())),
            forked_from: fork.map(|fork| forked_from(&fork)).transpose()?,
            rerun_of: payload.rerun_of,
        });
        Ok(labels)
    }

    /// From here on it is a run of its own.
    fn fork(&mut self, event: &'a RecordedEvent) -> Result<(), serde_json::Error> {
        let payload: ForkedPayload<'a> = serde_json::from_slice(&event.payload)?;
        let (input, definition) = (payload.input.map(RawValue::get), payload.definition);
        let Some(started) = &mut self.started else {
            self.other = Some(Other { input, definition });
            return Ok(());
        };
        started.input = input.unwrap_or(started.input);
        if let Some(definition) = definition {
            started.definition_id = definition.id;
            started.definition_name = definition.name;
            started.definition_version = definition.version;
            started.definition_hash = definition.hash;
        }
        Ok(())
    }

    /// What was used up before a fork is the other run's.
    fn spend(&mut self, event: &RecordedEvent) -> Result<(), serde_json::Error> {
        if has_usage(&event.payload) && !is_shared(&event.metadata, event.sequence) {
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
