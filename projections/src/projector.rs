//! The projector: keeps one projection's rows in step with the journal.

use std::sync::Arc;
use std::time::Duration;

use chassis::journal::{Journal, RecordedEvent, TailError};
use tokio::sync::watch;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::projection::{FoldError, Projection};
use crate::store::{Mark, Store};
use crate::{Config, Standing};

const FIRST_PAUSE: Duration = Duration::from_millis(50);
const LONGEST_PAUSE: Duration = Duration::from_secs(5);

/// How far a projection is.
#[derive(Debug, Clone)]
struct Reached {
    mark: Mark,
    stopped: Option<Arc<str>>,
}

pub(crate) struct Projector {
    projection: Arc<dyn Projection>,
    reached: watch::Sender<Reached>,
}

enum Stop {
    /// It was asked to, or the journal has closed.
    Asked,
    Failed(String),
}

impl Projector {
    pub(crate) fn new(projection: Arc<dyn Projection>, position: u64) -> Self {
        Self {
            projection,
            reached: watch::Sender::new(Reached { mark: Mark::at(position), stopped: None }),
        }
    }

    pub(crate) fn name(&self) -> &'static str {
        self.projection.name()
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
        }
    }

    /// Waits until a position is reached, or never will be. Answers whether it is.
    pub(crate) async fn reached(&self, position: u64) -> bool {
        let mut receiver = self.reached.subscribe();
        let done =
            |reached: &Reached| reached.mark.position >= position || reached.stopped.is_some();
        match receiver.wait_for(done).await {
            Ok(reached) => reached.mark.position >= position,
            Err(_) => false,
        }
    }

    /// Says that a rebuild has moved the rows on. Called under the writer's lock.
    pub(crate) fn moved_to(&self, position: u64) {
        self.reached.send_modify(|reached| reached.mark = Mark::at(position));
    }

    /// Folds until the token is cancelled or the journal closes, or stops loudly.
    pub(crate) async fn run(
        &self,
        journal: &Arc<dyn Journal>,
        store: &Store,
        config: &Config,
        shutdown: CancellationToken,
    ) {
        let name = self.name();
        tracing::info!(projection = name, position = self.position(), "projection started");
        match self.follow(journal, store, config, &shutdown).await {
            Stop::Asked => tracing::info!(projection = name, "projection ended"),
            Stop::Failed(reason) => {
                tracing::error!(
                    projection = name,
                    position = self.position(),
                    reason,
                    "projection stopped: its rows fall behind until it is repaired and restarted"
                );
                metrics::gauge!("wonder_projection_stopped", "projection" => name).set(1.0);
                self.reached.send_modify(|reached| reached.stopped = Some(reason.into()));
            }
        }
    }

    async fn follow(
        &self,
        journal: &Arc<dyn Journal>,
        store: &Store,
        config: &Config,
        shutdown: &CancellationToken,
    ) -> Stop {
        let mut tail = journal.tail(self.position());
        let mut pause = FIRST_PAUSE;
        loop {
            let batch = tokio::select! {
                biased;
                () = shutdown.cancelled() => return Stop::Asked,
                batch = tail.next(config.batch_events) => batch,
            };
            let batch = match batch {
                Ok(batch) => batch,
                Err(TailError::Closed) => return Stop::Asked,
                Err(error @ TailError::Gap { .. }) => return Stop::Failed(error.to_string()),
                Err(TailError::Read(error)) => {
                    let error = FoldError::from(error);
                    if let Some(stop) = self.hold(&error, &mut pause, shutdown).await {
                        return stop;
                    }
                    continue;
                }
            };
            let started = Instant::now();
            while let Err(error) = self.apply(journal, store, &batch).await {
                if let Some(stop) = self.hold(&error, &mut pause, shutdown).await {
                    return stop;
                }
            }
            pause = FIRST_PAUSE;
            self.measure(journal, started).await;
            // A full batch means that more is waiting; a small one, that more comes in a moment.
            if batch.len() < config.batch_events {
                tokio::select! {
                    () = shutdown.cancelled() => return Stop::Asked,
                    () = tokio::time::sleep_until(started + config.pace) => {}
                }
            }
        }
    }

    async fn apply(
        &self,
        journal: &Arc<dyn Journal>,
        store: &Store,
        batch: &[Arc<RecordedEvent>],
    ) -> Result<(), FoldError> {
        let mut writer = store.writer().lock().await;
        let mark = store
            .apply(&mut writer, self.projection.as_ref(), journal.as_ref(), self.mark(), batch)
            .await?;
        self.reached.send_modify(|reached| reached.mark = mark);
        Ok(())
    }

    /// Waits before another attempt, or says that none will help.
    async fn hold(
        &self,
        error: &FoldError,
        pause: &mut Duration,
        shutdown: &CancellationToken,
    ) -> Option<Stop> {
        if !error.may_pass() {
            return Some(Stop::Failed(error.to_string()));
        }
        tracing::warn!(projection = self.name(), %error, "projection waits and tries again");
        let wait = *pause;
        *pause = (wait * 2).min(LONGEST_PAUSE);
        tokio::select! {
            () = shutdown.cancelled() => Some(Stop::Asked),
            () = tokio::time::sleep(wait) => None,
        }
    }

    async fn measure(&self, journal: &Arc<dyn Journal>, started: Instant) {
        let (name, position) = (self.name(), self.position());
        metrics::histogram!("wonder_projection_batch_seconds", "projection" => name)
            .record(started.elapsed().as_secs_f64());
        metrics::gauge!("wonder_projection_position", "projection" => name).set(position as f64);
        if let Ok(head) = journal.head().await {
            let lag = head.saturating_sub(position);
            metrics::gauge!("wonder_projection_lag_events", "projection" => name).set(lag as f64);
        }
    }
}
