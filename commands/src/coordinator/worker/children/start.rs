//! What a child is started with: looked up away from the worker.

use std::sync::Arc;
use std::time::Duration;

use chassis::clock::Clock;
use chassis::journal::Journal;
use domain::ids::RunId;
use domain::ids::WorkspaceId;
use domain::run::check_start;
use domain::run::effect::ChildStart;
use domain::run::event::{Adopt, Event, ForkedChild, RunStarted, TokenId};
use domain::run::fork::{Asked, Forking};
use protocol::{Rejection, RejectionKind, StateAt};
use tokio::sync::{OnceCell, oneshot};

use super::super::Context;
use crate::coordinator::actor::Actor;
use crate::coordinator::history::{self, History, Moment, Sources};
use crate::coordinator::{Cause, LivePlan, Message, Plans, Start, Verdict, refusal};
use crate::prepared::{Preparations, Prepared};
use crate::resolve::Resolver;
use crate::store::metadata;

/// How long it is waited before it is looked up again.
const AGAIN: Duration = Duration::from_millis(500);

/// What a child is to be started with.
pub(super) struct Wish {
    reference: Arc<str>,
    workspace_id: WorkspaceId,
    cause: Cause,
    started: RunStarted,
    /// The child that it is a fork of, and what it adopts of it.
    fork_of: Option<(Arc<ForkedChild>, Adopt)>,
    /// See [`Actor::trace`].
    parent: RunId,
    trace: Arc<OnceCell<Option<Arc<str>>>>,
}

/// What it is looked up with.
struct Lookup {
    journal: Arc<dyn Journal>,
    resolver: Arc<Resolver>,
    plans: Arc<Plans>,
    preparations: Arc<Preparations>,
    clock: Arc<dyn Clock>,
}

/// A start, as far as it has to be looked up.
struct Found {
    started: RunStarted,
    plan: Arc<LivePlan>,
    tasks_in_flight: Option<usize>,
    fork: Option<Box<Forking>>,
    cause: Cause,
}

impl Wish {
    /// What the child of a token is started with; `None` where the token doesn't wait for one.
    pub(super) fn of(parent: &Actor, child: RunId, token: TokenId) -> Option<Self> {
        let ChildStart { definition, input, labels, fork_of } =
            parent.run.child_start(&parent.plan.plan, token)?;
        let header = parent.run.header()?;
        let adopt = header.fork.map_or(Adopt::None, |fork| fork.adopt);
        let started = RunStarted {
            run_id: child,
            project_id: header.project_id,
            workflow_id: None,
            // What the reference means is looked up.
            definition: header.definition.clone(),
            pins: Vec::new(),
            start: String::new(),
            input,
            labels,
            started_at: header.started_at,
            deadline: None,
            started_by: header.started_by.clone(),
            parent: Some(header.parent_of_child(token)),
            trigger: None,
            admission: None,
            forked_from: None,
            rerun_of: None,
        };
        Some(Self {
            reference: definition,
            workspace_id: parent.workspace_id(),
            cause: parent.own_cause(),
            started,
            fork_of: fork_of.map(|fork_of| (fork_of, adopt)),
            parent: parent.run_id,
            trace: Arc::clone(&parent.trace),
        })
    }

    /// Looks up what it needs, and tells the worker. An outage is waited for.
    pub(super) fn prepare(self, context: &Context) {
        let lookup = Lookup {
            journal: Arc::clone(&context.journal),
            resolver: Arc::clone(&context.resolver),
            plans: Arc::clone(&context.plans),
            preparations: Arc::clone(&context.preparations),
            clock: Arc::clone(&context.clock),
        };
        let mailbox = context.mailbox.clone();
        tokio::spawn(async move {
            let child = self.started.run_id;
            let found = loop {
                match lookup.find(&self).await {
                    Err(rejection) if may_pass(&rejection) => {
                        tracing::warn!(run_id = %child, %rejection, "can't start a child yet");
                        tokio::time::sleep(AGAIN).await;
                        if mailbox.upgrade().is_none() {
                            return;
                        }
                    }
                    found => break found,
                }
            };
            let prepared = found.map(|Found { started, plan, tasks_in_flight, fork, cause }| {
                let (standing, verdict, (reply, _)) = (None, Verdict::Begins, oneshot::channel());
                let run_id = child;
                Box::new(Start {
                    run_id,
                    started,
                    plan,
                    tasks_in_flight,
                    standing,
                    verdict,
                    fork,
                    cause,
                    reply,
                })
            });
            if let Some(mailbox) = mailbox.upgrade() {
                drop(mailbox.send(Message::ChildPrepared { child, prepared }).await);
            }
        });
    }
}

