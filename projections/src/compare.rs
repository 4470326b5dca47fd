//! Versions of a definition compared, and recorded runs of one rehearsed by another.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use domain::definition::{Change, Definition, Plan, changes};
use domain::ids::{ProjectId, WorkspaceId};
use domain::resource::{ActionSpec, Kind, owned};
use domain::run::Event;
use domain::run::event::Pin;
use domain::run::rehearsal::{Parting, PartingKind};
use protocol::comparison::REHEARSED_RUNS;
use protocol::{
    Compare, ComparedTo, Comparison, DefinitionChange, NotRehearsed, PartedRun, RehearsalView,
    Rejection, RejectionKind, ResourceQueries,
};
use serde_json::{Value, json};
use sqlx::FromRow;
use tokio::time::Instant;

use crate::rehearse::{plan_with, references};
use crate::store::sql::sql;
use crate::{Projections, refusal};

/// Events of all runs that one comparison rehearses.
const EVENTS: u64 = 100_000;
/// How long one comparison rehearses: less than a call over the bus waits for its answer.
const TIME: Duration = Duration::from_secs(5);
/// Bytes of a member of an event above which its size is told instead.
const MEMBER_BYTES: usize = 1_000;
/// Bytes of events that an answer shows; those of further runs are left out.
const SHOWN_BYTES: usize = 4 * 1024 * 1024;

/// A run that can be rehearsed.
#[derive(FromRow)]
struct Ended {
    id: String,
    sequence: i64,
}

impl Projections {
    /// Compares two versions of a definition, and rehearses recorded runs.
    pub(crate) async fn compared(
        &self,
        workspace_id: WorkspaceId,
        asked: &Compare,
    ) -> Result<Comparison, Rejection> {
        if asked.runs > REHEARSED_RUNS {
            let message = format!("runs must be 0 to {REHEARSED_RUNS}");
            return Err(Rejection::new(RejectionKind::Malformed, "invalid_limit", message));
        }
        let (kind, id) = (Kind::WorkflowDefinition, asked.definition_id.to_string());
        let view = self.get(Some(workspace_id), kind, &id, asked.min_position).await?;
        self.wait_for(&self.runs, asked.min_position).await?;
        let project_id = view.project_id.as_deref().and_then(|id| id.parse().ok());
        let project_id = project_id.ok_or_else(|| refusal::damaged(&id, &"it has no project"))?;
        let version = async |version: u64| {
            let found = self.histories().definition_at(&id, version).await?;
            found.ok_or_else(|| refusal::not_found("version", &format!("{}@{version}", view.name)))
        };
        let from = version(asked.from).await?;
        let (to, number) = match &asked.to {
            ComparedTo::Version(number) => (version(*number).await?, Some(*number)),
            ComparedTo::Definition(definition) => ((**definition).clone(), None),
        };
        let (found, left_out) =
            changes(&from, &to).map_err(|error| refusal::damaged(&id, &error))?;
        let runs = self.ended_runs(workspace_id, asked).await?;
        let by = By { projections: self, workspace_id, project_id, to: &to, known: None };
        Ok(Comparison {
            definition_id: id,
            from: asked.from,
            to: number,
            changes: found.into_iter().map(view_of_change).collect(),
            changes_left_out: left_out,
            rehearsal: rehearsed(by, runs).await?,
        })
    }

    /// The newest runs of a version that have ended.
    async fn ended_runs(
        &self,
        workspace_id: WorkspaceId,
        asked: &Compare,
    ) -> Result<Vec<Ended>, Rejection> {
        let query =
            sql("select id, sequence from runs where workspace_id = $1 and definition_id = $2 \
             and definition_version = $3 and ended_micros is not null and archived is null \
             order by started_micros desc, id desc limit $4")
            .bind(workspace_id.to_string())
            .bind(asked.definition_id.to_string())
            .bind(i64::try_from(asked.from).unwrap_or(i64::MAX))
            .bind(i64::from(asked.runs));
        self.store.readers().rows(query).await.map_err(refusal::storage)
    }
}

async fn rehearsed(mut by: By<'_>, runs: Vec<Ended>) -> Result<RehearsalView, Rejection> {
    let mut view = RehearsalView::default();
    let (mut events, mut shown, until) = (0, 0, Instant::now() + TIME);
    for Ended { id: run_id, sequence } in runs {
        events += sequence.unsigned_abs();
        let came_out = if events > EVENTS {
            events -= sequence.unsigned_abs();
            Err(format!("one comparison rehearses {EVENTS} events; ask for fewer runs"))
        } else if Instant::now() > until {
            Err("the time of one comparison was up; ask for fewer runs".to_owned())
        } else {
            by.rehearse(&run_id).await?
        };
        match came_out {
            Err(why) => view.not_rehearsed.push(NotRehearsed { run_id, why }),
            Ok(parting) => {
                view.runs += 1;
                match &parting {
                    None => view.same += 1,
                    Some(parting) if parting.kind == PartingKind::Values => view.values += 1,
                    Some(_) => {}
                }
                let parted = parting.map(|parting| view_of_parting(run_id, parting, &mut shown));
                view.parted.extend(parted.transpose()?);
            }
        }
    }
    Ok(view)
}

