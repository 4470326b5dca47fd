//! Whose project's an event is. The events of a thing don't say it, but its first one does; so that is
//! looked at once, and remembered.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use chassis::journal::{Journal, ReadError, RecordedEvent};
use domain::resource::Kind;
use domain::{codec, retention, trigger};
use serde_json::Value;

use crate::runs;

/// Things that are remembered; all are forgotten when there are more.
const REMEMBERED: usize = 16_384;

/// The projects of things, by their ids; none where a thing has none.
#[derive(Default)]
pub(crate) struct Projects(Mutex<HashMap<Arc<str>, Option<Arc<str>>>>);

impl Projects {
    /// The project of the run or thing that an event is of.
    pub(super) async fn of(
        &self,
        journal: &dyn Journal,
        event: &RecordedEvent,
    ) -> Result<Option<Arc<str>>, ReadError> {
        if let Some(known) = self.known().get(&event.aggregate_id) {
            return Ok(known.clone());
        }
        let (kind, id) = match &*event.aggregate_type {
            // What is recorded of a run elsewhere has its id too.
            retention::AGGREGATE => (runs::AGGREGATE, &event.aggregate_id),
            kind => (kind, &event.aggregate_id),
        };
        let found = match kind {
            kind if kind == Kind::Project.as_str() => Some(Arc::clone(id)),
            trigger::AGGREGATE => {
                let payload = first(journal, kind, id).await?;
                match text(&payload, "/workflow_id") {
                    Some(workflow) => {
                        let payload = first(journal, Kind::Workflow.as_str(), workflow).await?;
                        project(&payload)
                    }
                    None => None,
                }
            }
            kind => project(&first(journal, kind, id).await?),
        };
        let mut known = self.known();
        if known.len() >= REMEMBERED {
            known.clear();
        }
        known.insert(Arc::clone(&event.aggregate_id), found.clone());
        Ok(found)
    }

    fn known(&self) -> MutexGuard<'_, HashMap<Arc<str>, Option<Arc<str>>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What a thing's first event tells; nothing where it can't be read, which its readers are told.
async fn first(journal: &dyn Journal, kind: &str, id: &str) -> Result<Value, ReadError> {
    let first = journal.load(kind, id, 0, 1).await?.pop();
    let payload = first.and_then(|first| codec::shown(&first.payload, &|_| None).ok());
    Ok(payload.unwrap_or_default())
}

/// Of a run it stands at the top, of a resource in its specification.
fn project(payload: &Value) -> Option<Arc<str>> {
    text(payload, "/project_id").or_else(|| text(payload, "/spec/spec/project_id")).map(Arc::from)
}

fn text<'a>(payload: &'a Value, pointer: &str) -> Option<&'a str> {
    payload.pointer(pointer).and_then(Value::as_str)
}
