//! What every projection has: a name, tables, and a fold.

use std::sync::Arc;

use async_trait::async_trait;
use chassis::journal::{Journal, ReadError, RecordedEvent};
use sqlx::error::{DatabaseError, ErrorKind};

use crate::store::sql::Session;
use crate::{audit, audit_log, metrics, resources, runs};

/// Why events were not applied. Nothing of their batch was.
#[derive(Debug, thiserror::Error)]
pub enum FoldError {
    /// The storage failed; the batch may be tried again.
    #[error("the read tables failed: {0}")]
    Storage(#[from] sqlx::Error),
    /// The journal failed; the batch may be tried again.
    #[error(transparent)]
    Journal(#[from] ReadError),
    /// An event that the fold can't take. Going on would make the rows wrong.
    #[error("the event at position {position} can't be applied: {reason}")]
    Event { position: u64, reason: String },
    /// Events are missing between the checkpoint and the batch.
    #[error("the event at position {found} came where {expected} was due")]
    Gap { expected: u64, found: u64 },
    /// The checkpoint isn't where this projector left it: nothing was written.
    #[error("another projector moved the checkpoint of {projection} away from {expected}")]
    NotAlone { projection: &'static str, expected: u64 },
    /// This process doesn't write the read tables at the moment: another one does, or the connection
    /// to their file was given up.
    #[error("nobody writes the read tables from here at the moment")]
    NoWriter,
}

impl FoldError {
    /// Whether another attempt may help.
    pub(crate) fn may_pass(&self) -> bool {
        match self {
            Self::Storage(sqlx::Error::Database(error)) => !is_about_values(error.as_ref()),
            Self::Storage(_) | Self::Journal(ReadError::Unavailable(_)) => true,
            Self::Journal(ReadError::Damaged(_)) => false,
            Self::Event { .. } | Self::Gap { .. } => false,
            Self::NotAlone { .. } => false,
            Self::NoWriter => true,
        }
    }

    /// Whether it tells that another process folds. Of a file, that is never right.
    pub(crate) const fn is_deposing(&self) -> bool {
        matches!(self, Self::NotAlone { .. } | Self::NoWriter)
    }
}

/// Whether a database refuses what it was given, and always will: a constraint, or in PostgreSQL's
/// classes of errors data that it can't take (22), constraints (23) and statements (42).
fn is_about_values(error: &dyn DatabaseError) -> bool {
    let is_postgres = error.try_downcast_ref::<sqlx::postgres::PgDatabaseError>().is_some();
    let class =
        error.code().filter(|_| is_postgres).and_then(|code| code.get(..2).map(str::to_owned));
    error.kind() != ErrorKind::Other
        || class.is_some_and(|class| ["22", "23", "42"].contains(&class.as_str()))
}

/// A read model.
#[async_trait]
pub(crate) trait Projection: Send + Sync + 'static {
    /// Its name in checkpoints, metrics and commands.
    fn name(&self) -> &'static str;

    /// Grows where the fold gives other rows than before.
    fn version(&self) -> i64;

    /// The tables that it alone writes, with the column that names a row.
    fn tables(&self) -> &'static [(&'static str, &'static str)];

    /// Whether an event can change a row. Cheap: it is asked of every event.
    fn concerns(&self, event: &RecordedEvent) -> bool;

    /// Whether a fork counts only once it is whole: see [`protocol::event::is_part`]. Then all that
    /// it shares comes with the event that ends its making.
    fn waits_for_forks(&self) -> bool {
        false
    }

    /// Whether who reads it can wait a moment. Then it folds less often, and more at a time: what
    /// comes and goes between two of its transactions is never written.
    fn may_lag(&self) -> bool {
        false
    }

    /// Writes what the events (all of concern, in order) change. The caller owns the transaction.
    async fn apply(
        &self,
        session: &mut Session<'_>,
        journal: &dyn Journal,
        events: &[&RecordedEvent],
    ) -> Result<(), FoldError>;
}

/// All projections.
pub(crate) fn all() -> [Arc<dyn Projection>; 5] {
    [
        Arc::new(resources::Resources),
        Arc::new(runs::Runs),
        Arc::new(audit::Audit),
        Arc::new(metrics::Metrics::default()),
        Arc::new(audit_log::AuditLog),
    ]
}

/// A projection by its name.
pub(crate) fn by_name(name: &str) -> Option<Arc<dyn Projection>> {
    all().into_iter().find(|projection| projection.name() == name)
}
