//! Work queues on a server that stays.

use std::borrow::Cow;
use std::collections::BTreeSet;
use std::time::Duration;

use async_nats::jetstream;
use bytes::Bytes;
use chassis::bus::{
    Consumer, ConsumerOptions, Delivery, Message, Nats, NatsError, PublishError, Storage,
    WorkQueue, WorkQueueOptions,
};
use chassis::scratch::nats::nats_options;

use crate::wait::{LONG, soon, until};

pub(crate) const OPTIONS: WorkQueueOptions = WorkQueueOptions {
    name: Cow::Borrowed("TASKS"),
    subjects: Cow::Borrowed("tasks.>"),
    max_bytes: 8 * 1024 * 1024,
    max_age: Duration::ZERO,
    storage: Some(Storage::File),
};

/// A queue, and the client library's own view of it.
pub(crate) struct Setting {
    pub(crate) nats: Nats,
    pub(crate) queue: WorkQueue,
    pub(crate) server: jetstream::Context,
    pub(crate) stream: String,
}

impl Setting {
    pub(crate) async fn with(options: &chassis::bus::NatsOptions) -> Self {
        let nats = Nats::connect(options).await.expect("it is there");
        let queue = WorkQueue::open(&nats, OPTIONS).await.expect("it opens");
        let client = async_nats::connect(&options.url).await.expect("it is there");
        let stream = format!("{}_TASKS", options.prefix.to_uppercase());
        Self { nats, queue, server: jetstream::new(client), stream }
    }

    async fn new() -> Self {
        Self::with(&nats_options()).await
    }

    pub(crate) async fn consumer(&self, ack_wait: Duration) -> Consumer {
        let options = ConsumerOptions {
            durable: "workers".into(),
            filter: "tasks.a.>".into(),
            ack_wait,
            max_ack_pending: 10_000,
        };
        self.queue.consumer(options).await.expect("it opens")
    }

    /// Messages in the queue.
    pub(crate) async fn depth(&self) -> u64 {
        let stream = self.server.get_stream(&self.stream).await.expect("it is there");
        stream.cached_info().state.messages
    }

    /// Deliveries that are not acknowledged, and requests that wait.
    async fn pending(&self) -> (usize, usize) {
        let stream = self.server.get_stream(&self.stream).await.expect("it is there");
        let info = stream.consumer_info("workers").await.expect("it is there");
        (info.num_ack_pending, info.num_waiting)
    }
}

pub(crate) fn message(n: usize) -> Message {
    let body = Bytes::from(n.to_string());
    Message { subject: format!("tasks.a.{n}"), id: format!("id-{n}"), body }
}

pub(crate) async fn publish(queue: &WorkQueue, numbers: impl Iterator<Item = usize>) {
    for result in queue.publish(numbers.map(message).collect()).await {
        assert_eq!(result, Ok(()));
    }
}

pub(crate) fn number(delivery: &Delivery) -> usize {
    let text = std::str::from_utf8(&delivery.body).expect("the tests send text");
    text.parse().expect("the tests send numbers")
}

#[tokio::test]
async fn what_is_acknowledged_leaves_the_queue() {
    let setting = Setting::new().await;
    publish(&setting.queue, 0..500).await;
    let mut consumer = setting.consumer(LONG).await;
    let mut got = Vec::new();
    while got.len() < 500 {
        for delivery in soon("more", consumer.pull(64)).await {
            assert_eq!(delivery.subject, format!("tasks.a.{}", number(&delivery)));
            assert_eq!(delivery.deliveries, 1);
            got.push(number(&delivery));
            delivery.ack().await;
        }
    }
    assert!(got.into_iter().eq(0..500));
    until("it is empty", async || setting.depth().await == 0).await;
    consumer.close().await;
}

#[tokio::test]
async fn what_is_not_acknowledged_comes_again_and_progress_keeps_it() {
    let setting = Setting::new().await;
    publish(&setting.queue, 0..2).await;
    let mut consumer = setting.consumer(Duration::from_millis(600)).await;
    let mut first = soon("both", consumer.pull(1)).await;
    first.extend(soon("both", consumer.pull(1)).await);
    let kept = first.swap_remove(0);
    let again = async {
        let again = soon("it again", consumer.pull(1)).await;
        assert_eq!((number(&again[0]), again[0].deliveries), (1, 2));
        again[0].ack().await;
        // Once more, after the time of another delivery.
        publish(&setting.queue, 2..3).await;
        let third = soon("it", consumer.pull(1)).await;
        let again = soon("it again", consumer.pull(1)).await;
        assert_eq!((number(&third[0]), number(&again[0]), again[0].deliveries), (2, 2, 2));
        again[0].ack().await;
    };
    let keep = async {
        let mut beat = tokio::time::interval(Duration::from_millis(100));
        loop {
            beat.tick().await;
            kept.progress().await;
        }
    };
    tokio::select! {
        () = again => {}
        () = keep => {}
    }
    // All the while the first one was nobody else's.
    kept.ack().await;
    until("it is empty", async || setting.depth().await == 0).await;
}

