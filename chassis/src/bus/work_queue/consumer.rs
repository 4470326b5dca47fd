//! Pulling from a queue.

use std::collections::VecDeque;
use std::fmt;
use std::time::Duration;

use async_nats::message::OutboundMessage;
use async_nats::{Message, Subject};
use bytes::Bytes;
use serde_json::Value;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::Instant;

use super::WorkQueue;
use super::session::{Event, Session};
use crate::bus::nats::{Link, Nats, NatsError};

/// Messages that are given at a time, at most.
const MOST: usize = 4_096;
const FIRST_PAUSE: Duration = Duration::from_millis(50);
const LONGEST_PAUSE: Duration = Duration::from_secs(2);
/// How long after a suspicion of silence it is one.
const SUSPICION: Duration = Duration::from_millis(500);

/// Pulls from a queue. Gone with [`Consumer::close`]; dropped, what was delivered to it and not
/// pulled is delivered to others only after its time.
pub struct Consumer {
    queue: WorkQueue,
    asked: Value,
    /// Where requests go.
    requests: String,
    link: watch::Receiver<Link>,
    session: Option<Session>,
    /// A former one, of which messages may still come.
    leaving: Option<JoinHandle<()>>,
    /// Delivered, not pulled yet.
    ready: VecDeque<Delivery>,
    /// Since when the consumer may be missing.
    missed: Option<Instant>,
    suspected: Option<Instant>,
    complained: bool,
    /// Nothing is asked for before.
    not_before: Instant,
    pause: Duration,
}

impl Consumer {
    pub(super) fn new(queue: WorkQueue, durable: &str, asked: Value) -> Self {
        let stream = &queue.inner.stream;
        Self {
            requests: format!("$JS.API.CONSUMER.MSG.NEXT.{stream}.{durable}"),
            link: queue.inner.nats.link(),
            queue,
            asked,
            session: None,
            leaving: None,
            ready: VecDeque::new(),
            missed: None,
            suspected: None,
            complained: false,
            not_before: Instant::now(),
            pause: FIRST_PAUSE,
        }
    }

    /// Waits for messages and takes at most `limit`; what was asked for and didn't come in time is
    /// still asked for, and given by the next call. Never empty. Cancel-safe.
    ///
    /// What is delivered or asked for, and not pulled, is never more than the last `limit`: with a
    /// smaller one the rest is given back. While NATS or the consumer is away it waits, and makes
    /// what is missing. After [`Nats::close`] it waits for ever.
    pub async fn pull(&mut self, limit: usize) -> Vec<Delivery> {
        let limit = limit.clamp(1, MOST);
        loop {
            self.gather();
            self.shrink_to(limit);
            if !self.ready.is_empty() {
                let count = self.ready.len().min(limit);
                return self.ready.drain(..count).collect();
            }
            self.step(limit).await;
        }
    }

    /// Gives back what was delivered and not pulled.
    pub async fn close(mut self) {
        self.gather();
        self.queue.give_back(self.ready.drain(..).map(|one| [one]).collect()).await;
        for leaving in [self.leaving.take(), self.end_session()].into_iter().flatten() {
            if leaving.await.is_err() {
                tracing::error!("leaving a queue ended in a panic");
            }
        }
        self.queue.inner.nats.flush().await;
    }

    /// Takes what has come already.
    fn gather(&mut self) {
        while let Some(event) = self.session.as_mut().and_then(Session::next_now) {
            if matches!(event, Event::Closed) {
                break;
            }
            self.handle(event);
        }
    }

    /// Gives back what is more than a limit.
    fn shrink_to(&mut self, limit: usize) {
        let outstanding = self.session.as_ref().map_or(0, |session| session.demand.outstanding());
        if outstanding + self.ready.len() > limit {
            self.leaving = self.end_session();
        }
        if self.ready.len() > limit {
            let rest: Vec<_> = self.ready.drain(limit..).map(|one| [one]).collect();
            let queue = self.queue.clone();
            // Not awaited: where it comes to nothing, they are delivered again by themselves.
            tokio::spawn(async move { queue.give_back(rest).await });
        }
    }

    /// Asks where that is to be done, and waits for what happens next. Cancel-safe.
    async fn step(&mut self, limit: usize) {
        if self.queue.inner.nats.is_closed() {
            std::future::pending::<()>().await;
        }
        if self.session.as_ref().is_some_and(Session::is_stale) {
            self.gather();
            // The server may have forgotten more than the requests.
            self.missed = Some(Instant::now());
            self.end_session();
        }
        if Instant::now() < self.not_before {
            tokio::select! {
                () = tokio::time::sleep_until(self.not_before) => {}
                Ok(()) = self.link.changed() => self.not_before = Instant::now(),
            }
            return;
        }
        if let Err(error) = self.ask(limit).await {
            self.complain(&error);
            self.end_session();
            self.wait_longer();
            return;
        }
        let Some(session) = &mut self.session else {
            return;
        };
        let silent_at = self.suspected.or(session.demand.silent_at());
        let silent_at = silent_at.unwrap_or_else(|| Instant::now() + LONGEST_PAUSE);
        tokio::select! {
            biased;
            event = session.next() => self.handle(event),
            Ok(()) = self.link.changed() => {}
            () = tokio::time::sleep_until(silent_at) => self.suspect(),
        }
    }

    /// Nothing came for too long. What had come while nobody pulled was taken before, but the
    /// connection may be late.
    fn suspect(&mut self) {
        let now = Instant::now();
        match self.suspected {
            None => self.suspected = Some(now + SUSPICION),
            Some(until) if until <= now => {
                tracing::warn!(stream = self.queue.inner.stream, "a queue gives no sign of life");
                self.missed = Some(now);
                self.end_session();
            }
            Some(_) => {}
        }
    }

