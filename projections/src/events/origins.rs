//! Whose events are: of which project, and of which workflow. The events of a thing don't say it,
//! but its first one does; so that is looked at once, and remembered.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use chassis::journal::{Journal, ReadError, RecordedEvent};
use domain::resource::Kind;
use domain::{codec, hold, retention, trigger};
use protocol::EventFilter;
use serde_json::Value;

use crate::runs;

/// Things that are remembered; all are forgotten when there are more.
const REMEMBERED: usize = 16_384;

/// Where things belong, by their ids.
#[derive(Default)]
pub(crate) struct Origins(Mutex<HashMap<Arc<str>, Origin>>);

/// Where a thing belongs.
#[derive(Debug, Clone, Default)]
pub(super) struct Origin {
    project: Option<Arc<str>>,
    workflow: Option<Arc<str>>,
}

impl Origin {
    /// What a first event tells: that of a run at the top, that of a resource in its specification.
    fn of(payload: &Value) -> Self {
        let text = |name: &str| {
            let found = payload.get(name).or_else(|| payload.pointer("/spec/spec")?.get(name));
            found.and_then(Value::as_str).map(Arc::from)
        };
        Self { project: text("project_id"), workflow: text("workflow_id") }
    }

    /// Whether a filter wants what is of here.
    pub(super) fn fits(&self, filter: &EventFilter) -> bool {
        let fits = |wanted: &Option<String>, is: &Option<Arc<str>>| {
            wanted.is_none() || wanted.as_deref() == is.as_deref()
        };
        fits(&filter.project_id, &self.project) && fits(&filter.workflow_id, &self.workflow)
    }
}

impl Origins {
    /// Where the run or thing belongs that an event is of.
    pub(super) async fn of(
        &self,
        journal: &dyn Journal,
        event: &RecordedEvent,
    ) -> Result<Origin, ReadError> {
        let (kind, id) = (&*event.aggregate_type, &event.aggregate_id);
        if let Some(known) = self.known().get(id) {
            return Ok(known.clone());
        }
        let found = match kind {
            // What is recorded of a run elsewhere has its id too.
            retention::AGGREGATE | hold::AGGREGATE => {
                Origin::of(&first(journal, runs::AGGREGATE, id).await?)
            }
            trigger::AGGREGATE => {
                let Origin { workflow, .. } = Origin::of(&first(journal, kind, id).await?);
                let of = workflow.as_deref().unwrap_or_default();
                let above = Origin::of(&first(journal, Kind::Workflow.as_str(), of).await?);
                Origin { workflow, ..above }
            }
            kind => {
                let mut found = Origin::of(&first(journal, kind, id).await?);
                if kind == Kind::Project.as_str() {
                    found.project = Some(Arc::clone(id));
                } else if kind == Kind::Workflow.as_str() {
                    found.workflow = Some(Arc::clone(id));
                }
                found
            }
        };
        let mut known = self.known();
        if known.len() >= REMEMBERED {
            known.clear();
        }
        known.insert(Arc::clone(id), found.clone());
        Ok(found)
    }

    fn known(&self) -> MutexGuard<'_, HashMap<Arc<str>, Origin>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What a thing's first event tells; nothing where it can't be read, which its readers are told.
async fn first(journal: &dyn Journal, kind: &str, id: &str) -> Result<Value, ReadError> {
    let first = journal.load(kind, id, 0, 1).await?.pop();
    let payload = first.and_then(|first| codec::shown(&first.payload, &|_| None).ok());
    Ok(payload.unwrap_or_default())
}
