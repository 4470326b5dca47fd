//! Forks: what is shared is read, what is different is checked, and then the run begins.

use std::collections::BTreeSet;
use std::sync::Arc;

use bytes::Bytes;
use chrono::{DateTime, Utc};
use domain::ids::{Home, RunId, WorkspaceId};
use domain::limits;
use domain::resource::DefinitionSpec;
use domain::run::command::AttemptError;
use domain::run::event::{Adopt, DefinitionRef, RunStarted};
use domain::run::fork::{Asked, Forking, Unforkable};
use domain::run::{Run, RunStatus, check_start};
use protocol::{
    Command, CommandEnvelope, ForkDefinition, ForkOutcome, ForkPlan, ForkRun, Receipt, Rejection,
    RejectionKind, StartAnswer, StartHome, StateAt, shard_of,
};

use self::children::{Awaited, Cut};
use super::{CommandService, cause, internal};
use crate::coordinator::{
    CONFLICT, Cause, Copying, Folded, History, LivePlan, Moment, RUN_ALREADY_STARTED, Sources,
    changed, fold, not_found, not_owner, of_command, read_history, unavailable,
};
use crate::prepared::admission_of;
use crate::store::inbox::Remembered;
use crate::store::metadata;

mod children;
mod other;

/// A fork that is ready to begin.
struct Ready {
    forking: Forking,
    started: RunStarted,
    plan: Arc<LivePlan>,
    /// What its definition is published as, where it came with the command and isn't yet.
    publish: Option<DefinitionSpec>,
    /// The children that are waited for where it goes on, and that fork with it.
    awaited: Awaited,
    /// The moment that the children are forked at.
    moment: Moment,
}

/// Who asks for a fork.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Asker {
    /// This process, which has all shards.
    Here,
    /// Another process, at the owner of the run that is forked.
    FromAfar,
    /// Another process, at the home of the fork, where it was sent on to.
    SentOn(StartHome),
}

impl Asker {
    /// Where it was sent on to.
    const fn home(self) -> Option<StartHome> {
        match self {
            Self::SentOn(home) => Some(home),
            Self::Here | Self::FromAfar => None,
        }
    }
}

/// What becomes of what a run was told between the last event that is shared and the one that was
/// asked for.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Between {
    ToldAgain,
    Forgotten,
}

impl CommandService {
    /// Forks a run of which another process asked, where the fork belongs here; else says where
    /// that is: a fork in a queue lives where all runs of its queue do.
    pub(crate) async fn fork_at_home(
        &self,
        envelope: CommandEnvelope,
        home: Option<StartHome>,
    ) -> Result<StartAnswer, Rejection> {
        self.begin_fork(&envelope, home.map_or(Asker::FromAfar, Asker::SentOn)).await
    }

    /// Forks a run, or retries it: a fork of a failed one before it was told what it failed of, for
    /// which the attempts of then are made again, and the children of then started anew.
    pub(super) async fn begin_fork(
        &self,
        envelope: &CommandEnvelope,
        asker: Asker,
    ) -> Result<StartAnswer, Rejection> {
        let (run_id, begun) = match &envelope.command {
            Command::ForkRun(asked) => {
                let asked = ForkRun::clone(asked);
                (asked.run_id, self.fork(envelope, asked, Between::ToldAgain, asker).await)
            }
            Command::RetryRun { run_id, dry_run } => {
                let begun = match self.retried(envelope.workspace_id, *run_id, *dry_run).await {
                    Ok(asked) => self.fork(envelope, asked, Between::Forgotten, asker).await,
                    Err(refused) => Err(refused),
                };
                // The place wasn't asked for, and so isn't what is wrong.
                (*run_id, begun.map_err(|refused| Rejection { pointer: None, ..refused }))
            }
            _ => return Err(internal("no fork")),
        };
        self.with_place(run_id, begun).await
    }

