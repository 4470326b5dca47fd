//! What a run has to undo, and how far it is with it.

use std::sync::Arc;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::run::event::{Cause, Compensation, TokenId};

/// A completion of a node that can be undone.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Completion {
    /// The token that completed the node.
    pub token: TokenId,
    pub node: Arc<str>,
    /// What the undo gets, as it was mapped when the node completed.
    pub input: Arc<Value>,
}

/// What a token is at that undoes a completion.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Undo {
    /// The token that had completed the node.
    pub of: TokenId,
    pub input: Arc<Value>,
}

/// A run that undoes its work before it ends.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Compensating {
    /// What it ends with.
    pub cause: Cause,
    pub record: Compensation,
}
