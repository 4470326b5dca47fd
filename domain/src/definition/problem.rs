//! A problem of a definition: which, where, and what to do.

use serde::{Deserialize, Serialize};

/// One problem. A definition with any problem is refused, and nothing is written.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Problem {
    pub code: ProblemCode,
    /// JSON Pointer (RFC 6901) into the document, `""` for the whole.
    pub pointer: String,
    /// Line of the YAML or JSON source, from 1, where known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub line: Option<u64>,
    pub message: String,
    /// What to write instead.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub suggestion: Option<String>,
}

/// The kinds of problems; stable, each with a page under `docs/errors`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ProblemCode {
    /// Not YAML or JSON at all.
    Syntax,
    /// A key that the place doesn't know.
    UnknownKey,
    /// A key that must be there.
    MissingKey,
    /// A value of the wrong type or outside its bounds.
    InvalidValue,
    /// A name that isn't `[A-Za-z0-9_-]{1,64}`.
    InvalidName,
    /// The same key twice.
    DuplicateKey,
    /// A transition or `start` that names no node.
    UnknownNode,
    /// No path from `start` leads there.
    UnreachableNode,
    /// A cycle without `max_iterations` on one of its transitions.
    UnboundedLoop,
    /// A group that fans out to several branches and then waits nowhere, where its result is used.
    MissingJoin,
    /// A join of a group that no transition opens.
    UnknownGroup,
    /// Joins of one group that do not agree, or lead to different nodes.
    JoinDisagreement,
    /// An expression that isn't CEL, or is over a limit.
    InvalidExpression,
    /// A name in an expression that isn't in scope there.
    UndeclaredName,
    /// A template that isn't Jinja, or is over a limit.
    InvalidTemplate,
    /// A schema that isn't JSON Schema 2020-12, or refers outside itself.
    InvalidSchema,
    /// An action kind that this version doesn't run.
    UnsupportedAction,
    /// An action, prompt spec or model profile that doesn't exist.
    UnknownReference,
    /// Over one of the limits of a definition.
    LimitExceeded,
}

/// A key as it stands in a JSON Pointer.
pub(crate) fn escaped(key: &str) -> String {
    key.replace('~', "~0").replace('/', "~1")
}
