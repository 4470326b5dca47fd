//! Which of the processes that share a database folds: the one that holds a lock of the database.
//!
//! The lock belongs to the connection that the folds write through, so who has lost the one has
//! lost the other. It is a lease as well: the server ends a session that shows no sign of life, so
//! that a frozen process keeps nobody waiting. Should two fold all the same, their checkpoints
//! tell: they move by compare-and-set.

use std::sync::Arc;
use std::time::Duration;

use chassis::bus::Nats;
use chassis::database::Database;
use chassis::journal::ReadError;
use sqlx::PgConnection;
use tokio::task::JoinSet;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::checkpoint::{Enlisted, Fold, Stored};
use crate::projector::Ended;
use crate::store::database;
use crate::store::sql::Connection;
use crate::{Projections, RebuildError};

/// Between two looks at the checkpoints while a query waits for a position, and otherwise.
const LOOK_OFTEN: Duration = Duration::from_millis(25);
const LOOK_SELDOM: Duration = Duration::from_secs(1);
/// Between two looks however many queries come to wait.
const LEAST_PAUSE: Duration = Duration::from_millis(5);
/// Between two signs of life of the connection that folds.
const BEAT: Duration = Duration::from_secs(1);
/// The longest pause between two attempts to take over: a connection that waits shows no sign of
/// life in between.
const LONGEST_STAND_IN: Duration = Duration::from_secs(2);
/// How long closing the connection may take.
const CLOSE_WITHIN: Duration = Duration::from_secs(2);

/// Stands by and folds, in turn, until the token is cancelled.
pub(crate) async fn keep(
    this: &Arc<Projections>,
    database: &Database,
    nats: Option<&Nats>,
    shutdown: &CancellationToken,
) {
    tracing::info!("projections stand by");
    let mut standby = Standby::new(this, database);
    while let Some(connection) = standby.turn(shutdown).await {
        tracing::info!("this process folds from now on");
        lead(this, connection, nats, shutdown).await;
        if !shutdown.is_cancelled() {
            tracing::warn!("this process has stopped folding, and stands by");
        }
    }
}

/// Folds until the connection is lost or the token is cancelled.
async fn lead(
    this: &Arc<Projections>,
    connection: Connection,
    nats: Option<&Nats>,
    shutdown: &CancellationToken,
) {
    *this.store.writer().lock().await = Some(connection);
    let end = shutdown.child_token();
    let mut tasks = JoinSet::new();
    for work in this.work(nats, &end) {
        tasks.spawn(work);
    }
    let mut beat = tokio::time::interval(BEAT);
    beat.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    while !end.is_cancelled() {
        tokio::select! {
            () = end.cancelled() => {}
            Some(ended) = tasks.join_next(), if !tasks.is_empty() => match ended {
                // Stopped for good it stays, until somebody has seen to it: another process would
                // stop at the same event.
                Ok(Ended::Asked | Ended::Stopped) => {}
                Ok(Ended::Deposed) => end.cancel(),
                Err(error) => {
                    tracing::error!(%error, "a projection failed unexpectedly");
                    end.cancel();
                }
            },
            _ = beat.tick() => {
                if !this.store.ping().await {
                    tracing::warn!("the connection that folds is lost");
                    end.cancel();
                }
            }
        }
    }
    while tasks.join_next().await.is_some() {}
    for projector in this.projectors() {
        projector.stands_by();
    }
    // Closed in order, the connection gives up its lock at once.
    if let Some(connection) = this.store.writer().lock().await.take()
        && tokio::time::timeout(CLOSE_WITHIN, connection.close()).await.is_err()
    {
        tracing::debug!("the connection that folded did not close in time");
    }
}

