//! Decisions: from a command to events, or a refusal that changes nothing.

use chrono::{DateTime, Utc};
use serde_json::{Map, Value};

use super::command::Command;
use super::error::Refusal;
use super::event::{Cause, Event, FailureKind, GateClosed, GateOutcome, RunError, TokenId};
use super::scope::{RunScope, TokenScope, root_state};
use super::state::{Live, Phase, Run, Timer, Token};
use super::vars::size_of;
use crate::codec;
use crate::definition::Plan;
use crate::definition::plan::{NodeWork, PlanNode};
use crate::expression::{Binding, EvalError, Scope};
use crate::ids::RunId;
use crate::limits;

mod cancel;
mod child;
mod emit;
mod fork;
mod gate;
mod join;
mod mutex;
mod pause;
mod report;
mod retry;
mod route;
mod start;
mod undo;
mod wait;

pub use route::fits;
pub use start::check_start;

/// What a command leads to.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Decision {
    pub events: Vec<Event>,
    /// Attempts to hand to workers once the events are durable: token and attempt.
    pub dispatch: Vec<(TokenId, u32)>,
    /// Child runs to start once the events are durable, by token.
    pub children: Vec<(TokenId, RunId)>,
    /// Child runs that nobody waits for any more: to be cancelled once the events are durable.
    pub given_up: Vec<RunId>,
    /// Work was put off for its size: send [`Command::Advance`] once the events are durable.
    pub advance: bool,
}

impl Decision {
    /// Takes what a further command led to, after what the ones before it did.
    pub fn append(&mut self, next: Self) {
        self.events.extend(next.events);
        self.dispatch.extend(next.dispatch);
        self.children.extend(next.children);
        self.given_up.extend(next.given_up);
        self.advance |= next.advance;
    }
}

/// Decides on a copy of the run. The same run, plan, command and time give the same decision,
/// byte for byte.
pub fn decide(
    run: &Run,
    plan: &Plan,
    command: &Command,
    now: DateTime<Utc>,
) -> Result<Decision, Refusal> {
    run.clone().execute(plan, command, now)
}

impl Run {
    /// Decides and folds in one go: afterwards the run is as if the decision's events had been
    /// folded. A refusal leaves it as it was.
    pub fn execute(
        &mut self,
        plan: &Plan,
        command: &Command,
        now: DateTime<Utc>,
    ) -> Result<Decision, Refusal> {
        let mut decider = Decider {
            run: self,
            plan,
            now,
            decision: Decision::default(),
            fresh: Vec::new(),
            put_off: None,
            touched: Vec::new(),
            tokens_left: limits::TOKENS_PER_APPEND,
        };
        decider.accept(command)?;
        decider.settle();
        decider.suspend();
        Ok(decider.decision)
    }
}

/// One decision under way. Events are folded as they are made, so that what follows sees them.
struct Decider<'a> {
    run: &'a mut Run,
    plan: &'a Plan,
    now: DateTime<Utc>,
    decision: Decision,
    /// Tokens that have come to their node and weren't looked at yet.
    fresh: Vec<TokenId>,
    /// Tokens from this one on may have been put off.
    put_off: Option<TokenId>,
    /// Instances whose counts have changed.
    touched: Vec<u64>,
    tokens_left: usize,
}

