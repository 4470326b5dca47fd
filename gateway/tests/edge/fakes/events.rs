//! The journal of the fake: events that a test has recorded, one after the other.

use async_trait::async_trait;
use chrono::TimeDelta;
use domain::ids::{RunId, WorkspaceId};
use futures::stream::{self, BoxStream, StreamExt as _};
use protocol::*;
use serde_json::json;

use super::{World, run_id, start_time};

impl World {
    fn after(&self, filter: &EventFilter, after: Option<Cursor>) -> Vec<EventEnvelope> {
        let from = after.map_or(0, |cursor| cursor.position);
        let events = self.events.lock().expect("lock");
        // All of them are of one run.
        let labels = super::run_view().labels;
        let mut wanted = filter.labels.iter();
        if !wanted.all(|(key, value)| labels.get(key) == Some(value)) {
            return Vec::new();
        }
        events.iter().filter(|e| e.position > from && filter.holds(e)).cloned().collect()
    }

    fn refuse_beyond(&self, after: Option<Cursor>) -> Result<(), Rejection> {
        let head = self.events.lock().expect("lock").len() as u64;
        let beyond = after.is_some_and(|cursor| cursor.position > head);
        let refused = || Rejection::new(RejectionKind::Malformed, "invalid_cursor", "beyond");
        if beyond { Err(refused()) } else { Ok(()) }
    }

    pub(crate) fn record(&self, workspace: WorkspaceId, event_type: &str) {
        self.record_after(workspace, event_type, 0);
    }

    /// The same, so many seconds after the start.
    pub(crate) fn record_after(&self, workspace: WorkspaceId, event_type: &str, seconds: i64) {
        let mut events = self.events.lock().expect("lock");
        let position = events.len() as u64 + 1;
        events.push(EventEnvelope {
            id: format!("evt_{position}"),
            position,
            cursor: Cursor { epoch: 7, position },
            aggregate_type: "run".to_owned(),
            aggregate_id: run_id().to_string(),
            sequence: position,
            event_type: event_type.to_owned(),
            event_version: 1,
            workspace_id: workspace.to_string(),
            dropped: false,
            payload: json!({"text": "a\nb"}),
            metadata: json!({}),
            recorded_at: start_time() + TimeDelta::seconds(seconds),
        });
    }
}

#[async_trait]
impl Events for World {
    async fn page(
        &self,
        filter: EventFilter,
        after: Option<Cursor>,
        limit: u32,
    ) -> Result<EventPage, Rejection> {
        self.refuse_beyond(after)?;
        let mut items = self.after(&filter, after);
        let more = items.len() > limit as usize;
        items.truncate(limit as usize);
        let start = after.unwrap_or(Cursor { epoch: 7, position: 0 });
        let cursor = items.last().map_or(start, |event| event.cursor);
        Ok(EventPage { items, cursor, more })
    }

    async fn follow(
        &self,
        filter: EventFilter,
        after: Option<Cursor>,
    ) -> Result<BoxStream<'static, Result<EventEnvelope, Rejection>>, Rejection> {
        self.refuse_beyond(after)?;
        let history = stream::iter(self.after(&filter, after)).map(Ok);
        if *self.lag.lock().expect("lock") {
            let lagged = Rejection::new(RejectionKind::Overloaded, "reader_lagged", "too slow");
            return Ok(history.chain(stream::iter([Err(lagged)])).boxed());
        }
        Ok(history.chain(stream::pending()).boxed())
    }

    async fn head(&self) -> Result<Cursor, Rejection> {
        let position = self.events.lock().expect("lock").len() as u64;
        Ok(Cursor { epoch: 7, position })
    }
}

#[async_trait]
impl EphemeralSource for World {
    async fn listen(
        &self,
        filter: EphemeralFilter,
    ) -> Result<BoxStream<'static, Ephemeral>, Rejection> {
        self.listened.lock().expect("lock").push(filter);
        let told = std::mem::take(&mut *self.ephemerals.lock().expect("lock"));
        Ok(stream::iter(told).chain(stream::pending()).boxed())
    }
}

impl World {
    /// A model's answer to a run's attempt, in pieces.
    pub(crate) fn tell(&self, run_id: RunId, texts: &[&str]) {
        let mut told = self.ephemerals.lock().expect("lock");
        for (index, text) in texts.iter().enumerate() {
            let (index, text) = (index as u64, (*text).to_owned());
            let (node, step) = ("ask".into(), None);
            let delta = LlmDelta { node, step, token: 3, attempt: 2, answer: 1, index, text };
            let (workspace_id, project_id, workflow_id) = (super::home(), None, None);
            let told_at = start_time();
            told.push(Ephemeral { workspace_id, project_id, workflow_id, run_id, told_at, delta });
        }
    }
}
