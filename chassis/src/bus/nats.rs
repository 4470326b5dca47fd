//! The connection to NATS.

use std::path::PathBuf;
use std::time::Duration;

use bytes::Bytes;
use futures::stream::BoxStream;

/// How to reach the servers.
#[derive(Debug, Clone)]
pub struct NatsOptions {
    /// One or more, as in `nats://127.0.0.1:4222,nats://127.0.0.1:4223`.
    pub url: String,
    /// A `.creds` file, where the servers ask for one.
    pub credentials: Option<PathBuf>,
    /// Certificates (PEM) that the servers' are signed with, where those of the system don't do.
    pub ca_file: Option<PathBuf>,
    /// What the servers show of this connection.
    pub name: String,
    /// The first part of every subject, and in capitals of every stream.
    pub prefix: String,
    /// Copies of each stream, in a cluster of servers.
    pub replicas: usize,
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

/// A connection that comes back by itself. Clones share it.
#[derive(Clone)]
pub struct Nats {
    client: async_nats::Client,
    prefix: String,
    replicas: usize,
}

impl Nats {
    /// Connects, or fails after a few seconds. Once connected it reconnects for ever.
    pub async fn connect(options: &NatsOptions) -> Result<Self, NatsError> {
        unimplemented!("{options:?}")
    }

    /// Whether the connection stands at the moment.
    pub fn is_connected(&self) -> bool {
        unimplemented!()
    }

    /// A round trip to the server.
    pub async fn ping(&self, within: Duration) -> Result<(), NatsError> {
        unimplemented!("{within:?}")
    }

    /// Tells whoever listens now; nobody is told later. The subject stands below the prefix.
    pub async fn tell(&self, subject: &str, body: Bytes) -> Result<(), NatsError> {
        unimplemented!("{subject}{body:?}")
    }

    /// Listens to what is told from now on. Lasts over reconnects, but may miss messages.
    pub async fn listen(&self, subject: &str) -> Result<BoxStream<'static, Bytes>, NatsError> {
        unimplemented!("{subject}")
    }

    /// Sends what is queued and ends the connection.
    pub async fn close(&self) {
        unimplemented!()
    }
}
