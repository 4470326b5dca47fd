//! Ephemeral messages, as workers tell them over NATS.

use async_trait::async_trait;
use bytes::Bytes;
use futures::stream::{self, BoxStream, StreamExt as _};
use protocol::remote::{LISTENING, LISTENING_EVERY, ephemeral_subject};
use protocol::{Ephemeral, EphemeralFilter, EphemeralSource, Rejection};
use tokio::sync::mpsc;
use tokio::time::{Instant, interval_at};

use super::{Remote, unavailable};

/// Messages that wait for a reader; what comes then is lost.
const WAITING: usize = 256;

#[async_trait]
impl EphemeralSource for Remote {
    async fn listen(
        &self,
        filter: EphemeralFilter,
    ) -> Result<BoxStream<'static, Ephemeral>, Rejection> {
        // Said first: when the server has answered that it listens, it has passed that on.
        self.nats.tell_now(LISTENING, Bytes::new());
        let subject = ephemeral_subject(filter.workspace_id, filter.run_id);
        let told = self.nats.listen(&subject).await.map_err(|error| {
            tracing::warn!(%error, "can't listen to ephemeral messages");
            unavailable("ephemeral messages can't be followed at the moment: try again")
        })?;
        let (sender, receiver) = mpsc::channel(WAITING);
        tokio::spawn(pass_on(self.clone(), filter, told, sender));
        let receive = |mut receiver: mpsc::Receiver<Ephemeral>| async move {
            receiver.recv().await.map(|message| (message, receiver))
        };
        Ok(stream::unfold(receiver, receive).boxed())
    }
}

/// Passes on what is told, and says again and again that somebody listens, until nobody does. What
/// a slow reader doesn't take must not gather in the connection, so it is taken from there at once.
async fn pass_on(
    remote: Remote,
    filter: EphemeralFilter,
    mut told: BoxStream<'static, Bytes>,
    sender: mpsc::Sender<Ephemeral>,
) {
    let mut again = interval_at(Instant::now() + LISTENING_EVERY, LISTENING_EVERY);
    loop {
        tokio::select! {
            () = sender.closed() => return,
            _ = again.tick() => remote.still_listens(),
            body = told.next() => {
                let Some(body) = body else { return };
                // Another release may tell what isn't known here.
                let Ok(message) = serde_json::from_slice::<Ephemeral>(&body) else { continue };
                if filter.holds(&message) && sender.try_send(message).is_err() {
                    metrics::counter!("wonder_ephemeral_lost_total").increment(1);
                }
            }
        }
    }
}

impl Remote {
    /// Says so, once for all that listen here.
    fn still_listens(&self) {
        let mut said = self.said.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        if said.is_none_or(|said| said.elapsed() >= LISTENING_EVERY / 2) {
            *said = Some(Instant::now());
            self.nats.tell_now(LISTENING, Bytes::new());
        }
    }
}
