//! A fork that is decided in memory: with what was recorded, and without doing anything.

use std::collections::VecDeque;
use std::ops::ControlFlow;
use std::sync::Arc;

use chrono::{DateTime, Utc};
use domain::definition::hash::content_hash;
use domain::definition::plan::NodeWork;
use domain::definition::{Definition, Plan};
use domain::ids::{RunId, WorkspaceId};
use domain::limits::FORK_EVENTS;
use domain::run::event::DefinitionRef;
use domain::run::fork::{Asked, Place, Prefix, Trial};
use domain::run::rehearsal::{PartingKind, compared, node_of};
use domain::run::state::Closed;
use domain::run::{Event, Refusal, Run};
use protocol::bundle::{BundleFork, ForkTrial};
use protocol::{Divergence, ForkPlan, Rejection, RejectionKind, RunError};

use crate::compare::brief;
use crate::histories::Histories;
use crate::refusal;

/// Timers that a fork waits for, one after the other.
const WAITS: usize = 10_000;

/// Where a fork goes on.
struct Found {
    place: Place,
    /// The last event that was looked at.
    until: u64,
    /// The plan that the run followed there.
    followed: Arc<Plan>,
}

impl Histories<'_> {
    /// Decides how a run would go on from a moment with something different: outcomes are taken
    /// over where the same is asked for, timers fall due where nothing else is waited for, and it
    /// ends where somebody would have to be called or asked. `now` is when the fork begins.
    ///
    /// # Errors
    /// Where the run isn't there, can't be forked at that moment, or not so.
    pub async fn fork_tried(
        &self,
        workspace_id: WorkspaceId,
        run_id: RunId,
        asked: BundleFork,
        now: DateTime<Utc>,
    ) -> Result<ForkTrial, Rejection> {
        let Found { mut place, until, followed } = self.found(workspace_id, run_id, &asked).await?;
        let other = match &asked.definition {
            Some(definition) => Some(self.other_plan(&place, definition, &followed).await?),
            None => None,
        };
        if let Some((plan, _)) = &other {
            place.adoption.leave_out(changed(&followed, plan));
        }
        let shared = place.run.clone();
        let pins = shared.header().map(|header| header.pins.clone()).unwrap_or_default();
        let forking = place.fork(Asked {
            input: asked.input,
            state: asked.state,
            branches: asked.branches,
            outcomes: asked
                .results
                .into_iter()
                .map(|(token, result)| (token, Ok(result)))
                .collect(),
            definition: other.as_ref().map(|(_, reference)| (reference.clone(), pins)),
            adopt: asked.adopt,
            // Nothing has this id: tokens begin at 1.
            ..Asked::unchanged(run_id.child(0), run_id, until, now)
        });
        let forking = forking.map_err(|error| conflict("fork_token", error.to_string()))?;
        let plan = other.as_ref().map_or(&*followed, |(plan, _)| plan);
        let mut decided = VecDeque::new();
        let mut take = |event: &Event| decided.push_back(event.clone());
        let trial = forking.tried(plan, now, &mut take);
        let mut trial = trial.map_err(|refusal| refused(&refusal))?;
        let mut waits = 0;
        while waits < WAITS && trial.wait(plan, &mut take) {
            waits += 1;
        }
        let sequence = forking.forked.sequence;
        let (parts, values) = self.parting(&run_id.to_string(), shared, sequence, decided).await?;
        let mut answer = self.told(run_id, sequence, trial).await?;
        (answer.parts, answer.values) = (parts, values);
        Ok(answer)
    }

    /// Reads a run up to the place, and on for what may be adopted.
    async fn found(
        &self,
        workspace_id: WorkspaceId,
        run_id: RunId,
        asked: &BundleFork,
    ) -> Result<Found, Rejection> {
        let id = run_id.to_string();
        let started = self.run_started(workspace_id, &id).await?;
        let events = self.walk(&id, asked.at, started.started_at, |_, _, _| ()).await?;
        if events > FORK_EVENTS {
            let message =
                format!("a fork shares at most {FORK_EVENTS} events: take an earlier one");
            return Err(conflict("fork_too_long", message));
        }
        let first = self.plan_of(&started.definition, &started.pins).await?;
        let mut others = self.plans_of_forks(&id, &started).await?;
        let (place, until) = {
            let mut prefix = Prefix::long(&first, events, asked.adopt);
            let mut until = 0;
            let read = self.each_event(&id, 0, |recorded, event| {
                until = recorded.sequence;
                if let Some(other) = others.get(&until).filter(|_| until <= events) {
                    prefix.follow(other);
                }
                match prefix.take(event, recorded.recorded_at) {
                    Ok(true) => ControlFlow::Continue(()),
                    Ok(false) => ControlFlow::Break(Ok(())),
                    Err(difference) => ControlFlow::Break(Err(difference.sequence)),
                }
            });
            if let Some(Err(sequence)) = read.await? {
                let message = format!("this engine decides event {sequence} of the run otherwise");
                return Err(conflict("fork_history_differs", message));
            }
            let ended =
                || conflict("fork_after_end", format!("the run had ended by event {events}"));
            (prefix.place().ok_or_else(ended)?, until)
        };
        let mut followed = first;
        while let Some((sequence, plan)) = others.pop_first() {
            if sequence <= events {
                followed = plan;
            }
        }
        Ok(Found { place, until, followed })
    }

    /// The plan of another definition, where a fork can go on by it.
    async fn other_plan(
        &self,
        place: &Place,
        definition: &Definition,
        followed: &Plan,
    ) -> Result<(Plan, DefinitionRef), Rejection> {
        let header = place.run.header();
        let header = header.ok_or_else(|| refusal::damaged("the run", &"it has no beginning"))?;
        let plan = self.plan_by(definition, &header.pins).await?;
        let plan = plan.map_err(|why| conflict("invalid_definition", why))?;
        if place.run.live().is_some_and(|live| !live.fits(followed, &plan)) {
            let message = "the run is inside of groups or loops there that the other definition lays \
                           out otherwise: fork before they begin";
            return Err(conflict("fork_transitions_differ", message.to_owned()));
        }
        let hash =
            content_hash(definition).map_err(|error| refusal::damaged("the definition", &error))?;
        let DefinitionRef { id, version, .. } = header.definition;
        let name = definition.name.to_string();
        Ok((plan, DefinitionRef { id, name, version: version + 1, hash }))
    }

    /// Where a fork parts from its run, and the first other value before that. What a run only
    /// notes (that a task was handed out, that it was paused) leads nowhere, and is passed over.
    async fn parting(
        &self,
        id: &str,
        mut run: Run,
        shared: u64,
        mut decided: VecDeque<Event>,
    ) -> Result<(Option<Divergence>, Option<Divergence>), Rejection> {
        // That it is forked is in one of them only.
        decided.pop_front();
        let (mut values, mut last) = (None, shared);
        let read = self.each_event(id, shared, |recorded, event| {
            last = recorded.sequence;
            if !is_note(&event) {
                let own = decided.pop_front();
                let kind = match &own {
                    Some(own) => compared(&event, own),
                    None => Some(PartingKind::Path),
                };
                let found = || divergence(last, &run, Some(&event), own.as_ref());
                match kind {
                    None => {}
                    Some(PartingKind::Values) if values.is_some() => {}
                    Some(PartingKind::Values) => match found() {
                        Ok(found) => values = Some(found),
                        Err(error) => return ControlFlow::Break(Err(error)),
                    },
                    Some(_) => return ControlFlow::Break(found()),
                }
            }
            run.evolve(&event, recorded.recorded_at);
            ControlFlow::Continue(())
        });
        let parts = match read.await? {
            Some(found) => Some(found),
            None => decided.pop_front().map(|own| divergence(last + 1, &run, None, Some(&own))),
        };
        let parts = parts.transpose().map_err(|error| refusal::damaged(id, &error))?;
        Ok((parts, values))
    }

    /// What became of a fork.
    async fn told(&self, from: RunId, shared: u64, trial: Trial) -> Result<ForkTrial, Rejection> {
        let plan = ForkPlan::of(from, shared, &trial);
        let run = trial.run;
        let run_id = run.header().map_or(from, |header| header.run_id);
        let waiting = self.waiting_of(run_id, &run, shared).await?.items;
        let ended = run.closed();
        Ok(ForkTrial {
            plan,
            children: trial.children.len() as u64,
            parts: None,
            values: None,
            waiting,
            output: ended.and_then(|closed| closed.output.as_deref().cloned()),
            error: ended.and_then(Closed::failure).as_ref().map(RunError::from),
        })
    }
}

