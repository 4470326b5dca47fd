//! Gates: opened at a node, answered by people, closed with what the answers come to.

use std::collections::BTreeSet;
use std::sync::Arc;

use serde_json::{Map, Value, json};

use super::{Decider, at, boxed};
use crate::codec;
use crate::definition::GateTimeout;
use crate::definition::plan::{NodeWork, PlanGate};
use crate::expression::Binding;
use crate::limits;
use crate::run::command::GateAnswer;
use crate::run::error::Refusal;
use crate::run::event::{
    Decision, Event, FailureKind, GateAnswered, GateClosed, GateOpened, GateOutcome, RunError,
    TokenId,
};
use crate::run::state::{Gate, Phase};
use crate::run::vars::size_of;

/// The code of a gate's rejection, which transitions `on: rejected` are for.
pub(super) const GATE_REJECTED: &str = "gate_rejected";

impl Decider<'_> {
    pub(super) fn open_gate(&mut self, id: TokenId, gate: &PlanGate) {
        match self.opened(id, gate) {
            Ok(opened) => self.emit(Event::GateOpened(Box::new(opened))),
            Err(error) => self.fail_node(id, *error),
        }
    }

    fn opened(&self, id: TokenId, gate: &PlanGate) -> Result<GateOpened, Box<RunError>> {
        let title = self.value_at(id, &gate.title).map_err(|error| at("gate", "title", error))?;
        let title = match title {
            Value::String(title) => title,
            other => other.to_string(),
        };
        let assignees = self.people(id, "assignees", gate.assignees.as_ref())?;
        let roles = self.people(id, "roles", gate.roles.as_ref())?;
        let starter = self.live().and_then(|live| live.header.started_by.clone());
        let not_by = starter.filter(|_| !gate.self_approval);
        let eligible = assignees.iter().filter(|one| not_by.as_ref() != Some(*one)).count();
        let eligible = u32::try_from(eligible).unwrap_or(u32::MAX);
        let is_for_some = gate.assignees.is_some() || gate.roles.is_some();
        if is_for_some && roles.is_empty() && eligible < gate.approvals {
            let message = format!(
                "the gate takes {} approvals, and {eligible} assignees may answer",
                gate.approvals
            );
            return Err(boxed("gate_unsatisfiable", message));
        }
        Ok(GateOpened {
            token: id,
            node: self.token(id).map(|token| token.node.to_string()).unwrap_or_default(),
            title: shortened(&title),
            form: gate.form.clone(),
            assignees,
            roles,
            approvals: gate.approvals,
            rejections: eligible.max(gate.approvals) - gate.approvals + 1,
            not_by,
            deadline: gate.timeout.map(|timeout| self.after(timeout)),
        })
    }

    /// A list of names, each once.
    fn people(
        &self,
        id: TokenId,
        key: &str,
        list: Option<&Binding>,
    ) -> Result<Vec<String>, Box<RunError>> {
        let Some(list) = list else { return Ok(Vec::new()) };
        let value = self.value_at(id, list).map_err(|error| at("gate", key, error))?;
        let wrong = |message: String| at("gate", key, boxed("type_mismatch", message));
        let Value::Array(items) = value else {
            return Err(wrong("this must be a list of names".to_owned()));
        };
        if items.len() > limits::ASSIGNEES {
            return Err(wrong(format!("at most {} may be named", limits::ASSIGNEES)));
        }
        let mut seen = BTreeSet::new();
        let mut names = Vec::with_capacity(items.len());
        for item in items {
            let fits = |name: &&str| (1..=limits::ASSIGNEE_BYTES).contains(&name.len());
            let Some(name) = item.as_str().filter(fits) else {
                return Err(wrong(format!("{item} is not a name")));
            };
            if seen.insert(name.to_owned()) {
                names.push(name.to_owned());
            }
        }
        Ok(names)
    }

    pub(super) fn answer(&mut self, answer: &GateAnswer) -> Result<(), Refusal> {
        let id = answer.token;
        let plan = self.plan;
        let gate = self.open_gate_at(id).ok_or(Refusal::GateNotOpen { token: id })?;
        let value = checked(answer, gate)?;
        let node = self.token(id).and_then(|token| plan.node(&token.node));
        if let Some(NodeWork::Gate(asked)) = node.map(|node| &node.work)
            && (answer.decision == Decision::Approve || !value.is_null())
        {
            let problems = asked.value_problems(&value);
            if !problems.is_empty() {
                return Err(Refusal::InvalidAnswer { problems });
            }
        }
        self.emit(Event::GateAnswered(Box::new(GateAnswered {
            token: id,
            actor: answer.actor.clone(),
            decision: answer.decision,
            value,
            comment: answer.comment.clone(),
            at: self.now,
        })));
        let Some(gate) = self.open_gate_at(id) else { return Ok(()) };
        if gate.count(Decision::Approve) >= gate.approvals {
            self.pass_gate(id, GateOutcome::Approved);
        } else if gate.count(Decision::Reject) >= gate.rejections {
            self.fail_gate(id, GateOutcome::Rejected, rejected("the gate was rejected"));
        }
        Ok(())
    }

    fn open_gate_at(&self, id: TokenId) -> Option<&Gate> {
        match &self.token(id)?.phase {
            Phase::Gated { gate } => Some(gate),
            _ => None,
        }
    }

    pub(super) fn time_out_gate(&mut self, id: TokenId) {
        let plan = self.plan;
        let node = self.token(id).and_then(|token| plan.node(&token.node));
        let Some(NodeWork::Gate(asked)) = node.map(|node| &node.work) else { return };
        let outcome = GateOutcome::TimedOut;
        match asked.on_timeout {
            GateTimeout::Proceed => self.pass_gate(id, outcome),
            GateTimeout::Reject => {
                let error = rejected("the gate wasn't answered in time, which rejects it");
                self.fail_gate(id, outcome, error);
            }
            GateTimeout::Fail => {
                let mut error = RunError::permanent(
                    "gate_timeout",
                    "the gate wasn't answered within its timeout".to_owned(),
                );
                error.kind = FailureKind::Timeout;
                self.fail_gate(id, outcome, error);
            }
        }
    }

    fn pass_gate(&mut self, id: TokenId, outcome: GateOutcome) {
        let Some(gate) = self.open_gate_at(id) else { return };
        let result = result_of(gate, outcome);
        self.close_gate(id, outcome, Ok(result));
    }

    fn fail_gate(&mut self, id: TokenId, outcome: GateOutcome, mut error: RunError) {
        let Some(gate) = self.open_gate_at(id) else { return };
        error.detail = result_of(gate, outcome);
        self.close_gate(id, outcome, Err(error));
    }

    /// Closes an open gate with the node's result, or what it fails with.
    pub(super) fn close_gate(
        &mut self,
        id: TokenId,
        outcome: GateOutcome,
        result: Result<Value, RunError>,
    ) {
        let plan = self.plan;
        let Some(node) = self.token(id).and_then(|token| plan.node(&token.node)) else { return };
        let (result, writes, error, failed) = match result {
            Ok(result) => {
                let (writes, failed) = self.output(id, node, &result);
                (result, writes, None, failed)
            }
            Err(mut error) => {
                error.node = Some(node.name.to_string());
                (Value::Null, Map::new(), Some(error), None)
            }
        };
        let closed = GateClosed { token: id, outcome, result, writes, error };
        self.emit(Event::GateClosed(Box::new(closed)));
        self.route_or_fail(id, failed);
    }
}

