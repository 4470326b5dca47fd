//! Refusals that several queries share.

use chassis::journal::ReadError;
use protocol::{Rejection, RejectionKind};

pub(crate) fn storage(error: sqlx::Error) -> Rejection {
    tracing::warn!(%error, "read tables failed");
    Rejection::new(
        RejectionKind::Unavailable,
        "read_tables_unavailable",
        "the read tables are unavailable, try again",
    )
}

pub(crate) fn journal(error: ReadError) -> Rejection {
    if let ReadError::Damaged(reason) = &error {
        return damaged("what the journal holds", reason);
    }
    tracing::warn!(%error, "journal read failed");
    Rejection::new(
        RejectionKind::Unavailable,
        "journal_unavailable",
        "the journal is unavailable, try again",
    )
}

pub(crate) fn damaged(what: &str, reason: &dyn std::fmt::Display) -> Rejection {
    tracing::error!(what, %reason, "stored data can't be read");
    Rejection::new(
        RejectionKind::Internal,
        "stored_data_unreadable",
        format!("{what} can't be read, ask the operator to look at the log"),
    )
}

pub(crate) fn not_found(what: &str, id: &str) -> Rejection {
    let message = format!("there is no {what} {:?} here", id.chars().take(80).collect::<String>());
    Rejection::new(RejectionKind::NotFound, "not_found", message)
}

pub(crate) fn limit(most: u32) -> Rejection {
    let message = format!("limit must be 1 to {most}");
    Rejection::new(RejectionKind::Malformed, "invalid_limit", message)
}
