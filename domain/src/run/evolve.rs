//! How events change a run. Total: nothing is refused here, and no definition is needed.

use std::sync::Arc;

use chrono::{DateTime, Utc};
use serde_json::{Map, Value};

use super::event::{
    Carried, Event, Fired, InstanceId, Opened, RunError, RunStarted, TokenId, TransitionIndex,
    Usage,
};
use super::state::{
    Branch, Closed, Header, Instance, Live, Parent, Phase, Run, RunStatus, Taken, Timer, Token,
};
use super::vars::{Vars, size_of};

impl Run {
    /// Folds an event that was recorded at `at`. An event that doesn't fit the state (which
    /// `decide` never makes) changes nothing.
    pub fn evolve(&mut self, event: &Event, at: DateTime<Utc>) {
        if let Event::RunStarted(started) = event {
            if matches!(self, Self::NotStarted) {
                *self = Self::Live(Box::new(Live::start(started)));
            }
            return;
        }
        let Self::Live(live) = self else { return };
        match event {
            Event::RunStarted(_) => {}
            Event::TaskSucceeded { token, result, writes, usage, .. } => {
                live.usage.add(usage);
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
            Event::TokenRouted { token, fired, opened, failed, .. } => {
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
            Event::GroupEnded { instance } => {
                if let Some(gone) = live.remove_instance(*instance)
                    && let Some(branch) = gone.parent.branch
                {
                    live.end_part(branch);
                }
            }
            Event::RunCompleted { output } => {
                let output = Some(Arc::new(output.clone()));
                *self = live.close(RunStatus::Completed, output, None, None, at);
            }
            Event::RunFailed { error } => {
                *self = live.close(RunStatus::Failed, None, Some(error), None, at);
            }
            Event::RunCancelled { reason } => {
                *self = live.close(RunStatus::Cancelled, None, None, reason.clone(), at);
            }
            Event::RunTimedOut { error } => {
                *self = live.close(RunStatus::TimedOut, None, Some(error), None, at);
            }
        }
    }
}

impl Live {
    fn start(started: &RunStarted) -> Self {
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
            },
            root: Vars::default(),
            tokens: [(1, Box::new(Token::at(&started.start)))].into(),
            instances: Default::default(),
            next_token: 2,
            next_instance: 1,
            timers: Default::default(),
            backing_off: 0,
            usage: Usage::default(),
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
        reason: Option<String>,
        at: DateTime<Utc>,
    ) -> Run {
        Run::Closed(Box::new(Closed {
            header: self.header.clone(),
            root: self.root.clone(),
            status,
            output,
            error: error.cloned().map(Box::new),
            reason,
            usage: self.usage,
            ended_at: at,
        }))
    }

    fn handed_out(&mut self, id: TokenId, times: u32) {
        if let Some(token) = self.tokens.get_mut(&id) {
            token.handed_out = times;
        }
    }

    /// Changes a token's phase, and its timer with it.
    fn set_phase(&mut self, id: TokenId, phase: Phase) {
        let Some(token) = self.tokens.get_mut(&id) else { return };
        if let Phase::BackingOff { until, .. } = token.phase {
            self.timers.remove(&(until, Timer::Retry(id)));
            self.backing_off -= 1;
        }
        if let Phase::BackingOff { until, .. } = phase {
            self.timers.insert((until, Timer::Retry(id)));
            self.backing_off += 1;
        }
        token.phase = phase;
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
        for (transition, count) in token.taken.iter() {
            if instance.taken.get(transition).is_none_or(|most| most < count) {
                Arc::make_mut(&mut instance.taken).insert(*transition, *count);
            }
        }
        instance.arrived.insert(branch.index, value);
    }

    fn open(&mut self, token: &Token, opened: &Opened) {
        let vars = if token.branch.is_some() { token.vars.clone() } else { self.root.clone() };
        if let Some(deadline) = opened.deadline {
            self.timers.insert((deadline, Timer::Join(opened.instance)));
        }
        let instance = Instance {
            group: opened.group.clone(),
            parent: Parent {
                branch: token.branch,
                vars,
                item: token.item.clone(),
                taken: Arc::clone(&token.taken),
            },
            declared: opened.branches.iter().map(|branches| branches.count).sum(),
            branches: opened.branches.clone(),
            spawned: 0,
            arrived: Default::default(),
            failed: Default::default(),
            ended: Default::default(),
            first_error: None,
            extra_parts: Default::default(),
            fired: false,
            deadline: opened.deadline,
            cause: Some(token.phase.clone()),
            taken: opened.branches.iter().fold(Arc::clone(&token.taken), |taken, branches| {
                took(&taken, branches.transition, branches.iteration)
            }),
            arrived_bytes: 0,
        };
        self.next_instance = self.next_instance.max(opened.instance + 1);
        self.instances.insert(opened.instance, instance);
    }

    fn spawn(&mut self, id: InstanceId, first: u64, token: TokenId, count: u64, items: &[Value]) {
        let Some(instance) = self.instances.get_mut(&id) else { return };
        instance.spawned = instance.spawned.max(first + count);
        let error = instance.cause.as_ref().and_then(Phase::error).cloned().map(Box::new);
        if instance.spawned == instance.declared {
            instance.cause = None;
        }
        let mut made = Vec::with_capacity(usize::try_from(count).unwrap_or(0));
        for offset in 0..count {
            let index = first + offset;
            let Some(branches) = instance.branches_of(index) else { continue };
            let item = usize::try_from(offset).ok().and_then(|offset| items.get(offset));
            let item = item.filter(|_| branches.foreach).cloned().map(Arc::new);
            made.push((
                token + offset,
                Token {
                    branch: Some(Branch { instance: id, index }),
                    // Within a branch of a `foreach`, a plain split keeps the item.
                    item: item.or_else(|| instance.parent.item.clone()),
                    taken: took(&instance.parent.taken, branches.transition, branches.iteration),
                    error: error.clone(),
                    ..Token::at(&branches.node)
                },
            ));
        }
        for (id, token) in made {
            self.insert_token(id, token);
        }
    }

    fn fire_join(
        &mut self,
        id: InstanceId,
        new: TokenId,
        node: &str,
        writes: &Map<String, Value>,
        taken: Option<(TransitionIndex, u32)>,
        rest_continues: bool,
    ) {
        let Some(instance) = self.instances.get_mut(&id) else { return };
        let (parent, lineage) = (instance.parent.clone(), Arc::clone(&instance.taken));
        if let Some(deadline) = instance.deadline.take() {
            self.timers.remove(&(deadline, Timer::Join(id)));
        }
        if rest_continues && !instance.is_drained() {
            instance.fired = true;
            instance.arrived.values_mut().for_each(|value| *value = None);
            instance.arrived_bytes = 0;
            if let Some(branch) = parent.branch {
                self.add_parts(branch, 1);
            }
        } else {
            self.remove_instance(id);
        }
        let vars = if parent.branch.is_some() { parent.vars } else { Vars::default() };
        let counts = match taken {
            Some((transition, count)) => took(&lineage, transition, Some(count)),
            None => lineage,
        };
        self.insert_token(
            new,
            Token {
                branch: parent.branch,
                vars,
                item: parent.item,
                taken: counts,
                ..Token::at(node)
            },
        );
        self.write(new, writes);
    }

    fn insert_token(&mut self, id: TokenId, token: Token) {
        self.next_token = self.next_token.max(id + 1);
        self.tokens.insert(id, Box::new(token));
    }

    fn remove_token(&mut self, id: TokenId) -> Option<Box<Token>> {
        let token = self.tokens.remove(&id)?;
        if let Phase::BackingOff { until, .. } = token.phase {
            self.timers.remove(&(until, Timer::Retry(id)));
            self.backing_off -= 1;
        }
        Some(token)
    }

    /// Takes an instance away, and everything inside it.
    fn remove_instance(&mut self, id: InstanceId) -> Option<Instance> {
        let gone = self.instances.remove(&id)?;
        if let Some(deadline) = gone.deadline {
            self.timers.remove(&(deadline, Timer::Join(id)));
        }
        if !gone.is_drained() {
            self.remove_inside(|branch| branch.instance == id);
        }
        Some(gone)
    }

    fn remove_inside(&mut self, is_inside: impl Fn(Branch) -> bool) {
        let tokens: Vec<_> = self
            .tokens
            .iter()
            .filter(|(_, token)| token.branch.is_some_and(&is_inside))
            .map(|(id, _)| *id)
            .collect();
        for id in tokens {
            self.remove_token(id);
        }
        let nested: Vec<_> = self
            .instances
            .iter()
            .filter(|(_, instance)| instance.parent.branch.is_some_and(&is_inside))
            .map(|(id, _)| *id)
            .collect();
        for id in nested {
            self.remove_instance(id);
        }
    }

    fn add_parts(&mut self, branch: Branch, parts: usize) {
        if let Some(instance) = self.instances.get_mut(&branch.instance).filter(|_| parts > 0) {
            let parts = u32::try_from(parts).unwrap_or(u32::MAX);
            *instance.extra_parts.entry(branch.index).or_default() += parts;
        }
    }

    /// One part of a branch is gone without arriving; the branch ends with its last part.
    fn end_part(&mut self, branch: Branch) {
        let Some(instance) = self.instances.get_mut(&branch.instance) else { return };
        if let Some(extra) = instance.extra_parts.get_mut(&branch.index) {
            *extra -= 1;
            if *extra == 0 {
                instance.extra_parts.remove(&branch.index);
            }
        } else if !instance.is_through(branch.index) {
            instance.ended.insert(branch.index);
        }
    }

    /// A branch failed as a whole; what else of it is alive goes with it.
    fn fail_branch(&mut self, branch: Branch, error: &RunError) {
        let Some(instance) = self.instances.get_mut(&branch.instance) else { return };
        let had_more = instance.extra_parts.remove(&branch.index).is_some();
        if !instance.is_through(branch.index) {
            instance.failed.insert(branch.index);
            if instance.first_error.is_none() {
                instance.first_error = Some(Box::new(error.clone()));
            }
        }
        if had_more {
            self.remove_inside(|inside| inside == branch);
        }
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
            phase: Phase::Working { attempt: 1 },
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
