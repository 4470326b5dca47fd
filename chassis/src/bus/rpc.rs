//! Request and reply over NATS: with deadlines, in parts where a message would be too large, and
//! as streams that their reader paces.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use futures::stream::BoxStream;

use super::nats::{Nats, NatsError};

/// Why a request has no answer.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RequestError {
    /// Nobody takes requests on the subject at the moment: it was not done, and may be asked again.
    #[error("nobody answers on {0}")]
    NoResponders(String),
    /// No answer within the deadline: whether it was done is unknown.
    #[error("no answer in time")]
    Timeout,
    #[error("nats is unavailable: {0}")]
    Unavailable(String),
    /// Larger than the bus carries.
    #[error("a message of {bytes} bytes is too large")]
    TooLarge { bytes: usize },
}

/// Takes requests.
#[async_trait]
pub trait Handler: Send + Sync + 'static {
    async fn handle(&self, body: Bytes) -> Bytes;
}

/// Takes requests for streams.
#[async_trait]
pub trait StreamHandler: Send + Sync + 'static {
    async fn open(&self, body: Bytes) -> BoxStream<'static, Bytes>;
}

/// A subject that is served.
pub struct Served {}

impl Served {
    /// Takes no more requests, and returns when those under way are answered. Open streams end.
    pub async fn stop(self) {
        unimplemented!()
    }
}

impl Nats {
    /// Asks, and waits for the answer until the deadline.
    pub async fn request(
        &self,
        subject: &str,
        body: Bytes,
        deadline: Duration,
    ) -> Result<Bytes, RequestError> {
        unimplemented!("{subject}{body:?}{deadline:?}")
    }

    /// Serves requests, at most `concurrency` at a time, shared with others of the same group.
    pub async fn serve(
        &self,
        subject: &str,
        group: &str,
        handler: Arc<dyn Handler>,
        concurrency: usize,
    ) -> Result<Served, NatsError> {
        let _ = handler;
        unimplemented!("{subject}{group}{concurrency:?}")
    }

    /// Opens a stream. Its messages are fetched as the reader takes them; it ends with an error
    /// where the far side is gone.
    pub async fn open_stream(
        &self,
        subject: &str,
        body: Bytes,
    ) -> Result<BoxStream<'static, Result<Bytes, RequestError>>, RequestError> {
        unimplemented!("{subject}{body:?}")
    }

    /// Serves streams, at most `concurrency` at a time.
    pub async fn serve_streams(
        &self,
        subject: &str,
        group: &str,
        handler: Arc<dyn StreamHandler>,
        concurrency: usize,
    ) -> Result<Served, NatsError> {
        let _ = handler;
        unimplemented!("{subject}{group}{concurrency:?}")
    }
}
