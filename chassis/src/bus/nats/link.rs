//! Whether the connection stands, and how often it was made.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use async_nats::Client;
use async_nats::connection::State;
use tokio::sync::{Notify, watch};
use tokio_util::sync::CancellationToken;

/// The client's events get lost where they come fast, so that its state is also looked at.
const LOOK_EVERY: Duration = Duration::from_millis(100);

/// The connection as it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::bus) struct Link {
    pub(in crate::bus) up: bool,
    /// How often it was made; what a connection carried is gone with it.
    pub(in crate::bus) connects: u64,
}

impl Link {
    fn of(client: &Client) -> Self {
        let up = client.connection_state() == State::Connected;
        Self { up, connects: connects(client) }
    }
}

/// How often a client connected.
pub(super) fn connects(client: &Client) -> u64 {
    client.statistics().connects.load(Ordering::Relaxed)
}

/// Follows a connection until it is closed, and logs each change.
pub(super) fn follow(
    client: Client,
    name: &str,
    wake: Arc<Notify>,
    closed: CancellationToken,
) -> watch::Receiver<Link> {
    let (sender, receiver) = watch::channel(Link::of(&client));
    let gauge = metrics::gauge!("nats_connected", "connection" => name.to_owned());
    tell(&client, *receiver.borrow(), &gauge);
    // Not awaited: it ends with the connection.
    tokio::spawn(async move {
        loop {
            tokio::select! {
                () = closed.cancelled() => break,
                () = wake.notified() => {}
                () = tokio::time::sleep(LOOK_EVERY) => {}
            }
            let link = Link::of(&client);
            if sender.send_if_modified(|old| std::mem::replace(old, link) != link) {
                tell(&client, link, &gauge);
            }
        }
        gauge.set(0.0);
    });
    receiver
}

fn tell(client: &Client, link: Link, gauge: &metrics::Gauge) {
    gauge.set(if link.up { 1.0 } else { 0.0 });
    if link.up {
        let server = client.server_info();
        let (version, connects) = (server.version.as_str(), link.connects);
        tracing::info!(server = server.server_name, version, connects, "connected to nats");
    } else {
        tracing::warn!("disconnected from nats");
    }
}