/// What runs are rehearsed by.
struct By<'a> {
    projections: &'a Projections,
    workspace_id: WorkspaceId,
    project_id: ProjectId,
    to: &'a Definition,
    /// The plan for the pins of the run before.
    known: Option<(Vec<Pin>, Arc<Plan>)>,
}

impl By<'_> {
    /// Rehearses a run. Answers where it parts, or in words why it can't be rehearsed.
    async fn rehearse(
        &mut self,
        run_id: &str,
    ) -> Result<Result<Option<Parting>, String>, Rejection> {
        let histories = self.projections.histories();
        let started = histories.run_started(self.workspace_id, run_id).await?;
        match self.plan(&started.pins).await? {
            Ok(plan) => histories.rehearsed(run_id, &plan).await.map(Ok),
            Err(why) => Ok(Err(why)),
        }
    }

    /// The plan of the other version for a run: references that the run has pinned mean what they
    /// meant to it, others what they mean now.
    async fn plan(&mut self, pins: &[Pin]) -> Result<Result<Arc<Plan>, String>, Rejection> {
        if let Some((_, plan)) = self.known.as_ref().filter(|(known, _)| known == pins) {
            return Ok(Ok(Arc::clone(plan)));
        }
        let mut actions = BTreeMap::new();
        for reference in references(self.to)? {
            match self.action(&reference, pins).await? {
                Some(action) => drop(actions.insert(reference, action)),
                None => return Ok(Err(format!("the project has no action {reference:?}"))),
            }
        }
        Ok(plan_with(self.to, pins, actions).map(|plan| {
            let plan = Arc::new(plan);
            self.known = Some((pins.to_vec(), Arc::clone(&plan)));
            plan
        }))
    }

    async fn action(&self, reference: &str, pins: &[Pin]) -> Result<Option<ActionSpec>, Rejection> {
        let histories = self.projections.histories();
        if let Some(pinned) = histories.pinned_action(reference, pins).await? {
            return Ok(Some(pinned));
        }
        let (name, version) = reference.split_once('@').unwrap_or((reference, ""));
        let id = owned(Kind::Action, self.project_id, name);
        let newest = self.projections.get(Some(self.workspace_id), Kind::Action, &id, None).await;
        let version = match (version.parse(), newest) {
            (Ok(version), Ok(_)) => version,
            (Err(_), Ok(newest)) => newest.version,
            (_, Err(refused)) if refused.kind == RejectionKind::NotFound => return Ok(None),
            (_, Err(refused)) => return Err(refused),
        };
        histories.action_at(&id, version).await
    }
}

/// A difference as it is answered.
pub(crate) fn view_of_change(change: Change) -> DefinitionChange {
    let Change { kind, pointer, from_pointer, transition, before, after } = change;
    let kind = kind.as_str().to_owned();
    DefinitionChange { kind, pointer, from_pointer, transition, before, after }
}

pub(crate) fn view_of_parting(
    run_id: String,
    parting: Parting,
    shown: &mut usize,
) -> Result<PartedRun, Rejection> {
    let Parting { kind, sequence, node, recorded, decided, problems } = parting;
    let mut show = |event: Option<Event>| {
        let Some(event) = event.filter(|_| *shown < SHOWN_BYTES) else { return Ok(None) };
        let (event, bytes) = brief(&event).map_err(|error| refusal::damaged(&run_id, &error))?;
        *shown += bytes;
        Ok(Some(event))
    };
    let (recorded, decided) = (show(recorded)?, show(decided)?);
    let kind = kind.as_str().to_owned();
    Ok(PartedRun { run_id, kind, sequence, node, recorded, decided, problems })
}

/// An event as JSON, with the sizes of its large members instead of them; and its bytes.
pub(crate) fn brief(event: &Event) -> Result<(Value, usize), serde_json::Error> {
    let mut event = serde_json::to_value(event)?;
    let mut shown = 0;
    for (_, member) in event.as_object_mut().into_iter().flatten() {
        let bytes = member.to_string().len();
        *member = shortened(member.take());
        shown += bytes.min(MEMBER_BYTES);
    }
    Ok((event, shown))
}

/// A value, or the size of one that is large.
pub(crate) fn shortened(value: Value) -> Value {
    let bytes = value.to_string().len();
    if bytes > MEMBER_BYTES { json!({"left_out_bytes": bytes}) } else { value }
}
