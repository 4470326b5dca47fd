//! Whose events are: of which project, of which workflow, and with which labels. The events of a
//! thing don't say it, but its first one does, and that doesn't change; so it is looked at once, and
//! remembered.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use chassis::journal::{Journal, ReadError, RecordedEvent};
use domain::resource::Kind;
use domain::{codec, hold, retention, trigger};
use protocol::EventFilter;
use serde_json::Value;

use crate::runs;

/// Things that are remembered, and bytes of their labels; all are forgotten when there are more.
const REMEMBERED: usize = 16_384;
const LABEL_BYTES: usize = 8 * 1024 * 1024;
/// Bytes that a label takes beside its key and its value, roughly.
const LABEL_AROUND: usize = 64;

/// Where things belong, by their ids.
#[derive(Default)]
pub(crate) struct Origins(Mutex<Known>);

#[derive(Default)]
struct Known {
    things: HashMap<Arc<str>, Origin>,
    label_bytes: usize,
}

/// Where a thing belongs.
#[derive(Debug, Clone, Default)]
struct Origin {
    project: Option<Arc<str>>,
    workflow: Option<Arc<str>>,
    /// Absent where nobody has asked for them yet.
    labels: Option<Arc<BTreeMap<String, String>>>,
}

/// Whether what is recorded in aggregates of a type is of runs, which have labels.
pub(super) fn has_labels(aggregate_type: &str) -> bool {
    matches!(aggregate_type, runs::AGGREGATE | retention::AGGREGATE | hold::AGGREGATE)
}

impl Origin {
    /// What a first event tells: that of a run at the top, that of a resource in its specification.
    fn of(payload: &Value) -> Self {
        let text = |name: &str| {
            let found = payload.get(name).or_else(|| payload.pointer("/spec/spec")?.get(name));
            found.and_then(Value::as_str).map(Arc::from)
        };
        Self { project: text("project_id"), workflow: text("workflow_id"), labels: None }
    }

    /// Whether a filter wants what is of here.
    fn fits(&self, filter: &EventFilter) -> bool {
        let fits = |wanted: &Option<String>, is: &Option<Arc<str>>| {
            wanted.is_none() || wanted.as_deref() == is.as_deref()
        };
        let has = |(key, value): &(String, String)| {
            self.labels.as_ref().is_some_and(|labels| labels.get(key) == Some(value))
        };
        fits(&filter.project_id, &self.project)
            && fits(&filter.workflow_id, &self.workflow)
            && filter.labels.iter().all(has)
    }

    fn label_bytes(&self) -> usize {
        let labels = self.labels.iter().flat_map(|labels| labels.iter());
        labels.map(|(key, value)| key.len() + value.len() + LABEL_AROUND).sum()
    }
}

impl Origins {
    /// Whether a filter wants the run or thing that an event is of.
    pub(super) async fn fits(
        &self,
        journal: &dyn Journal,
        filter: &EventFilter,
        event: &RecordedEvent,
    ) -> Result<bool, ReadError> {
        let (id, with_labels) = (&event.aggregate_id, !filter.labels.is_empty());
        if let Some(known) = self.known().things.get(id)
            && (known.labels.is_some() || !with_labels)
        {
            return Ok(known.fits(filter));
        }
        let found = origin(journal, event, with_labels).await?;
        let fits = found.fits(filter);
        self.known().remember(id, found);
        Ok(fits)
    }

    fn known(&self) -> MutexGuard<'_, Known> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Known {
    fn remember(&mut self, id: &Arc<str>, origin: Origin) {
        let bytes = origin.label_bytes();
        if self.things.len() >= REMEMBERED || self.label_bytes + bytes > LABEL_BYTES {
            *self = Self::default();
        }
        self.label_bytes += bytes;
        if let Some(before) = self.things.insert(Arc::clone(id), origin) {
            self.label_bytes -= before.label_bytes();
        }
    }
}

/// Where the run or thing belongs that an event is of.
async fn origin(
    journal: &dyn Journal,
    event: &RecordedEvent,
    with_labels: bool,
) -> Result<Origin, ReadError> {
    let (kind, id) = (&*event.aggregate_type, &event.aggregate_id);
    if has_labels(kind) {
        // What is recorded of a run elsewhere has its id too.
        let first = match kind {
            runs::AGGREGATE if event.sequence == 1 => told(event),
            _ => first(journal, runs::AGGREGATE, id).await?,
        };
        let labels = || serde_json::from_value(first["labels"].clone()).unwrap_or_default();
        return Ok(Origin { labels: with_labels.then(labels).map(Arc::new), ..Origin::of(&first) });
    }
    if kind == trigger::AGGREGATE {
        let Origin { workflow, .. } = Origin::of(&first(journal, kind, id).await?);
        let of = workflow.as_deref().unwrap_or_default();
        let above = Origin::of(&first(journal, Kind::Workflow.as_str(), of).await?);
        return Ok(Origin { workflow, ..above });
    }
    let mut found = Origin::of(&first(journal, kind, id).await?);
    if kind == Kind::Project.as_str() {
        found.project = Some(Arc::clone(id));
    } else if kind == Kind::Workflow.as_str() {
        found.workflow = Some(Arc::clone(id));
    }
    Ok(found)
}

/// What a thing's first event tells; nothing where it can't be read, which its readers are told.
async fn first(journal: &dyn Journal, kind: &str, id: &str) -> Result<Value, ReadError> {
    let first = journal.load(kind, id, 0, 1).await?.pop();
    Ok(first.as_ref().map(told).unwrap_or_default())
}

fn told(event: &RecordedEvent) -> Value {
    codec::shown(&event.payload, &|_| None).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_more_is_remembered_than_there_is_room_for() {
        let mut known = Known::default();
        let labels: BTreeMap<_, _> =
            (0..32).map(|number| (format!("{number:064}"), "v".repeat(256))).collect();
        let labelled = Origin { labels: Some(Arc::new(labels)), ..Origin::default() };
        let bytes = labelled.label_bytes();
        for number in 0..2_000 {
            known.remember(&format!("run_{number}").into(), labelled.clone());
            assert_eq!(known.label_bytes, known.things.len() * bytes);
            assert!(known.label_bytes <= LABEL_BYTES);
        }
        known.remember(&"run_1999".into(), labelled.clone());
        known.remember(&"run_1999".into(), Origin::default());
        assert_eq!(known.label_bytes, (known.things.len() - 1) * bytes);
        for number in 0..REMEMBERED + 10 {
            known.remember(&format!("run_{number}").into(), Origin::default());
        }
        assert!(known.things.len() <= REMEMBERED);
    }
}
