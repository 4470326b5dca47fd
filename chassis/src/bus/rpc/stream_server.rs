//! Serving streams: as far as their readers take them.

use std::any::Any;
use std::collections::VecDeque;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

use async_nats::{HeaderMap, Message};
use bytes::Bytes;
use futures::stream::BoxStream;
use futures::{FutureExt, StreamExt};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{Instant, timeout_at};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::intake::{Intake, Served};
use super::server::whole;
use super::wire::{self, Frame, Kind, Refusal, Sign};
use super::{StreamHandler, WINDOW};
use crate::bus::nats::{Follow, LARGEST, Nats, NatsError, split};

/// Signs of a reader that may wait.
const SIGNS: usize = 64;
const BEAT_EVERY: Duration = Duration::from_secs(2);
/// A reader that gives no sign for so long is gone.
const SILENCE: Duration = Duration::from_secs(8);
const LOOK_EVERY: Duration = Duration::from_millis(500);

struct Server {
    nats: Nats,
    subject: String,
    handler: Arc<dyn StreamHandler>,
    stop: CancellationToken,
}

pub(super) async fn serve(
    nats: &Nats,
    below: &str,
    group: &str,
    handler: Arc<dyn StreamHandler>,
    concurrency: usize,
) -> Result<Served, NatsError> {
    let slots = Arc::new(Semaphore::new(concurrency.clamp(1, Semaphore::MAX_PERMITS)));
    let intake = Intake::open(nats, below, group).await?;
    let stop = CancellationToken::new();
    let server = Arc::new(Server {
        nats: nats.clone(),
        subject: below.to_owned(),
        handler,
        stop: stop.clone(),
    });
    let tasks = TaskTracker::new();
    let spawner = tasks.clone();
    Ok(intake.run(stop, tasks, move |message| {
        if let Ok(slot) = Arc::clone(&slots).try_acquire_owned() {
            spawner.spawn(Arc::clone(&server).stream(message, slot));
        } else if let Some(reply) = &message.reply {
            metrics::counter!("bus_streams_refused_total", "subject" => server.subject.clone())
                .increment(1);
            server.nats.send_now(Refusal::Overloaded.message(reply));
        }
    }))
}

impl Server {
    async fn stream(self: Arc<Self>, message: Message, _slot: OwnedSemaphorePermit) {
        let until = wire::deadline(&message);
        let Some(deliver) = wire::header(&message, wire::DELIVER).map(str::to_owned) else {
            tracing::debug!(subject = self.subject, "a request for a stream names no reader");
            return;
        };
        let Ok(Some((body, reply))) = timeout_at(until, whole(&self.nats, message)).await else {
            tracing::debug!(subject = self.subject, "a request for a stream didn't come whole");
            return;
        };
        let opening = AssertUnwindSafe(self.handler.open(body)).catch_unwind();
        let Ok(Ok(stream)) = timeout_at(until, opening).await else {
            tracing::error!(subject = self.subject, "a stream can't be opened in time");
            return;
        };
        let Ok(signs) = self.nats.inbox().follow(SIGNS) else {
            tracing::warn!(subject = self.subject, "there are too many open streams");
            return;
        };
        let mut headers = HeaderMap::new();
        headers.insert(wire::CONTROL, signs.subject.as_str());
        let mut pump = Pump {
            nats: &self.nats,
            deliver: &deliver,
            signs,
            stream: AssertUnwindSafe(stream).catch_unwind().boxed(),
            pieces: VecDeque::new(),
            sent: 0,
            allowed: WINDOW,
            heard: Instant::now(),
            told: Instant::now(),
        };
        let done = match self.nats.send(wire::outbound(&reply, headers, Bytes::new())).await {
            Ok(()) => pump.run(&self.stop).await,
            Err(error) => Err(error),
        };
        if let Err(error) = done {
            tracing::warn!(subject = self.subject, %error, "a stream ended: nothing can be sent");
        }
    }
}

type Caught = Result<Bytes, Box<dyn Any + Send>>;

struct Pump<'a> {
    nats: &'a Nats,
    deliver: &'a str,
    signs: Follow,
    stream: BoxStream<'static, Caught>,
    /// Of the message that is being sent.
    pieces: VecDeque<Bytes>,
    /// Frames with a body.
    sent: u64,
    /// The frame up to which the reader takes them.
    allowed: u64,
    heard: Instant,
    told: Instant,
}

impl Pump<'_> {
    /// Runs until the end of the stream, or until its reader is gone.
    async fn run(&mut self, stop: &CancellationToken) -> Result<(), NatsError> {
        let mut look = tokio::time::interval(LOOK_EVERY);
        loop {
            let takes_more = self.sent < self.allowed;
            if takes_more && !self.pieces.is_empty() {
                self.send_piece().await?;
                continue;
            }
            let takes_more = takes_more && self.pieces.is_empty();
            tokio::select! {
                biased;
                sign = self.signs.next() => match sign.as_ref().map(Sign::of) {
                    Some(Sign::Credit(number)) => {
                        self.allowed = self.allowed.max(number);
                        self.heard = Instant::now();
                    }
                    Some(Sign::Cancel) | None => return Ok(()),
                },
                () = stop.cancelled() => return self.tell(Kind::Broken).await,
                _ = look.tick() => {
                    if self.heard.elapsed() > SILENCE {
                        tracing::info!("a stream ended: its reader gives no sign");
                        return Ok(());
                    }
                    if self.told.elapsed() >= BEAT_EVERY {
                        self.tell(Kind::Beat).await?;
                    }
                }
                item = self.stream.next(), if takes_more => {
                    if let Some(last) = self.take(item) {
                        return self.tell(last).await;
                    }
                }
            }
        }
    }

    /// Takes a message of the stream, or says how it ends.
    fn take(&mut self, item: Option<Caught>) -> Option<Kind> {
        match item {
            Some(Ok(body)) if body.len() <= LARGEST => {
                self.pieces.extend(split(&body, self.nats.room()).map(|(_, piece)| piece));
                None
            }
            Some(Ok(_)) => {
                tracing::error!("a message of a stream is too large");
                Some(Kind::Broken)
            }
            Some(Err(_)) => {
                tracing::error!("the source of a stream panicked");
                Some(Kind::Broken)
            }
            None => Some(Kind::End),
        }
    }

    async fn send_piece(&mut self) -> Result<(), NatsError> {
        let Some(piece) = self.pieces.pop_front() else {
            return Ok(());
        };
        let kind = if self.pieces.is_empty() { Kind::Whole } else { Kind::Piece };
        self.sent += 1;
        self.send(kind, piece).await
    }

    async fn tell(&mut self, kind: Kind) -> Result<(), NatsError> {
        self.send(kind, Bytes::new()).await
    }

    async fn send(&mut self, kind: Kind, body: Bytes) -> Result<(), NatsError> {
        self.told = Instant::now();
        let frame = Frame { kind, number: self.sent };
        self.nats.send(frame.message(self.deliver, body)).await
    }
}
