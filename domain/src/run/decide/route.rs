//! Routing: which transitions a token takes when its node has ended, and what they make.

use serde_json::{Map, Value};

use super::gate::GATE_REJECTED;
use super::{Decider, canonical, eval_failure, evaluated, too_many_tokens};
use crate::definition::On;
use crate::definition::plan::{FanOut, Plan, PlanTransition};
use crate::limits;
use crate::run::event::{
    Carried, Considered, Event, Extended, FailureKind, Fired, Opened, OpenedBranches, RunError,
    TokenId, TransitionIndex,
};
use crate::run::scope::TokenScope;
use crate::run::state::{Phase, Token};
use crate::run::vars::size_of;

/// What a node's end leads to.
#[derive(Default)]
struct Routing {
    considered: Vec<Considered>,
    fired: Vec<Fired>,
    opened: Vec<Opened>,
    extended: Vec<Extended>,
    /// The transitions that fire and end or complete something else.
    effects: Vec<TransitionIndex>,
}

/// Why a node's end leads nowhere.
enum Stop {
    /// The token fails with this error (and its `on: failure` transitions are looked at).
    Token(Box<RunError>),
    /// The whole run fails.
    Run(Box<RunError>),
}

impl Stop {
    fn token(error: RunError) -> Self {
        Self::Token(Box::new(error))
    }

    fn run(error: RunError, at: &Token) -> Self {
        Self::Run(Box::new(RunError { node: Some(at.node.to_string()), ..error }))
    }
}