impl Decider<'_> {
    fn accept(&mut self, command: &Command) -> Result<(), Refusal> {
        match (&*self.run, command) {
            (Run::NotStarted, Command::Start(started)) => self.start(started),
            (Run::NotStarted, Command::StartInQueue { started, reason }) => {
                self.start_in_queue(started, reason)
            }
            (Run::NotStarted, Command::StartDropped { started, over }) => {
                self.start_dropped(started, *over)
            }
            (Run::NotStarted, _) => Err(Refusal::NotStarted),
            (
                Run::Live(_) | Run::Closed(_),
                Command::Start(_) | Command::StartInQueue { .. } | Command::StartDropped { .. },
            ) => Err(Refusal::AlreadyStarted),
            (Run::Closed(closed), _) => Err(Refusal::Ended { status: closed.status }),
            (Run::Live(_), Command::Report(report)) => self.report(report),
            (Run::Live(live), Command::HandOut { .. }) if live.pause.is_some() => Ok(()),
            (Run::Live(_), Command::HandOut { token, attempt }) => self.hand_out(*token, *attempt),
            (Run::Live(_), Command::Signal { name, payload, transient }) => {
                self.signal(name, payload, *transient)
            }
            (Run::Live(_), Command::Answer(answer)) => self.answer(answer),
            (Run::Live(_), Command::Pause { reason }) => self.pause(reason.as_ref()),
            (Run::Live(_), Command::Resume) => self.resume(),
            (Run::Live(_), Command::EndWait(end)) => self.end_wait_with(end),
            (Run::Live(_), Command::ReportChild(report)) => self.report_child(report),
            (Run::Live(_), Command::FollowParent { is_paused }) => self.follow_parent(*is_paused),
            (Run::Live(_), Command::FollowWorkflow { workflow_id, is_paused, ahead }) => {
                self.follow_workflow(*workflow_id, *is_paused, *ahead)
            }
            (Run::Live(_), Command::Wake) => {
                self.wake();
                Ok(())
            }
            (Run::Live(_), Command::Advance) => {
                self.resume_put_off();
                Ok(())
            }
            (Run::Live(_), Command::Cancel { reason, compensate }) => {
                self.cancel_run(reason.as_ref(), *compensate)
            }
            (Run::Live(_), Command::Fork(forked)) => self.fork(forked),
            (Run::Live(_), Command::Admit { until }) => {
                self.admit(*until);
                Ok(())
            }
            (Run::Live(_), Command::StayInQueue(reason)) => {
                self.stay_in_queue(reason);
                Ok(())
            }
            (Run::Live(_), Command::Displace { by }) => {
                self.displace(*by);
                Ok(())
            }
        }
    }

    fn emit(&mut self, event: Event) {
        let gates = self.gates_at_stake(&event);
        let children = self.children_at_stake(&event);
        self.run.evolve(&event, self.now);
        for (token, run_id) in children {
            if self.run.awaited_child(token).is_none() {
                self.decision.given_up.push(run_id);
            }
        }
        self.decision.events.push(event);
        for token in gates {
            if self.live().is_some_and(|live| !live.gates.contains(&token)) {
                let (outcome, result) = (GateOutcome::Cancelled, Value::Null);
                let closed = GateClosed { token, outcome, result, writes: Map::new(), error: None };
                let closed = Event::GateClosed(Box::new(closed));
                self.run.evolve(&closed, self.now);
                self.decision.events.push(closed);
            }
        }
    }

    /// The open gates, before an event that may give branches up: those that go with them are
    /// closed by an event of their own, for whoever was asked.
    fn gates_at_stake(&self, event: &Event) -> Vec<TokenId> {
        let live = self.live().filter(|live| event.may_give_up() && !live.gates.is_empty());
        live.map(|live| live.gates.iter().copied().collect()).unwrap_or_default()
    }

    fn live(&self) -> Option<&Live> {
        self.run.live()
    }

    fn token(&self, id: TokenId) -> Option<&Token> {
        self.live()?.tokens.get(&id).map(|token| &**token)
    }

    /// Evaluates a mapping into `state` whole, before anything of it is written.
    fn writes(
        &self,
        id: TokenId,
        mapping: &[(String, Binding)],
        result: Option<&Value>,
    ) -> Result<Map<String, Value>, Box<RunError>> {
        let found = self.live().and_then(|live| Some((live, live.tokens.get(&id)?)));
        let Some((live, token)) = found else { return Ok(Map::new()) };
        let scope = TokenScope { result, ..TokenScope::new(live, self.plan, token) };
        let mut writes = Map::new();
        let mut bytes = 0;
        for (path, binding) in mapping {
            let value = evaluated(binding, &scope).map_err(|error| at("state", path, error))?;
            bytes += size_of(&value);
            writes.insert(path.clone(), value);
        }
        let level = if token.branch.is_some() { &token.vars } else { &live.root };
        let before: usize = match bytes {
            0 => 0,
            _ => level.iter().map(|(_, value)| size_of(value)).sum(),
        };
        if before + bytes > limits::CONTEXT_BYTES {
            let limit = limits::CONTEXT_BYTES;
            let message = format!("state would take more than {limit} bytes");
            return Err(boxed("context_too_large", message));
        }
        Ok(writes)
    }

    /// What a node's output writes over its result; where it can't be evaluated nothing is written,
    /// and the node fails over it.
    fn output(
        &self,
        id: TokenId,
        node: &PlanNode,
        result: &Value,
    ) -> (Map<String, Value>, Option<Box<RunError>>) {
        match self.writes(id, &node.output, Some(result)) {
            Ok(writes) => (writes, None),
            Err(error) => (Map::new(), Some(error)),
        }
    }

    /// Goes on from a node that has ended, or fails it.
    fn route_or_fail(&mut self, id: TokenId, failed: Option<Box<RunError>>) {
        match failed {
            None => self.route(id),
            Some(error) => self.fail_node(id, *error),
        }
    }

    fn wake(&mut self) {
        loop {
            let due = self.live().filter(|live| live.next_due().is_some_and(|due| due <= self.now));
            let Some((_, timer)) = due.and_then(|live| live.timers.first().copied()) else { break };
            if self.is_full() {
                break;
            }
            match timer {
                Timer::Run => self.time_out_run(),
                Timer::Join(instance) => self.time_out_join(instance),
                Timer::Retry(token) => self.retry(token),
                Timer::Wait(token) => self.wait_is_up(token),
            }
            self.settle_joins();
        }
        let still_due = self.live().and_then(Live::next_due).is_some_and(|due| due <= self.now);
        self.decision.advance |= still_due && self.is_full();
    }

    fn time_out_run(&mut self) {
        let mut error =
            RunError::permanent("run_timeout", "the run took longer than its timeout".to_owned());
        error.kind = FailureKind::Timeout;
        self.end(Cause::TimedOut { error });
    }

    fn resume_put_off(&mut self) {
        if self.run.is_in_queue() {
            return;
        }
        if self.run.next_due().is_some_and(|due| due <= self.now) {
            self.wake();
        }
        let instances = self.run.live().map(|live| live.instances.keys());
        self.touched.extend(instances.into_iter().flatten());
        self.put_off = Some(0);
    }

    /// The next token whose work is the engine's and was put off.
    fn next_put_off(&mut self) -> Option<TokenId> {
        let (live, from) = (self.run.live()?, self.put_off.take()?);
        // Looked up once for many that stand at the same node.
        let mut of_workers = "";
        for (id, token) in live.tokens.range(from..) {
            let is_known = token.undo.is_none() && *token.node == *of_workers;
            if is_known || !matches!(token.phase, Phase::Working { .. }) {
                continue;
            }
            if !self.plan.work_of(token).is_some_and(|node| node.work.is_task()) {
                self.put_off = Some(*id + 1);
                return Some(*id);
            }
            if token.undo.is_none() {
                of_workers = &token.node;
            }
        }
        None
    }

    /// Whether the decision has become as large as one append should be.
    fn is_full(&self) -> bool {
        self.decision.events.len() >= limits::EVENTS_PER_DECISION || self.tokens_left == 0
    }

    /// Looks at tokens that came to their nodes and at joins until nothing moves, or until the
    /// decision is full; where no token is left, ends the run or undoes what is next.
    fn settle(&mut self) {
        loop {
            self.settle_joins();
            if let Some(id) = self.fresh.pop().or_else(|| self.next_put_off()) {
                self.enter(id);
                if self.is_full() && self.next_put_off().is_some() {
                    self.decision.advance |= !self.is_suspended();
                    self.put_off = None;
                }
                continue;
            }
            if self.pass_on_mutex() {
                continue;
            }
            let Some(live) = self.live() else { break };
            if !(live.tokens.is_empty() && live.instances.is_empty()) {
                return self.keep_live_dispatches();
            }
            match &live.compensation {
                None => self.complete(),
                Some(_) => self.undo_next(),
            }
        }
        self.decision.dispatch.clear();
        self.decision.children.clear();
        self.decision.advance = false;
    }

    /// A token that was cancelled after it came to its node isn't dispatched, and its child not
    /// started.
    fn keep_live_dispatches(&mut self) {
        let mut dispatch = std::mem::take(&mut self.decision.dispatch);
        dispatch.retain(|(id, attempt)| {
            self.run.working_attempt(*id).is_some_and(|(_, current)| current == *attempt)
        });
        self.decision.dispatch = dispatch;
        let mut children = std::mem::take(&mut self.decision.children);
        children.retain(|(token, run_id)| self.run.awaited_child(*token) == Some(*run_id));
        self.decision.children = children;
    }

    fn enter(&mut self, id: TokenId) {
        let Some((token, attempt)) = self.run.working_attempt(id) else { return };
        let plan = self.plan;
        let node = plan.work_of(token);
        if node.and_then(|node| node.mutex.as_ref()).is_some_and(|mutex| !self.gets(id, mutex)) {
            return;
        }
        match node.map(|node| &node.work) {
            // It is owed once it is the run's turn.
            Some(_) if self.run.is_in_queue() => {}
            // Of a paused run it is handed out when the run is resumed.
            Some(NodeWork::Task(_) | NodeWork::Child(_)) if self.run.is_paused() => {}
            Some(NodeWork::Task(_)) => self.decision.dispatch.push((id, attempt)),
            Some(_) if self.is_suspended() => {}
            Some(_) if self.is_full() => self.decision.advance = true,
            Some(NodeWork::Compute(mapping)) => match self.writes(id, mapping, None) {
                Ok(writes) => {
                    self.emit(Event::NodeComputed { token: id, writes });
                    self.route(id);
                }
                Err(error) => self.fail_node(id, *error),
            },
            Some(NodeWork::Wait(wait)) => self.enter_wait(id, wait),
            Some(NodeWork::Gate(gate)) => self.open_gate(id, gate),
            Some(NodeWork::Emit(emit)) => self.publish(id, emit),
            Some(NodeWork::Child(child)) => self.start_child(id, child),
            None => {
                let name = self.token(id).map(|token| token.node.to_string()).unwrap_or_default();
                let message = format!("the definition has no node {name:?}");
                self.fail_node(id, RunError::permanent("unknown_node", message));
            }
        }
    }

    /// A node failed without a worker.
    fn fail_node(&mut self, id: TokenId, mut error: RunError) {
        error.node = self.token(id).map(|token| token.node.to_string());
        self.emit(Event::NodeFailed { token: id, error });
        self.route(id);
    }

    fn complete(&mut self) {
        let Some(live) = self.live() else { return };
        let output = match self.plan.output() {
            None => Ok(root_state(live)),
            Some(mapping) => {
                let scope = RunScope(live);
                let members = mapping.iter().map(|(name, binding)| {
                    let value = evaluated(binding, &scope);
                    Ok((name.clone(), value.map_err(|error| at("output", name, error))?))
                });
                members.collect::<Result<Map<_, _>, _>>().map(Value::Object).and_then(canonical)
            }
        };
        let failed = match output {
            Err(error) => *error,
            Ok(output) => {
                let problems = self.plan.output_problems(&output);
                if problems.is_empty() {
                    return self.emit(Event::RunCompleted { output });
                }
                let message = "the output does not satisfy the definition's output_schema";
                let detail = serde_json::to_value(&problems).unwrap_or_default();
                RunError { detail, ..RunError::permanent("invalid_output", message.to_owned()) }
            }
        };
        self.fail_run(failed);
    }
}

/// A value as an event holds it, so that the fold gives what was decided on.
fn canonical(mut value: Value) -> Result<Value, Box<RunError>> {
    match codec::normalise(&mut value) {
        Ok(()) => Ok(value),
        Err(error) => Err(boxed("value_not_storable", error.to_string())),
    }
}

/// The value of a mapping, as an event holds it.
fn evaluated(binding: &Binding, scope: &dyn Scope) -> Result<Value, Box<RunError>> {
    canonical(binding.eval(scope).map_err(|error| Box::new(eval_failure(&error)))?)
}

/// The error with the place of the mapping that it is about.
fn at(mapping: &str, name: &str, mut error: Box<RunError>) -> Box<RunError> {
    error.message = format!("{mapping}.{name}: {}", error.message);
    error
}

fn too_many_tokens() -> RunError {
    let limit = limits::TOKENS_PER_RUN;
    let message = format!("the run would have more than {limit} tokens at the same time");
    RunError::permanent("token_limit", message)
}

fn boxed(code: &str, message: String) -> Box<RunError> {
    Box::new(RunError::permanent(code, message))
}

fn eval_failure(error: &EvalError) -> RunError {
    RunError::permanent(error.code, error.message.clone())
}
