//! The projector: keeps one projection's rows in step with the journal while its process folds, and
//! tells queries how far they are.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use chassis::journal::{Journal, RecordedEvent, Tail, TailError};
use tokio::sync::{Notify, watch};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::checkpoint::{Fold, Mark};
use crate::projection::{FoldError, Projection};
use crate::store::Store;
use crate::store::sql::Connection;
use crate::{Config, Standing};

const FIRST_PAUSE: Duration = Duration::from_millis(50);
/// How much less often, and how much more at a time, a projection folds that may lag.
const LAGGING_PACE: u32 = 64;
const LAGGING_BATCH: usize = 2;
const LONGEST_PAUSE: Duration = Duration::from_secs(5);

/// How far a projection is.
#[derive(Debug, Clone)]
struct Reached {
    mark: Mark,
    stopped: Option<Arc<str>>,
    folding: bool,
}

/// Queries that wait for a position, over all projections of a process: while there are any, a
/// process that stands by looks often.
#[derive(Debug, Default)]
pub(crate) struct Waiting {
    count: AtomicUsize,
    pub(crate) begun: Notify,
}

struct Wait<'a>(&'a Waiting);

impl Waiting {
    pub(crate) fn anyone(&self) -> bool {
        self.count.load(Ordering::Acquire) > 0
    }

    fn begin(&self) -> Wait<'_> {
        self.count.fetch_add(1, Ordering::AcqRel);
        self.begun.notify_one();
        Wait(self)
    }
}

impl Drop for Wait<'_> {
    fn drop(&mut self) {
        self.0.count.fetch_sub(1, Ordering::AcqRel);
    }
}

pub(crate) struct Projector {
    projection: Arc<dyn Projection>,
    reached: watch::Sender<Reached>,
    waiting: Arc<Waiting>,
    /// See [`Projector::confirmed`].
    confirmed: AtomicU64,
}

/// Why a projector ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Ended {
    /// It was asked to, or the journal has closed.
    Asked,
    /// For good: an event that can't be applied.
    Stopped,
    /// Somebody else folds, or the connection is gone. Nothing is wrong.
    Deposed,
}

enum Stop {
    Asked,
    Failed(String),
    Deposed(FoldError),
}

/// What a projector works with.
#[derive(Clone, Copy)]
pub(crate) struct Surroundings<'a> {
    pub(crate) journal: &'a Arc<dyn Journal>,
    pub(crate) store: &'a Store,
    pub(crate) config: &'a Config,
    pub(crate) shutdown: &'a CancellationToken,
}

impl Projector {
    pub(crate) fn new(
        projection: Arc<dyn Projection>,
        position: u64,
        waiting: Arc<Waiting>,
    ) -> Self {
        let reached = Reached { mark: Mark::at(position), stopped: None, folding: false };
        let confirmed = AtomicU64::new(0);
        Self { projection, reached: watch::Sender::new(reached), waiting, confirmed }
    }

