//! The read side: read models folded from the journal, queries over them, events as readers see
//! them, and runs at any moment of their history.
//!
//! The read tables are a file of their own that can be rebuilt from the journal. Each projection
//! is one file (its fold, queries and rows) and moves its checkpoint in the transaction that
//! writes its rows. Nothing else writes here.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use chassis::journal::{Journal, ReadError};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

mod cursor;
mod events;
mod payload;
mod projection;
mod projector;
mod rebuild;
mod refusal;
pub mod remote;
mod resources;
mod runs;
mod store;
mod time_travel;
mod timeline;

#[cfg(test)]
mod tests;

pub use projection::FoldError;
pub use rebuild::{Comparison, Difference, Progress, RebuildError};
pub use store::OpenError;

use projector::Projector;
use store::Store;

/// Knobs and limits of the read side.
#[derive(Debug, Clone)]
pub struct Config {
    /// Events that are applied in one transaction.
    pub batch_events: usize,
    /// Connections that queries share.
    pub readers: u32,
    /// The least time between two transactions of a projection, so that many small commits of
    /// the journal become one of the read tables.
    pub pace: Duration,
    /// How long a query waits for its `min_position`.
    pub position_wait: Duration,
    /// Events that a live reader may lag behind before it is dropped.
    pub reader_lag_events: u64,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            batch_events: 1_000,
            readers: 4,
            pace: Duration::from_millis(4),
            position_wait: Duration::from_secs(2),
            reader_lag_events: 100_000,
        }
    }
}

/// Where a projection stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Standing {
    pub projection: &'static str,
    /// The last event that is in its rows.
    pub position: u64,
    /// Committed events that are not.
    pub lag_events: u64,
    /// Why it has stopped for good, if it has: readiness must fail.
    pub stopped: Option<Arc<str>>,
}

/// Where the read tables are.
#[derive(Debug, Clone)]
pub enum Views {
    File(std::path::PathBuf),
    Database(chassis::database::Database),
}

/// The read side of one store.
pub struct Projections {
    journal: Arc<dyn Journal>,
    store: Arc<Store>,
    config: Config,
    resources: Arc<Projector>,
    runs: Arc<Projector>,
}

impl Projections {
    /// Opens the read tables, making them where they aren't there. Nothing is folded before
    /// [`Projections::start`].
    pub async fn open(
        journal: Arc<dyn Journal>,
        views: Views,
        config: Config,
    ) -> Result<Arc<Self>, OpenError> {
        let Views::File(path) = views else { return Err(OpenError::NoProjection) };
        let views_path = path.as_path();
        let store = Arc::new(Store::open(views_path, journal.epoch(), config.readers).await?);
        let head = journal.head().await?;
        let mut projectors = Vec::new();
        for projection in projection::all() {
            let position = store.enlist(projection.as_ref(), head).await?;
            projectors.push(Arc::new(Projector::new(projection, position)));
        }
        let find = |name: &str| {
            let found = projectors.iter().find(|projector| projector.name() == name);
            found.cloned().ok_or(OpenError::NoProjection)
        };
        let (resources, runs) = (find(resources::NAME)?, find(runs::NAME)?);
        Ok(Arc::new(Self { journal, store, config, resources, runs }))
    }

    /// Folds what is committed from now on, each projection in a task of its own, until the
    /// token is cancelled. Await the tasks before closing the journal.
    pub fn start(self: &Arc<Self>, _: Option<chassis::bus::Nats>, shutdown: &CancellationToken) -> Vec<JoinHandle<()>> {
        self.projectors()
            .map(|projector| {
                let (this, projector) = (Arc::clone(self), Arc::clone(projector));
                let shutdown = shutdown.clone();
                tokio::spawn(async move {
                    projector.run(&this.journal, &this.store, &this.config, shutdown).await;
                })
            })
            .collect()
    }

    /// Where each projection stands, for readiness.
    pub async fn standings(&self) -> Result<Vec<Standing>, ReadError> {
        let head = self.journal.head().await?;
        Ok(self.projectors().map(|projector| projector.standing(head)).collect())
    }

    /// Events that the slowest projection has not folded yet.
    pub async fn lag(&self) -> Result<u64, ReadError> {
        let standings = self.standings().await?;
        Ok(standings.iter().map(|standing| standing.lag_events).max().unwrap_or(0))
    }

    /// The position that all projections have reached.
    pub fn position(&self) -> u64 {
        self.projectors().map(|projector| projector.position()).min().unwrap_or(0)
    }

    /// The names that [`Projections::rebuild`] takes.
    pub fn names(&self) -> Vec<&'static str> {
        self.projectors().map(|projector| projector.name()).collect()
    }

    /// Waits until every projection has reached a position or has stopped.
    pub async fn caught_up(&self, position: u64) {
        for projector in self.projectors() {
            projector.reached(position).await;
        }
    }

    fn projectors(&self) -> impl Iterator<Item = &Arc<Projector>> {
        [&self.resources, &self.runs].into_iter()
    }

    fn projector(&self, name: &str) -> Option<&Arc<Projector>> {
        self.projectors().find(|projector| projector.name() == name)
    }
}