#[tokio::test]
async fn what_is_given_back_comes_again_at_once() {
    let setting = Setting::new().await;
    publish(&setting.queue, 0..1).await;
    let mut consumer = setting.consumer(Duration::from_secs(60)).await;
    for deliveries in 1..4 {
        let delivery = soon("it", consumer.pull(5)).await.remove(0);
        assert_eq!(delivery.deliveries, deliveries);
        delivery.nak().await;
    }
    let pulled = soon("it", consumer.pull(5)).await;
    assert_eq!(pulled.len(), 1);
    // Delivered, but not pulled.
    publish(&setting.queue, 1..3).await;
    until("they are delivered", async || setting.pending().await.0 == 3).await;
    consumer.close().await;
    // Long before their time is over.
    let mut other = setting.consumer(Duration::from_secs(60)).await;
    let mut got = BTreeSet::new();
    while got.len() < 2 {
        got.extend(soon("them", other.pull(5)).await.iter().map(number));
    }
    assert!(got.into_iter().eq(1..3));
}

#[tokio::test]
async fn never_more_than_the_limit_is_under_way() {
    let setting = Setting::new().await;
    let mut consumer = setting.consumer(LONG * 3).await;
    // Asked for, and given up.
    let given_up = tokio::time::timeout(Duration::from_millis(100), consumer.pull(8)).await;
    assert!(given_up.is_err());
    publish(&setting.queue, 0..100).await;
    until("they are delivered", async || setting.pending().await == (8, 0)).await;
    // What the server has sent on this connection has come before its answer.
    setting.nats.ping(LONG).await.expect("it answers");
    // With a smaller limit the rest goes to others, long before its time is over.
    let mut held = soon("two", consumer.pull(2)).await;
    assert!(held.iter().map(number).eq(0..2));
    let mut other = setting.consumer(LONG * 3).await;
    let mut given_back = BTreeSet::new();
    while given_back.len() < 6 {
        let got = soon("what was given back", other.pull(1)).await;
        // Nobody has vanished with it.
        assert!(got.iter().all(|one| one.deliveries == 1));
        given_back.extend(got.iter().map(number).filter(|number| *number < 8));
        held.extend(got);
    }
    assert!(given_back.into_iter().eq(2..8));
    publish(&setting.queue, 100..200).await;
    // What is given back still counts as pending, so that limits only grow here.
    for limit in [2, 3, 5, 40] {
        held.extend(soon("some", consumer.pull(limit)).await);
        let (pending, _) = setting.pending().await;
        assert!(pending <= held.len() + limit, "{pending} of {} for {limit}", held.len());
    }
}

#[tokio::test]
async fn a_call_that_is_given_up_loses_nothing() {
    let setting = Setting::new().await;
    let mut consumer = setting.consumer(Duration::from_secs(60)).await;
    let publisher = setting.queue.clone();
    let publishing = tokio::spawn(async move {
        for n in 0..300 {
            publish(&publisher, n..n + 1).await;
        }
    });
    let mut got = Vec::new();
    soon("all of them", async {
        while got.len() < 300 {
            let short = Duration::from_micros(300);
            if let Ok(some) = tokio::time::timeout(short, consumer.pull(7)).await {
                for delivery in some {
                    got.push(number(&delivery));
                    delivery.ack().await;
                }
            }
        }
    })
    .await;
    publishing.await.expect("no panic");
    got.sort_unstable();
    assert!(got.into_iter().eq(0..300));
}

#[tokio::test]
async fn a_repeated_id_is_one_message_and_a_queue_knows_what_it_holds() {
    let setting = Setting::new().await;
    assert_eq!(setting.queue.holds("tasks.a.0").await, Ok(false));
    publish(&setting.queue, [0, 0, 1, 0].into_iter()).await;
    assert_eq!(setting.depth().await, 2);
    assert_eq!(setting.queue.holds("tasks.a.0").await, Ok(true));
    assert_eq!(setting.queue.holds("tasks.a").await, Ok(false));
    let mut consumer = setting.consumer(LONG).await;
    let delivery = soon("it", consumer.pull(1)).await.remove(0);
    assert_eq!(setting.queue.holds("tasks.a.0").await, Ok(true));
    delivery.ack().await;
    until("it is gone", async || setting.queue.holds("tasks.a.0").await == Ok(false)).await;
    assert_eq!(setting.queue.holds("tasks.a.1").await, Ok(true));
}