    /// The fork that a retry of a run is.
    async fn retried(
        &self,
        workspace_id: WorkspaceId,
        run_id: RunId,
        dry_run: bool,
    ) -> Result<ForkRun, Rejection> {
        let folded = fold(&*self.journal, run_id).await.map_err(|error| error.refusal())?;
        let Folded { workspace_id: of, run, sequence, .. } =
            folded.ok_or_else(|| not_found(run_id))?;
        if of != workspace_id {
            return Err(not_found(run_id));
        }
        let ended = match &run {
            Run::Closed(closed) if closed.status == RunStatus::Failed => closed,
            Run::NotStarted | Run::Live(_) | Run::Closed(_) => {
                let message = "only a run that has failed is retried: fork this one, or rerun it";
                return Err(Rejection::new(RejectionKind::Conflict, "not_failed", message));
            }
        };
        if ended.compensation.is_some() {
            let message = "the run has undone what it had done, so it can't go on: rerun it";
            return Err(Rejection::new(RejectionKind::Conflict, "retry_undone", message));
        }
        // Its failure is the last of its events.
        let place = StateAt::Sequence(sequence - 1);
        let adopt = Adopt::Successes;
        Ok(ForkRun { adopt, dry_run, ..ForkRun::unchanged(run_id, place) })
    }

    async fn fork(
        &self,
        envelope: &CommandEnvelope,
        asked: ForkRun,
        between: Between,
        asker: Asker,
    ) -> Result<StartAnswer, Rejection> {
        let remembered = Remembered::of(envelope);
        if let Some(receipt) = self.recalled(&remembered).await? {
            return Ok(receipt.into());
        }
        self.resources.catch_up().await?;
        let (dry_run, now) = (asked.dry_run, self.clock.now());
        let Ready { mut forking, mut started, plan, publish, awaited, moment } =
            self.ready(envelope, asked, between, asker, now).await?;
        if dry_run || !awaited.is_empty() {
            let trial = forking.tried(&plan.plan, now, &mut |_| ());
            let trial = trial.map_err(|refusal| of_command(&refusal))?;
            let (from, sequence) = (forking.forked.from, forking.forked.sequence);
            let mut planned = ForkPlan::of(from, sequence, &trial);
            let (sources, adopt) = (self.sources(), forking.forked.adopt);
            let cut = Cut { sources, moment, adopt, now };
            forking.forked.children = cut.children(&trial, &awaited, &mut planned).await?;
            if dry_run {
                return Ok(dry(&forking, planned, now).into());
            }
        }
        if let Some(spec) = publish {
            started.definition.version = self.publish(envelope, spec).await?.version;
            forking.forked.definition = Some(started.definition.clone());
        }
        let shard = shard_of(forking.forked.run_id);
        if asker == Asker::FromAfar && shard != shard_of(forking.forked.from) {
            let DefinitionRef { id: definition_id, version, .. } = started.definition;
            return Ok(StartAnswer::Elsewhere(StartHome { shard, definition_id, version }));
        }
        let workflow_id = started.workflow_id;
        let standing = self.resolver.standing(workflow_id).await?;
        let project_id = started.project_id;
        let tasks_in_flight = self.resolver.tasks_in_flight_per_run(project_id).await?;
        let mut metadata = metadata::of_fork(envelope, forking.forked.sequence);
        let copied = match forking.written() {
            0 => Ok(()),
            _ => self.copying(envelope.workspace_id, &forking, &metadata)?.copy().await,
        };
        if forking.written() > 0 {
            metadata = metadata::whole(&metadata);
        }
        let cause = Cause { metadata, ..cause(envelope, Some(remembered.clone())) };
        let begun = match copied {
            Ok(()) => {
                let coordinator = &self.coordinator;
                coordinator.fork_run(forking, started, standing, plan, tasks_in_flight, cause).await
            }
            Err(refused) => Err(refused),
        };
        match self.settled(begun, Some(&remembered)).await {
            // Its own repetition is under way.
            Err(refused) if matches!(&*refused.code, RUN_ALREADY_STARTED | CONFLICT) => {
                Err(unavailable("the run is being forked, try again"))
            }
            done => done.map(StartAnswer::from),
        }
    }