/// Checks who answers and how much; gives the value as an event holds it.
fn checked(answer: &GateAnswer, gate: &Gate) -> Result<Value, Refusal> {
    let actor = &answer.actor;
    if gate.not_by.as_ref() == Some(actor) {
        return Err(Refusal::SelfApproval);
    }
    let is_open = gate.assignees.is_empty() && gate.roles.is_empty();
    let has_role = || answer.roles.iter().any(|role| gate.roles.contains(role));
    if !(is_open || gate.assignees.contains(actor) || has_role()) {
        return Err(Refusal::NotAssigned { actor: actor.clone() });
    }
    if gate.answers.iter().any(|before| before.actor == *actor) {
        return Err(Refusal::AlreadyAnswered { actor: actor.clone() });
    }
    if answer.comment.as_ref().is_some_and(|comment| comment.len() > limits::COMMENT_BYTES) {
        return Err(Refusal::CommentTooLong { limit: limits::COMMENT_BYTES });
    }
    let bytes = size_of(&answer.value);
    if bytes > limits::ANSWER_BYTES {
        return Err(Refusal::AnswerTooLarge { bytes, limit: limits::ANSWER_BYTES });
    }
    let mut value = answer.value.clone();
    codec::normalise(&mut value).map_err(Refusal::AnswerNotStorable)?;
    Ok(value)
}

/// A gate's result; its value is that of the answer that decided.
fn result_of(gate: &Gate, outcome: GateOutcome) -> Value {
    let deciding = match outcome {
        GateOutcome::Approved => Some(Decision::Approve),
        GateOutcome::Rejected => Some(Decision::Reject),
        GateOutcome::TimedOut | GateOutcome::Cancelled => None,
    };
    let last = gate.answers.iter().rev().find(|answer| Some(answer.decision) == deciding);
    let value = last.map(|answer| Arc::clone(&answer.value)).unwrap_or_default();
    json!({"decision": outcome.as_str(), "value": value, "answers": gate.answers})
}

fn rejected(message: &str) -> RunError {
    RunError { kind: FailureKind::Policy, ..RunError::permanent(GATE_REJECTED, message.to_owned()) }
}

/// A title on one line, cut where it is too long.
fn shortened(title: &str) -> String {
    let line = title.split_whitespace().collect::<Vec<_>>().join(" ");
    if line.len() <= limits::TITLE_BYTES {
        return line;
    }
    let end = line.floor_char_boundary(limits::TITLE_BYTES - '…'.len_utf8());
    format!("{}…", &line[..end])
}