#[tokio::test]
async fn what_does_not_fit_is_refused_and_may_be_published_again() {
    let setting = Setting::new().await;
    let of = |n: usize, bytes| Message { body: vec![0; bytes].into(), ..message(n) };
    let mib = 1024 * 1024;
    let messages: Vec<_> =
        (0..12).map(|n| of(n, if n == 3 { 2 * mib } else { mib - 2_048 })).collect();
    let results = setting.queue.publish(messages.clone()).await;
    assert_eq!(results[3], Err(PublishError::TooLarge { bytes: 2 * mib }));
    // Not for each message is it known which of a group the server has.
    let full = results.iter().filter(|result| **result == Err(PublishError::Full)).count();
    assert_eq!((full, setting.depth().await), (11, 8), "{results:?}");
    let mut consumer = setting.consumer(LONG).await;
    let mut got = Vec::new();
    for again in [messages.clone(), messages] {
        for delivery in soon("some of them", consumer.pull(8)).await {
            got.push(delivery.subject.clone());
            delivery.ack().await;
        }
        let rest = again.into_iter().filter(|message| message.body.len() < mib).collect();
        setting.queue.publish(rest).await;
    }
    while got.len() < 11 {
        for delivery in soon("the rest", consumer.pull(8)).await {
            got.push(delivery.subject.clone());
            delivery.ack().await;
        }
    }
    got.sort_unstable();
    got.dedup();
    assert_eq!(got.len(), 11, "each came once");
    assert!(setting.nats.is_connected());
    let elsewhere = Message { subject: "elsewhere".into(), ..message(0) };
    let results = setting.queue.publish(vec![elsewhere]).await;
    assert!(matches!(results[..], [Err(PublishError::Unavailable(_))]), "{results:?}");
}

#[tokio::test]
async fn settings_are_brought_up_to_date_or_refused() {
    let setting = Setting::new().await;
    let options = WorkQueueOptions { max_bytes: 1_000_000, ..OPTIONS };
    WorkQueue::open(&setting.nats, options.clone()).await.expect("the size can be changed");
    WorkQueue::open(&setting.nats, options).await.expect("nothing is to be changed");
    let stream = setting.server.get_stream(&setting.stream).await.expect("it is there");
    assert_eq!(stream.cached_info().config.max_bytes, 1_000_000);
    let mut config = stream.cached_info().config.clone();
    setting.server.delete_stream(&setting.stream).await.expect("it can be deleted");
    config.retention = jetstream::stream::RetentionPolicy::Limits;
    setting.server.create_stream(config).await.expect("it can be made by hand");
    let refused = WorkQueue::open(&setting.nats, OPTIONS).await.err();
    assert!(matches!(refused, Some(NatsError::Different { .. })), "{refused:?}");
}

#[tokio::test]
async fn a_queue_is_kept_where_it_is_unless_asked_for_elsewhere() {
    let setting = Setting::new().await;
    let storage = async || {
        let stream = setting.server.get_stream(&setting.stream).await.expect("it is there");
        stream.cached_info().config.storage
    };
    let anywhere = WorkQueueOptions { storage: None, ..OPTIONS };
    WorkQueue::open(&setting.nats, anywhere.clone()).await.expect("it is taken as it is");
    assert_eq!(storage().await, jetstream::stream::StorageType::File);
    let memory = WorkQueueOptions { storage: Some(Storage::Memory), ..OPTIONS };
    let refused = WorkQueue::open(&setting.nats, memory).await.err();
    assert!(matches!(refused, Some(NatsError::Different { .. })), "{refused:?}");
    setting.server.delete_stream(&setting.stream).await.expect("it can be deleted");
    WorkQueue::open(&setting.nats, anywhere).await.expect("it is made");
    assert_eq!(storage().await, jetstream::stream::StorageType::Memory);
}

#[tokio::test]
async fn consumers_are_brought_up_to_date_or_refused() {
    let setting = Setting::new().await;
    let options = |filter: &str, max_ack_pending| ConsumerOptions {
        durable: "workers".into(),
        filter: filter.into(),
        ack_wait: LONG,
        max_ack_pending,
    };
    setting.queue.consumer(options("tasks.a.>", 5)).await.expect("it opens");
    setting.queue.consumer(options("tasks.a.>", 7)).await.expect("a limit can be changed");
    let stream = setting.server.get_stream(&setting.stream).await.expect("it is there");
    let info = stream.consumer_info("workers").await.expect("it is there");
    let config = info.config;
    assert_eq!((config.max_ack_pending, config.max_deliver, config.ack_wait), (7, -1, LONG));
    let other = ConsumerOptions { durable: "others".into(), ..options("tasks.a.x", 7) };
    let refused = setting.queue.consumer(other).await.err();
    assert!(matches!(refused, Some(NatsError::Different { .. })), "{refused:?}");
}
