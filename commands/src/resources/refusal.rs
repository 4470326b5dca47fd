//! Faults and refusals of resources as clients see them.

use chassis::journal::{AppendError, ReadError};
use domain::resource::{self, Kind};
use protocol::{Rejection, RejectionKind};

use crate::store::Fault;

/// What a fault of a command on a resource is to its client.
pub(crate) fn of(fault: Fault, kind: Kind, id: &str) -> Rejection {
    match fault {
        Fault::Refused(resource::Error::NotFound) => not_found(kind, id),
        Fault::Refused(error) => refused(&error),
        Fault::Conflict | Fault::Duplicate(_) => Rejection::new(
            RejectionKind::Overloaded,
            "contended",
            format!("many writers change {id} at once; try again"),
        ),
        Fault::Append(AppendError::TooLarge) => Rejection::new(
            RejectionKind::TooLarge,
            "spec_too_large",
            "the spec is larger than one append may be; make it smaller",
        ),
        Fault::Append(AppendError::Full) => Rejection::new(
            RejectionKind::Unavailable,
            "journal_full",
            "the journal's storage is full; make room and try again",
        ),
        Fault::Append(error) => unavailable(&error.to_string(), id),
        Fault::Read(ReadError::Unavailable(reason)) => unavailable(&reason, id),
        Fault::Read(ReadError::Damaged(reason)) => damaged(&reason, id),
        Fault::Damaged(reason) => damaged(&reason, id),
    }
}

/// There is no such resource, or not for this caller.
pub(crate) fn not_found(kind: Kind, id: &str) -> Rejection {
    let id: String = id.chars().take(80).collect();
    Rejection::new(
        RejectionKind::NotFound,
        "not_found",
        format!("there is no {} {id} in this workspace", kind.words()),
    )
}

/// What was asked for is out of use.
pub(crate) fn archived(kind: Kind, name: &str) -> Rejection {
    Rejection::new(
        RejectionKind::Conflict,
        "archived",
        format!("the {} {name} is archived; use another one", kind.words()),
    )
}

fn refused(error: &resource::Error) -> Rejection {
    let kind = match error {
        resource::Error::AlreadyExists { .. }
        | resource::Error::NameArchived { .. }
        | resource::Error::Archived { .. } => RejectionKind::Conflict,
        resource::Error::NotFound => RejectionKind::NotFound,
        resource::Error::VersionMismatch { .. } => RejectionKind::PreconditionFailed,
        resource::Error::Immutable { .. } | resource::Error::Invalid { .. } => {
            RejectionKind::Invalid
        }
        resource::Error::TooLarge { .. } => RejectionKind::TooLarge,
    };
    let mut rejection = Rejection::new(kind, error.code(), error.to_string());
    rejection.pointer = error.pointer().map(str::to_owned);
    rejection
}

fn unavailable(reason: &str, id: &str) -> Rejection {
    tracing::warn!(id, reason, "the journal is unavailable");
    Rejection::new(
        RejectionKind::Unavailable,
        "journal_unavailable",
        "the journal is unavailable; try again",
    )
}

fn damaged(reason: &str, id: &str) -> Rejection {
    tracing::error!(id, reason, "an event of a resource can't be read");
    Rejection::new(
        RejectionKind::Internal,
        "event_damaged",
        format!("an event of {id} can't be read; see the server's log"),
    )
}
