//! Triggers by events: follows the journal, and starts the runs of the events that are asked for.

use std::collections::HashMap;
use std::sync::Arc;

use chassis::journal::{RecordedEvent, Tail};
use domain::ids::{EventId, ProjectId, RunId, WorkflowId};
use domain::limits;
use domain::resource::{Kind, owned};
use domain::run::event::TriggeredBy;
use domain::run::{self, event::RunStarted};
use domain::trigger::{Event, EventSpec, Source, TriggerKind};
use futures::{StreamExt, TryStreamExt, stream};
use protocol::event::{is_quiet, is_shared};
use protocol::{Rejection, RejectionKind};
use serde_json::{Map, Value, json};

use super::armed::{Armed, InForce};
use super::start::{Starting, failure, may_pass, run_of};
use super::{LOOK, Triggers};
use crate::coordinator::unavailable;
use crate::resources::refusal;
use crate::store::metadata::Along;
use crate::store::{Fault, payload};

/// Events that are looked at together.
const PAGE: usize = 500;
/// Runs of one trigger that are started at the same time.
const AT_ONCE: usize = 32;
/// Events without one that is asked for, after which the place is recorded.
const ADVANCE_EVERY: u64 = 10_000;
/// Runs whose origin is kept in memory; beyond, all are forgotten and read again.
const ORIGINS: usize = 10_000;

/// Where an event's run comes from.
struct Origin {
    project_id: ProjectId,
    workflow_id: Option<WorkflowId>,
    definition: String,
    labels: Value,
    /// How many runs are before it in its chain.
    depth: u32,
}

/// What is followed, and how far.
struct Following {
    in_force: InForce,
    /// How far each trigger has looked, beyond what is recorded.
    tail: Option<Tail>,
    origins: HashMap<Arc<str>, Arc<Origin>>,
}

impl Triggers {
    /// Never ends.
    pub(super) async fn follow_events(self) {
        let mut following = Following {
            in_force: InForce::of(TriggerKind::Event),
            tail: None,
            origins: HashMap::new(),
        };
        loop {
            if let Err(error) = self.follow_on(&mut following).await {
                tracing::warn!(%error, "can't follow events for triggers, trying again");
                // From what is recorded: a run that was started meanwhile is met again.
                following.tail = None;
                tokio::time::sleep(LOOK).await;
            }
        }
    }

    async fn follow_on(&self, following: &mut Following) -> Result<(), Rejection> {
        if following.in_force.refresh(self).await? {
            following.tail = None;
        }
        let Some(first) = following.in_force.armed.values().map(Armed::done_position).min() else {
            tokio::time::sleep(LOOK).await;
            return Ok(());
        };
        let tail = following.tail.get_or_insert_with(|| self.journal.tail(first));
        let page = match tokio::time::timeout(LOOK, tail.next(PAGE)).await {
            Ok(page) => page.map_err(|error| unavailable(&error.to_string()))?,
            Err(_) => return Ok(()),
        };
        let Following { in_force, origins, .. } = following;
        for armed in in_force.armed.values_mut() {
            self.look_through(armed, &page, origins).await?;
        }
        Ok(())
    }

    /// Starts a trigger's runs of a page, and records how far it has come.
    async fn look_through(
        &self,
        armed: &mut Armed,
        page: &[Arc<RecordedEvent>],
        origins: &mut HashMap<Arc<str>, Arc<Origin>>,
    ) -> Result<(), Rejection> {
        let Some(Source::Event(spec)) = armed.compiled.spec.source() else { return Ok(()) };
        let (done, workspace) = (armed.done_position(), armed.workspace_id.to_string());
        let mut asked_for = Vec::new();
        for event in page {
            let may_be = event.position > done
                && &*event.aggregate_type == "run"
                && *event.event_type == *spec.event_type
                && *event.workspace_id == *workspace
                && !is_shared(&event.metadata, event.sequence)
                && !is_quiet(&event.metadata);
            if may_be {
                let origin = self.origin(&event.aggregate_id, origins).await?;
                if origin.project_id == armed.project_id && is_of(spec, &origin) {
                    asked_for.push((Arc::clone(event), origin));
                }
            }
        }
        let (armed_now, runs) = (&*armed, stream::iter(asked_for));
        let came: Vec<Option<Event>> = runs
            .map(|(event, origin)| async move { self.fire_on(armed_now, &event, &origin).await })
            .buffered(AT_ONCE)
            .try_collect()
            .await?;
        let mut events: Vec<_> = came.into_iter().flatten().collect();
        let last = page.last().map_or(done, |event| event.position);
        if events.is_empty() {
            if last < done + ADVANCE_EVERY {
                return Ok(());
            }
            let trigger = armed.trigger.clone();
            events.push(Event::TriggerAdvanced { trigger, position: last });
        }
        let Armed { trigger, workspace_id, epoch, log, .. } = armed;
        self.record(log, trigger, *workspace_id, Some(*epoch), &events).await
    }

