//! Work queues on servers that stop, forget and come back.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use chassis::bus::{Consumer, PublishError};
use chassis::scratch::nats::{ScratchNats, nats_options};

use crate::queue::{Setting, message, number, publish};
use crate::wait::{LONG, soon, until};

/// How long a puller may take to notice that something is missing, and to make it.
const FEW_SECONDS: Duration = Duration::from_secs(6);

/// Publishes again and again until the queue has it; how long that took.
async fn publish_at_last(setting: &Setting, n: usize) -> Duration {
    let began = Instant::now();
    soon("the queue takes it", async {
        while setting.queue.publish(vec![message(n)]).await != [Ok(())] {
            tokio::task::yield_now().await;
        }
    })
    .await;
    began.elapsed()
}

/// Waits in a pull, meanwhile does something, and expects a message then.
async fn pulled_after(consumer: &mut Consumer, n: usize, meanwhile: impl Future<Output = ()>) {
    let pull = async { soon("it", consumer.pull(8)).await };
    let after = async {
        meanwhile.await;
        Instant::now()
    };
    let (got, began) = tokio::join!(pull, after);
    assert!(got.iter().map(number).eq([n]), "{got:?}");
    assert!(began.elapsed() < FEW_SECONDS, "{:?}", began.elapsed());
    got[0].ack().await;
}

#[tokio::test]
async fn a_consumer_that_is_deleted_under_a_pull_is_made_anew() {
    let setting = Setting::with(&nats_options()).await;
    let mut consumer = setting.consumer(LONG).await;
    for n in 0..3 {
        pulled_after(&mut consumer, n, async {
            let stream = setting.server.get_stream(&setting.stream).await.expect("it is there");
            until("somebody waits", async || {
                stream.consumer_info("workers").await.is_ok_and(|info| info.num_waiting > 0)
            })
            .await;
            stream.delete_consumer("workers").await.expect("it can be deleted");
            publish(&setting.queue, n..n + 1).await;
        })
        .await;
    }
}

#[tokio::test]
async fn a_stream_that_is_deleted_under_a_pull_is_made_anew() {
    let setting = Setting::with(&nats_options()).await;
    let mut consumer = setting.consumer(LONG).await;
    for n in 0..3 {
        pulled_after(&mut consumer, n, async {
            setting.server.delete_stream(&setting.stream).await.expect("it can be deleted");
            // Whoever publishes makes it, or the puller did already.
            publish(&setting.queue, n..n + 1).await;
        })
        .await;
        let _ = setting.depth().await;
    }
    setting.server.delete_stream(&setting.stream).await.expect("it can be deleted");
    assert_eq!(setting.queue.holds("tasks.a.7").await, Ok(false));
}

#[tokio::test]
async fn a_store_that_is_wiped_is_made_anew() {
    let mut nats = ScratchNats::start().await;
    let setting = Setting::with(&nats.options()).await;
    let mut consumer = setting.consumer(LONG).await;
    publish(&setting.queue, 0..5).await;
    let held = soon("some", consumer.pull(2)).await;
    nats.wipe().await;
    soon("it comes back", async { while setting.nats.ping(LONG).await.is_err() {} }).await;
    pulled_after(&mut consumer, 7, async {
        let took = publish_at_last(&setting, 7).await;
        assert!(took < FEW_SECONDS, "{took:?}");
    })
    .await;
    // Of what is lost, an acknowledgement does no harm.
    held[0].ack().await;
    until("it is empty", async || setting.depth().await == 0).await;
}

#[tokio::test]
async fn while_a_server_is_down_publishing_fails_fast_and_pulling_waits() {
    let mut nats = ScratchNats::start().await;
    let setting = Setting::with(&nats.options()).await;
    let mut consumer = setting.consumer(Duration::from_secs(1)).await;
    publish(&setting.queue, 0..3).await;
    let first = soon("the first", consumer.pull(1)).await.remove(0);
    nats.kill().await;
    until("it notices", async || !setting.nats.is_connected()).await;
    let began = Instant::now();
    let results = setting.queue.publish((3..50).map(message).collect()).await;
    assert!(began.elapsed() < Duration::from_secs(4), "{:?}", began.elapsed());
    for result in results {
        assert!(matches!(result, Err(PublishError::Unavailable(_))), "{result:?}");
    }
    assert!(setting.queue.holds("tasks.a.1").await.is_err());
    let pull = tokio::time::timeout(Duration::from_secs(3), consumer.pull(8)).await;
    assert!(pull.is_err(), "{pull:?}");
    nats.restart().await;
    let began = Instant::now();
    let mut got = BTreeSet::from([number(&first)]);
    first.ack().await;
    while got.len() < 3 {
        for delivery in soon("the rest", consumer.pull(8)).await {
            delivery.ack().await;
            got.insert(number(&delivery));
        }
    }
    assert!(began.elapsed() < FEW_SECONDS, "{:?}", began.elapsed());
    until("it is empty", async || setting.depth().await == 0).await;
    publish_at_last(&setting, 50).await;
    assert_eq!(number(&soon("it", consumer.pull(1)).await[0]), 50);
}

#[tokio::test]
async fn a_server_that_is_frozen_is_waited_for() {
    let nats = ScratchNats::start().await;
    let setting = Setting::with(&nats.options()).await;
    let mut consumer = setting.consumer(Duration::from_secs(1)).await;
    nats.freeze().await;
    let began = Instant::now();
    let results = setting.queue.publish((0..5).map(message).collect()).await;
    assert!(began.elapsed() < Duration::from_secs(7), "{:?}", began.elapsed());
    for result in results {
        assert!(matches!(result, Err(PublishError::Unavailable(_))), "{result:?}");
    }
    let pull = tokio::time::timeout(Duration::from_secs(5), consumer.pull(8)).await;
    assert!(pull.is_err(), "{pull:?}");
    nats.thaw().await;
    let began = Instant::now();
    // What wasn't acknowledged in time may be there all the same; the id keeps it one message.
    publish_at_last(&setting, 4).await;
    let mut got = Vec::new();
    while got.last() != Some(&4) {
        got.extend(soon("them", consumer.pull(1)).await.iter().map(number));
    }
    assert!(began.elapsed() < FEW_SECONDS, "{:?}", began.elapsed());
}
