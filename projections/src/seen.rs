//! Reads of what a projection has brought to a position.
//!
//! Folds on PostgreSQL don't wait for the disk, so a database that has crashed may have forgotten
//! rows, and their checkpoints with them. Who folds or stands by finds out within a second, and
//! folds again what is missing; in between it believes in positions that aren't there any more. A
//! crash ends every connection. So what is believed counts only for as long as no connection was
//! made since it was compared with the stored checkpoint.

use std::time::Duration;

use protocol::{Rejection, RejectionKind};
use tokio::time::Instant;

use crate::checkpoint::Stored;
use crate::projector::Projector;
use crate::store::sql::{Record, Statement};
use crate::{Projections, refusal};

/// Between two looks at a checkpoint that is behind.
const PAUSE: Duration = Duration::from_millis(25);

/// A projection that has reached a position, if one was asked for.
pub(crate) struct Seen<'a> {
    projections: &'a Projections,
    projector: &'a Projector,
    position: Option<u64>,
    /// When its rows have to be there.
    deadline: Instant,
}

impl Projections {
    /// Waits for a read model to reach a position, for as long as the configuration allows.
    pub(crate) async fn wait_for<'a>(
        &'a self,
        projector: &'a Projector,
        position: Option<u64>,
    ) -> Result<Seen<'a>, Rejection> {
        let deadline = Instant::now() + self.config.position_wait;
        let seen = Seen { projections: self, projector, position, deadline };
        if let Some(position) = position
            && projector.position() < position
        {
            let reached = tokio::time::timeout_at(deadline, projector.reached(position));
            if reached.await != Ok(true) {
                return Err(not_reached(position));
            }
        }
        Ok(seen)
    }
}

impl Seen<'_> {
    /// The rows that a query gives.
    pub(crate) async fn rows<T: Record + 'static>(
        &self,
        query: Statement,
    ) -> Result<Vec<T>, Rejection> {
        let readers = self.projections.store.readers();
        let rows = async |query| readers.rows(query).await.map_err(refusal::storage);
        let Some(position) = self.position else { return rows(query).await };
        loop {
            let made = self.projections.store.connections_made();
            self.confirm(position, made).await?;
            let found = rows(query.clone()).await?;
            if self.projections.store.connections_made() == made {
                return Ok(found);
            }
            if Instant::now() >= self.deadline {
                return Err(not_reached(position));
            }
        }
    }

    /// The first row, where there is one.
    pub(crate) async fn row<T: Record + 'static>(
        &self,
        query: Statement,
    ) -> Result<Option<T>, Rejection> {
        Ok(self.rows(query).await?.into_iter().next())
    }

    /// Compares what is believed with the checkpoint, unless that was done with these connections.
    async fn confirm(&self, position: u64, made: u64) -> Result<(), Rejection> {
        let Self { projections, projector, deadline, .. } = *self;
        if projector.confirmed() >= made {
            return Ok(());
        }
        loop {
            let believed = projector.position();
            let stored: Vec<Stored> = projections
                .store
                .readers()
                .rows(Stored::query())
                .await
                .map_err(refusal::storage)?;
            let stored = stored.iter().find(|one| one.projection == projector.name());
            let stored = stored.map_or(0, |one| one.position_in(projections.journal.epoch()));
            if stored >= believed {
                projector.confirm(made);
            }
            if stored >= position {
                return Ok(());
            }
            if Instant::now() + PAUSE > deadline {
                return Err(not_reached(position));
            }
            tokio::time::sleep(PAUSE).await;
        }
    }
}

fn not_reached(position: u64) -> Rejection {
    let message = format!("position {position} isn't in the read model yet, try again");
    Rejection::new(RejectionKind::Unavailable, "position_not_reached", message)
}
