//! The fold of triggers: a batch becomes one change per trigger, and the changes one statement.

use std::collections::BTreeMap;

use chassis::journal::RecordedEvent;
use domain::codec;
use domain::ids::TriggerId;
use domain::run::event::TriggeredBy;
use domain::trigger::{AGGREGATE, Event, TriggerRef};
use protocol::{MissedTimes, TriggerError};
use serde::{Deserialize, Serialize};

use crate::projection::FoldError;
use crate::store::dialect::Dialect;
use crate::store::sql::{Session, sql};

/// What a batch changes.
#[derive(Default)]
pub(crate) struct Changes(BTreeMap<String, Change>);

/// What a batch changes of one trigger; the names are those of the statement below.
#[derive(Serialize)]
struct Change {
    id: String,
    workspace_id: String,
    workflow_id: String,
    name: String,
    runs: u64,
    last_micros: Option<i64>,
    last_run_id: Option<String>,
    failures: u64,
    last_error: Option<String>,
    last_missed: Option<String>,
}

#[derive(Deserialize)]
struct StartedPayload {
    #[serde(default)]
    trigger: Option<TriggeredBy>,
}

/// Folds a batch of events of runs and triggers.
pub(crate) fn fold(events: &[&RecordedEvent]) -> Result<Changes, FoldError> {
    let mut changes = Changes::default();
    for event in events {
        changes
            .take(event)
            .map_err(|reason| FoldError::Event { position: event.position, reason })?;
    }
    Ok(changes)
}

/// Whether a run's first event may name a trigger, without reading the whole.
fn has_trigger(payload: &[u8]) -> bool {
    codec::mentions(payload, "\"trigger\":")
}

impl Changes {
    fn take(&mut self, recorded: &RecordedEvent) -> Result<(), String> {
        let text = |error: &dyn std::fmt::Display| error.to_string();
        if &*recorded.event_type == "run_started" && has_trigger(&recorded.payload) {
            let payload: StartedPayload =
                serde_json::from_slice(&recorded.payload).map_err(|error| text(&error))?;
            if let Some(by) = payload.trigger {
                let trigger = TriggerRef { workflow_id: by.workflow_id, name: by.name };
                let change = self.of(&trigger, recorded);
                change.runs += 1;
                change.last_micros = Some(by.at.timestamp_micros());
                change.last_run_id = Some(recorded.aggregate_id.to_string());
            }
        }
        if &*recorded.aggregate_type != AGGREGATE {
            return Ok(());
        }
        let (event_type, version) = (&recorded.event_type, recorded.event_version);
        let event: Event = codec::decode(event_type, version, &recorded.payload, &|_| None)
            .map_err(|error| text(&error))?;
        match event {
            Event::TriggerFailed { trigger, key, at, code, message, .. } => {
                let error = TriggerError { code, message, at, key };
                let change = self.of(&trigger, recorded);
                change.failures += 1;
                let json = serde_json::to_string(&error).map_err(|error| text(&error))?;
                change.last_error = Some(json);
            }
            Event::TriggerMissed { trigger, first, last } => {
                let missed = MissedTimes { first, last };
                let json = serde_json::to_string(&missed).map_err(|error| text(&error))?;
                self.of(&trigger, recorded).last_missed = Some(json);
            }
            // The run's own first event has said it.
            Event::TriggerFired { .. } | Event::TriggerAdvanced { .. } => {}
        }
        Ok(())
    }

    fn of(&mut self, trigger: &TriggerRef, recorded: &RecordedEvent) -> &mut Change {
        let id = TriggerId::of(trigger.workflow_id, &trigger.name).to_string();
        self.0.entry(id.clone()).or_insert_with(|| Change {
            id,
            workspace_id: recorded.workspace_id.to_string(),
            workflow_id: trigger.workflow_id.to_string(),
            name: trigger.name.to_string(),
            runs: 0,
            last_micros: None,
            last_run_id: None,
            failures: 0,
            last_error: None,
            last_missed: None,
        })
    }

    /// Writes the changes. The caller owns the transaction.
    pub(crate) async fn write(
        self,
        session: &mut Session<'_>,
        position: u64,
    ) -> Result<(), FoldError> {
        if self.0.is_empty() {
            return Ok(());
        }
        let changes: Vec<_> = self.0.into_values().collect();
        let json = serde_json::to_string(&changes)
            .map_err(|error| FoldError::Event { position, reason: error.to_string() })?;
        let dialect = session.dialect();
        session.execute(sql(upsert(dialect)).bind(json)).await?;
        Ok(())
    }
}

fn upsert(dialect: Dialect) -> String {
    // Without a condition, SQLite would take the conflict's `on` for a join's.
    format!(
        "insert into triggers (id, workspace_id, workflow_id, name, runs, last_micros, \
            last_run_id, failures, last_error, last_missed) \
        select change.value ->> 'id', change.value ->> 'workspace_id', \
            change.value ->> 'workflow_id', change.value ->> 'name', \
            cast(change.value ->> 'runs' as bigint), \
            cast(change.value ->> 'last_micros' as bigint), \
            change.value ->> 'last_run_id', cast(change.value ->> 'failures' as bigint), \
            change.value ->> 'last_error', change.value ->> 'last_missed' \
        from {} as change where true \
        on conflict (id) do update set \
            runs = triggers.runs + excluded.runs, \
            last_micros = coalesce(excluded.last_micros, triggers.last_micros), \
            last_run_id = coalesce(excluded.last_run_id, triggers.last_run_id), \
            failures = triggers.failures + excluded.failures, \
            last_error = coalesce(excluded.last_error, triggers.last_error), \
            last_missed = coalesce(excluded.last_missed, triggers.last_missed)",
        dialect.each("$1")
    )
}
