//! How compensation changes a run.

use std::sync::Arc;

use serde_json::Value;

use crate::limits;
use crate::run::event::{Compensation, CompensationStarted, RunError, TokenId, UndoFailure};
use crate::run::state::{Compensating, Completion, Live, Token, Undo, Waits};
use crate::run::vars::size_of;

impl Live {
    /// A token is about to complete its node; what would undo that is kept.
    pub(super) fn keep_undo(&mut self, token: TokenId, input: Option<&Value>) {
        let node = self.tokens.get(&token).map(|token| Arc::clone(&token.node));
        let (Some(input), Some(node)) = (input, node) else { return };
        self.completions_bytes += size_of(input);
        self.completions.push(Completion { token, node, input: Arc::new(input.clone()) });
    }

    /// Nothing goes on any more but what undoes.
    pub(super) fn compensate(&mut self, started: &CompensationStarted) {
        self.tokens.clear();
        self.instances.clear();
        self.unmade = 0;
        self.timers.clear();
        self.gates.clear();
        self.children.clear();
        self.mutexes.clear();
        self.waits = Waits::default();
        let record = Compensation { total: started.total, ..Compensation::default() };
        let cause = started.cause.clone();
        self.compensation = Some(Box::new(Compensating { cause, record }));
    }

    /// The newest completion that is left is undone by a token of its own.
    pub(super) fn start_undo(&mut self, id: TokenId, of: TokenId) {
        if self.completions.last().is_none_or(|newest| newest.token != of) {
            return;
        }
        let Some(Completion { node, input, .. }) = self.completions.pop() else { return };
        self.completions_bytes -= size_of(&input);
        let undo = Some(Box::new(Undo { of, input }));
        self.insert_token(id, Token { undo, ..Token::at(&node) });
    }

    /// The token of an undo is through; with an error where that failed for good.
    pub(super) fn end_undo(&mut self, id: TokenId, error: Option<&RunError>) {
        let Some(token) = self.remove_token(id) else { return };
        let Some(undo) = &token.undo else { return };
        let Some(compensation) = &mut self.compensation else { return };
        let record = &mut compensation.record;
        let Some(error) = error else {
            record.undone += 1;
            return;
        };
        record.failed += 1;
        if record.failures.len() < limits::UNDO_FAILURES {
            record.failures.push(UndoFailure {
                node: token.node.to_string(),
                undoes: undo.of,
                token: id,
                code: error.code.clone(),
                message: error.message.chars().take(limits::UNDO_MESSAGE_CHARS).collect(),
            });
        }
    }
}
