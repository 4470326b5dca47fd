//! Events for subscribers outside: every event of the journal, in order, on a JetStream stream.
//!
//! The stream is kept for a while, not for ever; the journal is the truth. Each message is a
//! [CloudEvent](cloud_event) whose id is the event's, so that one that is published again is
//! dropped. How far it is stands in a checkpoint of its own and in the stream itself: after a
//! restart it goes on after the later of the two, without a gap and without a repetition. Where
//! the stream was wiped, what it has lost isn't published again: it goes on from the checkpoint.
//!
//! While NATS is away it waits and tries again for ever. Folds don't wait for it.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use chassis::bus::{EventStream, EventStreamOptions, Nats, NatsError, Publication, PublishError};
use chassis::journal::{RecordedEvent, TailError};
use protocol::event::{is_quiet, is_shared};
use protocol::{Rejection, RejectionKind};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::Projections;
use crate::checkpoint::{Checkpoint, Mark, locked};
use crate::events::{SHOWN_BYTES, is_shown_as_stored};
use crate::projection::FoldError;
use crate::projector::{Ended, sleep_until};

mod cloud_event;

const NAME: &str = "outside";
const VERSION: i64 = 1;
/// Events and bytes that are published at once.
const BATCH_EVENTS: usize = 1_024;
const BATCH_BYTES: usize = 4 * 1024 * 1024;
/// Bytes of the largest body; a server that takes less is asked with less.
const BODY_BYTES: usize = 900 * 1024;
const LEAST_BODY_BYTES: usize = 1_024;
/// How long what was published may be without its checkpoint. The stream knows it as well.
const KEEP_WITHIN: Duration = Duration::from_millis(250);
const FIRST_PAUSE: Duration = Duration::from_millis(100);
const LONGEST_PAUSE: Duration = Duration::from_secs(5);

