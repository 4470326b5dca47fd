//! What can be asked of a resource.

use chrono::{DateTime, Utc};
use serde_json::Value;

use crate::resource::Spec;

/// A command to a resource.
#[derive(Debug, Clone, PartialEq)]
pub struct Command {
    pub change: Change,
    /// The version that the caller saw; another one refuses the command.
    pub expected_version: Option<u64>,
    /// When it was asked.
    pub at: DateTime<Utc>,
}

/// What to change.
#[derive(Debug, Clone, PartialEq)]
pub enum Change {
    /// Creates the resource. A workflow definition: publishes a version, or answers the one that
    /// has the same content.
    Create(Box<Spec>),
    /// Lays a JSON merge patch (RFC 7386) over the spec and checks the whole anew.
    Revise(Value),
    /// Takes the resource out of use.
    Archive,
}