    async fn ready(
        &self,
        envelope: &CommandEnvelope,
        mut asked: ForkRun,
        between: Between,
        asker: Asker,
        now: DateTime<Utc>,
    ) -> Result<Ready, Rejection> {
        let (workspace_id, from) = (envelope.workspace_id, asked.run_id);
        let experiment = asked.experiment.take();
        if experiment.is_some() {
            // A run that is a fork itself begins where it was forked.
            let began = self.beginning(workspace_id, from).await?.forked_from;
            asked.at = StateAt::Sequence(began.map_or(1, |began| began.sequence + 1));
            asked.adopt = Adopt::Outside;
        }
        let at = Moment::Of(asked.at);
        let read = read_history(self.sources(), from, at, u64::MAX, asked.adopt).await;
        let History { workspace_id: of, events, last, next, place, plan } =
            read.map_err(|error| error.refusal(from))?;
        if of != workspace_id {
            return Err(not_found(from));
        }
        let out_of_range = matches!(asked.at, StateAt::Sequence(wanted) if wanted != events);
        if out_of_range {
            let message = format!("{from} has {last} events so far: fork at one of 1 to {last}");
            return Err(Rejection::new(RejectionKind::Invalid, "no_such_moment", message).at("/at"));
        }
        let ended = || {
            let message = format!("the run had ended by event {events}: fork at an earlier one");
            Rejection::new(RejectionKind::Conflict, "fork_after_end", message).at("/at")
        };
        let mut place = place.ok_or_else(ended)?;
        let run = &place.run;
        let header = run.header().ok_or_else(|| internal("a run without a beginning"))?;
        self.resources.authorise_project(workspace_id, header.project_id).await?;
        if let Some(workflow_id) = header.workflow_id {
            self.resolver.workflow(workspace_id, workflow_id).await?;
        }
        let variant = experiment.as_ref().map(|one| &one.variant).filter(|one| !one.is_empty());
        let mut publish = None;
        let (definition, own) = match (asked.definition.take(), variant) {
            (None, None) => (None, Arc::clone(&plan)),
            (None, Some(variant)) => {
                match self.other_of(envelope, header, &plan, variant, asked.dry_run).await? {
                    Some((definition, own)) => (Some(definition), own),
                    None => (None, Arc::clone(&plan)),
                }
            }
            (Some(ForkDefinition::Inline(inline)), _) if asker.home().is_none() => {
                let inline = match &experiment {
                    Some(_) => inline.for_experiment(),
                    None => *inline,
                };
                let project_id = header.project_id;
                let (definition, own, spec) =
                    self.inline_of(workspace_id, project_id, inline).await?;
                publish = spec;
                (Some(definition), own)
            }
            (Some(other), _) => {
                let found = match (asker.home(), other) {
                    // It has been found, and means the same from then on.
                    (Some(StartHome { definition_id, version, .. }), _) => {
                        self.resolver.definition_by_id(definition_id, Some(version)).await
                    }
                    (None, ForkDefinition::Named(reference)) => {
                        self.resolver.definition(header.project_id, &reference).await
                    }
                    (None, ForkDefinition::Inline(_)) => Err(internal("it is looked at above")),
                };
                let found = found.map_err(|error| error.at("/definition"))?;
                let (id, version) = (super::parsed(&found.id)?, found.version);
                let prepared =
                    self.preparations.get(workspace_id, id, version, &found.spec).await?;
                (Some(prepared.definition.clone()), Arc::clone(&prepared.plan))
            }
        };
        let follows = definition.as_ref().unwrap_or(&header.definition).clone();
        let admission = match (&experiment, &asked.input) {
            // It has no effects that others would have to wait for, and makes nobody wait.
            (Some(_), _) => None,
            (None, None) => admission_of(&own.plan, &header.input, now)?,
            (None, Some(input)) => {
                let labels = asked.labels.as_ref().unwrap_or(&header.labels).len();
                let input = check_start(&own.plan, input, labels);
                admission_of(&own.plan, &input.map_err(|error| of_command(&error))?, now)?
            }
        };
        let home = match &admission {
            None => from.home(),
            Some(admission) => Home::of_queue(follows.id, admission.key.as_deref()),
        };
        if let (Some(_), Some(live)) = (&definition, run.live())
            && !live.fits(&plan.plan, &own.plan)
        {
            let message = "the run is inside of groups or loops there that the other definition \
                           lays out otherwise: fork before they begin";
            let refused =
                Rejection::new(RejectionKind::Conflict, "fork_transitions_differ", message);
            return Err(refused.at("/definition"));
        }
        let changed: BTreeSet<_> = changed(&plan, &own).collect();
        let mut awaited = match (between, place.run.live()) {
            (Between::ToldAgain, Some(live)) if experiment.is_none() => live.children.clone(),
            // A child that failed, or was cut off, is started anew; so is one of an experiment,
            // where it may have children.
            (Between::ToldAgain | Between::Forgotten, _) => Awaited::new(),
        };
        // So is one whose node calls another definition now.
        if let Some(live) = place.run.live() {
            awaited.retain(|token, _| {
                live.tokens.get(token).is_some_and(|at| !changed.contains(&at.node))
            });
        }
        place.adoption.leave_out(changed);
        let moment = match asked.at {
            StateAt::Time(_) => at,
            // While the run was there, its children went on.
            StateAt::Sequence(_) | StateAt::Latest => Moment::Before(next.unwrap_or(u64::MAX)),
        };
        let outcomes = asked.outcomes.into_iter().map(|(token, outcome)| match outcome {
            ForkOutcome::Result(result) => (token, Ok(result)),
            ForkOutcome::Error(error) => (token, Err(AttemptError::from(&error))),
        });
        let asked = Asked {
            forked_by: Some(envelope.actor.0.clone()),
            adopt: asked.adopt,
            input: asked.input,
            state: asked.state,
            branches: asked.branches,
            outcomes: outcomes.collect(),
            definition: definition.map(|definition| (definition, own.pins.clone())),
            labels: asked.labels,
            admission,
            experiment: experiment.map(|one| one.experiment),
            is_told_again: between == Between::ToldAgain,
            ..Asked::unchanged(from.forked(envelope.id, home), from, last, now)
        };
        let forking = place.fork(asked).map_err(|error| unforkable(&error))?;
        let started = RunStarted {
            definition: follows,
            admission: forking.forked.admission.as_deref().cloned(),
            ..(*forking.started).clone()
        };
        let plan = own;
        Ok(Ready { forking, started, plan, publish, awaited, moment })
    }

