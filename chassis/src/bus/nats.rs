//! The connection to NATS.

mod api;
mod connect;
mod inbox;
mod leave;
mod link;
mod parts;

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use async_nats::Subscriber;
use async_nats::client::traits::Publisher;
use async_nats::connection::State;
use async_nats::message::OutboundMessage;
use bytes::Bytes;
use futures::stream::BoxStream;
use futures::{FutureExt, StreamExt};
use serde::{Deserialize, Serialize};
use tokio::sync::watch;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

pub(super) use inbox::{Answer, Arrived, Follow, Inbox, NotArrived};
pub(super) use leave::{is_filler, leave};
pub(super) use link::Link;
pub(super) use parts::{LARGEST, Part, split};

/// How long something that needs the connection waits for it to come back.
const GRACE: Duration = Duration::from_secs(2);
/// How long a message may wait for the connection's queue.
const QUEUE_WITHIN: Duration = Duration::from_secs(2);

/// How to reach the servers.
#[derive(Clone)]
pub struct NatsOptions {
    /// One or more, as in `nats://127.0.0.1:4222,nats://127.0.0.1:4223`; `tls://` asks for TLS.
    /// `nats://user:password@host` or `nats://token@host` signs in, the same way at all of them.
    pub url: String,
    /// A `.creds` file, where the servers ask for one.
    pub credentials: Option<PathBuf>,
    /// Certificates (PEM) that the servers' are signed with, where those of the system don't do.
    pub ca_file: Option<PathBuf>,
    /// What the servers show of this connection.
    pub name: String,
    /// The first part of every subject, and in capitals of every stream. ASCII letters, digits,
    /// `-` and `_`.
    pub prefix: String,
    /// Copies of each stream, in a cluster of servers.
    pub replicas: usize,
    /// Where the servers keep tasks, which are handed out again where they were lost; see
    /// [`WorkQueueOptions::storage`](super::WorkQueueOptions::storage).
    pub task_storage: Option<Storage>,
}

/// Where the servers keep a stream's messages.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Storage {
    /// They are there again after a restart.
    File,
    /// They are lost where all servers that have them restart, and cost less until then.
    Memory,
}

impl NatsOptions {
    /// For a URL, with everything else as it is by default.
    pub fn new(url: impl Into<String>) -> Self {
        Self {
            url: url.into(),
            credentials: None,
            ca_file: None,
            name: "wonder".into(),
            prefix: "wonder".into(),
            replicas: 1,
            task_storage: None,
        }
    }
}

/// Without the URL, which may hold a password.
impl fmt::Debug for NatsOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("NatsOptions")
            .field("credentials", &self.credentials)
            .field("ca_file", &self.ca_file)
            .field("name", &self.name)
            .field("prefix", &self.prefix)
            .field("replicas", &self.replicas)
            .field("task_storage", &self.task_storage)
            .finish_non_exhaustive()
    }
}

/// Why something with NATS failed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NatsError {
    #[error("nats is unavailable: {0}")]
    Unavailable(String),
    #[error("nats has {what} otherwise than asked for: {difference}")]
    Different { what: String, difference: String },
    #[error("the setting for nats is unusable: {0}")]
    Setting(String),
}

/// A connection that comes back by itself. Clones share it; it ends with [`Nats::close`] or with
/// the last clone and what was made of it.
#[derive(Clone)]
pub struct Nats {
    inner: Arc<Inner>,
}

struct Inner {
    client: async_nats::Client,
    prefix: String,
    replicas: usize,
    task_storage: Option<Storage>,
    link: watch::Receiver<Link>,
    inbox: Inbox,
    closed: CancellationToken,
}

impl Drop for Inner {
    fn drop(&mut self) {
        self.closed.cancel();
    }
}

impl fmt::Debug for Nats {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Nats").field("prefix", &self.inner.prefix).finish_non_exhaustive()
    }
}

impl Nats {
    /// Connects, or fails after about five seconds. Once connected it reconnects for ever.
    pub async fn connect(options: &NatsOptions) -> Result<Self, NatsError> {
        let (client, wake) = connect::connect(options).await?;
        let closed = CancellationToken::new();
        let link = link::follow(client.clone(), &options.name, wake, closed.clone());
        let inbox = Inbox::open(&client, closed.clone())
            .await
            .map_err(|error| NatsError::Unavailable(error.to_string()))?;
        let (prefix, replicas) = (options.prefix.clone(), options.replicas.max(1));
        let task_storage = options.task_storage;
        let inner = Inner { client, prefix, replicas, task_storage, link, inbox, closed };
        let nats = Self { inner: Arc::new(inner) };
        // Says also that answers come: what isn't permitted is silently ignored.
        nats.ping(GRACE).await?;
        Ok(nats)
    }

    /// Where tasks are to be kept.
    pub(super) fn task_storage(&self) -> Option<Storage> {
        self.inner.task_storage
    }

    /// Whether the connection stands at the moment.
    pub fn is_connected(&self) -> bool {
        !self.is_closed() && self.inner.client.connection_state() == State::Connected
    }

    /// A round trip to the server.
    pub async fn ping(&self, within: Duration) -> Result<(), NatsError> {
        let until = Instant::now() + within;
        self.connected(until).await?;
        let answer = self.inbox().answer().map_err(|error| error.unavailable())?;
        let to = answer.subject.clone();
        self.send(outbound(to, None, Bytes::new())).await?;
        match tokio::time::timeout_at(until, answer.arrived()).await {
            Ok(Ok(_)) => Ok(()),
            Ok(Err(error)) => Err(error.unavailable()),
            Err(_) => Err(NatsError::Unavailable("no answer to a ping in time".into())),
        }
    }

