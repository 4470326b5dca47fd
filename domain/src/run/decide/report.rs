//! Outcomes of attempts.

use serde_json::{Map, Value};

use super::{Decider, boxed, canonical};
use crate::definition::plan::PlanNode;
use crate::limits;
use crate::run::command::Report;
use crate::run::error::Refusal;
use crate::run::event::{Event, RunError, TokenId};
use crate::run::vars::size_of;

/// What is kept of a node's result.
#[derive(Default)]
pub(super) struct Accepted {
    pub result: Value,
    pub writes: Map<String, Value>,
    /// What its undo would get.
    pub undo: Option<Value>,
}

impl Decider<'_> {
    pub(super) fn report(&mut self, report: &Report) -> Result<(), Refusal> {
        let stale = Refusal::StaleOutcome { token: report.token, attempt: report.attempt };
        let Some((token, attempt)) = self.run.working_attempt(report.token) else {
            return Err(stale);
        };
        let (plan, undoes) = (self.plan, token.undo.is_some());
        let node = plan.work_of(token).filter(|node| node.work.is_task());
        let Some(node) = node.filter(|_| attempt == report.attempt) else { return Err(stale) };
        match &report.result {
            Ok(result) => {
                match self.accept_result(report.token, node, result, report.adopted.is_none()) {
                    Ok(accepted) if undoes => self.emit(Event::UndoSucceeded {
                        token: report.token,
                        attempt,
                        result: accepted.result,
                        usage: report.usage,
                        duration_ms: report.duration_ms,
                    }),
                    Ok(Accepted { result, writes, undo }) => {
                        self.emit(Event::TaskSucceeded {
                            token: report.token,
                            attempt,
                            result,
                            writes,
                            usage: report.usage,
                            duration_ms: report.duration_ms,
                            undo,
                            adopted: report.adopted,
                        });
                        self.route(report.token);
                    }
                    Err(error) => self.fail_attempt(node, report, *error, None),
                }
            }
            Err(failure) => {
                let error = RunError {
                    code: failure.code.clone(),
                    message: failure.message.clone(),
                    kind: failure.kind,
                    node: None,
                    attempt: None,
                    detail: canonical(failure.detail.clone()).unwrap_or_default(),
                };
                self.fail_attempt(node, report, error, failure.retry_after);
            }
        }
        Ok(())
    }

    /// Checks a result against the limits and evaluates over it what the node writes, and what
    /// its undo would get, where there is something to be undone.
    pub(super) fn accept_result(
        &self,
        id: TokenId,
        node: &PlanNode,
        result: &Value,
        is_done: bool,
    ) -> Result<Accepted, Box<RunError>> {
        if size_of(result) > limits::CONTEXT_BYTES {
            let limit = limits::CONTEXT_BYTES;
            return Err(boxed("result_too_large", format!("the result has over {limit} bytes")));
        }
        let result = canonical(result.clone())?;
        let writes = self.writes(id, &node.output, Some(&result))?;
        let undo = if is_done { self.undo_input(id, node, &result)? } else { None };
        Ok(Accepted { result, writes, undo })
    }
}