    pub(crate) fn name(&self) -> &'static str {
        self.projection.name()
    }

    pub(crate) fn projection(&self) -> &dyn Projection {
        self.projection.as_ref()
    }

    pub(crate) fn position(&self) -> u64 {
        self.mark().position
    }

    pub(crate) fn mark(&self) -> Mark {
        self.reached.borrow().mark
    }

    pub(crate) fn standing(&self, head: u64) -> Standing {
        let reached = self.reached.borrow().clone();
        Standing {
            projection: self.name(),
            position: reached.mark.position,
            lag_events: head.saturating_sub(reached.mark.position),
            stopped: reached.stopped,
            folding: reached.folding,
        }
    }

    /// Waits until a position is reached, or never will be. Answers whether it is.
    pub(crate) async fn reached(&self, position: u64) -> bool {
        let mut receiver = self.reached.subscribe();
        let done =
            |reached: &Reached| reached.mark.position >= position || reached.stopped.is_some();
        if !done(&receiver.borrow()) {
            let _wait = self.waiting.begin();
            if receiver.wait_for(done).await.is_err() {
                return false;
            }
        }
        self.position() >= position
    }

    /// How many connections there had been when its position was last found in the checkpoint.
    pub(crate) fn confirmed(&self) -> u64 {
        self.confirmed.load(Ordering::Acquire)
    }

    pub(crate) fn confirm(&self, made: u64) {
        self.confirmed.fetch_max(made, Ordering::AcqRel);
    }

    /// Says where another process has brought the rows.
    pub(crate) fn moved_to(&self, position: u64) {
        self.reached.send_if_modified(|reached| {
            let is_new = reached.mark != Mark::at(position);
            reached.mark = Mark::at(position);
            is_new
        });
    }

    /// Begins to fold where the stored rows are.
    pub(crate) fn takes_over(&self, position: u64) {
        let reached = Reached { mark: Mark::at(position), stopped: None, folding: true };
        self.reached.send_replace(reached);
    }

    /// Leaves the folding to others.
    pub(crate) fn stands_by(&self) {
        self.reached.send_modify(|reached| {
            reached.folding = false;
            reached.stopped = None;
        });
    }

    /// Tells how far the rows are.
    pub(crate) fn measure(&self, lag: u64) {
        let (name, reached) = (self.name(), self.reached.borrow());
        let position = reached.mark.position as f64;
        let folding = f64::from(u8::from(reached.folding));
        metrics::gauge!("wonder_projection_position", "projection" => name).set(position);
        metrics::gauge!("wonder_projection_lag_events", "projection" => name).set(lag as f64);
        metrics::gauge!("wonder_projection_folding", "projection" => name).set(folding);
    }

    /// Folds until the token is cancelled or the journal closes, or stops loudly.
    pub(crate) async fn run(&self, around: Surroundings<'_>) -> Ended {
        let name = self.name();
        tracing::info!(projection = name, position = self.position(), "projection started");
        metrics::gauge!("wonder_projection_stopped", "projection" => name).set(0.0);
        let stop = Folding::new(self, around).follow().await;
        match stop {
            Stop::Asked => {
                tracing::info!(projection = name, "projection ended");
                Ended::Asked
            }
            Stop::Deposed(error) => {
                tracing::warn!(projection = name, %error, "projection stands by");
                Ended::Deposed
            }
            Stop::Failed(reason) => {
                tracing::error!(
                    projection = name,
                    position = self.position(),
                    reason,
                    "projection stopped: its rows fall behind until it is repaired and restarted"
                );
                metrics::gauge!("wonder_projection_stopped", "projection" => name).set(1.0);
                self.reached.send_modify(|reached| reached.stopped = Some(reason.into()));
                Ended::Stopped
            }
        }
    }
}

/// A projector at work.
struct Folding<'a> {
    projector: &'a Projector,
    around: Surroundings<'a>,
    tail: Tail,
    pause: Duration,
    /// Since when the checkpoint has moved without being stored.
    unkept: Option<Instant>,
}

impl<'a> Folding<'a> {
    fn new(projector: &'a Projector, around: Surroundings<'a>) -> Self {
        let tail = around.journal.tail(projector.position());
        Self { projector, around, tail, pause: FIRST_PAUSE, unkept: None }
    }

    async fn follow(&mut self) -> Stop {
        let Surroundings { store, config, shutdown, .. } = self.around;
        let keep_within = store.readers().dialect().keep_within();
        let (pace, most) = match self.projector.projection().may_lag() {
            false => (config.pace, config.batch_events),
            true => (config.pace * LAGGING_PACE, config.batch_events * LAGGING_BATCH),
        };
        loop {
            let due = self.unkept.zip(keep_within).map(|(since, within)| since + within);
            let batch = tokio::select! {
                biased;
                () = shutdown.cancelled() => return Stop::Asked,
                batch = self.tail.next(most) => batch,
                () = sleep_until(due) => {
                    if let Err(error) = self.keep().await
                        && let Some(stop) = self.hold(error).await
                    {
                        return stop;
                    }
                    continue;
                }
            };
            let batch = match batch {
                Ok(batch) => batch,
                Err(TailError::Closed) => return Stop::Asked,
                Err(error @ TailError::Gap { .. }) => return Stop::Failed(error.to_string()),
                Err(TailError::Read(error)) => {
                    if let Some(stop) = self.hold(error.into()).await {
                        return stop;
                    }
                    continue;
                }
            };
            let started = Instant::now();
            if let Some(stop) = self.take(&batch, due.is_some_and(|due| due <= started)).await {
                return stop;
            }
            self.measure(started);
            // A full batch means that more is waiting; a small one, that more comes in a moment.
            if batch.len() < most {
                tokio::select! {
                    () = shutdown.cancelled() => return Stop::Asked,
                    () = tokio::time::sleep_until(started + pace) => {}
                }
            }
        }
    }

