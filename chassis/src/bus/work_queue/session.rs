//! Pulling over one inbox, on one connection: requests go out, messages and statuses come in.

use async_nats::{HeaderName, Message, Subscriber};
use futures::{FutureExt, StreamExt};
use serde_json::json;
use tokio::task::JoinHandle;
use tokio::time::Instant;

use super::WorkQueue;
use super::consumer::Delivery;
use super::demand::{BEAT, Demand, EXPIRES};
use super::nanos;
use crate::bus::nats::{Nats, NatsError, leave, outbound};

const PENDING: HeaderName = HeaderName::from_static("Nats-Pending-Messages");
/// Signs of life that may be on their way.
const BEATS: u64 = 16;

/// What has come.
#[derive(Debug)]
pub(super) enum Event {
    Delivery(Delivery),
    /// A sign of life, or the end of a request.
    Sign,
    /// The server has too many requests.
    Busy(String),
    /// The consumer isn't there any more, or has moved.
    Gone(String),
    /// The connection was closed.
    Closed,
}

pub(super) struct Session {
    nats: Nats,
    /// Where requests go.
    requests: String,
    inbox: String,
    subscriber: Subscriber,
    received: u64,
    connects: u64,
    pub(super) demand: Demand,
}

impl Session {
    pub(super) async fn open(nats: &Nats, requests: &str) -> Result<Self, NatsError> {
        nats.connected(Instant::now() + EXPIRES).await?;
        let (inbox, connects) = (nats.client().new_inbox(), nats.connects());
        let subscribed = nats.client().subscribe(format!("{inbox}.*")).await;
        let subscriber = subscribed.map_err(|error| NatsError::Unavailable(error.to_string()))?;
        Ok(Self {
            nats: nats.clone(),
            requests: requests.to_owned(),
            inbox,
            subscriber,
            received: 0,
            connects,
            demand: Demand::new(Instant::now()),
        })
    }

    /// Whether its connection is gone, and all requests with it. Ended before the next one is
    /// there, it isn't subscribed again.
    pub(super) fn is_stale(&self) -> bool {
        !self.nats.is_connected() || self.nats.connects() != self.connects
    }

    /// Asks for what may come up to a limit. Cancel-safe.
    pub(super) async fn ask(&mut self, limit: usize) -> Result<(), NatsError> {
        self.demand.expire(Instant::now());
        let count = self.demand.wants(limit);
        if count == 0 {
            return Ok(());
        }
        let body =
            json!({"batch": count, "expires": nanos(EXPIRES), "idle_heartbeat": nanos(BEAT)});
        let reply = Some(format!("{}.{}", self.inbox, self.demand.token()));
        self.nats.send(outbound(self.requests.clone(), reply, body.to_string().into())).await?;
        self.demand.asked(count, Instant::now());
        Ok(())
    }

    /// Waits for what comes. Cancel-safe.
    pub(super) async fn next(&mut self) -> Event {
        let message = self.subscriber.next().await;
        self.take(message)
    }

    /// What has come already.
    pub(super) fn next_now(&mut self) -> Option<Event> {
        let message = tokio::task::unconstrained(self.subscriber.next()).now_or_never()?;
        Some(self.take(message))
    }

    fn take(&mut self, message: Option<Message>) -> Event {
        let Some(message) = message else {
            return Event::Closed;
        };
        self.received += 1;
        self.demand.heard(Instant::now());
        let Some(status) = message.status else {
            return match Delivery::new(&self.nats, message) {
                Some(delivery) => {
                    self.demand.delivered();
                    Event::Delivery(delivery)
                }
                None => Event::Sign,
            };
        };
        let pending = message.headers.as_ref().and_then(|headers| headers.get(PENDING));
        let pending = pending.and_then(|text| text.as_str().parse().ok());
        let token = message.subject.rsplit('.').next().and_then(|token| token.parse().ok());
        let mut ended = || self.demand.ended(token.unwrap_or(u64::MAX), pending);
        let why = message.description.unwrap_or_default();
        match status.as_u16() {
            100 => Event::Sign,
            404 | 408 => {
                ended();
                Event::Sign
            }
            409 if why.contains("Exceeded") => {
                ended();
                Event::Busy(why)
            }
            _ => Event::Gone(format!("{status} {why}")),
        }
    }

    /// Ends it, and gives back what still comes. Runs on where it isn't waited for.
    pub(super) fn leave(self, queue: WorkQueue) -> JoinHandle<()> {
        let most = self.demand.outstanding() + self.demand.requests();
        let most = BEATS + u64::try_from(most).unwrap_or(u64::MAX / 2);
        let subject = format!("{}.filler", self.inbox);
        tokio::spawn(async move {
            let nats = &self.nats;
            // Given back when nothing more comes: at once, it would come to this session again.
            let mut came = Vec::new();
            let take =
                |message: Message| came.extend(Delivery::new(nats, message).map(|one| [one]));
            if self.nats.connects() == self.connects {
                leave(nats, self.subscriber, &subject, self.received, Some(most), take).await;
            }
            queue.give_back(came).await;
        })
    }
}
