//! Child runs: started at a node, and what their end means to it.

use serde_json::{Value, json};

use super::report::Accepted;
use super::{Decider, at, boxed, canonical, eval_failure};
use crate::definition::plan::{NodeWork, PlanChild, PlanNode};
use crate::definition::{OnChildFailure, is_reference};
use crate::ids::RunId;
use crate::limits;
use crate::run::command::ChildReport;
use crate::run::effect::child_labels;
use crate::run::error::Refusal;
use crate::run::event::{ChildEnded, ChildStarted, Event, FailureKind, RunError, TokenId};
use crate::run::scope::TokenScope;
use crate::run::state::RunStatus;
use crate::run::vars::size_of;

impl<'a> Decider<'a> {
    pub(super) fn start_child(&mut self, id: TokenId, child: &PlanChild) {
        match self.started_child(id, child) {
            Ok(started) => {
                self.decision.children.push((id, started.run_id));
                self.emit(Event::ChildStarted(Box::new(started)));
            }
            Err(error) => self.fail_node(id, *error),
        }
    }

    fn started_child(&self, id: TokenId, child: &PlanChild) -> Result<ChildStarted, Box<RunError>> {
        let depth = self.run.header().map_or(0, |header| header.depth());
        if depth >= limits::CHILD_DEPTH {
            let message = format!("child runs may be nested {} deep", limits::CHILD_DEPTH);
            return Err(boxed("child_depth", message));
        }
        let definition = match self.value_at(id, &child.definition) {
            Ok(Value::String(text)) if is_reference(&text) => text,
            Ok(other) => {
                let shown: String = other.to_string().chars().take(80).collect();
                let message = format!("{shown} names no definition: give name or name@version");
                return Err(at("workflow", "definition", boxed("type_mismatch", message)));
            }
            Err(error) => return Err(at("workflow", "definition", error)),
        };
        let mut bytes = 0;
        for (name, binding) in &child.input {
            let value = self.value_at(id, binding);
            bytes += size_of(&value.map_err(|error| at("workflow.input", name, error))?);
        }
        if bytes > limits::INPUT_BYTES {
            let message = format!("a child's input may have {} bytes", limits::INPUT_BYTES);
            return Err(boxed("input_too_large", message));
        }
        self.check_labels(id, child)?;
        let header = self.run.header().ok_or_else(|| boxed("not_started", String::new()))?;
        let timeout = self.token(id).and_then(|token| self.plan.node(&token.node)?.timeout);
        Ok(ChildStarted {
            token: id,
            run_id: header.run_id.child(id),
            definition,
            deadline: timeout.map(|timeout| self.after(timeout)),
        })
    }

    fn check_labels(&self, id: TokenId, child: &PlanChild) -> Result<(), Box<RunError>> {
        let found = self.live().and_then(|live| Some((live, live.tokens.get(&id)?)));
        let Some((live, token)) = found else { return Ok(()) };
        let scope = TokenScope::new(live, self.plan, token);
        let labels = child_labels(&child.labels, &live.header.labels, &scope);
        labels.map(drop).map_err(|error| Box::new(eval_failure(&error)))
    }

    /// A child has ended, or couldn't be started.
    pub(super) fn report_child(&mut self, report: &ChildReport) -> Result<(), Refusal> {
        let id = report.token;
        let stale = Refusal::StaleChild { token: id, run_id: report.run_id };
        if self.run.awaited_child(id) != Some(report.run_id) {
            return Err(stale);
        }
        let Some((node, child)) = self.child_node(id) else { return Err(stale) };
        self.end_child(node, child, report, false);
        Ok(())
    }

    fn child_node(&self, id: TokenId) -> Option<(&'a PlanNode, &'a PlanChild)> {
        let plan = self.plan;
        let node = plan.node(&self.token(id)?.node)?;
        match &node.work {
            NodeWork::Child(child) => Some((node, child)),
            _ => None,
        }
    }

