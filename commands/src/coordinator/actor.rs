//! One run in memory: its folded state, what waits for it, and its append under way.

use std::collections::{HashSet, VecDeque};
use std::sync::{Arc, LazyLock};
use std::time::Duration;

use chassis::clock::Clock;
use chassis::journal::{Append, Appended};
use chrono::{DateTime, Utc};
use domain::ids::{RunId, WorkspaceId};
use domain::run::adoption::Adoption;
use domain::run::event::Effect;
use domain::run::state::{Header, Live, WaitKinds};
use domain::run::{Command, Decision, Event, Run};
use protocol::event::SecretsUsed;
use protocol::{Outcome, OutcomeResult, Receipt, Rejection, RejectionKind, RunOutcome, Task};
use serde_json::Value;
use tokio::sync::{OnceCell, oneshot};
use tokio::time::Instant;

use super::Reply;
use super::append::{self, Cause, SNAPSHOT_EVERY, Stream};
use super::outcome;
use super::plans::LivePlan;
use super::refusal;
use super::workflows::Standing;
use crate::store::metadata;

mod adopting;
mod queued;

pub(crate) use queued::Settled;
use queued::{Asked, asked};
pub(super) use queued::{Holds, Queued, count_refused, refuse_all, settle};

/// Bytes of secrets' names after which an append takes no more outcomes: they stand beside each of
/// its events.
const SECRET_BYTES: usize = 512;

/// A run in memory.
pub(super) struct Actor {
    pub run_id: RunId,
    /// The epoch of its shard's ownership under which it was loaded; 0 where nobody else can own
    /// it.
    pub epoch: u64,
    id: Arc<str>,
    workspace_id: WorkspaceId,
    workspace: Arc<str>,
    pub run: Run,
    pub plan: Arc<LivePlan>,
    /// What it may take over of the run that it was forked from.
    adoption: Option<Box<Adoption>>,
    /// The project's cap on attempts that are on workers.
    pub tasks_in_flight: Option<usize>,
    /// The sequence of the last event that was decided, durable or under way.
    sequence: u64,
    /// The sequence from which on its state is to be kept again.
    snapshot_due: u64,
    /// The last durable event: its position, and when it was recorded.
    position: u64,
    recorded_at: DateTime<Utc>,
    run_value: Value,
    pub queue: VecDeque<Queued>,
    pub under_way: Option<UnderWay>,
    pub waiters: Vec<Reply<RunOutcome>>,
    pub last_used: Instant,
    /// What the last append took, and the rest after it.
    pub last_append: Duration,
    /// An `Advance` is owed.
    advance: bool,
    /// Attempts that may have been handed out before: that they are again is recorded first.
    again: HashSet<(u64, u32)>,
    /// Attempts whose next hand-out is recorded already.
    recorded: HashSet<(u64, u32)>,
    /// Attempts that must not be made twice, and that no worker has fetched yet.
    unfetched: HashSet<(u64, u32)>,
    /// The trace that its children are part of, once it was looked up: beside its first event.
    pub trace: Arc<OnceCell<Option<Arc<str>>>>,
}

/// What follows from an append that has become durable.
#[derive(Default)]
pub(super) struct Durable {
    /// Attempts to hand out.
    pub dispatch: Vec<(u64, u32)>,
    /// Tokens may be gone whose attempts are on workers.
    pub dropped: bool,
    /// The run was started; it has ended.
    pub created: bool,
    pub ended: bool,
    /// All that the run was doing is over: it has ended, or undoes its work.
    pub is_over: bool,
    /// Child runs to start, and to cancel.
    pub children: Vec<(u64, RunId)>,
    pub given_up: Vec<RunId>,
    /// The run was paused, or resumed.
    pub paused: Option<bool>,
}

/// What is done once the append under way is durable.
#[derive(Default)]
pub(super) struct UnderWay {
    durable: Durable,
    reply: Option<Reply<Receipt>>,
    /// Whom to tell that an outcome is durable.
    outcomes: Vec<oneshot::Sender<()>>,
}

/// What a run's next decisions come to.
pub(super) enum Turn {
    /// Nothing to append.
    Idle,
    /// An append, to be followed by [`Actor::committed`].
    Append(Box<Append>),
    /// It was to begin at a moment before what is recorded already.
    SlotIsPast,
    /// The events can't be stored; the run is dropped from memory and loaded again.
    Failed(Rejection),
}

