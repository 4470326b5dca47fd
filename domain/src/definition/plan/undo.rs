//! Plans of what undoes a node.

use std::sync::Arc;

use super::{Compiler, NodeWork, Plan, PlanNode, TaskBody};
use crate::definition::model::UndoSpec;
use crate::run::state::Token;

impl Plan {
    /// What a token at a node stands for: the node, or what undoes it.
    pub fn work_of(&self, token: &Token) -> Option<&PlanNode> {
        let node = self.node(&token.node)?;
        match token.undo {
            None => Some(node),
            Some(_) => node.undo.as_deref(),
        }
    }
}

impl Compiler<'_> {
    /// What undoes a node is a node of its own that no transition leads to, with the same name.
    pub(super) fn undo(&mut self, place: &str, name: &Arc<str>, undo: &UndoSpec) -> PlanNode {
        let spec = undo.action.reference.as_ref();
        let spec = spec.and_then(|name| self.resolved.actions.get(name));
        let retry = undo.retry.clone().or_else(|| spec?.retry.clone()).unwrap_or_default();
        let timeout = undo.timeout.or_else(|| spec?.timeout);
        let repeatable = undo.repeatable.or_else(|| spec?.repeatable).unwrap_or(true);
        let input = undo.input.as_ref();
        let input = input.map(|input| self.mapping(&format!("{place}/input"), input));
        let work = match self.action(&format!("{place}/action"), &undo.action) {
            Some(action) => NodeWork::Task(TaskBody::Action(action)),
            None => NodeWork::Compute(Vec::new()),
        };
        PlanNode {
            name: Arc::clone(name),
            work,
            input: input.unwrap_or_default(),
            output: Vec::new(),
            retry: Some(retry),
            timeout,
            repeatable,
            mutex: None,
            undo: None,
            tiers: Vec::new(),
        }
    }
}