    /// What the end of a child means to its node, or that the node gives it up.
    fn end_child(
        &mut self,
        node: &PlanNode,
        child: &PlanChild,
        report: &ChildReport,
        given_up: bool,
    ) {
        let id = report.token;
        let result = match child.on_failure {
            _ if report.status == RunStatus::Completed && !child.catches() => {
                Ok(report.output.clone().unwrap_or_default())
            }
            OnChildFailure::Catch => Ok(json!({
                "status": report.status,
                "output": report.output,
                "error": report.error,
            })),
            OnChildFailure::Propagate => Err(Box::new(child_failed(report))),
        };
        // A child that didn't complete has nothing that its parent could undo.
        // One that was adopted ran for another run.
        let is_done = report.status == RunStatus::Completed && report.adopted.is_none();
        let accepted = result.and_then(|result| self.accept_result(id, node, &result, is_done));
        let (accepted, error) = match accepted {
            Ok(accepted) => (accepted, None),
            Err(mut error) => {
                error.node = Some(node.name.to_string());
                (Accepted::default(), Some(*error))
            }
        };
        let ChildReport { run_id, status, adopted, .. } = *report;
        let Accepted { result, writes, undo } = accepted;
        let ended = ChildEnded {
            token: id,
            run_id,
            status,
            given_up,
            result,
            writes,
            undo,
            error,
            adopted,
        };
        self.emit(Event::ChildEnded(Box::new(ended)));
        self.route(id);
    }

    /// The node waits no longer for its child, which is given up with that.
    pub(super) fn time_out_child(&mut self, id: TokenId) {
        let Some(run_id) = self.run.awaited_child(id) else { return };
        let message = format!("the child run {run_id} took longer than the node's timeout");
        let mut error = RunError::permanent("child_timeout", message);
        error.kind = FailureKind::Timeout;
        error.detail = json!({"run_id": run_id});
        match self.child_node(id).filter(|(_, child)| child.catches()) {
            Some((node, child)) => {
                let status = RunStatus::TimedOut;
                let (output, error, adopted) = (None, Some(error), None);
                let report = ChildReport { token: id, run_id, status, output, error, adopted };
                self.end_child(node, child, &report, true);
            }
            None => self.fail_node(id, error),
        }
    }

    /// The children that are waited for, before an event that may give them up.
    pub(super) fn children_at_stake(&self, event: &Event) -> Vec<(TokenId, RunId)> {
        let Some(live) = self.live().filter(|live| !live.children.is_empty()) else {
            return Vec::new();
        };
        match event {
            Event::NodeFailed { token, .. } => self.child_at_stake(*token),
            Event::ChildEnded(ended) if ended.given_up => self.child_at_stake(ended.token),
            event if event.may_give_up() || event.gives_all_up() => {
                live.children.iter().map(|(token, child)| (*token, *child)).collect()
            }
            _ => Vec::new(),
        }
    }

    fn child_at_stake(&self, token: TokenId) -> Vec<(TokenId, RunId)> {
        self.run.awaited_child(token).map(|child| (token, child)).into_iter().collect()
    }

    /// Follows a parent that was paused or goes on. A child that was paused for itself stays so.
    pub(super) fn follow_parent(&mut self, is_paused: bool) -> Result<(), Refusal> {
        let pause = self.live().and_then(|live| live.pause.as_ref());
        match (pause.map(|pause| pause.by_parent), is_paused) {
            (None, true) => {
                let (by_parent, by_workflow) = (true, false);
                self.emit(Event::RunPaused { reason: None, by_parent, by_workflow });
                Ok(())
            }
            (Some(true), false) if !self.is_suspended() => self.go_on(),
            (None, false) | (Some(_), true | false) => Ok(()),
        }
    }
}

/// The failure of a node whose child didn't complete.
fn child_failed(report: &ChildReport) -> RunError {
    let run_id = report.run_id;
    let (how, kind) = match report.status {
        RunStatus::Cancelled => ("was cancelled", FailureKind::Cancelled),
        RunStatus::TimedOut => ("timed out", FailureKind::Timeout),
        _ => ("failed", FailureKind::Permanent),
    };
    let why = report.error.as_ref().map(|error| format!(": {}", error.message));
    let message = format!("the child run {run_id} {how}{}", why.unwrap_or_default());
    let detail = json!({"run_id": run_id, "status": report.status, "error": report.error});
    // The error of a child of a child may be nested too deep; what it says stands in the message.
    let detail =
        canonical(detail).unwrap_or_else(|_| json!({"run_id": run_id, "status": report.status}));
    RunError { kind, detail, ..RunError::permanent("child_failed", message) }
}