/// A loaded run, as an actor takes it over.
pub(super) struct Taken {
    pub run_id: RunId,
    /// See [`Actor::epoch`].
    pub epoch: u64,
    pub workspace_id: WorkspaceId,
    pub run: Run,
    pub plan: Arc<LivePlan>,
    /// What a fork may take over of the other run.
    pub adoption: Option<Box<Adoption>>,
    /// See [`crate::resolve::Resolver::tasks_in_flight_per_run`].
    pub tasks_in_flight: Option<usize>,
    /// How its workflow stands, where it has one.
    pub standing: Option<Standing>,
    pub sequence: u64,
    pub snapshot_at: u64,
    pub position: u64,
    pub recorded_at: DateTime<Utc>,
}

impl Actor {
    pub(super) fn new(taken: Taken) -> Self {
        let header = taken.run.header();
        let run_value = header.map(Header::as_value).unwrap_or_default();
        Self {
            run_id: taken.run_id,
            epoch: taken.epoch,
            id: Arc::from(taken.run_id.to_string()),
            workspace_id: taken.workspace_id,
            workspace: Arc::from(taken.workspace_id.to_string()),
            run: taken.run,
            plan: taken.plan,
            adoption: taken.adoption,
            tasks_in_flight: taken.tasks_in_flight,
            sequence: taken.sequence,
            snapshot_due: taken.snapshot_at + SNAPSHOT_EVERY,
            position: taken.position,
            recorded_at: taken.recorded_at,
            run_value,
            queue: VecDeque::new(),
            under_way: None,
            waiters: Vec::new(),
            last_used: Instant::now(),
            last_append: Duration::ZERO,
            advance: false,
            again: HashSet::new(),
            recorded: HashSet::new(),
            unfetched: HashSet::new(),
            trace: Arc::default(),
        }
    }

    /// An attempt goes to a queue, where a worker fetches it.
    pub(super) fn awaits_fetch(&mut self, task: &Task) {
        if !task.work.repeatable {
            self.unfetched.insert((task.token, task.attempt));
        }
    }

    /// The task of an attempt, for the worker that fetches it. One that must not be made twice is
    /// given once: to whom it is refused drops it, and where nobody has it in truth the sweep finds
    /// that out.
    pub(super) fn fetched(&mut self, token: u64, attempt: u32) -> Option<Task> {
        let task = self.task(token, attempt)?.ok()?;
        (task.work.repeatable || self.unfetched.remove(&(token, attempt))).then_some(task)
    }

    /// An attempt may have been handed out before.
    pub(super) fn handed_out_before(&mut self, token: u64, attempt: u32) {
        self.again.insert((token, attempt));
    }

    /// Whether it has to be recorded before the attempt goes to a worker, with
    /// [`Queued::HandOut`]; asked once for each hand-out.
    pub(super) fn must_record(&mut self, token: u64, attempt: u32) -> bool {
        if self.recorded.remove(&(token, attempt)) {
            return false;
        }
        if self.again.remove(&(token, attempt)) {
            return true;
        }
        let at = self.run.working_attempt(token).filter(|(_, current)| *current == attempt);
        let node = at.and_then(|(at, _)| self.plan.plan.work_of(at));
        node.is_some_and(|node| !node.repeatable)
    }

    /// Whether nothing is handed out: the run is paused, or that it is resumed isn't durable yet.
    pub(super) fn holds_back(&self) -> bool {
        let under_way = self.under_way.as_ref();
        self.run.is_paused() || under_way.is_some_and(|one| one.durable.paused.is_some())
    }

    /// What follows once the append under way is durable.
    pub(super) fn to_follow(&self) -> Option<&Durable> {
        self.under_way.as_ref().map(|under_way| &under_way.durable)
    }

    pub(super) const fn workspace_id(&self) -> WorkspaceId {
        self.workspace_id
    }

    /// Whether everything that was asked of it is durable.
    pub(super) fn is_settled(&self) -> bool {
        self.queue.is_empty() && self.under_way.is_none()
    }

    /// Whether the run may leave memory: nothing waits for it and nothing of it is under way.
    pub(super) fn is_idle(&self) -> bool {
        self.is_settled() && self.waiters.is_empty()
    }

