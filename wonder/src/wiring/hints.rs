//! Hints between processes: that there are new events, that shards are free. Nothing depends on
//! them; without them everybody finds out a little later.

use std::sync::Arc;

use bytes::Bytes;
use chassis::bus::Nats;
use chassis::journal::PostgresJournal;
use chassis::shards::Shards;
use futures::StreamExt;
use protocol::remote::{JOURNAL_HEAD, SHARDS_RELEASED};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

/// Tells how far this process has written the journal; while one hint is on its way, the later
/// ones become one.
pub(super) async fn tell_head(
    nats: Nats,
    mut committed: watch::Receiver<u64>,
    stop: CancellationToken,
) {
    loop {
        tokio::select! {
            () = stop.cancelled() => return,
            changed = committed.changed() => {
                if changed.is_err() {
                    return;
                }
            }
        }
        let position = *committed.borrow_and_update();
        tell(&nats, JOURNAL_HEAD, Bytes::from(position.to_string())).await;
    }
}

/// Listens to how far other processes have written the journal.
pub(super) async fn hear_head(nats: Nats, journal: Arc<PostgresJournal>, stop: CancellationToken) {
    let hear = |body: Bytes| {
        let position = std::str::from_utf8(&body).ok().and_then(|text| text.parse().ok());
        if let Some(position) = position {
            journal.hear(position);
        }
    };
    listen(&nats, JOURNAL_HEAD, stop, hear).await;
}

/// Listens to shards that become free.
pub(super) async fn of_shards(nats: Nats, shards: Arc<Shards>, stop: CancellationToken) {
    listen(&nats, SHARDS_RELEASED, stop, |_| shards.look()).await;
}

/// Tells whenever shards were handed over.
pub(super) async fn tell_of_shards(nats: Nats, shards: Arc<Shards>, stop: CancellationToken) {
    loop {
        tokio::select! {
            () = stop.cancelled() => return,
            () = shards.released() => tell_released(&nats).await,
        }
    }
}

pub(super) async fn tell_released(nats: &Nats) {
    tell(nats, SHARDS_RELEASED, Bytes::new()).await;
}

async fn tell(nats: &Nats, subject: &str, body: Bytes) {
    if let Err(error) = nats.tell(subject, body).await {
        tracing::debug!(subject, %error, "a hint could not be given");
    }
}

async fn listen(nats: &Nats, subject: &str, stop: CancellationToken, hear: impl Fn(Bytes)) {
    let mut hints = match nats.listen(subject).await {
        Ok(hints) => hints,
        Err(error) => {
            tracing::warn!(subject, %error, "hints can't be heard, polling instead");
            return;
        }
    };
    loop {
        tokio::select! {
            () = stop.cancelled() => return,
            hint = hints.next() => match hint {
                Some(body) => hear(body),
                None => return,
            },
        }
    }
}
