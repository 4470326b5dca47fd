//! A bus that delivers what it carried again, later and in another order.

use std::time::Duration;

use async_nats::{Client, HeaderMap, Message};
use futures::StreamExt;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::wait::{Pace, within};

/// Marks an echo, so that it isn't echoed itself.
const MARK: &str = "Test-Echo";
/// Messages that are kept for later; an echo of an older one would say nothing new.
const KEPT: usize = 5_000;
/// How often some are delivered again.
const EVERY: Duration = Duration::from_millis(5);

/// Repeats the messages of some subjects until it is stopped.
#[derive(Debug)]
pub struct Echo {
    stop: CancellationToken,
    echoing: JoinHandle<u64>,
}

impl Echo {
    /// Begins with the messages that come from now on.
    ///
    /// # Panics
    /// Where NATS can't be reached.
    pub async fn start(url: &str, subjects: &[&str]) -> Self {
        let client = async_nats::connect(url).await.expect("the NATS server listens");
        let mut heard = Vec::new();
        for subject in subjects {
            let messages = client.subscribe((*subject).to_owned()).await;
            heard.push(messages.expect("subjects can be listened to"));
        }
        // Only what comes after this is known to be heard.
        client.flush().await.expect("the NATS server answers");
        let stop = CancellationToken::new();
        let messages = futures::stream::select_all(heard);
        let echoing = tokio::spawn(echo(client, messages.boxed(), stop.clone()));
        Self { stop, echoing }
    }

    /// Ends it; answers how many messages it repeated.
    pub async fn stop(self) -> u64 {
        self.stop.cancel();
        within("the echo to end", self.echoing).await.expect("it must not panic")
    }
}

async fn echo(
    client: Client,
    mut messages: futures::stream::BoxStream<'static, Message>,
    stop: CancellationToken,
) -> u64 {
    let mut pace = Pace::new(8);
    let mut bag: Vec<Message> = Vec::new();
    let mut ticks = tokio::time::interval(EVERY);
    let mut repeated = 0;
    loop {
        tokio::select! {
            () = stop.cancelled() => return repeated,
            Some(message) = messages.next() => {
                let is_echo = message.headers.as_ref().is_some_and(|it| it.get(MARK).is_some());
                if !is_echo && bag.len() < KEPT {
                    for _ in 0..=pace.below(4) {
                        bag.push(message.clone());
                    }
                }
            }
            _ = ticks.tick() => {
                for _ in 0..pace.below(4).min(bag.len() as u64) {
                    let place = pace.below(bag.len() as u64);
                    let message = bag.swap_remove(usize::try_from(place).expect("in the bag"));
                    let mut headers = HeaderMap::new();
                    headers.insert(MARK, "1");
                    let Message { subject, payload, .. } = message;
                    let again = client.publish_with_headers(subject, headers, payload);
                    if again.await.is_ok() {
                        repeated += 1;
                    }
                }
            }
        }
    }
}
