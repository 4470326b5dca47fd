//! Request and reply over NATS: with deadlines, in parts where a message would be too large, and
//! as streams that their reader paces.
//!
//! A small request is one message each way. Its deadline travels with it, as what is left of it,
//! so that clocks needn't agree; a server drops what is past it, and its own work at it. Bodies
//! larger than a message of the server may be (16 MiB at most) go in numbered parts, both ways.

mod client;
mod intake;
mod server;
mod stream_client;
mod stream_server;
mod wire;

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use futures::stream::BoxStream;

pub use intake::Served;

use super::nats::{Nats, NatsError};

/// Messages of a stream that may be ahead of its reader.
const WINDOW: u64 = 16;

/// Why a request has no answer.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RequestError {
    /// Nobody takes requests on the subject at the moment: it was not done, and may be asked again.
    #[error("nobody answers on {0}")]
    NoResponders(String),
    /// No answer within the deadline: whether it was done is unknown.
    #[error("no answer in time")]
    Timeout,
    /// Not connected, or those who answer have too much to do: it was not done. For a stream that
    /// was open: it ended before its end.
    #[error("nats is unavailable: {0}")]
    Unavailable(String),
    /// Larger than the bus carries. Where it is the answer, the request was done.
    #[error("a message of {bytes} bytes is too large")]
    TooLarge { bytes: usize },
}

/// Takes requests.
#[async_trait]
pub trait Handler: Send + Sync + 'static {
    /// Answers a request. Dropped at the deadline of whoever asked; one that panics answers
    /// nothing.
    async fn handle(&self, body: Bytes) -> Bytes;
}

/// Takes requests for streams.
#[async_trait]
pub trait StreamHandler: Send + Sync + 'static {
    /// Opens a stream. It is polled only as far as its reader takes messages, and dropped when the
    /// reader is gone.
    async fn open(&self, body: Bytes) -> BoxStream<'static, Bytes>;
}

impl Nats {
    /// Asks, and waits for the answer until the deadline.
    ///
    /// While the connection is away it fails within two seconds. A request that is caught on its
    /// way when the connection breaks may be done later all the same: that is a
    /// [`RequestError::Timeout`].
    pub async fn request(
        &self,
        subject: &str,
        body: Bytes,
        deadline: Duration,
    ) -> Result<Bytes, RequestError> {
        let arrived = client::ask(self, subject, body, None, wire::until(deadline)).await?;
        Ok(arrived.body())
    }

    /// Serves requests, at most `concurrency` at a time, shared with others of the same group.
    ///
    /// Further ones wait within their deadline, four times as many (at least 64) with 64 MiB in
    /// all; beyond that they are refused at once, as [`RequestError::Unavailable`]. Of requests in
    /// parts four are under way at a time.
    pub async fn serve(
        &self,
        subject: &str,
        group: &str,
        handler: Arc<dyn Handler>,
        concurrency: usize,
    ) -> Result<Served, NatsError> {
        server::serve(self, subject, group, handler, concurrency).await
    }

    /// Opens a stream. Its messages are fetched as the reader takes them, up to 16 ahead; it ends
    /// with an error where the far side is gone (six seconds after its last sign of life).
    pub async fn open_stream(
        &self,
        subject: &str,
        body: Bytes,
    ) -> Result<BoxStream<'static, Result<Bytes, RequestError>>, RequestError> {
        stream_client::open(self, subject, body).await
    }

    /// Serves streams, at most `concurrency` at a time; further ones are refused at once, as
    /// [`RequestError::Unavailable`].
    pub async fn serve_streams(
        &self,
        subject: &str,
        group: &str,
        handler: Arc<dyn StreamHandler>,
        concurrency: usize,
    ) -> Result<Served, NatsError> {
        stream_server::serve(self, subject, group, handler, concurrency).await
    }
}
