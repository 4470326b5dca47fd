//! Ending a subscription without losing what the server has already sent.
//!
//! The client library forgets a subscription as soon as it has asked the server to end it, and
//! drops what comes after. But the server can be asked to end it after a number of messages, and
//! then both sides count: nothing is lost. What is missing to that number is made up for with
//! fillers.

use std::time::Duration;

use async_nats::message::OutboundMessage;
use async_nats::{HeaderMap, HeaderName, Message, Subscriber};
use bytes::Bytes;
use futures::{FutureExt, StreamExt};

use super::{Nats, NatsError, outbound};

const FILLER: HeaderName = HeaderName::from_static("Filler");
/// Round trips in which it is measured how many messages may be on their way.
const MEASURED: usize = 3;
/// Messages that may be on their way: at least, how many times the most of a round trip, and of
/// all that ever came.
const LEAST_MARGIN: u64 = 256;
const MARGIN: u64 = 8;
const MARGIN_OF_ALL: u64 = 4_096;
/// Fillers that are sent at a time.
const ROUND: u64 = 1_024;
const WITHIN: Duration = Duration::from_secs(5);

/// Whether a message only fills a count.
pub(in crate::bus) fn is_filler(message: &Message) -> bool {
    message.headers.as_ref().is_some_and(|headers| headers.get(FILLER).is_some())
}

/// Ends a subscription that has given `received` messages since it was made, on a connection that
/// has lasted since then. Hands over what still comes.
///
/// `subject` is one that it listens to. Others may listen too; they get fillers then. `most` are
/// on their way, where that is known. Where it takes too long (or the connection is lost) the
/// subscription ends at once.
pub(in crate::bus) async fn leave(
    nats: &Nats,
    subscriber: Subscriber,
    subject: &str,
    received: u64,
    most: Option<u64>,
    take: impl FnMut(Message),
) {
    if !nats.is_connected() {
        return;
    }
    let mut leaving = Leaving { nats, subscriber, received, take, ended: false };
    match tokio::time::timeout(WITHIN, leaving.run(subject, most)).await {
        Ok(Ok(())) => {}
        Ok(Err(error)) => tracing::debug!(%error, "a subscription ended at once"),
        Err(_) => tracing::warn!("a subscription ended before all was there"),
    }
}

struct Leaving<'a, F> {
    nats: &'a Nats,
    subscriber: Subscriber,
    received: u64,
    take: F,
    ended: bool,
}

impl<F: FnMut(Message)> Leaving<'_, F> {
    async fn run(&mut self, subject: &str, most: Option<u64>) -> Result<(), NatsError> {
        let margin = match most {
            Some(most) => most + 1,
            None => self.measure().await?,
        };
        let last = self.received + margin;
        let asked = self.subscriber.unsubscribe_after(last).await;
        asked.map_err(|error| NatsError::Unavailable(error.to_string()))?;
        self.round_trip().await?;
        if self.ended {
            // More was on its way than ever before, and what came after is lost.
            tracing::warn!(margin, "a subscription may have ended too early");
        }
        while !self.ended {
            // Others take their share of the fillers.
            for _ in 0..(2 * last.saturating_sub(self.received)).min(ROUND) {
                fill(self.nats, subject).await?;
            }
            self.round_trip().await?;
        }
        Ok(())
    }

    /// How many may be on their way, by how many come.
    async fn measure(&mut self) -> Result<u64, NatsError> {
        let mut most = 0;
        for _ in 0..MEASURED {
            let before = self.received;
            self.round_trip().await?;
            most = most.max(self.received - before);
        }
        Ok(LEAST_MARGIN + MARGIN * most + self.received.min(MARGIN_OF_ALL))
    }

    /// Takes what the server sent until it has handled all that was sent to it before.
    async fn round_trip(&mut self) -> Result<(), NatsError> {
        let answer = self.nats.inbox().answer().map_err(|error| error.unavailable())?;
        self.nats.send(outbound(answer.subject.clone(), None, Bytes::new())).await?;
        let mut arrived = std::pin::pin!(answer.arrived());
        while !self.ended {
            tokio::select! {
                biased;
                message = self.subscriber.next() => self.count(message),
                answer = &mut arrived => {
                    answer.map_err(|error| error.unavailable())?;
                    break;
                }
            }
        }
        while !self.ended
            && let Some(message) = self.subscriber.next().now_or_never()
        {
            self.count(message);
        }
        Ok(())
    }

    fn count(&mut self, message: Option<Message>) {
        match message {
            Some(message) => {
                self.received += 1;
                if !is_filler(&message) {
                    (self.take)(message);
                }
            }
            None => self.ended = true,
        }
    }
}

async fn fill(nats: &Nats, subject: &str) -> Result<(), NatsError> {
    let mut headers = HeaderMap::new();
    headers.insert(FILLER, "1");
    let message =
        OutboundMessage { headers: Some(headers), ..outbound(subject.into(), None, Bytes::new()) };
    nats.send(message).await
}
