//! Failures: one short way to make each.

use domain::expression::EvalError;
use protocol::task::{Failure, FailureKind, Success};
use protocol::view::Usage;
use serde_json::Value;

/// What one action or task came to.
pub(crate) type Ended = Result<Success, Fault>;

/// A failure, boxed because it is large and rare.
pub(crate) type Fault = Box<Failure>;

/// A failure without detail.
pub(crate) fn fault(kind: FailureKind, code: &str, message: impl Into<String>) -> Fault {
    Box::new(Failure {
        kind,
        code: code.to_owned(),
        message: message.into(),
        detail: Value::Null,
        retry_after: None,
        usage: Usage::default(),
    })
}

/// A failure that won't go away.
pub(crate) fn permanent(code: &str, message: impl Into<String>) -> Fault {
    fault(FailureKind::Permanent, code, message)
}

/// A failure that may go away.
pub(crate) fn transient(code: &str, message: impl Into<String>) -> Fault {
    fault(FailureKind::Transient, code, message)
}

/// A configuration that can't be compiled.
pub(crate) fn invalid(place: &str, why: impl std::fmt::Display) -> Fault {
    permanent("invalid_action", format!("{place}: {why}"))
}

/// An expression or template that gave no value.
pub(crate) fn unevaluated(place: &str, error: &EvalError) -> Fault {
    permanent(error.code, format!("{place}: {}", error.message))
}

/// A text cut at so many bytes, at a character's boundary.
pub(crate) fn excerpt(text: &str, bytes: usize) -> &str {
    &text[..text.floor_char_boundary(bytes)]
}
