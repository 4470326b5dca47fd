//! Forks: what is shared is read, what is different is checked, and then the run begins.

use std::sync::Arc;

use chrono::{DateTime, Utc};
use domain::definition::{NoVariant, Variant, content_hash, validate};
use domain::ids::{DefinitionId, RunId};
use domain::limits;
use domain::resource::DefinitionSpec;
use domain::run::command::AttemptError;
use domain::run::event::{Adopt, DefinitionRef, Event, RunStarted, TokenId};
use domain::run::fork::{Asked, Forking, Unforkable};
use domain::run::state::Header;
use domain::run::{Run, RunStatus};
use protocol::{
    CommandEnvelope, ForkOutcome, ForkPlan, ForkRun, Receipt, Rejection, RejectionKind, StateAt,
};

use super::{CommandService, cause, internal, invalid_definition};
use crate::coordinator::{
    CONFLICT, Cause, Folded, History, HistoryError, LivePlan, RUN_ALREADY_STARTED, Sources,
    changed, fold, not_found, of_command, read_history, unavailable,
};
use crate::store::inbox::Remembered;
use crate::store::metadata;

/// A fork that is ready to begin.
struct Ready {
    forking: Forking,
    started: RunStarted,
    plan: Arc<LivePlan>,
    /// The tokens that waited for a child run where it goes on, and have to go on waiting.
    awaited: Vec<TokenId>,
}

/// What becomes of what a run was told between the last event that is shared and the one that was
/// asked for.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Between {
    ToldAgain,
    Forgotten,
}

impl CommandService {
    pub(super) async fn fork_run(
        &self,
        envelope: &CommandEnvelope,
        asked: ForkRun,
    ) -> Result<Receipt, Rejection> {
        self.begin_fork(envelope, asked, Between::ToldAgain).await
    }