    /// Starts the run of an event, where the trigger's condition holds.
    async fn fire_on(
        &self,
        armed: &Armed,
        recorded: &RecordedEvent,
        origin: &Origin,
    ) -> Result<Option<Event>, Rejection> {
        let trigger = armed.trigger.clone();
        let key = EventId::new(recorded.id).to_string();
        let (at, position) = (recorded.recorded_at, Some(recorded.position));
        let run_id = RunId::triggered_beside(trigger.workflow_id, &trigger.name, &key);
        match self.start_on(armed, recorded, origin, run_id, &key).await {
            Ok(Some(run_id)) => {
                Ok(Some(Event::TriggerFired { trigger, key, at, run_id, position }))
            }
            Ok(None) => Ok(None),
            Err(refused) if may_pass(&refused) => Err(refused),
            Err(refused) => Ok(Some(failure(trigger, key, at, &refused, position))),
        }
    }

    async fn start_on(
        &self,
        armed: &Armed,
        recorded: &RecordedEvent,
        origin: &Origin,
        run_id: RunId,
        key: &str,
    ) -> Result<Option<RunId>, Rejection> {
        let event = self.view(recorded, origin, key).await?;
        let Some(Source::Event(spec)) = armed.compiled.spec.source() else { return Ok(None) };
        let is_named = spec.name.as_ref().is_none_or(|name| event["data"]["name"] == **name);
        let wants = armed.compiled.wants(&event).map_err(|error| {
            let message = format!("where can't be evaluated: {}", error.message);
            Rejection::new(RejectionKind::Invalid, "trigger_condition", message)
        });
        if !is_named || !wants? {
            return Ok(None);
        }
        let depth = origin.depth + 1;
        if depth > limits::TRIGGER_DEPTH {
            metrics::counter!("wonder_trigger_chains_cut_total").increment(1);
            let message = format!(
                "{} runs have started each other by their events, and no more do",
                limits::TRIGGER_DEPTH
            );
            let kind = RejectionKind::Conflict;
            return Err(Rejection::new(kind, "trigger_chain_too_deep", message));
        }
        let by = TriggeredBy {
            workflow_id: armed.trigger.workflow_id,
            name: armed.trigger.name.clone(),
            kind: TriggerKind::Event,
            at: recorded.recorded_at,
            key: key.to_owned(),
            depth,
        };
        let more = Map::from_iter([("event".to_owned(), event)]);
        let (workspace_id, trigger) = (armed.workspace_id, &armed.compiled);
        let starting =
            Starting { workspace_id, run_id, trigger, by, more, along: Along::default() };
        run_of(&self.start(starting).await?).map(Some)
    }

    /// An event as conditions and mappings see it.
    async fn view(
        &self,
        recorded: &RecordedEvent,
        origin: &Origin,
        key: &str,
    ) -> Result<Value, Rejection> {
        let event: run::Event =
            payload::decode(&*self.journal, recorded).await.map_err(unreadable)?;
        let mut data = serde_json::to_value(&event).unwrap_or_default();
        if let Some(members) = data.as_object_mut() {
            members.shift_remove("type");
        }
        Ok(json!({
            "id": key,
            "type": &*recorded.event_type,
            "at": recorded.recorded_at,
            "run_id": &*recorded.aggregate_id,
            "workflow_id": origin.workflow_id,
            "definition": origin.definition,
            "labels": origin.labels,
            "data": data,
        }))
    }

    /// Where a run comes from; of a child, how deep in a chain the run at the top is.
    async fn origin(
        &self,
        run_id: &Arc<str>,
        origins: &mut HashMap<Arc<str>, Arc<Origin>>,
    ) -> Result<Arc<Origin>, Rejection> {
        if let Some(origin) = origins.get(run_id) {
            return Ok(Arc::clone(origin));
        }
        let started = self.run_started(run_id).await?;
        let top = match &started.parent {
            Some(parent) => Some(self.run_started(&parent.root_run_id.to_string()).await?),
            None => None,
        };
        let depth = |started: &RunStarted| started.trigger.as_ref().map(|trigger| trigger.depth);
        let origin = Arc::new(Origin {
            project_id: started.project_id,
            workflow_id: started.workflow_id,
            depth: depth(top.as_ref().unwrap_or(&started)).unwrap_or(0),
            labels: json!(started.labels),
            definition: started.definition.name,
        });
        if origins.len() >= ORIGINS {
            origins.clear();
        }
        origins.insert(Arc::clone(run_id), Arc::clone(&origin));
        Ok(origin)
    }

    async fn run_started(&self, run_id: &str) -> Result<RunStarted, Rejection> {
        let first = self.journal.load("run", run_id, 0, 1).await;
        let first = first.map_err(|error| unreadable(Fault::Read(error)))?.pop();
        let damaged = || unreadable(Fault::Damaged(format!("{run_id} has no first event")));
        let first = first.ok_or_else(damaged)?;
        match payload::decode(&*self.journal, &first).await.map_err(unreadable)? {
            run::Event::RunStarted(started) => Ok(*started),
            _ => Err(damaged()),
        }
    }
}

fn is_of(spec: &EventSpec, origin: &Origin) -> bool {
    spec.workflow.as_ref().is_none_or(|name| {
        let wanted = owned(Kind::Workflow, origin.project_id, name.as_str());
        origin.workflow_id.is_some_and(|id| id.to_string() == wanted)
    })
}

fn unreadable(fault: Fault) -> Rejection {
    refusal::of(fault, Kind::Workflow, "a run's event")
}