    /// Tells whoever listens now; nobody is told later. The subject stands below the prefix.
    ///
    /// Fails while the connection is away: nothing is kept for later.
    pub async fn tell(&self, subject: &str, body: Bytes) -> Result<(), NatsError> {
        if !self.is_connected() {
            return Err(NatsError::Unavailable("not connected".into()));
        }
        self.send(outbound(self.subject(subject), None, body)).await
    }

    /// The same without waiting, and without word of what became of it: what the connection doesn't
    /// take at once is lost.
    pub fn tell_now(&self, subject: &str, body: Bytes) {
        if self.is_connected() {
            self.send_now(outbound(self.subject(subject), None, body));
        }
    }

    /// Listens to what is told from now on. Lasts over reconnects, but may miss messages: those
    /// told while the connection was away, and where 16,384 wait already.
    pub async fn listen(&self, subject: &str) -> Result<BoxStream<'static, Bytes>, NatsError> {
        Ok(self.subscribe(subject).await?.map(|message| message.payload).boxed())
    }

    /// The same, with all of each message.
    pub(super) async fn subscribe(&self, subject: &str) -> Result<Subscriber, NatsError> {
        let subscriber = self.client().subscribe(self.subject(subject)).await;
        let subscriber = subscriber.map_err(|error| NatsError::Setting(error.to_string()))?;
        // The server handles one connection's messages in order: after an answer it listens.
        self.ping(GRACE).await?;
        Ok(subscriber)
    }

    /// Sends what is queued and ends the connection.
    pub async fn close(&self) {
        self.flush().await;
        self.inner.closed.cancel();
        if self.inner.client.drain().await.is_err() {
            tracing::debug!("the connection to nats was closed already");
        }
    }

    /// Returns when what was sent is on the wire, or after a while.
    pub(super) async fn flush(&self) {
        if !self.is_connected() {
            return;
        }
        if tokio::time::timeout(QUEUE_WITHIN, self.inner.client.flush()).await.is_err() {
            tracing::warn!("what was sent to nats may be lost: it doesn't take it");
        }
    }

    pub(super) fn is_closed(&self) -> bool {
        self.inner.closed.is_cancelled()
    }

    pub(super) fn client(&self) -> &async_nats::Client {
        &self.inner.client
    }

    pub(super) fn inbox(&self) -> &Inbox {
        &self.inner.inbox
    }

    /// What became of the connection; changes when it comes or goes.
    pub(super) fn link(&self) -> watch::Receiver<Link> {
        self.inner.link.clone()
    }

    /// How often it connected until now.
    pub(super) fn connects(&self) -> u64 {
        link::connects(&self.inner.client)
    }

    pub(super) fn replicas(&self) -> usize {
        self.inner.replicas
    }

    /// A subject below the prefix.
    pub(super) fn subject(&self, below: &str) -> String {
        format!("{}.{below}", self.inner.prefix)
    }

    /// What stands below the prefix.
    pub(super) fn below<'a>(&self, subject: &'a str) -> &'a str {
        let rest = subject.strip_prefix(self.inner.prefix.as_str());
        rest.and_then(|rest| rest.strip_prefix('.')).unwrap_or(subject)
    }

    /// The name of a stream.
    pub(super) fn stream(&self, name: &str) -> String {
        format!("{}_{name}", self.inner.prefix.to_uppercase())
    }

    /// Bytes of a body that fit into one message, beside our headers.
    pub(super) fn room(&self) -> usize {
        parts::room(self.inner.client.max_payload())
    }

    /// Returns once connected, at the latest at a time and after the grace that a reconnect gets.
    pub(super) async fn connected(&self, until: Instant) -> Result<(), NatsError> {
        if self.is_connected() {
            return Ok(());
        }
        let until = until.min(Instant::now() + GRACE);
        let mut link = self.link();
        while !self.is_connected() {
            if self.is_closed() {
                return Err(NatsError::Unavailable("the connection is closed".into()));
            }
            match tokio::time::timeout_at(until, link.changed()).await {
                Ok(Ok(())) => {}
                Ok(Err(_)) => return Err(NatsError::Unavailable("the connection ended".into())),
                Err(_) => return Err(NatsError::Unavailable("not connected".into())),
            }
        }
        Ok(())
    }

    /// Hands a message to the connection if it takes it at once; else it is lost.
    pub(super) fn send_now(&self, message: OutboundMessage) {
        let sending = tokio::task::unconstrained(self.inner.client.publish_message(message));
        if !matches!(sending.now_or_never(), Some(Ok(()))) {
            tracing::debug!("a message for nats was dropped: the connection takes nothing");
        }
    }

    /// Hands a message to the connection. Cancel-safe: a dropped call hasn't sent it.
    pub(super) async fn send(&self, message: OutboundMessage) -> Result<(), NatsError> {
        let sending = self.inner.client.publish_message(message);
        match tokio::time::timeout(QUEUE_WITHIN, sending).await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(error)) => Err(match error.kind() {
                async_nats::PublishErrorKind::Send => NatsError::Unavailable("closed".into()),
                _ => NatsError::Setting(error.to_string()),
            }),
            Err(_) => Err(NatsError::Unavailable("the connection takes nothing".into())),
        }
    }
}

/// A message without headers.
pub(super) fn outbound(subject: String, reply: Option<String>, body: Bytes) -> OutboundMessage {
    OutboundMessage {
        subject: subject.into(),
        reply: reply.map(Into::into),
        payload: body,
        headers: None,
    }
}