    /// Forks a run that has failed before it was told what it failed of: the attempts of then are
    /// made again, and the children of then started anew.
    pub(super) async fn retry_run(
        &self,
        envelope: &CommandEnvelope,
        run_id: RunId,
        dry_run: bool,
    ) -> Result<Receipt, Rejection> {
        let folded = fold(&*self.journal, run_id).await.map_err(|error| error.refusal())?;
        let Folded { workspace_id, run, sequence, .. } = folded.ok_or_else(|| not_found(run_id))?;
        if workspace_id != envelope.workspace_id {
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
        let asked = ForkRun { adopt, dry_run, ..ForkRun::unchanged(run_id, place) };
        // The place wasn't asked for, and so isn't what is wrong.
        let begun = self.begin_fork(envelope, asked, Between::Forgotten).await;
        begun.map_err(|refused| Rejection { pointer: None, ..refused })
    }

    async fn begin_fork(
        &self,
        envelope: &CommandEnvelope,
        asked: ForkRun,
        between: Between,
    ) -> Result<Receipt, Rejection> {
        let remembered = Remembered::of(envelope);
        if let Some(receipt) = self.recalled(&remembered).await? {
            return Ok(receipt);
        }
        self.resources.catch_up().await?;
        let (dry_run, now) = (asked.dry_run, self.clock.now());
        let Ready { forking, started, plan, awaited } =
            self.ready(envelope, asked, between, now).await?;
        if dry_run || !awaited.is_empty() {
            let planned = planned(&forking, &awaited, &plan, now)?;
            if dry_run {
                return Ok(dry(&forking, planned, now));
            }
        }
        let workflow_id = started.workflow_id;
        let standing = self.resolver.standing(workflow_id).await?;
        let project_id = started.project_id;
        let tasks_in_flight = self.resolver.tasks_in_flight_per_run(project_id).await?;
        let metadata = metadata::of_fork(envelope, forking.forked.sequence);
        let cause = Cause { metadata, ..cause(envelope, Some(remembered.clone())) };
        let begun =
            self.coordinator.fork_run(forking, started, standing, plan, tasks_in_flight, cause);
        match self.settled(begun.await, Some(&remembered)).await {
            // Its own repetition is under way.
            Err(refused) if matches!(&*refused.code, RUN_ALREADY_STARTED | CONFLICT) => {
                Err(unavailable("the run is being forked, try again"))
            }
            done => done,
        }
    }

    async fn ready(
        &self,
        envelope: &CommandEnvelope,
        mut asked: ForkRun,
        between: Between,
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
        let sources = Sources {
            journal: &*self.journal,
            resolver: &self.resolver,
            plans: self.preparations.plans(),
        };
        let read = read_history(sources, from, asked.at, u64::MAX, asked.adopt).await;
        let History { workspace_id: of, events, last, place, plan } =
            read.map_err(|error| unreadable(from, &error))?;
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
        let (definition, own) = match (&asked.definition, variant) {
            (None, None) => (None, Arc::clone(&plan)),
            (None, Some(variant)) => {
                match self.other(envelope, header, &plan, variant, asked.dry_run).await? {
                    Some((definition, own)) => (Some(definition), own),
                    None => (None, Arc::clone(&plan)),
                }
            }
            (Some(reference), _) => {
                let found = self.resolver.definition(header.project_id, reference).await;
                let found = found.map_err(|error| error.at("/definition"))?;
                let (id, version) = (super::parsed(&found.id)?, found.version);
                let prepared =
                    self.preparations.get(workspace_id, id, version, &found.spec).await?;
                (Some(prepared.definition.clone()), Arc::clone(&prepared.plan))
            }
        };
        if own.plan.admission().is_some() || header.admission.is_some() {
            let message = "the definition bounds its runs with `concurrency`, and forks of them \
                           aren't counted yet: start a run of its own, or fork with a version \
                           without `concurrency`";
            return Err(Rejection::new(RejectionKind::Invalid, "fork_concurrency", message));
        }
        if let (Some(_), Some(live)) = (&definition, run.live())
            && !live.fits(&plan.plan, &own.plan)
        {
            let message = "the run is inside of groups or loops there that the other definition \
                           lays out otherwise: fork before they begin";
            let refused =
                Rejection::new(RejectionKind::Conflict, "fork_transitions_differ", message);
            return Err(refused.at("/definition"));
        }
        place.adoption.leave_out(changed(&plan, &own));
        let run = &place.run;
        let awaited = match between {
            Between::ToldAgain => run.live().map(|live| live.children.keys().copied().collect()),
            // A child that failed, or was cut off, is started anew.
            Between::Forgotten => None,
        };
        let outcomes = asked.outcomes.into_iter().map(|(token, outcome)| match outcome {
            ForkOutcome::Result(result) => (token, Ok(result)),
            ForkOutcome::Error(error) => (token, Err(AttemptError::from(&error))),
        });
        let asked = Asked {
            run_id: from.forked(envelope.id),
            from,
            until: last,
            at: now,
            forked_by: Some(envelope.actor.0.clone()),
            adopt: asked.adopt,
            input: asked.input,
            state: asked.state,
            branches: asked.branches,
            outcomes: outcomes.collect(),
            definition: definition.map(|definition| (definition, own.pins.clone())),
            labels: asked.labels,
            experiment: experiment.map(|one| one.experiment),
            is_told_again: between == Between::ToldAgain,
        };
        let forking = place.fork(asked).map_err(|error| unforkable(&error))?;
        let Some((Event::RunStarted(started), _)) = forking.shared.first() else {
            return Err(internal("a run without a beginning"));
        };
        let (started, plan) = ((**started).clone(), own);
        Ok(Ready { forking, started, plan, awaited: awaited.unwrap_or_default() })
    }
}

impl CommandService {
    /// The definition of a run with something different, published where nothing is only tried, at
    /// the versions that the run has of what it refers to; `None` where that is the same.
    async fn other(
        &self,
        envelope: &CommandEnvelope,
        header: &Header,
        plan: &LivePlan,
        variant: &Variant,
        is_tried: bool,
    ) -> Result<Option<(DefinitionRef, Arc<LivePlan>)>, Rejection> {
        let (workspace_id, project_id) = (envelope.workspace_id, header.project_id);
        let DefinitionRef { id, version, .. } = header.definition;
        let own = self.resolver.definition_by_id(id, Some(version)).await?;
        let other =
            variant.of(&own.spec.definition, &plan.plan).map_err(|error| no_variant(&error))?;
        let Some(definition) = other else { return Ok(None) };
        let hash = content_hash(&definition).map_err(|error| internal(&error.to_string()))?;
        let spec = DefinitionSpec { project_id, definition, hash: hash.clone() };
        let resolved = self.resolver.resolved_beside(workspace_id, &spec, &header.pins).await?;
        let name = spec.definition.name.to_string();
        let problems = validate::check(&spec.definition);
        if !problems.is_empty() {
            return Err(invalid_definition(problems));
        }
        // Before it is published: it may not compile.
        let id = DefinitionId::derived(&project_id.to_string(), &name);
        let tried = DefinitionRef { id, name, version: 0, hash: hash.clone() };
        let plans = self.preparations.plans();
        let plan = plans.get(&tried, &spec.definition, &resolved).map_err(invalid_definition)?;
        let known = self.resolver.published(project_id, &spec.definition, &hash).await?;
        let (id, version) = match known {
            Some(known) => known,
            None if is_tried => (tried.id, tried.version),
            None => {
                let receipt = self.publish(envelope, spec).await?;
                (super::parsed(&receipt.id)?, receipt.version)
            }
        };
        Ok(Some((DefinitionRef { id, version, ..tried }, plan)))
    }
}

fn no_variant(error: &NoVariant) -> Rejection {
    let message = error.to_string();
    match error {
        NoVariant::NoNode(_) | NoVariant::NoTransition { .. } => {
            Rejection::new(RejectionKind::Invalid, "experiment_change", message).at("/change")
        }
        NoVariant::Invalid(problems) => invalid_definition(problems.clone()).at("/change"),
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

/// What a fork would do, tried without writing anything. `awaited` are the tokens that waited for a
/// child run there.
fn planned(
    forking: &Forking,
    awaited: &[TokenId],
    plan: &LivePlan,
    now: DateTime<Utc>,
) -> Result<ForkPlan, Rejection> {
    let trial = forking.tried(&plan.plan, now, &mut |_| ());
    let trial = trial.map_err(|refusal| of_command(&refusal))?;
    if let Some((token, child)) = trial.children.iter().find(|(token, _)| awaited.contains(token)) {
        let message = format!(
            "token {token} waits for a child run there whose end can't be taken over ({child} would \
             be started anew): fork before the child was started, or after it has ended"
        );
        return Err(Rejection::new(RejectionKind::Conflict, "fork_child_live", message).at("/at"));
    }
    Ok(ForkPlan::of(forking.forked.from, forking.forked.sequence, &trial))
}

fn dry(forking: &Forking, planned: ForkPlan, at: DateTime<Utc>) -> Receipt {
    Receipt {
        id: forking.forked.from.to_string(),
        version: forking.forked.sequence,
        position: 0,
        created: false,
        at,
        queued: false,
        outcome: None,
        plan: Some(Box::new(planned)),
    }
}

pub(super) fn unreadable(run_id: RunId, error: &HistoryError) -> Rejection {
    let (events, mib) = (limits::FORK_EVENTS, limits::FORK_BYTES >> 20);
    match error {
        HistoryError::Missing => not_found(run_id),
        HistoryError::Early => {
            let message = format!("{run_id} began later: fork at a later moment, or at a sequence");
            Rejection::new(RejectionKind::Invalid, "no_such_moment", message).at("/at")
        }
        HistoryError::Load(error) => error.refusal(),
        HistoryError::TooLong => {
            let message = format!(
                "a fork shares at most {events} events of {mib} MiB: fork at an earlier one"
            );
            Rejection::new(RejectionKind::Conflict, "fork_too_long", message).at("/at")
        }
        HistoryError::Differs(difference) => {
            let sequence = difference.sequence;
            let message = format!(
                "this engine decides event {sequence} of the run otherwise than it is recorded: \
                 fork at an earlier one"
            );
            Rejection::new(RejectionKind::Conflict, "fork_history_differs", message).at("/at")
        }
    }
}
