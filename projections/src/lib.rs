//! The read side: read models folded from the journal, queries over them, events as readers see
//! them, and runs at any moment of their history.
//!
//! The read tables are derived, and can be rebuilt from the journal: a file of their own, or tables
//! in the database that the journal is in. Each projection is one file (its fold, queries and rows)
//! and moves its checkpoint in the transaction that writes its rows. Nothing else writes here.
//!
//! Of the processes that share a database one folds. The others answer queries from the same rows,
//! and take over within seconds when it is gone.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use chassis::bus::Nats;
use chassis::journal::{Journal, ReadError};
use domain::audit::AuditKey;
use futures::FutureExt;
use futures::future::BoxFuture;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

mod audit;
mod audit_log;
mod bundle;
mod checkpoint;
mod compare;
mod compensation;
mod cursor;
mod differ;
mod events;
mod experiments;
mod explain;
mod gates;
mod histories;
mod lead;
mod logs;
mod metrics;
mod outline;
mod outside;
mod payload;
mod plans;
mod projection;
mod projector;
mod rebuild;
mod refusal;
mod rehearse;
pub mod remote;
mod resources;
mod runs;
mod seen;
mod store;
mod time_travel;
mod timeline;
mod triggers;
mod verify;
mod visit;
mod waiting;

#[cfg(test)]
mod tests;

pub use audit::{AuditTrail, Seal, recorded};
pub use bundle::{Bundle, OpenBundleError, manifest as bundle_manifest};
pub use histories::{Histories, Past};
pub use logs::{LOG_BATCH, LogStoreError};
pub use projection::FoldError;
pub use rebuild::{Comparison, Difference, Progress, RebuildError};
pub use store::{OpenError, Views};

use checkpoint::{Enlisted, Fold, Stored};
use projector::{Ended, Projector, Surroundings, Waiting};
use store::Store;

/// Knobs and limits of the read side.
#[derive(Debug, Clone)]
pub struct Config {
    /// Events that are applied in one transaction.
    pub batch_events: usize,
    /// Connections that queries to a file share; those to a database share its pool.
    pub readers: u32,
    /// The least time between two transactions of a projection, so that many small commits of
    /// the journal become one of the read tables.
    pub pace: Duration,
    /// How long a query waits for its `min_position`.
    pub position_wait: Duration,
    /// Events that a live reader may lag behind before it is dropped.
    pub reader_lag_events: u64,
    /// How often a process that stands by tries whether it is its turn to fold, at most 2 s.
    pub stand_in: Duration,
    /// How long an event stays on the stream for subscribers outside.
    pub outside_max_age: Duration,
    /// Bytes that this stream keeps; beyond them the oldest events go.
    pub outside_max_bytes: i64,
    /// What heads of the audit chain are signed with. Without it none are.
    pub audit_key: Option<AuditKey>,
    /// How often they are signed.
    pub audit_every: Duration,
    /// Limits of the log store.
    pub logs: LogsConfig,
}

/// How much the log store keeps.
#[derive(Debug, Clone)]
pub struct LogsConfig {
    pub max_age: Duration,
    pub max_records: u64,
    /// The folder of files that records are appended to before they are removed.
    pub archive: Option<PathBuf>,
    /// How often it is looked for records beyond the limits.
    pub trim_every: Duration,
}

impl Default for LogsConfig {
    fn default() -> Self {
        Self {
            max_age: Duration::from_hours(7 * 24),
            max_records: 100_000,
            archive: None,
            trim_every: Duration::from_mins(1),
        }
    }
}

