//! What a run's state still waits for: derived from the state alone, so that it survives anything.

use std::collections::BTreeMap;
use std::sync::Arc;

use chrono::{DateTime, Utc};
use serde_json::{Map, Value};

use super::event::{ForkedChild, TokenId};
use super::scope::TokenScope;
use super::state::{Live, Phase, Run, Token};
use crate::definition::Plan;
use crate::definition::plan::NodeWork;
use crate::experiment::is_label;
use crate::expression::{Binding, EvalError, Scope};
use crate::ids::RunId;
use crate::labels::is_value;
use crate::limits;

/// What is owed to a run.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Owed {
    /// Attempts whose outcome is awaited: token and attempt, by token. Those of a paused run
    /// aren't handed out before it is resumed.
    pub attempts: Vec<(TokenId, u32)>,
    /// Child runs whose end is awaited, by token. Whichever isn't there yet is to be started.
    pub children: Vec<(TokenId, RunId)>,
    /// Whether an `Advance` has work to do.
    pub advance: bool,
    /// When the next timer is due.
    pub next_due: Option<DateTime<Utc>>,
}

/// What a child run is started with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ChildStart {
    /// `name` or `name@version`.
    pub definition: Arc<str>,
    pub input: Value,
    pub labels: BTreeMap<String, String>,
    /// It begins as a fork of this one, and not anew.
    pub fork_of: Option<Arc<ForkedChild>>,
}

/// The labels of a child: its own over those of its parent.
pub(super) fn child_labels(
    own: &[(String, Binding)],
    of_parent: &BTreeMap<String, String>,
    scope: &dyn Scope,
) -> Result<BTreeMap<String, String>, EvalError> {
    let mut labels = of_parent.clone();
    labels.retain(|key, _| !is_label(key));
    for (key, binding) in own {
        let wrong = |code, message: &str| EvalError {
            code,
            message: format!("workflow.labels.{key}: {message}"),
        };
        let value = binding.eval(scope).map_err(|error| wrong(error.code, &error.message))?;
        match value {
            Value::Null => drop(labels.remove(key)),
            Value::String(text) if is_value(&text) => drop(labels.insert(key.clone(), text)),
            _ => {
                let message = "a label is a text of at most 256 bytes, or null";
                return Err(wrong("invalid_value", message));
            }
        }
    }
    if labels.len() > limits::LABELS {
        let message = format!("the child would have more than {} labels", limits::LABELS);
        return Err(EvalError { code: "too_many_labels", message });
    }
    Ok(labels)
}

impl Run {
    /// Everything that is owed, for taking the run over.
    pub fn owed(&self, plan: &Plan) -> Owed {
        let begun = self.live().filter(|live| live.in_queue.is_none());
        let Some(live) = begun else { return Owed::default() };
        let mut owed = Owed {
            advance: live.unmade > 0 || live.next_turn().is_some(),
            next_due: live.next_due(),
            children: live.children.iter().map(|(token, run_id)| (*token, *run_id)).collect(),
            ..Owed::default()
        };
        for (id, token) in &live.tokens {
            let Phase::Working { attempt } = token.phase else { continue };
            match plan.work_of(token).map(|node| &node.work) {
                Some(NodeWork::Task(_)) => owed.attempts.push((*id, attempt)),
                Some(
                    NodeWork::Compute(_)
                    | NodeWork::Wait(_)
                    | NodeWork::Gate(_)
                    | NodeWork::Child(_)
                    | NodeWork::Emit(_),
                )
                | None => owed.advance |= !live.is_suspended(),
            }
        }
        owed
    }

    /// The attempt that a token is at, while its work isn't done. Of a run in a queue that hasn't
    /// begun nothing is.
    pub fn working_attempt(&self, token: TokenId) -> Option<(&Token, u32)> {
        let is_there = |live: &&Live| live.in_queue.is_none() || live.header.fork.is_some();
        let token = self.live().filter(is_there)?.tokens.get(&token)?;
        match token.phase {
            Phase::Working { attempt } => Some((token, attempt)),
            Phase::BackingOff { .. }
            | Phase::Waiting { .. }
            | Phase::Blocked { .. }
            | Phase::Gated { .. }
            | Phase::AwaitingChild { .. }
            | Phase::Succeeded { .. }
            | Phase::Failed { .. } => None,
        }
    }

    /// The child run that a token waits for.
    pub fn awaited_child(&self, token: TokenId) -> Option<RunId> {
        self.live()?.children.get(&token).copied()
    }

    /// What the child of a token is started with, which like [`Run::task_input`] stays the same.
    pub fn child_start(&self, plan: &Plan, id: TokenId) -> Option<ChildStart> {
        let live = self.live()?;
        let token = live.tokens.get(&id)?;
        let Phase::AwaitingChild { definition, fork_of, .. } = &token.phase else { return None };
        let NodeWork::Child(child) = &plan.node(&token.node)?.work else { return None };
        let scope = TokenScope::new(live, plan, token);
        let members = child.input.iter().map(|(name, binding)| {
            // It was evaluated when the child was decided on.
            (name.clone(), binding.eval(&scope).unwrap_or_default())
        });
        let input = Value::Object(members.collect());
        let labels = child_labels(&child.labels, &live.header.labels, &scope).unwrap_or_default();
        let (definition, fork_of) = (Arc::clone(definition), fork_of.clone());
        Some(ChildStart { definition, input, labels, fork_of })
    }

    /// The mapped input of a token's node. A branch sees its parent's level as it was at the
    /// fan-out, so this gives the same for as long as the token stands there.
    pub fn task_input(&self, plan: &Plan, id: TokenId) -> Result<Value, EvalError> {
        let found = self.live().and_then(|live| Some((live, live.tokens.get(&id)?)));
        let Some((live, token)) = found else { return Ok(Value::Null) };
        if let Some(undo) = &token.undo {
            return Ok((*undo.input).clone());
        }
        let Some(node) = plan.node(&token.node) else { return Ok(Value::Null) };
        let scope = TokenScope::new(live, plan, token);
        let mut input = Map::new();
        for (name, binding) in node.input() {
            let value = binding.eval(&scope).map_err(|error| EvalError {
                message: format!("input.{name}: {}", error.message),
                ..error
            })?;
            input.insert(name.clone(), value);
        }
        Ok(Value::Object(input))
    }
}
