//! Ephemeral messages over NATS, while somebody has said to listen.

use std::sync::{Arc, Mutex, PoisonError};

use chassis::bus::{Nats, NatsError};
use futures::StreamExt as _;
use protocol::remote::{LISTENING, LISTENING_FOR, ephemeral_subject};
use protocol::{Ephemeral, EphemeralSink};
use tokio::time::Instant;
use tokio_util::sync::{CancellationToken, DropGuard};

/// When somebody last said so.
type Heard = Arc<Mutex<Option<Instant>>>;

/// Where a worker tells what goes on.
pub struct RemoteSink {
    nats: Nats,
    heard: Heard,
    _ends: DropGuard,
}

impl RemoteSink {
    /// Listens for who listens.
    ///
    /// # Errors
    /// Where NATS is away.
    pub async fn connect(nats: Nats) -> Result<Arc<Self>, NatsError> {
        let mut words = nats.listen(LISTENING).await?;
        let (heard, ends) = (Heard::default(), CancellationToken::new());
        let (noted, ended) = (Arc::clone(&heard), ends.clone());
        tokio::spawn(ended.run_until_cancelled_owned(async move {
            while words.next().await.is_some() {
                *noted.lock().unwrap_or_else(PoisonError::into_inner) = Some(Instant::now());
            }
        }));
        Ok(Arc::new(Self { nats, heard, _ends: ends.drop_guard() }))
    }
}

impl EphemeralSink for RemoteSink {
    fn is_heard(&self) -> bool {
        let last = *self.heard.lock().unwrap_or_else(PoisonError::into_inner);
        last.is_some_and(|last| last.elapsed() < LISTENING_FOR)
    }

    fn tell(&self, message: Ephemeral) {
        // Texts and numbers always have a JSON form.
        let body = serde_json::to_vec(&message).unwrap_or_default();
        let subject = ephemeral_subject(message.workspace_id, Some(message.run_id));
        self.nats.tell_now(&subject, body.into());
        metrics::counter!("wonder_ephemeral_told_total").increment(1);
    }
}