impl Decider<'_> {
    /// Routes a token whose node has ended. Where looking at its transitions fails, that is a
    /// failure of the node, looked at once more.
    pub(super) fn route(&mut self, id: TokenId) {
        for _ in 0..2 {
            match self.routing(id) {
                Ok(routing) => return self.routed(id, routing),
                Err(Stop::Run(error)) => return self.fail_run(*error),
                Err(Stop::Token(mut error)) => {
                    error.node = self.token(id).map(|token| token.node.to_string());
                    self.emit(Event::NodeFailed { token: id, error: *error });
                }
            }
        }
        self.routed(id, Routing::default());
    }

    fn routed(&mut self, id: TokenId, routing: Routing) {
        let Some(token) = self.token(id) else { return };
        let (branch, error) = (token.branch, token.phase.error().cloned());
        let completed = self.completed(id, &routing.effects);
        self.cancel(id, &routing.effects);
        let Routing { considered, fired, opened, extended, .. } = routing;
        let makes_none = fired.is_empty() && opened.is_empty() && extended.is_empty();
        let failed = error.is_some() && makes_none;
        let mut instances: Vec<_> = opened.iter().map(|one| one.instance).collect();
        instances.extend(extended.iter().map(|one| one.instance));
        for one in &fired {
            match one {
                Fired::Moved { token, .. } => {
                    self.tokens_left = self.tokens_left.saturating_sub(1);
                    self.fresh.push(*token);
                }
                Fired::Arrived { instance, .. } => self.touched.push(*instance),
            }
        }
        self.emit(Event::TokenRouted { token: id, considered, fired, opened, extended, failed });
        self.touched.extend(branch.map(|branch| branch.instance));
        self.touched.extend(instances);
        self.complete_groups(id, &completed);
        if let (true, None, Some(error)) = (failed, branch, error) {
            self.fail_run(error);
        }
    }

    fn routing(&self, id: TokenId) -> Result<Routing, Stop> {
        let found = self.live().and_then(|live| Some((live, live.tokens.get(&id)?)));
        let Some((live, token)) = found else { return Ok(Routing::default()) };
        let Some(node) = self.plan.node(&token.node) else { return Ok(Routing::default()) };
        let error = token.phase.error();
        let scope = TokenScope::of_end(live, self.plan, token);
        let mut routing = Routing::default();
        for (tier, transitions) in &node.tiers {
            let mut held = Vec::new();
            for index in transitions {
                let Some(transition) = self.plan.transition(*index) else { continue };
                if !fits(transition.on, error) {
                    continue;
                }
                let (holds, read) = match &transition.when {
                    None => (true, Map::new()),
                    Some(when) => {
                        let holds =
                            when.holds(&scope).map_err(|e| Stop::token(eval_failure(&e)))?;
                        let Value::Object(read) =
                            canonical(Value::Object(when.reads(&scope))).map_err(Stop::Token)?
                        else {
                            continue;
                        };
                        (holds, read)
                    }
                };
                let tier = *tier;
                routing.considered.push(Considered { transition: *index, tier, held: holds, read });
                if holds {
                    held.push((*index, transition));
                }
            }
            if !held.is_empty() {
                self.fire(&held, token, &scope, &mut routing)?;
                break;
            }
        }
        let trivial = |one: &Considered| one.held && one.read.is_empty();
        if routing.considered.len() == 1 && routing.considered.iter().all(trivial) {
            routing.considered.clear();
        }
        Ok(routing)
    }

    fn fire(
        &self,
        held: &[(TransitionIndex, &PlanTransition)],
        token: &Token,
        scope: &TokenScope<'_>,
        routing: &mut Routing,
    ) -> Result<(), Stop> {
        let Some(live) = self.live() else { return Ok(()) };
        let mut next_token = live.next_token;
        let mut made = 0_u64;
        let stays = |one: &PlanTransition| one.join.is_none() && one.extend.is_none();
        let moves = held.iter().filter(|(_, transition)| stays(transition)).count();
        for (index, transition) in held {
            let iteration = iteration(*index, transition, token)?;
            if transition.cancel.is_some() || transition.complete.is_some() {
                routing.effects.push(*index);
            }
            if let Some(group) = &transition.join {
                routing.fired.push(self.arrival(*index, group, transition, token, scope)?);
                continue;
            }
            if let Some(group) = &transition.extend {
                let extended =
                    self.extension(*index, group, transition, token, scope, iteration)?;
                made = made.saturating_add(extended.branches.count);
                routing.extended.push(extended);
                continue;
            }
            let alone = moves == 1 && transition.group.is_none();
            let branches = match (&transition.fan_out, alone) {
                (FanOut::One, true) => {
                    routing.fired.push(Fired::Moved {
                        transition: *index,
                        token: next_token,
                        node: transition.to.to_string(),
                        iteration,
                    });
                    next_token += 1;
                    made += 1;
                    continue;
                }
                _ => branches(*index, transition, scope, iteration)?,
            };
            made = made.saturating_add(branches.count);
            self.add_branches(routing, transition.group.as_ref(), branches);
        }
        // The token itself goes.
        let others = live.tokens_at_once().saturating_sub(1);
        if made > 1 && others.saturating_add(made) > limits::TOKENS_PER_RUN {
            return Err(Stop::run(too_many_tokens(), token));
        }
        Ok(())
    }

    /// Further branches of the group that is open around the token.
    fn extension(
        &self,
        index: TransitionIndex,
        group: &str,
        transition: &PlanTransition,
        token: &Token,
        scope: &TokenScope<'_>,
        iteration: Option<u32>,
    ) -> Result<Extended, Stop> {
        let open = self.live().and_then(|live| {
            let mut around = live.around(token.branch).map(|branch| branch.instance);
            around.find(|id| live.instances.get(id).is_some_and(|one| one.is_of(group)))
        });
        let Some(instance) = open else {
            let message = format!("no group {group:?} is open around this token, to be extended");
            return Err(Stop::token(RunError::permanent("not_in_group", message)));
        };
        let items = match &transition.fan_out {
            FanOut::Foreach(binding) => match evaluated(binding, scope).map_err(Stop::Token)? {
                Value::Array(items) => items,
                _ => Vec::new(),
            },
            FanOut::One | FanOut::Spawn(_) => Vec::new(),
        };
        let branches = branches(index, transition, scope, iteration)?;
        let declared = self.live().and_then(|live| live.instances.get(&instance));
        let declared = declared.map_or(0, |one| one.declared);
        if declared.saturating_add(branches.count) > limits::TOKENS_PER_RUN {
            let limit = limits::TOKENS_PER_RUN;
            let message = format!("the group {group:?} would have more than {limit} branches");
            return Err(Stop::run(RunError::permanent("token_limit", message), token));
        }
        Ok(Extended { instance, branches, items })
    }

    /// Adds branches to the instance of their group, or opens it.
    fn add_branches(
        &self,
        routing: &mut Routing,
        group: Option<&String>,
        branches: OpenedBranches,
    ) {
        let same_group = |one: &&mut Opened| one.group.as_ref() == group;
        if let Some(opened) = routing.opened.iter_mut().find(same_group) {
            opened.branches.push(branches);
            return;
        }
        let join = self.plan.join(group.map(String::as_str));
        let timeout = join.and_then(|join| join.spec.timeout);
        let first = self.live().map_or(1, |live| live.next_instance);
        routing.opened.push(Opened {
            instance: first + routing.opened.len() as u64,
            group: group.cloned(),
            branches: vec![branches],
            deadline: timeout.map(|timeout| self.after(timeout)),
        });
    }

    fn arrival(
        &self,
        index: TransitionIndex,
        group: &str,
        transition: &PlanTransition,
        token: &Token,
        scope: &TokenScope<'_>,
    ) -> Result<Fired, Stop> {
        let found = token.branch.and_then(|branch| {
            let instance = self.live()?.instances.get(&branch.instance)?;
            (instance.group.as_deref() == Some(group)).then_some((branch, instance))
        });
        let Some((branch, instance)) = found else {
            let message = format!(
                "the join waits for branches of group {group:?}, and this token is not one of them"
            );
            return Err(Stop::token(RunError::permanent("not_in_group", message)));
        };
        let late = instance.fired || instance.is_through(branch.index);
        let merges = self.plan.join(Some(group)).is_some_and(|join| join.into.is_some());
        let value = match &transition.carries {
            _ if late || !merges => Carried::Nothing,
            None => Carried::Result,
            Some(binding) => Carried::Value(evaluated(binding, scope).map_err(Stop::Token)?),
        };
        let bytes = match &value {
            Carried::Nothing => 0,
            Carried::Result => scope.result.map_or(0, size_of),
            Carried::Value(value) => size_of(value),
        };
        if instance.arrived_bytes + bytes > limits::CONTEXT_BYTES {
            let limit = limits::CONTEXT_BYTES;
            let message = format!("what waits at the join would take more than {limit} bytes");
            return Err(Stop::token(RunError::permanent("context_too_large", message)));
        }
        Ok(Fired::Arrived { transition: index, instance: branch.instance, value, late })
    }

    /// Makes the next branches of an instance, as many as this decision may still make.
    pub(super) fn expand(&mut self, id: u64) {
        let plan = self.plan;
        loop {
            let Some(live) = self.live() else { return };
            let Some(instance) = live.instances.get(&id) else { return };
            if instance.unmade() == 0 {
                return;
            }
            if self.is_full() {
                self.decision.advance = true;
                return;
            }
            let count = instance.to_make().min(self.tokens_left as u64);
            let (index, token) = (instance.spawned, live.next_token);
            let items = self.items(plan, id, index, count);
            self.tokens_left -= usize::try_from(count).unwrap_or(self.tokens_left);
            self.emit(Event::BranchesSpawned { instance: id, index, token, count, items });
            self.fresh.extend((token..token + count).rev());
        }
    }

    /// The items of a slice of branches. The parent's level is frozen in the instance, so the
    /// list is the same in every slice.
    fn items(&self, plan: &Plan, id: u64, first: u64, count: u64) -> Vec<Value> {
        let found = self.live().and_then(|live| Some((live, live.instances.get(&id)?)));
        let Some((live, instance)) = found else { return Vec::new() };
        if !instance.branches.iter().any(|branches| branches.foreach) {
            return Vec::new();
        }
        let parent = Token {
            node: plan.start.clone(),
            branch: instance.parent.branch,
            vars: instance.parent.vars.clone(),
            item: instance.parent.item.clone(),
            taken: instance.parent.taken.clone(),
            error: None,
            undo: None,
            phase: instance.cause.clone().unwrap_or(Phase::Working { attempt: 1 }),
            since: live.at,
            handed_out: 0,
        };
        let root = &instance.parent.vars;
        let scope = TokenScope { root, ..TokenScope::of_end(live, plan, &parent) };
        let mut items = Vec::new();
        let mut begin = 0;
        for branches in &instance.branches {
            let end = begin + branches.count;
            let (from, to) = (first.max(begin), (first + count).min(end));
            let is_added =
                self.plan.transition(branches.transition).is_some_and(PlanTransition::adds);
            if from < to && is_added {
                let item = |index| {
                    instance.added.get(&index).and_then(|added| added.item.as_deref().cloned())
                };
                items.extend((from..to).map(|index| item(index).unwrap_or_default()));
            } else if from < to {
                let list = plan
                    .transition(branches.transition)
                    .and_then(|transition| match &transition.fan_out {
                        FanOut::Foreach(binding) => evaluated(binding, &scope).ok(),
                        FanOut::One | FanOut::Spawn(_) => None,
                    })
                    .unwrap_or_default();
                for index in from - begin..to - begin {
                    let item = usize::try_from(index).ok().and_then(|index| list.get(index));
                    items.push(item.cloned().unwrap_or_default());
                }
            }
            begin = end;
        }
        items
    }
}

