//! What workers tell that no journal has, on its way to readers within one process.

use std::sync::Arc;

use async_trait::async_trait;
use futures::stream::{self, BoxStream, StreamExt as _};
use protocol::{Ephemeral, EphemeralFilter, EphemeralSink, EphemeralSource, Rejection};
use tokio::sync::broadcast::{self, error::RecvError};

/// Messages that wait for the slowest reader; it misses what came before them.
const WAITING: usize = 1_024;

/// Both ends.
pub(super) struct Ephemerals(broadcast::Sender<Arc<Ephemeral>>);

impl Default for Ephemerals {
    fn default() -> Self {
        Self(broadcast::channel(WAITING).0)
    }
}

impl EphemeralSink for Ephemerals {
    fn is_heard(&self) -> bool {
        self.0.receiver_count() > 0
    }

    fn tell(&self, message: Ephemeral) {
        if self.0.send(Arc::new(message)).is_ok() {
            metrics::counter!("wonder_ephemeral_told_total").increment(1);
        }
    }
}

#[async_trait]
impl EphemeralSource for Ephemerals {
    async fn listen(
        &self,
        filter: EphemeralFilter,
    ) -> Result<BoxStream<'static, Ephemeral>, Rejection> {
        let next = move |mut told: broadcast::Receiver<Arc<Ephemeral>>| async move {
            loop {
                match told.recv().await {
                    Ok(message) if filter.holds(&message) => {
                        return Some((Arc::unwrap_or_clone(message), told));
                    }
                    Ok(_) => {}
                    Err(RecvError::Lagged(missed)) => {
                        metrics::counter!("wonder_ephemeral_lost_total").increment(missed);
                    }
                    Err(RecvError::Closed) => return None,
                }
            }
        };
        Ok(stream::unfold(self.0.subscribe(), next).boxed())
    }
}