    /// The copy of what a fork shares that is too long to be written with its beginning.
    fn copying<'a>(
        &'a self,
        workspace_id: WorkspaceId,
        forking: &'a Forking,
        metadata: &'a Bytes,
    ) -> Result<Copying<'a>, Rejection> {
        let run_id = forking.forked.run_id;
        let epochs = &self.triggers.ownership.borrow().epochs;
        let epoch = *epochs.get(&shard_of(run_id)).ok_or_else(not_owner)?;
        Ok(Copying {
            journal: &*self.journal,
            clock: &*self.clock,
            workspace_id,
            from: forking.forked.from,
            run_id,
            started: &forking.started,
            shared: forking.forked.sequence,
            metadata,
            epoch: (epoch > 0).then_some(epoch),
        })
    }

    fn sources(&self) -> Sources<'_> {
        Sources {
            journal: &*self.journal,
            resolver: &self.resolver,
            plans: self.preparations.plans(),
        }
    }
}

fn unforkable(error: &Unforkable) -> Rejection {
    match *error {
        Unforkable::TooManyLabels(count) => {
            let limit = limits::LABELS;
            of_command(&domain::run::Refusal::TooManyLabels { count, limit })
        }
        Unforkable::NoAttempt(token) => {
            let refused = Rejection::new(RejectionKind::Invalid, "fork_token", error.to_string());
            refused.at(format!("/outcomes/{token}"))
        }
        Unforkable::NoBeginning => internal("a run without a beginning"),
    }
}

fn dry(forking: &Forking, planned: ForkPlan, at: DateTime<Utc>) -> Receipt {
    Receipt {
        id: forking.forked.from.to_string(),
        version: forking.forked.sequence,
        position: 0,
        at,
        plan: Some(Box::new(planned)),
        ..Receipt::default()
    }
}