/// Why a process can't stand by at the moment.
#[derive(Debug, thiserror::Error)]
enum Trouble {
    #[error(transparent)]
    Database(#[from] sqlx::Error),
    #[error(transparent)]
    Journal(#[from] ReadError),
    #[error("the rows of a release before this one can't be made anew: {0}")]
    Rebuild(#[from] RebuildError),
}

/// A process that doesn't fold.
struct Standby<'a> {
    this: &'a Arc<Projections>,
    database: &'a Database,
    /// Ready to take the lock.
    candidate: Option<PgConnection>,
    /// What keeps this process from its turn is told once.
    troubled: bool,
    outdated: bool,
}

impl<'a> Standby<'a> {
    const fn new(this: &'a Arc<Projections>, database: &'a Database) -> Self {
        Self { this, database, candidate: None, troubled: false, outdated: false }
    }

    /// Follows the checkpoints until it is this process's turn to fold; then the connection to fold
    /// through, or nothing where it shall end.
    async fn turn(&mut self, shutdown: &CancellationToken) -> Option<Connection> {
        let stand_in = self.this.config.stand_in.min(LONGEST_STAND_IN);
        let mut next_try = Instant::now();
        loop {
            let looked = Instant::now();
            let turn = tokio::select! {
                // What is dropped halfway is no transaction, or goes with its connection.
                () = shutdown.cancelled() => return None,
                turn = self.step(next_try <= looked) => turn,
            };
            match turn {
                Ok(Some(connection)) => return Some(connection),
                Ok(None) => self.troubled = false,
                Err(trouble) => self.tell(&trouble),
            }
            if next_try <= looked {
                next_try = Instant::now() + stand_in;
            }
            let waited = self.this.waiting.anyone();
            let next_look = looked + if waited { LOOK_OFTEN } else { LOOK_SELDOM };
            tokio::select! {
                () = shutdown.cancelled() => return None,
                () = tokio::time::sleep_until(next_try.min(next_look)) => {}
                () = self.this.waiting.begun.notified() => {
                    tokio::time::sleep_until(looked + LEAST_PAUSE).await;
                }
            }
        }
    }

    async fn step(&mut self, tries: bool) -> Result<Option<Connection>, Trouble> {
        if tries && let Some(connection) = self.try_lead().await? {
            return Ok(Some(connection));
        }
        self.look().await?;
        if tries {
            self.measure().await?;
        }
        Ok(None)
    }

    /// Takes the rows' positions from the checkpoints.
    async fn look(&self) -> Result<(), sqlx::Error> {
        let stored: Vec<Stored> = self.this.store.readers().rows(Stored::query()).await?;
        for projector in self.this.projectors() {
            let stored = stored.iter().find(|stored| stored.projection == projector.name());
            let epoch = self.this.journal.epoch();
            projector.moved_to(stored.map_or(0, |stored| stored.position_in(epoch)));
        }
        Ok(())
    }

    async fn measure(&self) -> Result<(), ReadError> {
        let head = self.this.journal.head().await?;
        for projector in self.this.projectors() {
            projector.measure(projector.standing(head).lag_events);
        }
        Ok(())
    }

    async fn try_lead(&mut self) -> Result<Option<Connection>, Trouble> {
        let mut candidate = match self.candidate.take() {
            Some(candidate) => candidate,
            None => database::for_folding(self.database).await?,
        };
        if !database::take_lead(&mut candidate).await? {
            self.candidate = Some(candidate);
            return Ok(None);
        }
        let mut connection = Connection::Database(candidate);
        if self.prepare(&mut connection).await? {
            self.outdated = false;
            return Ok(Some(connection));
        }
        if let Connection::Database(mut candidate) = connection {
            database::leave_lead(&mut candidate).await?;
            self.candidate = Some(candidate);
        }
        Ok(None)
    }

    /// Makes the rows ready to be folded on, and says whether this release may.
    async fn prepare(&mut self, connection: &mut Connection) -> Result<bool, Trouble> {
        let this = self.this;
        let journal = this.journal.as_ref();
        let mut positions = Vec::new();
        for projector in this.projectors() {
            let projection = projector.name();
            let fold = Fold { projection: projector.projection(), journal };
            let mut enlisted = fold.enlist(connection, journal.head().await?).await?;
            if enlisted == Enlisted::Older {
                tracing::info!(projection, "the rows of an older release are made anew");
                self.renew(projection, connection).await?;
                enlisted = fold.enlist(connection, journal.head().await?).await?;
            }
            let Enlisted::At(position) = enlisted else {
                if !std::mem::replace(&mut self.outdated, true) {
                    tracing::warn!(projection, "its rows are of a newer release, which must fold");
                }
                return Ok(false);
            };
            positions.push((projector, position));
        }
        for (projector, position) in positions {
            projector.takes_over(position);
        }
        Ok(true)
    }

    /// Makes rows beside those of an older release, which are read meanwhile, and swaps them.
    async fn renew(&self, name: &str, connection: &mut Connection) -> Result<(), Trouble> {
        let rebuild = self.this.rebuild(name, |_| {});
        tokio::pin!(rebuild);
        let mut beat = tokio::time::interval(BEAT);
        loop {
            tokio::select! {
                rebuilt = &mut rebuild => return Ok(rebuilt.map(drop)?),
                _ = beat.tick() => connection.ping().await?,
            }
        }
    }

    fn tell(&mut self, trouble: &Trouble) {
        self.candidate = None;
        if !std::mem::replace(&mut self.troubled, true) {
            tracing::warn!(error = %trouble, "standing by failed, and is tried again");
        }
    }
}
