//! How events change a run. Total: nothing is refused here, and no definition is needed.

use std::sync::Arc;

use chrono::{DateTime, Utc};
use serde_json::{Map, Value};

use super::event::{
    Carried, Event, Fired, InstanceId, Opened, RunError, RunStarted, TokenId, TransitionIndex,
    Usage,
};
use super::state::{
    Branch, Closed, Header, Live, Phase, Run, RunStatus, Signals, Taken, Timer, Token,
};
use super::vars::{Vars, size_of};

mod cancelled;
mod fork;
mod groups;
mod mutexes;
mod queue;
mod undo;
mod waits;

impl Run {
    /// Folds an event that was recorded at `at`. An event that doesn't fit the state (which
    /// `decide` never makes) changes nothing.
    pub fn evolve(&mut self, event: &Event, at: DateTime<Utc>) {
        if let Event::RunStarted(started) = event {
            if matches!(self, Self::NotStarted) {
                *self = Self::Live(Box::new(Live::start(started, at)));
            }
            return;
        }
        let Self::Live(live) = self else { return };
        live.at = at;
        live.events += 1;
        match event {
            Event::RunStarted(_) => {}
            Event::RunQueued(reason) => live.enqueue(reason),
            Event::RunAdmitted { deadline, .. } => live.admit(*deadline),
            Event::TaskSucceeded { token, result, writes, usage, undo, .. } => {
                live.usage.add(usage);
                live.keep_undo(*token, undo.as_ref());
                live.succeed(*token, Some(result), writes);
            }
            Event::TaskFailed { token, attempt, error, retry_at, usage, .. } => {
                live.usage.add(usage);
                live.fail_attempt(*token, *attempt, error, *retry_at);
            }
            Event::RetryStarted { token, attempt } => {
                live.set_phase(*token, Phase::Working { attempt: *attempt });
                live.handed_out(*token, 0);
            }
            Event::TaskHandedOut { token, .. } => {
                let times = live.tokens.get(token).map_or(0, |token| token.handed_out);
                live.handed_out(*token, times + 1);
            }
            Event::NodeComputed { token, writes } => live.succeed(*token, None, writes),
            Event::NodeFailed { token, error } => {
                live.set_phase(*token, Phase::Failed { error: Box::new(error.clone()) });
            }
            Event::TokenRouted { token, fired, opened, extended, failed, .. } => {
                extended.iter().for_each(|extended| live.extend(*token, extended));
                live.route(*token, fired, opened, *failed);
            }
            Event::BranchesSpawned { instance, index, token, count, items } => {
                live.spawn(*instance, *index, *token, *count, items);
            }
            Event::JoinFired {
                instance, token, node, writes, iteration, rest_continues, ..
            } => {
                let taken = iteration.map(|iteration| (iteration.transition, iteration.count));
                live.fire_join(*instance, *token, node, writes, taken, *rest_continues);
            }
            Event::JoinFailed { instance, error, .. } => {
                if let Some(gone) = live.remove_instance(*instance)
                    && let Some(branch) = gone.parent.branch
                {
                    live.fail_branch(branch, error);
                }
            }
            Event::TokensCancelled(cancelled) => live.cancel(cancelled),
            Event::GroupEnded { instance } => {
                if let Some(gone) = live.remove_instance(*instance)
                    && let Some(branch) = gone.parent.branch
                {
                    live.end_part(branch);
                }
            }
            Event::MutexAwaited { token, mutex } => live.queue_for(*token, mutex),
            Event::MutexTaken { token, mutex } => live.let_in(*token, mutex),
            Event::WaitStarted { token, until, signal } => {
                let signal = signal.as_deref().map(Arc::from);
                live.set_phase(*token, Phase::Waiting { until: *until, signal });
            }
            Event::WaitEnded { token, result, writes, signal } => {
                live.succeed(*token, Some(result), writes);
                if let Some(number) = signal {
                    live.signals.take(*number);
                }
            }
            Event::SignalReceived(signal) => live.signals.receive(signal),
            Event::GateOpened(opened) => live.open_gate(opened),
            Event::GateAnswered(answered) => live.answer_gate(answered),
            Event::GateClosed(closed) => live.close_gate(closed),
            Event::EventEmitted { token, .. } | Event::MetricEmitted { token, .. } => {
                live.succeed(*token, None, &Map::new());
            }
            Event::ChildStarted(started) => live.await_child(started),
            Event::ChildEnded(ended) => live.end_child(ended),
            Event::RunPaused { reason, by_parent, by_workflow } => {
                live.stand_still(reason.clone(), *by_parent, *by_workflow);
            }
            Event::RunResumed {} => live.go_on(),
            Event::RunForked(forked) => live.fork(forked),
            Event::CompensationStarted(started) => live.compensate(started),
            Event::UndoStarted { token, undoes, .. } => live.start_undo(*token, *undoes),
            Event::UndoSucceeded { token, usage, .. } => {
                live.usage.add(usage);
                live.end_undo(*token, None);
            }
            Event::UndoFailed { token, attempt, error, retry_at, usage, .. } => {
                live.usage.add(usage);
                match retry_at {
                    Some(_) => live.fail_attempt(*token, *attempt, error, *retry_at),
                    None => live.end_undo(*token, Some(error)),
                }
            }
            // Its numbers are those that were counted.
            Event::CompensationEnded(_) => {}
            Event::RunCompleted { output } => {
                let output = Some(Arc::new(output.clone()));
                *self = Self::Closed(live.close(RunStatus::Completed, output, None, at));
            }
            Event::RunFailed { error } => {
                *self = Self::Closed(live.close(RunStatus::Failed, None, Some(error), at));
            }
            Event::RunCancelled { reason, code } => {
                let mut closed = live.close(RunStatus::Cancelled, None, None, at);
                closed.reason.clone_from(reason);
                closed.code.clone_from(code);
                *self = Self::Closed(closed);
            }
            Event::RunTimedOut { error } => {
                *self = Self::Closed(live.close(RunStatus::TimedOut, None, Some(error), at));
            }
        }
    }
}

