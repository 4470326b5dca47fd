//! Checking what undoes a node.

use super::super::{Node, ProblemCode};
use super::Checker;
use super::scopes::Names;

impl Checker<'_> {
    /// `names` are those of the node's `input`.
    pub(super) fn undo(&mut self, place: &str, node: &Node, names: &Names<'_>) {
        let Some(undo) = &node.undo else { return };
        let place = format!("{place}/undo");
        if node.action.is_none() && node.steps.is_none() && node.workflow.is_none() {
            let message = "only what an `action`, `steps` or a `workflow` has done can be undone: \
                           drop it";
            self.problem(ProblemCode::InvalidValue, &place, message);
        }
        if self.definition.compensate.is_none() {
            let message = "nothing says whether the run undoes its work: write `compensate: true` \
                           at the top (or `false`, to leave it out for now)";
            self.problem(ProblemCode::MissingKey, &place, message);
        }
        if let Some(input) = &undo.input {
            self.mapping(&format!("{place}/input"), input, &names.and("result"));
        }
        self.undo_action(&format!("{place}/action"), undo);
        if let Some(retry) = &undo.retry {
            self.attempts(&format!("{place}/retry"), retry);
        }
    }
}
