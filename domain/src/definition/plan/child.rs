//! Plans of `workflow` nodes.

use serde_json::Value;

use super::Compiler;
use crate::definition::model::{ChildSpec, OnChildFailure};
use crate::expression::Binding;

/// The child run of a `workflow` node.
#[derive(Debug)]
pub struct PlanChild {
    pub definition: Binding,
    pub input: Vec<(String, Binding)>,
    /// Over those of the parent.
    pub labels: Vec<(String, Binding)>,
    pub on_failure: OnChildFailure,
}

impl PlanChild {
    /// Whether the node succeeds however its child ends.
    pub fn catches(&self) -> bool {
        self.on_failure == OnChildFailure::Catch
    }
}

impl Compiler<'_> {
    pub(super) fn child(&mut self, place: &str, child: &ChildSpec) -> Option<PlanChild> {
        let definition = Value::String(child.definition.clone());
        let (input, labels) = (child.input.as_ref(), child.labels.as_ref());
        Some(PlanChild {
            input: input
                .map(|input| self.mapping(&format!("{place}/input"), input))
                .unwrap_or_default(),
            labels: labels
                .map(|labels| self.mapping(&format!("{place}/labels"), labels))
                .unwrap_or_default(),
            definition: self.binding(&format!("{place}/definition"), &definition)?,
            on_failure: child.on_failure,
        })
    }
}