impl Live {
    fn start(started: &RunStarted, at: DateTime<Utc>) -> Self {
        let mut live = Self {
            header: Header {
                run_id: started.run_id,
                project_id: started.project_id,
                workflow_id: started.workflow_id,
                definition: started.definition.clone(),
                pins: started.pins.clone(),
                input: Arc::new(started.input.clone()),
                labels: started.labels.clone(),
                started_at: started.started_at,
                started_by: started.started_by.clone(),
                parent: started.parent,
                admission: started.admission.clone(),
                shares: started.forked_from.map(|forked| forked.sequence),
                fork: None,
                experiment: None,
            },
            root: Vars::default(),
            tokens: [(1, Box::new(Token { since: at, ..Token::at(&started.start) }))].into(),
            instances: Default::default(),
            unmade: 0,
            next_token: 2,
            next_instance: 1,
            timers: Default::default(),
            waits: Default::default(),
            gates: Default::default(),
            children: Default::default(),
            signals: Signals::default(),
            mutexes: Default::default(),
            in_queue: None,
            pause: None,
            completions: Default::default(),
            completions_bytes: 0,
            compensation: None,
            usage: Usage::default(),
            events: 1,
            at,
        };
        if let Some(deadline) = started.deadline {
            live.timers.insert((deadline, Timer::Run));
        }
        live
    }

    fn close(
        &self,
        status: RunStatus,
        output: Option<Arc<Value>>,
        error: Option<&RunError>,
        at: DateTime<Utc>,
    ) -> Box<Closed> {
        Box::new(Closed {
            header: self.header.clone(),
            root: self.root.clone(),
            status,
            output,
            error: error.cloned().map(Box::new),
            reason: None,
            code: None,
            compensation: self.compensation.as_ref().map(|one| Box::new(one.record.clone())),
            usage: self.usage,
            ended_at: at,
        })
    }

    fn handed_out(&mut self, id: TokenId, times: u32) {
        if let Some(token) = self.tokens.get_mut(&id) {
            token.handed_out = times;
        }
    }

    /// Changes a token's phase, and what is kept of it elsewhere.
    fn set_phase(&mut self, id: TokenId, phase: Phase) {
        let Some(token) = self.tokens.get_mut(&id) else { return };
        let before = std::mem::replace(&mut token.phase, phase);
        token.since = self.at;
        self.forget(id, &before);
        let Some(token) = self.tokens.get(&id) else { return };
        self.timers.extend(token.phase.timer(id));
        self.waits.begin(token.phase.waits_for());
        match &token.phase {
            Phase::Gated { .. } => {
                self.gates.insert(id);
            }
            Phase::AwaitingChild { run_id, .. } => {
                self.children.insert(id, *run_id);
            }
            Phase::Working { .. }
            | Phase::BackingOff { .. }
            | Phase::Waiting { .. }
            | Phase::Blocked { .. }
            | Phase::Succeeded { .. }
            | Phase::Failed { .. } => {}
        }
    }

    /// A token leaves a phase.
    fn forget(&mut self, id: TokenId, phase: &Phase) {
        if let Some(timer) = phase.timer(id) {
            self.timers.remove(&timer);
        }
        self.waits.end(phase.waits_for());
        self.gates.remove(&id);
        self.children.remove(&id);
    }

