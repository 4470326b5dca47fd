//! Taking messages of a subject, and stopping without losing one.

use std::collections::VecDeque;
use std::time::Duration;

use async_nats::{Message, Subscriber};
use futures::{FutureExt, StreamExt};
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::bus::nats::{Link, Nats, NatsError, is_filler, leave};

/// How long the server may take to know of a subscription.
const READY_WITHIN: Duration = Duration::from_secs(5);

/// How long a subscription of a lost connection may take to end.
const END_WITHIN: Duration = Duration::from_millis(200);

/// A subject that is served. Dropped, it stops all the same, but nobody can wait for it.
#[must_use = "it stops when it is dropped"]
#[derive(Debug)]
pub struct Served {
    stop: CancellationToken,
    task: Option<JoinHandle<()>>,
}

impl Served {
    /// Takes no more requests, and returns when those under way are answered. Open streams end,
    /// for their readers with [`RequestError::Unavailable`](super::RequestError::Unavailable).
    pub async fn stop(mut self) {
        self.stop.cancel();
        if let Some(task) = self.task.take()
            && task.await.is_err()
        {
            tracing::error!("serving ended in a panic");
        }
    }
}

impl Drop for Served {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

/// A subscription as a member of a group.
pub(super) struct Intake {
    nats: Nats,
    subject: String,
    group: String,
    subscriber: Subscriber,
    /// Messages since the subscription was made.
    received: u64,
    /// Which connection it was made on.
    connects: u64,
    link: watch::Receiver<Link>,
    /// Of a former subscription.
    left: VecDeque<Message>,
}

impl Intake {
    /// Returns when the server knows of the subscription.
    pub(super) async fn open(nats: &Nats, below: &str, group: &str) -> Result<Self, NatsError> {
        let (subject, link, connects) = (nats.subject(below), nats.link(), nats.connects());
        let subscriber = subscribe(nats, &subject, group).await?;
        nats.ping(READY_WITHIN).await?;
        Ok(Self {
            nats: nats.clone(),
            subject,
            group: group.to_owned(),
            subscriber,
            received: 0,
            connects,
            link,
            left: VecDeque::new(),
        })
    }

    /// Takes messages until it is to stop, then those that are on their way, then waits for the
    /// tasks.
    pub(super) fn run(
        mut self,
        stop: CancellationToken,
        tasks: TaskTracker,
        mut take: impl FnMut(Message) + Send + 'static,
    ) -> Served {
        let token = stop.clone();
        let task = tokio::spawn(async move {
            loop {
                let message = tokio::select! {
                    biased;
                    () = token.cancelled() => None,
                    message = self.next() => message,
                };
                match message {
                    Some(message) => take(message),
                    None => break,
                }
            }
            let nats = self.nats.clone();
            self.leave(take).await;
            tasks.close();
            tasks.wait().await;
            nats.flush().await;
        });
        Served { stop, task: Some(task) }
    }

    /// The next message; nothing when the connection was closed. Cancel-safe.
    async fn next(&mut self) -> Option<Message> {
        loop {
            if let Some(message) = self.left.pop_front() {
                return Some(message);
            }
            tokio::select! {
                biased;
                message = self.subscriber.next() => {
                    let message = message?;
                    self.received += 1;
                    if !is_filler(&message) {
                        return Some(message);
                    }
                }
                changed = self.link.changed() => {
                    changed.ok()?;
                    self.renew().await;
                }
            }
        }
    }

    /// Subscribes anew where the connection is lost, so that both sides count from the same message
    /// on. While it is away that loses nothing; where it is back already, the old subscription ends
    /// as well as the client library can.
    async fn renew(&mut self) {
        let (up, connects) = (self.nats.is_connected(), self.nats.connects());
        // What is subscribed while it is away is on the next connection.
        let next = connects + u64::from(!up);
        if next == self.connects || self.nats.is_closed() {
            return;
        }
        match subscribe(&self.nats, &self.subject, &self.group).await {
            Ok(fresh) => {
                let old = std::mem::replace(&mut self.subscriber, fresh);
                (self.connects, self.received) = (next, 0);
                self.left.extend(end(old, up).await);
            }
            Err(error) => tracing::warn!(%error, "serving goes on with an old subscription"),
        }
    }

    async fn leave(self, mut take: impl FnMut(Message)) {
        self.left.into_iter().for_each(&mut take);
        if self.nats.connects() == self.connects {
            leave(&self.nats, self.subscriber, &self.subject, self.received, None, take).await;
        } else {
            let up = self.nats.is_connected();
            end(self.subscriber, up).await.into_iter().for_each(take);
        }
    }
}

/// Ends a subscription of a lost connection; gives what has come, and where it was made again on
/// the next one most of what is on its way.
async fn end(mut subscriber: Subscriber, up: bool) -> Vec<Message> {
    let mut left = Vec::new();
    let ending = async {
        if up && subscriber.drain().await.is_ok() {
            while let Some(message) = subscriber.next().await {
                left.push(message);
            }
        }
    };
    if tokio::time::timeout(END_WITHIN, ending).await.is_err() {
        tracing::debug!("a subscription of a lost connection ended at once");
    }
    while let Some(Some(message)) = tokio::task::unconstrained(subscriber.next()).now_or_never() {
        left.push(message);
    }
    left.retain(|message| !is_filler(message));
    left
}

async fn subscribe(nats: &Nats, subject: &str, group: &str) -> Result<Subscriber, NatsError> {
    let subscribed = nats.client().queue_subscribe(subject.to_owned(), group.to_owned()).await;
    subscribed.map_err(|error| NatsError::Setting(format!("{subject}: {error}")))
}
