//! Deciding again: a run's history is made once more from what came from outside, and compared.
//!
//! What came from outside stands in the events: outcomes of attempts, answers, signals, ends of
//! children, pauses. Everything else was decided, and is decided again. With the plan that the run
//! followed the same events have to come out. With another plan (a newer version of its
//! definition) it is a rehearsal: the first event that is another one is where the run would have
//! gone another way.

use std::collections::VecDeque;

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};

use super::command::{AttemptError, ChildReport, Command, EndWait, GateAnswer, Report};
use super::event::{Cause, ChildEnded, CompensationStarted, Dropped, Event, RunError, TokenId};
use super::state::{Phase, Run, Timer};
use crate::definition::Plan;
use crate::ids::RunId;
use crate::span::Span;

/// Where a history and the one that is decided again part.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Difference {
    /// The sequence of the first event that differs.
    pub sequence: u64,
    /// The event that stands there; absent where the history ends before it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub recorded: Option<Event>,
    /// The event that is decided now; absent where nothing is decided at this point.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub decided: Option<Event>,
}

/// What two events are compared by.
type IsSame<'a> = dyn Fn(&Event, &Event) -> bool + Sync + 'a;

/// A run that is decided again, event by event.
pub struct Replay<'a> {
    plan: &'a Plan,
    is_same: &'a IsSame<'a>,
    run: Run,
    /// Decided, and not met in the history yet.
    decided: VecDeque<Event>,
    /// Work was put off: an `Advance` is owed.
    advance: bool,
    /// The last event and the run before it, where only the next one tells which command it was.
    open: Option<Box<(Run, Event)>>,
    sequence: u64,
}

impl<'a> Replay<'a> {
    /// From the first event on, by the plan that the run followed.
    pub fn new(plan: &'a Plan) -> Self {
        Self::comparing(plan, &|recorded, decided| recorded == decided)
    }

    /// The same by any plan, where events are the same that `is_same` says so of: the recorded one
    /// and the one that is decided now.
    pub fn comparing(plan: &'a Plan, is_same: &'a IsSame<'a>) -> Self {
        let (run, decided) = (Run::default(), VecDeque::new());
        Self { plan, is_same, run, decided, advance: false, open: None, sequence: 0 }
    }

    /// Goes on by another plan: from the event on by which the run follows another definition.
    pub const fn follow(&mut self, plan: &'a Plan) {
        self.plan = plan;
    }

    /// The run as it is decided now.
    pub const fn run(&self) -> &Run {
        &self.run
    }

    /// Whether all that was decided has been met: what comes next is of another command.
    pub fn is_between_commands(&self) -> bool {
        self.decided.is_empty()
    }

    /// Takes the history's next event, and when it was recorded. Answers the one that is decided
    /// now, which is the same to `is_same`.
    ///
    /// # Errors
    /// The difference, where another event is decided now. Nothing can be taken after that.
    pub fn take(&mut self, recorded: &Event, at: DateTime<Utc>) -> Result<Event, Box<Difference>> {
        self.sequence += 1;
        if let Some((before, first)) = self.open.take().map(|open| *open) {
            self.reconsider(before, &first, recorded, at);
        }
        if self.decided.is_empty() {
            if matches!(recorded, Event::RunStarted(_) | Event::RunResumed {}) {
                self.open = Some(Box::new((self.run.clone(), recorded.clone())));
            }
            self.decide(recorded, at);
        }
        match self.decided.pop_front() {
            Some(decided) if (self.is_same)(recorded, &decided) => Ok(decided),
            decided => Err(self.difference(Some(recorded.clone()), decided)),
        }
    }

    /// The last event may have been the first of another command than it seemed.
    fn reconsider(&mut self, before: Run, first: &Event, second: &Event, at: DateTime<Utc>) {
        if let Some(command) = both(first, second) {
            self.run = before;
            self.decided.clear();
            self.execute(&command, at);
            self.decided.pop_front();
        } else if let (Event::RunStarted(started), Event::RunForked(_)) = (first, second) {
            // A fork shares no more than the start, and what follows from it is owed.
            (self.run, self.advance) = (before, false);
            self.decided.clear();
            self.run.evolve(first, started.started_at);
        }
    }

    /// The history ends here.
    ///
    /// # Errors
    /// The difference, where more was decided than it has.
    pub fn end(&mut self) -> Result<(), Box<Difference>> {
        self.sequence += 1;
        match self.decided.pop_front() {
            None => Ok(()),
            decided => Err(self.difference(None, decided)),
        }
    }

    fn difference(&self, recorded: Option<Event>, decided: Option<Event>) -> Box<Difference> {
        Box::new(Difference { sequence: self.sequence, recorded, decided })
    }

