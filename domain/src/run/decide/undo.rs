//! Compensation: a run that doesn't complete undoes what it did, newest first, before it ends.

use serde_json::{Map, Value};

use super::{Decider, at, boxed, evaluated};
use crate::definition::plan::PlanNode;
use crate::limits;
use crate::run::error::Refusal;
use crate::run::event::{Cause, CompensationStarted, Event, RunError, TokenId};
use crate::run::scope::TokenScope;
use crate::run::vars::size_of;

impl Decider<'_> {
    /// What the undo of a node gets, if it is ever needed: mapped now, since neither the result
    /// nor the token's level of `state` is there later.
    pub(super) fn undo_input(
        &self,
        id: TokenId,
        node: &PlanNode,
        result: &Value,
    ) -> Result<Option<Value>, Box<RunError>> {
        let found = self.live().and_then(|live| Some((live, live.tokens.get(&id)?)));
        let undo = node.undo.as_deref().filter(|_| self.plan.compensate);
        let (Some((live, token)), Some(undo)) = (found, undo) else { return Ok(None) };
        let scope = TokenScope { result: Some(result), ..TokenScope::new(live, self.plan, token) };
        let mut input = Map::new();
        for (name, binding) in undo.input() {
            let value = evaluated(binding, &scope);
            input.insert(name.clone(), value.map_err(|error| at("undo.input", name, error))?);
        }
        let input = Value::Object(input);
        if live.completions_bytes + size_of(&input) > limits::CONTEXT_BYTES {
            let limit = limits::CONTEXT_BYTES;
            let message = format!("what undoes the run's work would take more than {limit} bytes");
            return Err(boxed("context_too_large", message));
        }
        Ok(Some(input))
    }

    /// Ends the run without completing it: once its work is undone, where there is some and its
    /// definition wants that.
    pub(super) fn end(&mut self, cause: Cause) {
        let Some(live) = self.live() else { return };
        let total = live.completions.len() as u64;
        if self.plan.compensate && live.compensation.is_none() && total > 0 {
            let started = CompensationStarted { cause, total };
            self.emit(Event::CompensationStarted(Box::new(started)));
        } else {
            self.emit(cause.into());
        }
    }

    pub(super) fn fail_run(&mut self, error: RunError) {
        self.end(Cause::Failed { error });
    }

    /// A cancel lifts a pause, for the work that undoes. A run that undoes its work already is on
    /// its way to its end, and a cancel that lets it undo leaves it there.
    pub(super) fn cancel_run(
        &mut self,
        reason: Option<&String>,
        compensate: bool,
    ) -> Result<(), Refusal> {
        let is_compensating = self.live().is_some_and(|live| live.compensation.is_some());
        match (is_compensating, compensate) {
            (true, true) => return Err(Refusal::Compensating),
            (true, false) => self.end_compensation(),
            (false, false) => {
                self.emit(Event::RunCancelled { reason: reason.cloned(), code: None });
            }
            // What it was given as done, a fork in a queue hasn't done.
            (false, true) if self.run.is_in_queue() => {
                self.emit(Event::RunCancelled { reason: reason.cloned(), code: None });
            }
            (false, true) => {
                let undoes = self.live().is_some_and(|live| !live.completions.is_empty());
                if undoes && self.run.is_paused() {
                    self.emit(Event::RunResumed {});
                }
                self.end(Cause::Cancelled { reason: reason.cloned() });
            }
        }
        Ok(())
    }

    /// Undoes the newest completion that is left, or ends the run.
    pub(super) fn undo_next(&mut self) {
        let Some(live) = self.live() else { return };
        let Some(newest) = live.completions.last() else { return self.end_compensation() };
        let (token, undoes, node) = (live.next_token, newest.token, newest.node.to_string());
        self.emit(Event::UndoStarted { token, undoes, node });
        self.fresh.push(token);
    }

    fn end_compensation(&mut self) {
        let compensation = self.live().and_then(|live| live.compensation.as_deref()).cloned();
        let Some(compensation) = compensation else { return };
        self.emit(Event::CompensationEnded(Box::new(compensation.record)));
        self.emit(compensation.cause.into());
    }
}