    async fn ask(&mut self, limit: usize) -> Result<(), NatsError> {
        let nats = &self.queue.inner.nats;
        if let Some(missed) = self.missed {
            self.queue.restore(missed).await?;
            // Where this fails, the stream may be missing again.
            self.missed = Some(Instant::now());
            nats.ensure_consumer(&self.queue.inner.stream, &self.asked).await?;
            self.missed = None;
        }
        if let Some(leaving) = &mut self.leaving {
            if leaving.await.is_err() {
                tracing::error!("leaving a queue ended in a panic");
            }
            self.leaving = None;
        }
        if self.session.is_none() {
            self.session = Some(Session::open(nats, &self.requests).await?);
        }
        match &mut self.session {
            Some(session) => session.ask(limit).await,
            None => Ok(()),
        }
    }

    fn handle(&mut self, event: Event) {
        self.suspected = None;
        match event {
            Event::Delivery(delivery) => {
                self.is_well();
                self.ready.push_back(delivery);
            }
            Event::Sign => self.is_well(),
            Event::Busy(why) => {
                tracing::warn!(stream = self.queue.inner.stream, why, "a request was refused");
                self.wait_longer();
            }
            Event::Gone(why) => {
                tracing::info!(stream = self.queue.inner.stream, why, "a consumer is gone");
                self.missed = Some(Instant::now());
                self.end_session();
                self.wait_longer();
            }
            // The subscription ends only with the connection; the link says so.
            Event::Closed => self.not_before = Instant::now() + LONGEST_PAUSE,
        }
    }

    fn is_well(&mut self) {
        self.pause = FIRST_PAUSE;
        if std::mem::take(&mut self.complained) {
            tracing::info!(stream = self.queue.inner.stream, "a queue can be pulled from again");
        }
    }

    /// Says so once, until it is well again.
    fn complain(&mut self, error: &NatsError) {
        let stream = &self.queue.inner.stream;
        if std::mem::replace(&mut self.complained, true) {
            tracing::debug!(stream, %error, "a queue still can't be pulled from");
        } else {
            tracing::warn!(stream, %error, "a queue can't be pulled from at the moment");
        }
    }

    /// Not to be waited for, but where nothing more may come of it.
    fn end_session(&mut self) -> Option<JoinHandle<()>> {
        self.suspected = None;
        let session = self.session.take()?;
        Some(session.leave(self.queue.clone()))
    }

    fn wait_longer(&mut self) {
        self.not_before = Instant::now() + self.pause;
        self.pause = (self.pause * 2).min(LONGEST_PAUSE);
    }
}

/// A delivered message. Dropped without an acknowledgement it is delivered again, later.
pub struct Delivery {
    /// Below the prefix.
    pub subject: String,
    pub body: Bytes,
    /// How often it has been delivered, this time included.
    pub deliveries: u64,
    reply: Subject,
    nats: Nats,
}

impl fmt::Debug for Delivery {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Delivery")
            .field("subject", &self.subject)
            .field("bytes", &self.body.len())
            .field("deliveries", &self.deliveries)
            .finish_non_exhaustive()
    }
}

impl Delivery {
    /// Nothing where the message isn't one of a consumer.
    pub(super) fn new(nats: &Nats, message: Message) -> Option<Self> {
        let reply = message.reply?;
        Some(Self {
            subject: nats.below(&message.subject).to_owned(),
            body: message.payload,
            deliveries: deliveries(&reply)?,
            reply,
            nats: nats.clone(),
        })
    }

    /// Done: it leaves the queue. Not waited for; where it gets lost, the message comes again.
    pub async fn ack(&self) {
        self.say(Bytes::from_static(b"+ACK")).await;
    }

    /// Not done: it is delivered again at once.
    pub async fn nak(&self) {
        self.say(Bytes::from_static(b"-NAK")).await;
    }

    /// Not done: it is delivered again after a while.
    pub async fn nak_after(&self, delay: Duration) {
        self.say(format!("-NAK {{\"delay\": {}}}", delay.as_nanos()).into()).await;
    }

    /// A sign of life: the time until redelivery begins anew.
    pub async fn progress(&self) {
        self.say(Bytes::from_static(b"+WPI")).await;
    }

    async fn say(&self, what: Bytes) {
        let message = self.message(what.clone());
        if !self.nats.is_connected() {
            // It goes with the others that wait for the connection, if there is room.
            return self.nats.send_now(message);
        }
        if let Err(error) = self.nats.send(message).await {
            tracing::debug!(%error, ?what, "what was said of a delivery was not sent");
        }
    }

    fn message(&self, payload: Bytes) -> OutboundMessage {
        OutboundMessage { subject: self.reply.clone(), reply: None, payload, headers: None }
    }
}

/// Reads the count in `$JS.ACK.<stream>.<consumer>.<deliveries>.…`, or in the longer form, with
/// `<domain>.<account>` before the stream.
fn deliveries(reply: &str) -> Option<u64> {
    let mut parts = reply.strip_prefix("$JS.ACK.")?.split('.');
    let index = if parts.clone().count() < 9 { 2 } else { 4 };
    parts.nth(index)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn deliveries_are_read_from_both_forms_of_the_reply() {
        assert_eq!(deliveries("$JS.ACK.S.c.3.10.12.1700000000000000000.0"), Some(3));
        assert_eq!(deliveries("$JS.ACK._.hash.S.c.4.10.12.1700000000000000000.0"), Some(4));
        assert_eq!(deliveries("$JS.ACK._.hash.S.c.5.10.12.1700000000000000000.0.rnd"), Some(5));
        assert_eq!(deliveries("_INBOX.a"), None);
    }
}