    /// Decides what the event is the first of.
    fn decide(&mut self, recorded: &Event, at: DateTime<Utc>) {
        if let Some(command) = from_outside(&self.run, recorded, at) {
            self.execute(&command, at);
            let is_met = self.decided.front().is_some_and(|first| (self.is_same)(recorded, first));
            // The clock of a run that has to wait, or never begins, doesn't start with it. Which of
            // them it is, the next event tells.
            if let (Event::RunStarted(started), false) = (recorded, is_met) {
                self.run = Run::default();
                self.decided.clear();
                let (started, over) = (started.clone(), Dropped::Concurrency);
                self.execute(&Command::StartDropped { started, over }, at);
            }
            return;
        }
        // Timers and what was put off are decided between commands, in either order.
        if std::mem::take(&mut self.advance) {
            let before = self.run.clone();
            self.execute(&Command::Advance, at);
            if self.decided.front().is_some_and(|first| (self.is_same)(recorded, first)) {
                return;
            }
            (self.run, self.advance) = (before, true);
            self.decided.clear();
        }
        self.execute(&Command::Wake, at);
    }

    /// What is refused decides nothing.
    fn execute(&mut self, command: &Command, at: DateTime<Utc>) {
        if let Ok(decision) = self.run.execute(self.plan, command, at) {
            self.advance |= decision.advance;
            self.decided.extend(decision.events);
        }
    }
}

/// The command that an event is the first of, where it came from outside of the engine.
pub(super) fn from_outside(run: &Run, event: &Event, at: DateTime<Utc>) -> Option<Command> {
    Some(match event {
        Event::RunStarted(started) => Command::Start(started.clone()),
        Event::TaskSucceeded { token, attempt, result, usage, duration_ms, .. }
        | Event::UndoSucceeded { token, attempt, result, usage, duration_ms } => {
            Command::Report(Box::new(Report {
                token: *token,
                attempt: *attempt,
                result: Ok(result.clone()),
                usage: *usage,
                duration_ms: *duration_ms,
                adopted: adopted_as(event),
            }))
        }
        Event::TaskFailed { token, attempt, error, retry_at, usage, duration_ms, .. }
        | Event::UndoFailed { token, attempt, error, retry_at, usage, duration_ms } => {
            let wait = retry_at.map(|retry_at| (retry_at - at).num_milliseconds());
            let retry_after = wait.and_then(|ms| u64::try_from(ms).ok()).map(Span::from_millis);
            let failure = AttemptError { retry_after, ..error.into() };
            Command::Report(Box::new(Report {
                token: *token,
                attempt: *attempt,
                result: Err(failure),
                usage: *usage,
                duration_ms: *duration_ms,
                adopted: adopted_as(event),
            }))
        }
        Event::TaskHandedOut { token, attempt } => {
            Command::HandOut { token: *token, attempt: *attempt }
        }
        Event::SignalReceived(signal) => Command::Signal {
            name: signal.name.parse().ok()?,
            payload: signal.payload.clone(),
            transient: signal.dropped,
        },
        Event::GateAnswered(answered) => Command::Answer(Box::new(GateAnswer {
            token: answered.token,
            actor: answered.actor.clone(),
            // It was allowed then.
            roles: roles_at(run, answered.token),
            decision: answered.decision,
            value: answered.value.clone(),
            comment: answered.comment.clone(),
        })),
        // It ended before its time.
        Event::WaitEnded { token, result, signal: None, .. } if !is_due(run, *token, at) => {
            let (token, result) = (*token, Ok(result.clone()));
            Command::EndWait(Box::new(EndWait { token, result, gate: None }))
        }
        Event::NodeFailed { token, error } if waits_on(run, *token, at) => {
            let (token, result) = (*token, Err(error.clone()));
            Command::EndWait(Box::new(EndWait { token, result, gate: None }))
        }
        Event::GateClosed(closed) if !is_due(run, closed.token, at) => {
            let result = match &closed.error {
                None => Ok(closed.result.clone()),
                Some(error) => Err(error.clone()),
            };
            let (token, gate) = (closed.token, Some(closed.outcome));
            Command::EndWait(Box::new(EndWait { token, result, gate }))
        }
        // Its time was up.
        Event::ChildEnded(ended) if ended.given_up => return None,
        Event::ChildEnded(ended) => Command::ReportChild(Box::new(report_of(ended))),
        Event::RunQueued(reason) => Command::StayInQueue(reason.clone()),
        Event::RunAdmitted { until, .. } => Command::Admit { until: *until },
        Event::RunPaused { by_parent: true, .. } => Command::FollowParent { is_paused: true },
        Event::RunPaused { by_workflow: true, .. } => follow_workflow(run, true)?,
        Event::RunPaused { reason, .. } => Command::Pause { reason: reason.clone() },
        Event::RunResumed {} => match run.live().and_then(|live| live.pause.as_ref()) {
            Some(pause) if pause.by_workflow => follow_workflow(run, false)?,
            Some(_) | None => Command::Resume,
        },
        Event::RunForked(forked) => Command::Fork(forked.clone()),
        Event::RunCancelled { reason, code: Some(_) } => {
            Command::Displace { by: named_in(reason.as_deref()?)? }
        }
        Event::RunCancelled { reason, code: None } => {
            Command::Cancel { reason: reason.clone(), compensate: false }
        }
        Event::CompensationStarted(started) => return cancelled(started),
        // Where it isn't what follows from an undo, somebody doesn't wait for the rest.
        Event::CompensationEnded(_) => Command::Cancel { reason: None, compensate: false },
        Event::RetryStarted { .. }
        | Event::NodeComputed { .. }
        | Event::NodeFailed { .. }
        | Event::TokenRouted { .. }
        | Event::BranchesSpawned { .. }
        | Event::JoinFired { .. }
        | Event::JoinFailed { .. }
        | Event::TokensCancelled(_)
        | Event::GroupEnded { .. }
        | Event::MutexAwaited { .. }
        | Event::MutexTaken { .. }
        | Event::WaitStarted { .. }
        | Event::WaitEnded { .. }
        | Event::GateOpened(_)
        | Event::GateClosed(_)
        | Event::EventEmitted { .. }
        | Event::MetricEmitted { .. }
        | Event::ChildStarted(_)
        | Event::UndoStarted { .. }
        | Event::RunCompleted { .. }
        | Event::RunFailed { .. }
        | Event::RunTimedOut { .. } => return None,
    })
}

