//! Runs decided again: their history compared with what the engine makes of the same commands now.

use std::collections::BTreeMap;
use std::ops::ControlFlow;
use std::sync::Arc;

use domain::definition::{Definition, Plan, Resolved};
use domain::ids::{RunId, WorkspaceId};
use domain::resource::{Kind, Spec};
use domain::run::Event;
use domain::run::event::{DefinitionRef, Pin, RunStarted};
use domain::run::replay::{Difference, Replay};
use protocol::view::HistoryDifference;
use protocol::{Rejection, RejectionKind, Verification};
use serde::Serialize;
use serde_json::Value;

use crate::histories::Histories;
use crate::time_travel::PAGE_EVENTS;
use crate::{refusal, resources};

impl Histories<'_> {
    /// Decides a run's history again, by the plan that it follows.
    ///
    /// # Errors
    /// Where the run isn't there or hasn't what is asked for, and where events can't be read.
    pub async fn run_verified(
        &self,
        workspace_id: WorkspaceId,
        run_id: RunId,
    ) -> Result<Verification, Rejection> {
        let id = run_id.to_string();
        let started = self.run_started(workspace_id, &id).await?;
        let plan = self.plan_of(&started.definition, &started.pins).await?;
        let others = self.plans_of_forks(&id, &started).await?;
        let mut replay = Replay::new(&plan);
        let mut events = 0;
        let read = self.each_event(&id, 0, |recorded, event| {
            if let Some(other) = others.get(&recorded.sequence) {
                replay.follow(other);
            }
            if let Err(found) = replay.take(&event, recorded.recorded_at) {
                return ControlFlow::Break(found);
            }
            events = recorded.sequence;
            ControlFlow::Continue(())
        });
        let difference = match read.await? {
            Some(found) => Some(found),
            None => replay.end().err(),
        };
        let difference = difference.map(|found| shown(&id, *found)).transpose()?;
        Ok(Verification { run_id: id, verified: difference.is_none(), events, difference })
    }

    /// The plans that a fork follows from some of its events on.
    pub(crate) async fn plans_of_forks(
        &self,
        id: &str,
        started: &RunStarted,
    ) -> Result<BTreeMap<u64, Arc<Plan>>, Rejection> {
        let (mut plans, mut sequence) = (BTreeMap::new(), 0);
        let last = started.forked_from.map_or(0, |from| from.sequence + 1);
        while sequence < last {
            let page = self.run_events(id, sequence, PAGE_EVENTS).await?;
            for recorded in page.iter().filter(|one| &*one.event_type == "run_forked") {
                for (recorded, event) in self.decoded(std::slice::from_ref(recorded)).await? {
                    if let Event::RunForked(forked) = event
                        && let Some(definition) = &forked.definition
                    {
                        let plan = self.plan_of(definition, &forked.pins).await?;
                        plans.insert(recorded.sequence, plan);
                    }
                }
            }
            sequence = page.last().map_or(last, |event| event.sequence);
        }
        Ok(plans)
    }

    /// The plan that a run follows, with what its references were resolved to.
    pub(crate) async fn plan_of(
        &self,
        reference: &DefinitionRef,
        pins: &[Pin],
    ) -> Result<Arc<Plan>, Rejection> {
        if let Some(plan) = self.plans().and_then(|plans| plans.get(reference, pins)) {
            return Ok(plan);
        }
        let definition = self.definition_at(&reference.id.to_string(), reference.version).await?;
        let missing = || {
            let named = format!("{}@{}", reference.name, reference.version);
            refusal::not_found("definition", &named)
        };
        let definition = definition.ok_or_else(missing)?;
        let resolved = self.resolved(pins).await?;
        let plan = Plan::compile(&definition, &resolved).map_err(|problems| {
            let message = "the run's definition can't be compiled by this version of the engine";
            Rejection::new(RejectionKind::Conflict, "invalid_definition", message)
                .with_problems(problems)
        })?;
        let plan = Arc::new(plan);
        if let Some(plans) = self.plans() {
            plans.keep(reference, pins, &plan);
        }
        Ok(plan)
    }

    async fn resolved(&self, pins: &[Pin]) -> Result<Resolved, Rejection> {
        let mut specs = Vec::with_capacity(pins.len());
        for pin in pins {
            let spec = self.spec_at(pin.kind, &pin.id, pin.version).await?;
            let missing = || refusal::not_found(pin.kind.words(), &pin.reference);
            specs.push(spec.ok_or_else(missing)?);
        }
        Ok(Resolved::pinned(pins, specs))
    }

    /// A version of a definition; `None` where the journal doesn't have it.
    pub(crate) async fn definition_at(
        &self,
        id: &str,
        version: u64,
    ) -> Result<Option<Definition>, Rejection> {
        Ok(match self.spec_at(Kind::WorkflowDefinition, id, version).await? {
            Some(Spec::WorkflowDefinition(spec)) => Some(spec.definition),
            Some(_) | None => None,
        })
    }

    /// A version of a resource; `None` where the journal doesn't have it.
    pub(crate) async fn spec_at(
        &self,
        kind: Kind,
        id: &str,
        version: u64,
    ) -> Result<Option<Spec>, Rejection> {
        let found = resources::spec_at(self.past, kind, id, version).await;
        let spec = found.map_err(refusal::journal)?.transpose();
        spec.map_err(|error| refusal::damaged(id, &error))
    }
}

fn shown(id: &str, difference: Difference) -> Result<HistoryDifference, Rejection> {
    let Difference { sequence, recorded, decided } = difference;
    let value = |event: Option<Event>| json(event).map_err(|error| refusal::damaged(id, &error));
    Ok(HistoryDifference { sequence, recorded: value(recorded)?, decided: value(decided)? })
}

fn json(event: Option<impl Serialize>) -> Result<Option<Value>, serde_json::Error> {
    event.map(serde_json::to_value).transpose()
}
