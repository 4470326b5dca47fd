//! A refusal: nothing was written, and why.

use domain::definition::Problem;
use serde::{Deserialize, Serialize};

/// What a service answers where it doesn't do what was asked. A refused command wrote nothing.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, thiserror::Error)]
#[error("{message} ({code})")]
pub struct Rejection {
    pub kind: RejectionKind,
    /// Stable, `snake_case`, with a page under `docs/errors`.
    pub code: String,
    /// Says what is wrong and what to do; lower case, no full stop.
    pub message: String,
    /// JSON Pointer into the request's body, where one place is to blame.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pointer: Option<String>,
    /// All problems of a definition or an input.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub problems: Vec<Problem>,
}

/// The class of a refusal; the edge maps it to an HTTP status.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RejectionKind {
    /// Malformed (400).
    Malformed,
    /// Well-formed, but not acceptable (422).
    Invalid,
    /// No such thing, or not for this caller (404).
    NotFound,
    /// It is there already, or its state forbids it (409).
    Conflict,
    /// It was there, and is gone for good (410).
    Gone,
    /// `If-Match` names another version (412).
    PreconditionFailed,
    /// Larger than a limit (413).
    TooLarge,
    /// Not signed in (401).
    Unauthenticated,
    /// Signed in, but without the permission (403).
    Forbidden,
    /// Too much at once; try again (429).
    Overloaded,
    /// A dependency is away, or a position isn't reached yet; try again (503).
    Unavailable,
    /// A defect of ours (500).
    Internal,
}

impl Rejection {
    /// A refusal of a class, with its stable code and a message.
    pub fn new(kind: RejectionKind, code: &str, message: impl Into<String>) -> Self {
        Self {
            kind,
            code: code.to_owned(),
            message: message.into(),
            pointer: None,
            problems: Vec::new(),
        }
    }

    /// The same, pointing at a place of the request's body.
    #[must_use]
    pub fn at(mut self, pointer: impl Into<String>) -> Self {
        self.pointer = Some(pointer.into());
        self
    }

    /// The same, with a definition's or input's problems.
    #[must_use]
    pub fn with_problems(mut self, problems: Vec<Problem>) -> Self {
        self.problems = problems;
        self
    }
}