impl Default for Config {
    fn default() -> Self {
        Self {
            batch_events: 1_000,
            readers: 4,
            pace: Duration::from_millis(4),
            position_wait: Duration::from_secs(2),
            reader_lag_events: 100_000,
            stand_in: Duration::from_millis(500),
            outside_max_age: Duration::from_hours(7 * 24),
            outside_max_bytes: 1024 * 1024 * 1024,
            audit_key: None,
            audit_every: Duration::from_secs(10),
            logs: LogsConfig::default(),
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
    /// Whether this process folds it. Where no process does, nobody keeps `lag_events` low.
    pub folding: bool,
}

/// The read side of one store.
pub struct Projections {
    journal: Arc<dyn Journal>,
    store: Arc<Store>,
    config: Config,
    resources: Arc<Projector>,
    runs: Arc<Projector>,
    audit: Arc<Projector>,
    metrics: Arc<Projector>,
    audit_log: Arc<Projector>,
    waiting: Arc<Waiting>,
    plans: plans::Plans,
    origins: Arc<events::Origins>,
    /// Of rebuilds, one at a time.
    rebuilding: tokio::sync::Mutex<()>,
}

impl Projections {
    /// Opens the read tables, making them where they aren't there (those of a database are made by
    /// its migrations). Nothing is folded before [`Projections::start`].
    pub async fn open(
        journal: Arc<dyn Journal>,
        views: Views,
        config: Config,
    ) -> Result<Arc<Self>, OpenError> {
        let store = Store::open(views, config.readers).await?;
        let stored: Vec<Stored> = match store.is_shared() {
            true => store.readers().rows(Stored::query()).await.map_err(OpenError::Database)?,
            false => Vec::new(),
        };
        let head = journal.head().await?;
        let waiting = Arc::new(Waiting::default());
        let mut projectors = Vec::new();
        for projection in projection::all() {
            let position = match store.is_shared() {
                // Whoever folds sees to the rest.
                true => {
                    let stored = stored.iter().find(|one| one.projection == projection.name());
                    stored.map_or(0, |stored| stored.position_in(journal.epoch()))
                }
                false => {
                    let fold = Fold { projection: projection.as_ref(), journal: journal.as_ref() };
                    enlist(&store, fold, head).await?
                }
            };
            projectors.push(Arc::new(Projector::new(projection, position, Arc::clone(&waiting))));
        }
        let find = |name: &str| {
            let found = projectors.iter().find(|projector| projector.name() == name);
            found.cloned().ok_or(OpenError::NoProjection)
        };
        let (resources, runs) = (find(resources::NAME)?, find(runs::NAME)?);
        let (audit, metrics) = (find(audit::NAME)?, find(metrics::NAME)?);
        let audit_log = find(audit_log::NAME)?;
        let store = Arc::new(store);
        let rebuilding = tokio::sync::Mutex::default();
        Ok(Arc::new(Self {
            journal,
            store,
            config,
            resources,
            runs,
            audit,
            metrics,
            audit_log,
            waiting,
            plans: plans::Plans::default(),
            origins: Arc::default(),
            rebuilding,
        }))
    }

    /// Folds what is committed from now on, or stands by while another process does, until the
    /// token is cancelled. Whoever folds also publishes the events for subscribers outside, where
    /// there is a bus. Await the tasks before closing the journal.
    pub fn start(
        self: &Arc<Self>,
        nats: Option<&Nats>,
        shutdown: &CancellationToken,
    ) -> Vec<JoinHandle<()>> {
        if let Views::Database(database) = self.store.views() {
            let (this, database, nats) = (Arc::clone(self), database.clone(), nats.cloned());
            let shutdown = shutdown.clone();
            let standby =
                async move { lead::keep(&this, &database, nats.as_ref(), &shutdown).await };
            return vec![tokio::spawn(standby)];
        }
        for projector in self.projectors() {
            projector.takes_over(projector.position());
        }
        let work = self.work(nats, shutdown).into_iter();
        work.map(|work| tokio::spawn(async move { _ = work.await })).collect()
    }

    /// What a process that folds does, each for a task of its own.
    fn work(
        self: &Arc<Self>,
        nats: Option<&Nats>,
        shutdown: &CancellationToken,
    ) -> Vec<BoxFuture<'static, Ended>> {
        let outside =
            nats.map(|nats| outside::run(Arc::clone(self), nats.clone(), shutdown.clone()).boxed());
        let folds = self.projectors().map(|projector| self.fold(projector, shutdown).boxed());
        let key = self.config.audit_key.clone();
        let signs =
            key.map(|key| audit::sign::run(Arc::clone(self), key, shutdown.clone()).boxed());
        let trims = logs::trim::run(Arc::clone(self), shutdown.clone()).boxed();
        folds.chain(outside).chain(signs).chain([trims]).collect()
    }

    fn fold(
        self: &Arc<Self>,
        projector: &Arc<Projector>,
        shutdown: &CancellationToken,
    ) -> impl Future<Output = Ended> + Send + use<> {
        let (this, projector) = (Arc::clone(self), Arc::clone(projector));
        let shutdown = shutdown.clone();
        async move {
            let Self { journal, store, config, .. } = &*this;
            projector.run(Surroundings { journal, store, config, shutdown: &shutdown }).await
        }
    }

    /// What runs did, by their events alone.
    pub(crate) fn histories(&self) -> Histories<'_> {
        Histories::keeping(&self.journal, &self.plans)
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

    /// Whether this process folds. Where it doesn't, it stands by.
    pub fn is_folding(&self) -> bool {
        self.projectors().all(|projector| projector.standing(0).folding)
    }

    fn projectors(&self) -> impl Iterator<Item = &Arc<Projector>> {
        let of_runs = [&self.resources, &self.runs, &self.metrics];
        of_runs.into_iter().chain([&self.audit, &self.audit_log])
    }

    fn projector(&self, name: &str) -> Option<&Arc<Projector>> {
        self.projectors().find(|projector| projector.name() == name)
    }
}

/// Prepares a file's rows for a fold.
async fn enlist(store: &Store, fold: Fold<'_>, head: u64) -> Result<u64, OpenError> {
    let path = || store.path().to_owned();
    let mut writer = store.writer().lock().await;
    let writer = writer.as_mut().ok_or_else(|| OpenError::AnotherStore { path: path() })?;
    match fold.enlist(writer, head).await {
        Ok(Enlisted::At(position)) => Ok(position),
        Ok(Enlisted::Foreign | Enlisted::Older | Enlisted::Newer) => {
            Err(OpenError::AnotherStore { path: path() })
        }
        Err(source) => Err(OpenError::Storage { path: path(), source }),
    }
}
