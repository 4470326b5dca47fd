//! A recorded run by another version of its definition, and what stands in a journal or in a bundle
//! of what that version refers to.

use std::collections::BTreeMap;
use std::ops::ControlFlow;

use domain::definition::resolved::uses;
use domain::definition::{Definition, Plan, Resolved};
use domain::ids::{RunId, WorkspaceId};
use domain::resource::{ActionSpec, Kind, Spec};
use domain::run::event::Pin;
use domain::run::rehearsal::{Parting, Rehearsal};
use protocol::{PartedRun, Rejection};

use crate::compare::view_of_parting;
use crate::histories::Histories;
use crate::refusal;

impl Histories<'_> {
    /// Decides a run's history again by another plan, and answers where it parts first.
    pub(crate) async fn rehearsed(
        &self,
        run_id: &str,
        plan: &Plan,
    ) -> Result<Option<Parting>, Rejection> {
        let mut rehearsal = Rehearsal::new(plan);
        let read = self.each_event(run_id, 0, |recorded, event| {
            match rehearsal.take(&event, recorded.recorded_at) {
                Ok(()) => ControlFlow::Continue(()),
                Err(parting) => ControlFlow::Break(*parting),
            }
        });
        if let Some(parting) = read.await? {
            return Ok(Some(parting));
        }
        Ok(match rehearsal.end() {
            Ok(values) => values.map(|parting| *parting),
            Err(parting) => Some(*parting),
        })
    }

    /// Decides a run's history again by a definition that may refer to what the run has pinned.
    /// Answers where it parts first, or in words why it can't be decided by that.
    ///
    /// # Errors
    /// Where the run isn't there, and where events can't be read.
    pub async fn run_rehearsed(
        &self,
        workspace_id: WorkspaceId,
        run_id: RunId,
        by: &Definition,
    ) -> Result<Result<Option<PartedRun>, String>, Rejection> {
        let id = run_id.to_string();
        let started = self.run_started(workspace_id, &id).await?;
        let plan = match self.plan_by(by, &started.pins).await? {
            Ok(plan) => plan,
            Err(why) => return Ok(Err(why)),
        };
        let parting = self.rehearsed(&id, &plan).await?;
        let parting = parting.map(|parting| view_of_parting(id, parting, &mut 0));
        parting.transpose().map(Ok)
    }

    /// The plan of a definition that refers to nothing but what is pinned; in words why there is
    /// none.
    pub(crate) async fn plan_by(
        &self,
        definition: &Definition,
        pins: &[Pin],
    ) -> Result<Result<Plan, String>, Rejection> {
        let mut actions = BTreeMap::new();
        for reference in references(definition)? {
            match self.pinned_action(&reference, pins).await? {
                Some(action) => drop(actions.insert(reference, action)),
                None => return Ok(Err(format!("the run has no action {reference:?} pinned"))),
            }
        }
        Ok(plan_with(definition, pins, actions))
    }

    /// An action that a run has pinned.
    pub(crate) async fn pinned_action(
        &self,
        reference: &str,
        pins: &[Pin],
    ) -> Result<Option<ActionSpec>, Rejection> {
        let is_it = |pin: &&Pin| pin.kind == Kind::Action && pin.reference == reference;
        let Some(pin) = pins.iter().find(is_it) else { return Ok(None) };
        self.action_at(&pin.id, pin.version).await
    }

    /// A version of an action.
    pub(crate) async fn action_at(
        &self,
        id: &str,
        version: u64,
    ) -> Result<Option<ActionSpec>, Rejection> {
        Ok(match self.spec_at(Kind::Action, id, version).await? {
            Some(Spec::Action(action)) => Some(action),
            Some(_) | None => None,
        })
    }
}

/// The actions that a definition refers to.
pub(crate) fn references(definition: &Definition) -> Result<Vec<String>, Rejection> {
    let uses = uses(definition).map_err(|error| refusal::damaged("the definition", &error))?;
    let mut references: Vec<String> = uses.into_iter().filter_map(|one| one.reference).collect();
    references.sort();
    references.dedup();
    Ok(references)
}

/// The plan of a definition with the actions that it refers to; in words why there is none.
pub(crate) fn plan_with(
    definition: &Definition,
    pins: &[Pin],
    actions: BTreeMap<String, ActionSpec>,
) -> Result<Plan, String> {
    let resolved = Resolved { pins: pins.to_vec(), actions, ..Resolved::default() };
    Plan::compile(definition, &resolved).map_err(|problems| {
        let first = problems.first().map(|problem| problem.message.clone()).unwrap_or_default();
        format!("the definition doesn't compile with what it refers to: {first}")
    })
}