    /// Decides what is queued, up to one append. Outcomes and timers are taken together; a
    /// client's command has an append of its own, since its cause is recorded with it, and so has
    /// what is decided as of another moment than now. With `most` events or more, what is left
    /// waits for the next turn.
    pub(super) fn turn(&mut self, clock: &dyn Clock, most: usize) -> Turn {
        if self.under_way.is_some() {
            return Turn::Idle;
        }
        let mut now = clock.now().max(self.recorded_at);
        let mut events = Vec::new();
        let mut under_way = UnderWay::default();
        let mut cause = None;
        // A run works on tasks as long as nothing else is recorded of it.
        let waited_on = self.run.live().map_or(WaitKinds::TASK, Live::waiting_on);
        let (mut shared, mut secrets) = (Vec::new(), Vec::new());
        while let Some(queued) = self.queue.pop_front() {
            let at = queued.at();
            if (queued.is_from_client() || at.is_some()) && !events.is_empty() {
                self.queue.push_front(queued);
                break;
            }
            // What is recorded after now is of a clock that was put back.
            if at.is_some_and(|at| at < self.recorded_at) && self.recorded_at < now {
                return Turn::SlotIsPast;
            }
            now = at.map_or(now, |at| at.max(self.recorded_at));
            let Asked { command, cause: own_cause, reply, settled, fork, secrets: used } =
                asked(queued);
            let begins = self.sequence == 0 && events.is_empty();
            under_way.durable.created |= begins || fork.is_some();
            let decided = match fork {
                Some(fork) => self.fork(*fork, now).map(|(decision, before)| {
                    shared = before;
                    decision
                }),
                None => self.decide(&command, now),
            };
            let is_alone = own_cause.is_some() || at.is_some();
            match (decided, reply) {
                (Ok(decision), reply) => {
                    if let Command::HandOut { token, attempt } = command {
                        self.recorded.extend(&decision.dispatch);
                        if self.run.is_paused() {
                            self.again.insert((token, attempt));
                        }
                    }
                    self.take(decision, &mut events, &mut under_way.durable);
                    under_way.reply = reply;
                    under_way.outcomes.extend(settled);
                    secrets.extend(used);
                    cause = own_cause;
                }
                (Err(refusal), Some(reply)) => drop(reply.send(Err(refusal::of_command(&refusal)))),
                (Err(refusal), None) => {
                    tracing::debug!(%refusal, "refused an outcome");
                    if matches!(command, Command::Report(_)) {
                        count_refused();
                        settle(settled);
                    }
                }
            }
            let of_secrets = secrets.iter().map(SecretsUsed::bytes).sum::<usize>();
            let is_full = events.len() >= most || of_secrets >= SECRET_BYTES;
            if is_alone && !events.is_empty() || is_full {
                break;
            }
        }
        if events.is_empty() {
            return Turn::Idle;
        }
        let mut cause = cause.unwrap_or_else(|| self.own_cause());
        let experiment = self.run.header().and_then(|header| header.experiment.as_ref());
        if experiment.is_some_and(|one| one.keeps_from(Effect::Emit)) {
            cause.metadata = metadata::quiet(&cause.metadata);
        }
        if !secrets.is_empty() {
            cause.metadata = metadata::using(&cause.metadata, &secrets);
        }
        let stream = Stream {
            id: &self.id,
            workspace: &self.workspace,
            workspace_id: self.workspace_id,
            sequence: self.sequence,
            snapshot_due: self.snapshot_due,
            shard: protocol::shard_of(self.run_id),
            epoch: (self.epoch > 0).then_some(self.epoch),
            waited_on,
        };
        match append::append(&stream, &self.run, &shared, &events, &cause, now, clock) {
            Ok((append, snapshot_due)) => {
                let appended = (shared.len() + events.len()) as u64;
                self.sequence += appended;
                self.snapshot_due = snapshot_due;
                self.warn_of_length(appended);
                self.recorded_at = now;
                self.under_way = Some(under_way);
                Turn::Append(Box::new(append))
            }
            Err(error) => {
                let message = format!("the events can't be stored: {error}");
                let rejection = Rejection::new(RejectionKind::Invalid, "unstorable", message);
                if let Some(reply) = under_way.reply {
                    drop(reply.send(Err(rejection.clone())));
                }
                Turn::Failed(rejection)
            }
        }
    }

    fn take(&mut self, decision: Decision, events: &mut Vec<Event>, durable: &mut Durable) {
        let is_over = decision.events.iter().any(Event::gives_all_up);
        durable.is_over |= is_over;
        durable.dropped |= is_over || decision.events.iter().any(Event::may_give_up);
        durable.ended = self.run.live().is_none();
        durable.paused = decision.events.iter().rev().find_map(pauses).or(durable.paused);
        events.extend(decision.events);
        durable.dispatch.extend(decision.dispatch);
        durable.children.extend(decision.children);
        durable.given_up.extend(decision.given_up);
        self.advance |= decision.advance;
    }

    /// Warns once of a run that has become long, with the last so many events.
    fn warn_of_length(&self, added: u64) {
        let Some(events) = self.run.live().map(|live| live.events) else { return };
        let limit = domain::limits::EVENTS_WARNED_OF;
        if events >= limit && events.saturating_sub(added) < limit {
            tracing::warn!(run_id = %self.run_id, events, "a long run");
        }
    }

