//! Compensation: the `undo` of a node.

use serde::{Deserialize, Serialize};

use super::{ActionUse, Mapping, Retry};
use crate::span::Span;

/// The action that compensates a node: where the run fails, times out or is cancelled later, and
/// its definition says `compensate: true`, each completion of the node is undone.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct UndoSpec {
    pub action: ActionUse,
    /// What the action gets, evaluated when the node completes: over the same as the node's
    /// `input`, and `result`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub input: Option<Mapping>,
    /// Without one, the action's own, and without that too the defaults of [`Retry`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retry: Option<Retry>,
    /// How long one attempt may take on its worker.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timeout: Option<Span>,
    /// As a node's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub repeatable: Option<bool>,
}