/// Whether the time of a token's wait is up.
fn is_due(run: &Run, token: TokenId, at: DateTime<Utc>) -> bool {
    let timers = run.live().into_iter().flat_map(|live| &live.timers);
    timers.take_while(|(due, _)| *due <= at).any(|(_, timer)| *timer == Timer::Wait(token))
}

/// Whether a token waits for a signal or a time that isn't there yet.
fn waits_on(run: &Run, token: TokenId, at: DateTime<Utc>) -> bool {
    let waiting = run.live().and_then(|live| live.tokens.get(&token));
    waiting.is_some_and(|token| matches!(token.phase, Phase::Waiting { .. }))
        && !is_due(run, token, at)
}

/// The event of another run that an outcome was taken over from.
const fn adopted_as(event: &Event) -> Option<u64> {
    match event {
        Event::TaskSucceeded { adopted, .. } | Event::TaskFailed { adopted, .. } => *adopted,
        _ => None,
    }
}

/// The command that led to two events, where the first one alone may have come of another one.
fn both(first: &Event, second: &Event) -> Option<Command> {
    match (first, second) {
        (Event::RunStarted(started), Event::RunQueued(reason)) => {
            Some(Command::StartInQueue { started: started.clone(), reason: reason.clone() })
        }
        (Event::RunStarted(started), Event::RunCancelled { code: Some(code), .. }) => {
            let (started, over) = (started.clone(), Dropped::of_code(code)?);
            Some(Command::StartDropped { started, over })
        }
        (Event::RunResumed {}, Event::CompensationStarted(started)) => cancelled(started),
        _ => None,
    }
}

fn follow_workflow(run: &Run, is_paused: bool) -> Option<Command> {
    let workflow_id = run.header()?.workflow_id?;
    Some(Command::FollowWorkflow { workflow_id, is_paused, ahead: 0 })
}

/// The run that a reason names.
fn named_in(reason: &str) -> Option<RunId> {
    reason.split(' ').find_map(|word| word.parse().ok())
}

/// The cancel that a compensation began with, if that was it.
fn cancelled(started: &CompensationStarted) -> Option<Command> {
    match &started.cause {
        Cause::Cancelled { reason } => {
            Some(Command::Cancel { reason: reason.clone(), compensate: true })
        }
        Cause::Failed { .. } | Cause::TimedOut { .. } => None,
    }
}

fn roles_at(run: &Run, token: TokenId) -> Vec<String> {
    let token = run.live().and_then(|live| live.tokens.get(&token));
    match token.map(|token| &token.phase) {
        Some(Phase::Gated { gate }) => gate.roles.clone(),
        _ => Vec::new(),
    }
}

/// What was told of a child, from what became of it. A node that catches has it as its result; one
/// that doesn't has the output, or the child's error in its own.
pub(super) fn report_of(ended: &ChildEnded) -> ChildReport {
    let ChildEnded { token, run_id, status, result, error, .. } = ended;
    let told = |key: &str| result.get(key).filter(|value| !value.is_null()).cloned();
    let is_caught = result.get("status").is_some_and(|told| *told == status.as_str())
        && result.get("error").is_some()
        && result.get("output").is_some();
    let (output, error) = match error {
        Some(error) => (None, error_told(error)),
        None if is_caught => {
            let error = told("error").and_then(|error| serde_json::from_value(error).ok());
            (told("output"), error)
        }
        None => (Some(result.clone()), None),
    };
    let adopted = ended.adopted;
    ChildReport { token: *token, run_id: *run_id, status: *status, output, error, adopted }
}

/// The error of the child itself, which the node's wraps.
fn error_told(error: &RunError) -> Option<RunError> {
    serde_json::from_value(error.detail.get("error")?.clone()).ok()
}