/// Why publishing doesn't go on at the moment.
#[derive(Debug, thiserror::Error)]
enum Fault {
    #[error(transparent)]
    Nats(#[from] NatsError),
    #[error(transparent)]
    Publish(#[from] PublishError),
    #[error(transparent)]
    Checkpoint(#[from] FoldError),
    #[error(transparent)]
    Journal(#[from] TailError),
    #[error(transparent)]
    Event(#[from] Rejection),
}

impl From<sqlx::Error> for Fault {
    fn from(error: sqlx::Error) -> Self {
        Self::Checkpoint(error.into())
    }
}

impl Fault {
    /// Going on would leave something out.
    fn is_damage(&self) -> bool {
        match self {
            Self::Journal(error) => matches!(error, TailError::Gap { .. }),
            Self::Event(rejection) => rejection.kind == RejectionKind::Internal,
            Self::Nats(_) | Self::Publish(_) | Self::Checkpoint(_) => false,
        }
    }
}

/// Publishes until the token is cancelled or the journal closes.
pub(crate) async fn run(this: Arc<Projections>, nats: Nats, shutdown: CancellationToken) -> Ended {
    let mut publisher = Publisher::new(&this, &nats);
    let (mut pause, mut told) = (FIRST_PAUSE, false);
    metrics::gauge!("wonder_outside_stopped").set(0.0);
    let ended = loop {
        let before = publisher.mark.position;
        let fault = tokio::select! {
            biased;
            () = shutdown.cancelled() => break Ended::Asked,
            fault = publisher.publish() => fault,
        };
        if matches!(fault, Fault::Journal(TailError::Closed)) {
            break Ended::Asked;
        }
        if fault.is_damage() {
            tracing::error!(reason = %fault, "events outside stopped: an event can't be published");
            metrics::gauge!("wonder_outside_stopped").set(1.0);
            break Ended::Stopped;
        }
        if publisher.mark.position > before {
            (pause, told) = (FIRST_PAUSE, false);
        }
        publisher.bear(&fault).await;
        if !std::mem::replace(&mut told, true) {
            tracing::warn!(reason = %fault, "events outside wait, and are tried again");
        }
        tokio::select! {
            () = shutdown.cancelled() => break Ended::Asked,
            () = tokio::time::sleep(pause) => pause = (pause * 2).min(LONGEST_PAUSE),
        }
    };
    if let Err(error) = publisher.keep().await {
        tracing::debug!(%error, "the checkpoint of events outside was not stored");
    }
    ended
}

struct Publisher<'a> {
    this: &'a Projections,
    nats: &'a Nats,
    mark: Mark,
    most_bytes: usize,
    /// Since when the checkpoint is behind.
    unkept: Option<Instant>,
}

impl<'a> Publisher<'a> {
    const fn new(this: &'a Projections, nats: &'a Nats) -> Self {
        Self { this, nats, mark: Mark::at(0), most_bytes: BODY_BYTES, unkept: None }
    }

    /// Publishes until something is in the way. Dropped, it leaves nothing half done: the next call
    /// looks where it is.
    async fn publish(&mut self) -> Fault {
        match self.follow().await {
            Ok(never) => match never {},
            Err(fault) => fault,
        }
    }

    async fn follow(&mut self) -> Result<Infallible, Fault> {
        let config = &self.this.config;
        let options = EventStreamOptions {
            name: "EVENTS",
            subjects: "events.>",
            max_age: config.outside_max_age,
            max_bytes: config.outside_max_bytes,
        };
        let stream = EventStream::open(self.nats, options).await?;
        self.find_place(&stream).await?;
        let mut tail = self.this.journal.tail(self.mark.position);
        loop {
            let due = self.unkept.map(|since| since + KEEP_WITHIN);
            tokio::select! {
                biased;
                () = sleep_until(due) => self.keep().await?,
                batch = tail.next(BATCH_EVENTS) => {
                    let batch = batch?;
                    let mut rest = &batch[..];
                    while !rest.is_empty() {
                        let (publications, taken) = self.messages(rest).await?;
                        let (done, left) = rest.split_at(taken);
                        stream.publish(publications).await?;
                        let position = done.last().map_or(0, |event| event.position);
                        self.reached(position, tail.position() - position + tail.lag());
                        rest = left;
                    }
                }
            }
        }
    }

    /// After the later of the checkpoint and the newest message in the stream, and never before
    /// what this process has published.
    async fn find_place(&mut self, stream: &EventStream) -> Result<(), Fault> {
        let epoch = self.this.journal.epoch();
        let source = cloud_event::source(epoch);
        let headers = stream.last().await?.unwrap_or_default();
        let header = |wanted: &str| {
            headers.iter().find(|(name, _)| name.eq_ignore_ascii_case(wanted)).map(|(_, v)| &**v)
        };
        let is_ours = header(cloud_event::SOURCE) == Some(&*source);
        let newest = header(cloud_event::POSITION).filter(|_| is_ours);
        let newest = newest.and_then(|position| position.parse().ok()).unwrap_or(0);
        // A stream that knows more than the journal is of what a restored backup has forgotten.
        let head = self.this.journal.head().await.map_err(TailError::from)?;
        let newest = if newest <= head { newest } else { 0 };
        let stored = self.stored().await?;
        let position = self.mark.position.max(newest).max(stored);
        self.mark = Mark { position, stored };
        self.unkept = (position > stored).then(Instant::now);
        tracing::info!(position, stored, newest, "events outside are published from here on");
        Ok(())
    }

    async fn stored(&self) -> Result<u64, Fault> {
        let mut writer = self.this.store.writer().lock().await;
        let mut session = writer.as_mut().ok_or(FoldError::NoWriter)?.session();
        let checkpoint = self.checkpoint();
        let stored = locked(&mut session, NAME).await?;
        match stored.filter(|stored| stored.is_of(checkpoint)) {
            Some(stored) => Ok(stored.position_in(checkpoint.epoch)),
            None => checkpoint.reset(&mut session).await.map(|()| 0).map_err(Into::into),
        }
    }

    async fn keep(&mut self) -> Result<(), Fault> {
        if self.mark.position == self.mark.stored {
            return Ok(());
        }
        let mut writer = self.this.store.writer().lock().await;
        let mut session = writer.as_mut().ok_or(FoldError::NoWriter)?.session();
        self.checkpoint().move_to(&mut session, self.mark).await?;
        self.mark = Mark::at(self.mark.position);
        self.unkept = None;
        Ok(())
    }

    fn checkpoint(&self) -> Checkpoint {
        Checkpoint { name: NAME, version: VERSION, epoch: self.this.journal.epoch() }
    }

    fn reached(&mut self, position: u64, lag: u64) {
        self.mark.position = position;
        self.unkept = self.unkept.or_else(|| Some(Instant::now()));
        metrics::gauge!("wonder_outside_position").set(position as f64);
        metrics::gauge!("wonder_outside_lag_events").set(lag as f64);
    }

    /// The messages of the first events, as many as are published at once, and of how many events
    /// they are. What a fork shares was published when it happened.
    async fn messages(
        &self,
        events: &[Arc<RecordedEvent>],
    ) -> Result<(Vec<Publication>, usize), Fault> {
        let (mut publications, mut bytes, mut taken) = (Vec::new(), 0, 0);
        for event in events {
            taken += 1;
            if is_shared(&event.metadata, event.sequence) || is_quiet(&event.metadata) {
                continue;
            }
            let publication = self.message(event).await?;
            bytes += publication.body.len();
            publications.push(publication);
            if bytes >= BATCH_BYTES {
                break;
            }
        }
        Ok((publications, taken))
    }

    /// An event's message, with as much of its payload as fits.
    async fn message(&self, event: &RecordedEvent) -> Result<Publication, Fault> {
        let source = cloud_event::source(self.this.journal.epoch());
        let most = self.most_bytes;
        if event.payload.len() <= most && is_shown_as_stored(event) {
            return Ok(cloud_event::publication(event, &source, event.payload.clone()));
        }
        let mut body = Bytes::new();
        for put_back in [SHOWN_BYTES.min(most), 0] {
            let shown = self.this.shown(event, put_back).await?;
            body = shown.envelope.payload.to_string().into();
            if body.len() <= most {
                return Ok(cloud_event::publication(event, &source, body));
            }
        }
        Ok(cloud_event::without_body(cloud_event::publication(event, &source, body)))
    }

    /// Makes the best of a fault.
    async fn bear(&mut self, fault: &Fault) {
        if matches!(fault, Fault::Publish(PublishError::TooLarge { .. })) {
            self.most_bytes = (self.most_bytes / 2).max(LEAST_BODY_BYTES);
        }
        if let Ok(head) = self.this.journal.head().await {
            let lag = head.saturating_sub(self.mark.position);
            metrics::gauge!("wonder_outside_lag_events").set(lag as f64);
        }
    }
}