/// Whether a transition is for how a node ended: with an error, or without.
pub fn fits(on: On, error: Option<&RunError>) -> bool {
    match (on, error) {
        (On::Success, None) | (On::Failure, Some(_)) => true,
        (On::Timeout, Some(error)) => error.kind == FailureKind::Timeout,
        (On::Rejected, Some(error)) => error.code == GATE_REJECTED,
        (On::Success, Some(_)) | (On::Failure | On::Timeout | On::Rejected, None) => false,
    }
}

/// The count of a limited transition in the token's lineage, if it is taken once more.
fn iteration(
    index: TransitionIndex,
    transition: &PlanTransition,
    token: &Token,
) -> Result<Option<u32>, Stop> {
    let Some(limit) = transition.max_iterations else { return Ok(None) };
    let count = token.taken.get(&index).copied().unwrap_or(0) + 1;
    if count > limit {
        let to = &transition.to;
        let message = format!("the transition to {to:?} may be taken {limit} times");
        return Err(Stop::token(RunError::permanent("loop_limit", message)));
    }
    Ok(Some(count))
}

/// The branches that a transition makes.
fn branches(
    index: TransitionIndex,
    transition: &PlanTransition,
    scope: &TokenScope<'_>,
    iteration: Option<u32>,
) -> Result<OpenedBranches, Stop> {
    Ok(OpenedBranches {
        transition: index,
        node: transition.to.to_string(),
        count: fan_out(&transition.fan_out, scope)?,
        foreach: matches!(transition.fan_out, FanOut::Foreach(_)),
        iteration,
    })
}

fn fan_out(fan_out: &FanOut, scope: &TokenScope<'_>) -> Result<u64, Stop> {
    let wrong = |wanted: &str, value: &Value| {
        let found = match value {
            Value::Null => "null",
            Value::Bool(_) => "a boolean",
            Value::Number(_) => "a number",
            Value::String(_) => "a text",
            Value::Array(_) => "a list",
            Value::Object(_) => "an object",
        };
        Stop::token(RunError::permanent("type_mismatch", format!("{wanted}, found {found}")))
    };
    match fan_out {
        FanOut::One => Ok(1),
        FanOut::Spawn(binding) => {
            let value = evaluated(binding, scope).map_err(Stop::Token)?;
            value.as_u64().ok_or_else(|| wrong("spawn wants a whole number from 0", &value))
        }
        FanOut::Foreach(binding) => {
            let value = evaluated(binding, scope).map_err(Stop::Token)?;
            match &value {
                Value::Array(items) => Ok(items.len() as u64),
                other => Err(wrong("foreach wants a list", other)),
            }
        }
    }
}