    pub(super) fn own_cause(&self) -> Cause {
        static METADATA: LazyLock<bytes::Bytes> = LazyLock::new(|| {
            let version = env!("CARGO_PKG_VERSION");
            bytes::Bytes::from(format!(r#"{{"actor":"coordinator","engine_version":"{version}"}}"#))
        });
        Cause { workspace_id: self.workspace_id, metadata: METADATA.clone(), remembered: None }
    }

    /// The append under way is durable: answers its command.
    pub(super) fn committed(&mut self, appended: &Appended) -> Durable {
        self.position = appended.last_position;
        self.last_used = Instant::now();
        if self.run_value.is_null() {
            self.run_value = self.run.header().map(Header::as_value).unwrap_or_default();
        }
        let Some(under_way) = self.under_way.take() else { return Durable::default() };
        for outcome in under_way.outcomes {
            settle(Some(outcome));
        }
        if let Some(reply) = under_way.reply {
            drop(reply.send(Ok(Receipt {
                id: self.id.to_string(),
                version: appended.last_sequence,
                position: appended.last_position,
                created: under_way.durable.created,
                at: self.recorded_at,
                queued: under_way.durable.created && self.run.is_in_queue(),
                outcome: self.outcome(),
                ..Receipt::default()
            })));
        }
        if std::mem::take(&mut self.advance) {
            self.queue.push_back(Queued::Advance);
        }
        under_way.durable
    }

    /// The append under way failed: everybody who waits for this run is told, and the run leaves
    /// memory. Outcomes are not kept: the attempts are still owed, and are handed out again.
    pub(super) fn failed(mut self, rejection: &Rejection) {
        if let Some(reply) = self.under_way.take().and_then(|under_way| under_way.reply) {
            drop(reply.send(Err(rejection.clone())));
        }
        refuse_all(self.queue.drain(..), rejection, Holds::ForNow);
        for waiter in self.waiters.drain(..) {
            drop(waiter.send(Err(rejection.clone())));
        }
    }

    /// The run's end, once it is durable.
    pub(super) fn outcome(&self) -> Option<RunOutcome> {
        let durable = self.under_way.is_none();
        durable.then(|| outcome::of(&self.run, self.sequence, self.position)).flatten()
    }

    /// The task of an attempt; `None` where it isn't owed any more, and the outcome that stands
    /// for it where its input can't be mapped.
    pub(super) fn task(&self, token: u64, attempt: u32) -> Option<Result<Task, Box<Outcome>>> {
        let (at, current) = self.run.working_attempt(token)?;
        let work = self.plan.work(at).filter(|_| current == attempt)?;
        let node = self.plan.plan.work_of(at)?;
        let input = match self.run.task_input(&self.plan.plan, token) {
            Ok(input) => input,
            Err(error) => {
                let failure = protocol::Failure {
                    kind: protocol::FailureKind::Permanent,
                    code: error.code.to_owned(),
                    message: error.message,
                    detail: Value::Null,
                    retry_after: None,
                    usage: Default::default(),
                };
                return Some(Err(Box::new(Outcome {
                    run_id: self.run_id,
                    token,
                    attempt,
                    result: OutcomeResult::Failure(failure),
                    duration_ms: 0,
                    secrets: Vec::new(),
                })));
            }
        };
        Some(Ok(Task {
            workspace_id: self.workspace_id,
            project_id: self.run.header().map(|header| header.project_id),
            workflow_id: self.run.header().and_then(|header| header.workflow_id),
            run_id: self.run_id,
            token,
            attempt,
            node: Arc::clone(&node.name),
            work: Arc::clone(work),
            input,
            run: self.run_value.clone(),
            timeout: node.timeout,
        }))
    }
}

/// Whether a run is paused after an event that says so.
const fn pauses(event: &Event) -> Option<bool> {
    match event {
        Event::RunPaused { .. } => Some(true),
        Event::RunResumed {} => Some(false),
        _ => None,
    }
}

/// The aggregate type of runs, shared.
pub(super) fn run_type() -> Arc<str> {
    static TYPE: LazyLock<Arc<str>> = LazyLock::new(|| Arc::from("run"));
    Arc::clone(&TYPE)
}

/// The name of an event type, shared by all events of the type.
pub(super) fn event_type(event: &Event) -> Arc<str> {
    static NAMES: LazyLock<std::sync::RwLock<std::collections::HashMap<&'static str, Arc<str>>>> =
        LazyLock::new(Default::default);
    let name = event.event_type();
    let known = NAMES.read().unwrap_or_else(std::sync::PoisonError::into_inner);
    if let Some(known) = known.get(name) {
        return Arc::clone(known);
    }
    drop(known);
    let mut names = NAMES.write().unwrap_or_else(std::sync::PoisonError::into_inner);
    Arc::clone(names.entry(name).or_insert_with(|| Arc::from(name)))
}
