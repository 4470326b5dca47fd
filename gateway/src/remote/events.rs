//! Events: pages, and streams that outlive the projector which they come from.

use std::collections::VecDeque;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use chassis::bus::{Nats, RequestError};
use futures::stream::{self, BoxStream, StreamExt as _};
use protocol::remote::{FOLLOW, FollowCall, QueryCall};
use protocol::{Cursor, EventEnvelope, EventFilter, EventPage, Events, Rejection, RejectionKind};
use tokio::time::Instant;
use uuid::Uuid;

use super::{Remote, decoded, encoded, unavailable};

/// How long a stream's first message is waited for, because it may be a refusal.
const GREETING: Duration = Duration::from_secs(2);
/// A stream that was open this long, or gave an event, has recovered.
const STEADY: Duration = Duration::from_secs(5);
const FIRST_PAUSE: Duration = Duration::from_millis(500);
const LONGEST_PAUSE: Duration = Duration::from_secs(4);

#[async_trait]
impl Events for Remote {
    async fn page(
        &self,
        filter: EventFilter,
        after: Option<Cursor>,
        limit: u32,
    ) -> Result<EventPage, Rejection> {
        self.query_page(limit, |limit| {
            let filter = filter.clone();
            QueryCall::EventPage { filter, after, limit }
        })
        .await
    }

    /// Refuses what the far side refuses before its first event. Where the far side goes away
    /// later, the stream goes on from another one, after the last event that it gave.
    async fn follow(
        &self,
        filter: EventFilter,
        after: Option<Cursor>,
    ) -> Result<BoxStream<'static, Result<EventEnvelope, Rejection>>, Rejection> {
        let mut follower = Follower {
            remote: self.clone(),
            filter,
            after,
            ready: VecDeque::new(),
            source: Source::Away(Outage::new(self.patience, Duration::ZERO)),
            was_open: false,
        };
        while !matches!(follower.source, Source::Open(..)) {
            follower.advance().await?;
        }
        Ok(stream::unfold(follower, Follower::step).boxed())
    }

    async fn head(&self) -> Result<Cursor, Rejection> {
        self.query(QueryCall::EventHead).await
    }
}

/// What comes from a projector.
type Messages = BoxStream<'static, Result<Bytes, RequestError>>;

/// A stream's place.
struct Follower {
    remote: Remote,
    filter: EventFilter,
    /// The last event that came.
    after: Option<Cursor>,
    /// What came and wasn't given yet.
    ready: VecDeque<EventEnvelope>,
    source: Source,
    was_open: bool,
}

/// Where events come from.
enum Source {
    Open(Open),
    /// It is opened again after a pause.
    Away(Outage),
    Ended,
}

struct Open {
    messages: Messages,
    since: Instant,
    /// The outage that isn't over until this stream proves steady.
    outage: Outage,
}

/// A time without a steady stream.
#[derive(Clone, Copy)]
struct Outage {
    until: Instant,
    pause: Duration,
}

impl Outage {
    fn new(patience: Duration, pause: Duration) -> Self {
        Self { until: Instant::now() + patience, pause }
    }

    /// The pause before the next attempt, cut at random: of thousands of streams that broke off
    /// together, not all come back at once.
    fn next_pause(&mut self) -> Duration {
        let pause = self.pause;
        self.pause = (pause * 2).clamp(FIRST_PAUSE, LONGEST_PAUSE);
        let [share, ..] = Uuid::new_v4().into_bytes();
        pause * u32::from(share) / u32::from(u8::MAX)
    }
}

/// Why a stream has no next message.
enum Loss {
    /// Another one may have it.
    Away,
    Refused(Rejection),
}

impl Follower {
    async fn step(mut self) -> Option<(Result<EventEnvelope, Rejection>, Self)> {
        loop {
            if let Some(event) = self.ready.pop_front() {
                return Some((Ok(event), self));
            }
            if matches!(self.source, Source::Ended) {
                return None;
            }
            if let Err(rejection) = self.advance().await {
                return Some((Err(rejection), self));
            }
        }
    }

    /// Takes the next message, or opens the stream again. After an error nothing follows.
    async fn advance(&mut self) -> Result<(), Rejection> {
        let done = match &mut self.source {
            Source::Ended => return Ok(()),
            Source::Open(open) => {
                let message = read(&mut open.messages).await;
                message.map(|events| self.take(events))
            }
            Source::Away(outage) => {
                tokio::time::sleep(outage.next_pause()).await;
                let outage = *outage;
                let call = FollowCall { filter: self.filter.clone(), after: self.after };
                open(self.remote.nats.clone(), call).await.map(|(messages, events)| {
                    let since = Instant::now();
                    self.source = Source::Open(Open { messages, since, outage });
                    self.was_open = true;
                    self.take(events);
                })
            }
        };
        match done {
            Ok(()) => Ok(()),
            Err(Loss::Away) => self.lose(),
            // What was open before will be again, once the far side has what it needs.
            Err(Loss::Refused(rejection))
                if self.was_open && rejection.kind == RejectionKind::Unavailable =>
            {
                self.lose()
            }
            Err(Loss::Refused(rejection)) => {
                self.source = Source::Ended;
                Err(rejection)
            }
        }
    }

    fn take(&mut self, events: Vec<EventEnvelope>) {
        let seen = self.after.map_or(0, |cursor| cursor.position);
        let new = events.into_iter().filter(|event| event.position > seen);
        self.ready.extend(new);
        if let Some(last) = self.ready.back() {
            self.after = Some(last.cursor);
            if let Source::Open(open) = &mut self.source {
                open.outage = Outage::new(self.remote.patience, FIRST_PAUSE);
            }
        }
    }

    fn lose(&mut self) -> Result<(), Rejection> {
        metrics::counter!("wonder_streams_reopened_total").increment(1);
        let outage = match &self.source {
            Source::Open(open) if open.since.elapsed() >= STEADY => {
                Outage::new(self.remote.patience, FIRST_PAUSE)
            }
            Source::Open(Open { outage, .. }) | Source::Away(outage) => *outage,
            Source::Ended => return Ok(()),
        };
        if Instant::now() >= outage.until {
            self.source = Source::Ended;
            let message = "events can't be followed at the moment: go on later, after the last \
                           cursor";
            return Err(unavailable(message));
        }
        self.source = Source::Away(outage);
        Ok(())
    }
}

/// A stream and its first message, or none yet where the far side takes its time.
async fn open(nats: Nats, call: FollowCall) -> Result<(Messages, Vec<EventEnvelope>), Loss> {
    let body = encoded(&call).map_err(Loss::Refused)?;
    let opened = nats.open_stream(FOLLOW, body).await;
    let mut messages = opened.map_err(|_| Loss::Away)?;
    let first = tokio::time::timeout(GREETING, read(&mut messages)).await;
    let events = first.unwrap_or_else(|_| Ok(Vec::new()))?;
    Ok((messages, events))
}

async fn read(messages: &mut Messages) -> Result<Vec<EventEnvelope>, Loss> {
    let Some(Ok(message)) = messages.next().await else {
        return Err(Loss::Away);
    };
    decoded(&message).map_err(Loss::Refused)
}
