//! Waiting for conditions, within a bound; and clients that speak by hand.

use std::future::Future;
use std::time::Duration;

use async_nats::{Client, Subscriber};
use bytes::Bytes;
use chassis::bus::NatsOptions;

/// How long anything may take here.
pub(crate) const LONG: Duration = Duration::from_secs(20);

/// Waits until something holds.
#[track_caller]
pub(crate) fn until<F, R>(what: &str, mut holds: F) -> impl Future<Output = ()>
where
    F: FnMut() -> R,
    R: Future<Output = bool>,
{
    soon(what, async move {
        let mut look = tokio::time::interval(Duration::from_millis(5));
        loop {
            look.tick().await;
            if holds().await {
                return;
            }
        }
    })
}

/// Waits for something that has to come.
#[track_caller]
pub(crate) fn soon<T>(what: &str, it: impl Future<Output = T>) -> impl Future<Output = T> {
    let caller = std::panic::Location::caller();
    async move {
        match tokio::time::timeout(LONG, it).await {
            Ok(value) => value,
            Err(_) => panic!("{caller}: not within {LONG:?}: {what}"),
        }
    }
}

/// A client of the library's own, that gets the messages of a subject.
pub(crate) async fn by_hand(options: &NatsOptions, subject: &str) -> (Client, Subscriber) {
    let client = async_nats::connect(&options.url).await.expect("it is there");
    let subscriber = client.subscribe(format!("{}.{subject}", options.prefix)).await;
    // The answer that nobody is there says that the server knows the subscription.
    let nobody = client.request(client.new_inbox(), Bytes::new()).await;
    nobody.expect_err("nobody answers there");
    (client, subscriber.expect("it subscribes"))
}