impl Lookup {
    async fn find(&self, wish: &Wish) -> Result<Found, Rejection> {
        let trace = wish.trace.get_or_try_init(|| self.trace_of(wish.parent)).await?;
        let mut found = match &wish.fork_of {
            Some((fork_of, adopt)) => self.forked(wish, fork_of, *adopt).await,
            None => self.anew(wish).await,
        }?;
        if let Some(trace) = trace {
            found.cause.metadata = metadata::in_trace(&found.cause.metadata, trace);
        }
        Ok(found)
    }

    /// The trace that a run was started in.
    async fn trace_of(&self, run_id: RunId) -> Result<Option<Arc<str>>, Rejection> {
        let first = self.journal.load("run", &run_id.to_string(), 0, 1).await;
        let away = |_| refusal::unavailable("the journal is unavailable, try again");
        let first = first.map_err(away)?.pop();
        Ok(first.and_then(|first| metadata::trace_in(&first.metadata)).map(Arc::from))
    }

    async fn anew(&self, wish: &Wish) -> Result<Found, Rejection> {
        let Wish { reference, workspace_id, cause, started, .. } = wish;
        let project_id = started.project_id;
        let prepared = self.preparations.by_reference(*workspace_id, project_id, reference).await?;
        let Prepared { project_id, definition, plan, tasks_in_flight } = &*prepared;
        if plan.plan.admission().is_some() {
            return Err(bounded());
        }
        check_start(&plan.plan, &started.input, started.labels.len())
            .map_err(|refused| refusal::of_command(&refused))?;
        let started = RunStarted {
            project_id: *project_id,
            definition: definition.clone(),
            pins: plan.pins.clone(),
            ..started.clone()
        };
        let (plan, tasks_in_flight) = (Arc::clone(plan), *tasks_in_flight);
        Ok(Found { started, plan, tasks_in_flight, fork: None, cause: cause.clone() })
    }

    /// A child that goes on where another one was when the parents were forked.
    async fn forked(
        &self,
        wish: &Wish,
        fork_of: &ForkedChild,
        adopt: Adopt,
    ) -> Result<Found, Rejection> {
        let Wish { started, cause, .. } = wish;
        let from = fork_of.run_id;
        let sources =
            Sources { journal: &*self.journal, resolver: &self.resolver, plans: &self.plans };
        let at = Moment::Of(StateAt::Sequence(fork_of.sequence));
        let read = history::read(sources, from, at, u64::MAX, adopt).await;
        let History { last, place, plan, .. } = read.map_err(|error| error.refusal(from))?;
        let gone = || {
            let message = format!("{from} can't be forked at event {}", fork_of.sequence);
            Rejection::new(RejectionKind::Conflict, "fork_child_live", message)
        };
        let asked = Asked {
            adopt,
            forked_by: started.started_by.clone(),
            parent: started.parent,
            children: fork_of.children.clone(),
            ..Asked::unchanged(started.run_id, from, last, self.clock.now())
        };
        let forking = place.ok_or_else(gone)?.fork(asked).map_err(|_| gone())?;
        let Some((Event::RunStarted(started), _)) = forking.shared.first() else {
            return Err(gone());
        };
        let started = (**started).clone();
        let tasks_in_flight = self.resolver.tasks_in_flight_per_run(started.project_id).await?;
        let metadata = metadata::sharing(&cause.metadata, forking.forked.sequence);
        let cause = Cause { metadata, ..cause.clone() };
        Ok(Found { started, plan, tasks_in_flight, fork: Some(Box::new(forking)), cause })
    }
}

/// A child lives beside its parent, and so can't live beside the other runs of its key.
fn bounded() -> Rejection {
    let message = "the definition bounds its runs with `concurrency` or `rate_limit`, and no child \
                   can be counted there: start it as a run of its own, or drop the bound";
    Rejection::new(RejectionKind::Invalid, "child_concurrency", message)
}

/// Whether a refusal is about the moment, and not about what was asked.
const fn may_pass(rejection: &Rejection) -> bool {
    matches!(rejection.kind, RejectionKind::Unavailable | RejectionKind::Overloaded)
}