/// The nodes whose work is another one: models and prompts that stand elsewhere are pinned, and so
/// the same.
fn changed(own: &Plan, other: &Plan) -> Vec<Arc<str>> {
    let is_other = |name: &str| match (own.node(name), other.node(name)) {
        (Some(own), Some(other)) => match (&own.work, &other.work) {
            (NodeWork::Task(own), NodeWork::Task(other)) => own != other,
            (own, other) => own.is_task() != other.is_task(),
        },
        _ => true,
    };
    own.nodes().map(|node| &node.name).filter(|name| is_other(name)).map(Arc::clone).collect()
}

const fn is_note(event: &Event) -> bool {
    matches!(
        event,
        Event::TaskHandedOut { .. } | Event::RunPaused { .. } | Event::RunResumed { .. }
    )
}

fn divergence(
    sequence: u64,
    run: &Run,
    left: Option<&Event>,
    right: Option<&Event>,
) -> Result<Divergence, serde_json::Error> {
    let shown = |event: Option<&Event>| event.map(|event| Ok(brief(event)?.0)).transpose();
    Ok(Divergence {
        sequence,
        node: left.or(right).and_then(|event| node_of(event, run)),
        left: shown(left)?,
        right: shown(right)?,
    })
}

/// A fork that the engine refuses. What isn't named here is about the input or a patch.
fn refused(refusal: &Refusal) -> Rejection {
    let code = match refusal {
        Refusal::ForkWhileUndoing => "fork_while_undoing",
        Refusal::NodeMissing { .. } => "fork_node_missing",
        Refusal::NoBranch { .. } => "fork_token",
        _ => "invalid_input",
    };
    let rejection = conflict(code, refusal.to_string());
    match refusal {
        Refusal::InvalidInput { problems } => rejection.with_problems(problems.clone()),
        _ => rejection,
    }
}

fn conflict(code: &'static str, message: String) -> Rejection {
    Rejection::new(RejectionKind::Conflict, code, message)
}
