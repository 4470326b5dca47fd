//! Answering requests.

use std::panic::AssertUnwindSafe;
use std::sync::Arc;

use async_nats::{HeaderMap, Message};
use bytes::{Bytes, BytesMut};
use futures::FutureExt;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{Instant, timeout_at};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::Handler;
use super::intake::{Intake, Served};
use super::wire::{self, Refusal};
use crate::bus::nats::{LARGEST, Nats, NatsError, Part, outbound, split};

/// Requests that may wait, for each that may be under way.
const WAITING: usize = 4;
const LEAST_WAITING: usize = 64;
/// KiB that the messages of requests may take, waiting or under way.
const KIB: usize = 64 * 1_024;
/// Requests in parts that may be under way.
const LARGE: usize = 4;

struct Server {
    nats: Nats,
    subject: String,
    handler: Arc<dyn Handler>,
    slots: Semaphore,
    kib: Arc<Semaphore>,
    large: Semaphore,
}

pub(super) async fn serve(
    nats: &Nats,
    below: &str,
    group: &str,
    handler: Arc<dyn Handler>,
    concurrency: usize,
) -> Result<Served, NatsError> {
    let concurrency = concurrency.clamp(1, Semaphore::MAX_PERMITS / (WAITING + 1));
    let intake = Intake::open(nats, below, group).await?;
    let server = Arc::new(Server {
        nats: nats.clone(),
        subject: below.to_owned(),
        handler,
        slots: Semaphore::new(concurrency),
        kib: Arc::new(Semaphore::new(KIB)),
        large: Semaphore::new(LARGE),
    });
    let most = concurrency + (concurrency * WAITING).max(LEAST_WAITING);
    let tasks = TaskTracker::new();
    let spawner = tasks.clone();
    Ok(intake.run(CancellationToken::new(), tasks, move |message| {
        let until = wire::deadline(&message);
        let room = (spawner.len() < most).then(|| server.room(&message)).flatten();
        if let Some(room) = room {
            let server = Arc::clone(&server);
            spawner.spawn(async move {
                server.answer(message, until).await;
                drop(room);
            });
        } else if let Some(reply) = &message.reply {
            metrics::counter!("bus_requests_refused_total", "subject" => server.subject.clone())
                .increment(1);
            server.nats.send_now(Refusal::Overloaded.message(reply));
        }
    }))
}

impl Server {
    /// Room for a message that waits.
    fn room(&self, message: &Message) -> Option<OwnedSemaphorePermit> {
        let kib = message.payload.len().div_ceil(1_024).min(KIB);
        Arc::clone(&self.kib).try_acquire_many_owned(u32::try_from(kib).ok()?).ok()
    }

    /// Room for a request that may be under way, and for the parts of a large one.
    async fn slot(&self, message: &Message) -> Option<impl Sized + use<'_>> {
        let large = match Part::of(message) {
            Some(_) => Some(self.large.acquire().await.ok()?),
            None => None,
        };
        Some((self.slots.acquire().await.ok()?, large))
    }

    async fn answer(&self, message: Message, until: Instant) {
        let Ok(Some(_slot)) = timeout_at(until, self.slot(&message)).await else {
            tracing::debug!(subject = self.subject, "a request waited past its deadline");
            return;
        };
        let Ok(Some((body, reply))) = timeout_at(until, whole(&self.nats, message)).await else {
            tracing::debug!(subject = self.subject, "a request didn't come whole");
            return;
        };
        let handling = AssertUnwindSafe(self.handler.handle(body)).catch_unwind();
        let sent = match timeout_at(until, handling).await {
            Ok(Ok(body)) => respond(&self.nats, &reply, body).await,
            Ok(Err(_)) => {
                tracing::error!(subject = self.subject, "the handler of a request panicked");
                return;
            }
            Err(_) => {
                tracing::warn!(subject = self.subject, "a request was given up at its deadline");
                return;
            }
        };
        if let Err(error) = sent {
            tracing::warn!(subject = self.subject, %error, "an answer was not sent");
        }
    }
}

/// The whole body of a request, and where its answer goes.
pub(super) async fn whole(nats: &Nats, message: Message) -> Option<(Bytes, String)> {
    let reply = message.reply.as_ref()?.to_string();
    let Some(part) = Part::of(&message) else {
        return Some((message.payload, reply));
    };
    if part.index != 0 {
        return None;
    }
    let rest = nats.inbox().answer_from(1).ok()?;
    let mut headers = HeaderMap::new();
    headers.insert(wire::REST, rest.subject.as_str());
    nats.send(wire::outbound(&reply, headers, Bytes::new())).await.ok()?;
    let rest = rest.arrived().await.ok()?;
    let reply = rest.first.reply.as_ref()?.to_string();
    let mut body = BytesMut::with_capacity(part.bytes);
    body.extend_from_slice(&message.payload);
    body.extend_from_slice(&rest.body());
    (body.len() == part.bytes).then(|| (body.freeze(), reply))
}

async fn respond(nats: &Nats, reply: &str, body: Bytes) -> Result<(), NatsError> {
    let room = nats.room();
    if body.len() <= room {
        return nats.send(outbound(reply.into(), None, body)).await;
    }
    if body.len() > LARGEST {
        return nats.send(Refusal::AnswerTooLarge(body.len()).message(reply)).await;
    }
    for (part, piece) in split(&body, room) {
        let (name, value) = part.header();
        let mut headers = HeaderMap::new();
        headers.insert(name, value);
        nats.send(wire::outbound(reply, headers, piece)).await?;
    }
    Ok(())
}