    fn succeed(&mut self, id: TokenId, result: Option<&Value>, writes: &Map<String, Value>) {
        self.write(id, writes);
        let result = result.cloned().map(Arc::new);
        self.set_phase(id, Phase::Succeeded { result });
    }

    fn fail_attempt(
        &mut self,
        id: TokenId,
        attempt: u32,
        error: &RunError,
        retry_at: Option<DateTime<Utc>>,
    ) {
        let phase = match retry_at {
            Some(until) => Phase::BackingOff { attempt: attempt + 1, until },
            None => Phase::Failed { error: Box::new(error.clone()) },
        };
        self.set_phase(id, phase);
    }

    /// Writes to a token's level of `state`.
    fn write(&mut self, id: TokenId, writes: &Map<String, Value>) {
        if writes.is_empty() {
            return;
        }
        let Some(branch) = self.tokens.get(&id).map(|token| token.branch) else { return };
        for (path, value) in writes {
            match branch {
                None => self.root.set(path, value.clone(), None),
                Some(branch) => {
                    let beneath = self.beneath(branch, top(path));
                    if let Some(token) = self.tokens.get_mut(&id) {
                        token.vars.set(path, value.clone(), beneath);
                    }
                }
            }
        }
    }

    /// A state value as a branch sees it beneath its own level.
    pub(crate) fn beneath(&self, branch: Branch, name: &str) -> Option<Arc<Value>> {
        let mut branch = Some(branch);
        while let Some(instance) = branch.and_then(|b| self.instances.get(&b.instance)) {
            if let Some(value) = instance.parent.vars.get(name) {
                return Some(Arc::clone(value));
            }
            branch = instance.parent.branch;
        }
        None
    }

    fn route(&mut self, id: TokenId, fired: &[Fired], opened: &[Opened], failed: bool) {
        let Some(token) = self.remove_token(id) else { return };
        let mut parts = opened.len();
        let mut arrived = false;
        for one in fired {
            match one {
                Fired::Moved { transition, token: new, node, iteration } => {
                    parts += 1;
                    let taken = took(&token.taken, *transition, *iteration);
                    let moved = Token { taken, ..token.moved_to(node) };
                    self.insert_token(*new, moved);
                }
                Fired::Arrived { instance, value, late: false, .. } => {
                    self.arrive(*instance, &token, value);
                    arrived = true;
                }
                Fired::Arrived { late: true, .. } => {}
            }
        }
        for one in opened {
            self.open(&token, one);
        }
        let Some(branch) = token.branch else { return };
        match token.phase {
            Phase::Failed { ref error } if failed => self.fail_branch(branch, error),
            _ if arrived => self.add_parts(branch, parts),
            _ if parts == 0 => self.end_part(branch),
            _ => self.add_parts(branch, parts - 1),
        }
    }

    fn arrive(&mut self, id: InstanceId, token: &Token, value: &Carried) {
        let Some(branch) = token.branch else { return };
        let Some(instance) = self.instances.get_mut(&id) else { return };
        let value = match value {
            Carried::Nothing => None,
            Carried::Value(value) => Some(Arc::new(value.clone())),
            Carried::Result => token.phase.result().cloned(),
        };
        instance.arrived_bytes += value.as_deref().map_or(0, size_of);
        instance.take_most(&token.taken);
        instance.arrived.insert(branch.index, value);
    }

    fn insert_token(&mut self, id: TokenId, token: Token) {
        self.next_token = self.next_token.max(id + 1);
        self.tokens.insert(id, Box::new(Token { since: self.at, ..token }));
    }

    fn remove_token(&mut self, id: TokenId) -> Option<Box<Token>> {
        let token = self.tokens.remove(&id)?;
        self.forget(id, &token.phase);
        self.release(id, &token.phase);
        Some(token)
    }
}

impl Token {
    fn at(node: &str) -> Self {
        Self {
            node: Arc::from(node),
            branch: None,
            vars: Vars::default(),
            item: None,
            taken: Taken::default(),
            error: None,
            undo: None,
            phase: Phase::Working { attempt: 1 },
            since: DateTime::UNIX_EPOCH,
            handed_out: 0,
        }
    }

    fn moved_to(&self, node: &str) -> Self {
        Self {
            branch: self.branch,
            vars: self.vars.clone(),
            item: self.item.clone(),
            error: self.phase.error().cloned().map(Box::new),
            ..Self::at(node)
        }
    }
}

fn took(taken: &Taken, transition: TransitionIndex, count: Option<u32>) -> Taken {
    let mut taken = Arc::clone(taken);
    if let Some(count) = count {
        Arc::make_mut(&mut taken).insert(transition, count);
    }
    taken
}

fn top(path: &str) -> &str {
    path.split('.').next().unwrap_or_default()
}