    /// Applies a whole batch, in as many transactions and attempts as it takes.
    async fn take(&mut self, batch: &[Arc<RecordedEvent>], keep: bool) -> Option<Stop> {
        let last = batch.last().map_or(0, |event| event.position);
        while self.projector.position() < last {
            match self.apply(batch, keep).await {
                Ok(()) => self.pause = FIRST_PAUSE,
                Err(error) => {
                    if let Some(stop) = self.hold(error).await {
                        return Some(stop);
                    }
                }
            }
        }
        None
    }

    async fn apply(&mut self, batch: &[Arc<RecordedEvent>], keep: bool) -> Result<(), FoldError> {
        let store = self.around.store;
        let mut writer = store.writer().lock().await;
        let connection = writer.as_mut().ok_or(FoldError::NoWriter)?;
        let done = self.fold().apply(connection, self.projector.mark(), batch, keep).await;
        self.reached(done, &mut writer)
    }

    /// Stores a checkpoint that has moved over events without concern.
    async fn keep(&mut self) -> Result<(), FoldError> {
        let store = self.around.store;
        let mut writer = store.writer().lock().await;
        let connection = writer.as_mut().ok_or(FoldError::NoWriter)?;
        let done = self.fold().keep(connection, self.projector.mark()).await;
        self.reached(done, &mut writer)
    }

    fn fold(&self) -> Fold<'a> {
        let (projection, journal) = (self.projector.projection(), self.around.journal.as_ref());
        Fold { projection, journal }
    }

    /// How far it has come, told under the writer's lock.
    fn reached(
        &mut self,
        done: Result<Mark, FoldError>,
        writer: &mut Option<Connection>,
    ) -> Result<(), FoldError> {
        if matches!(done, Err(FoldError::Storage(_))) {
            self.around.store.give_up(writer);
        }
        let mark = done?;
        self.unkept = match mark.position == mark.stored {
            true => None,
            false => self.unkept.or_else(|| Some(Instant::now())),
        };
        self.projector.reached.send_modify(|reached| reached.mark = mark);
        Ok(())
    }

    /// Waits before another attempt, or says that none will help.
    async fn hold(&mut self, error: FoldError) -> Option<Stop> {
        let Surroundings { store, shutdown, .. } = self.around;
        if store.is_shared() && error.is_deposing() {
            return Some(Stop::Deposed(error));
        }
        if !error.may_pass() {
            return Some(Stop::Failed(error.to_string()));
        }
        if store.is_shared() && matches!(error, FoldError::Storage(_)) && !store.ping().await {
            return Some(Stop::Deposed(error));
        }
        let mut error = error;
        loop {
            tracing::warn!(
                projection = self.projector.name(), %error, "projection waits and tries again"
            );
            let wait = self.pause;
            self.pause = (wait * 2).min(LONGEST_PAUSE);
            tokio::select! {
                () = shutdown.cancelled() => return Some(Stop::Asked),
                () = tokio::time::sleep(wait) => {}
            }
            if !matches!(error, FoldError::Storage(_) | FoldError::NoWriter) {
                return None;
            }
            match store.reconnect().await {
                Ok(()) => return None,
                Err(failed) => error = failed.into(),
            }
        }
    }

    fn measure(&self, started: Instant) {
        let name = self.projector.name();
        metrics::histogram!("wonder_projection_batch_seconds", "projection" => name)
            .record(started.elapsed().as_secs_f64());
        let behind = self.tail.position().saturating_sub(self.projector.position());
        self.projector.measure(behind + self.tail.lag());
    }
}

/// Waits until a time, or for ever.
pub(crate) async fn sleep_until(time: Option<Instant>) {
    match time {
        Some(time) => tokio::time::sleep_until(time).await,
        None => std::future::pending().await,
    }
}
