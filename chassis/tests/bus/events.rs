//! The stream of events for subscribers outside.

use std::time::Duration;

use async_nats::jetstream;
use bytes::Bytes;
use chassis::bus::{EventStream, EventStreamOptions, Nats, NatsOptions, Publication, PublishError};
use chassis::scratch::nats::{ScratchNats, nats_options};
use futures::StreamExt;

use crate::wait::{LONG, soon};

const OPTIONS: EventStreamOptions = EventStreamOptions {
    name: "EVENTS",
    subjects: "events.>",
    max_age: Duration::from_secs(3_600),
    max_bytes: 64 * 1024 * 1024,
};

fn event(n: usize) -> Publication {
    Publication {
        subject: format!("events.run.{n}"),
        id: format!("event-{n}"),
        headers: vec![("ce-id", n.to_string()), ("ce-source", "ä test".into())],
        body: Bytes::from(n.to_string()),
    }
}

fn headers(n: usize) -> Option<Vec<(String, String)>> {
    let headers = event(n).headers.into_iter();
    Some(headers.map(|(name, value)| (name.to_owned(), value)).collect())
}

async fn open(options: &NatsOptions) -> EventStream {
    let nats = Nats::connect(options).await.expect("it is there");
    EventStream::open(&nats, OPTIONS).await.expect("it opens")
}

/// What a subscriber gets.
async fn events(options: &NatsOptions) -> Vec<usize> {
    let client = async_nats::connect(&options.url).await.expect("it is there");
    let stream = format!("{}_EVENTS", options.prefix.to_uppercase());
    let stream = jetstream::new(client).get_stream(stream).await.expect("it is there");
    let ack_policy = jetstream::consumer::AckPolicy::None;
    let config = jetstream::consumer::pull::Config { ack_policy, ..Default::default() };
    let consumer = stream.create_consumer(config).await.expect("it can be made");
    let count = stream.cached_info().state.messages.try_into().expect("they are few");
    let messages = consumer.messages().await.expect("it can be read");
    let bodies = messages.take(count).map(|message| {
        let message = message.expect("it comes");
        let text = std::str::from_utf8(&message.payload).expect("the tests send text");
        text.parse::<usize>().expect("the tests send numbers")
    });
    soon("all of them", bodies.collect()).await
}

#[tokio::test]
async fn events_come_in_order_and_the_newest_says_where_to_go_on() {
    let options = nats_options();
    let stream = open(&options).await;
    let early = stream.publish(vec![event(0)]).await;
    assert!(matches!(early, Err(PublishError::Unavailable(_))), "{early:?}");
    assert_eq!(stream.last().await, Ok(None));
    stream.publish((0..3_000).map(event).collect()).await.expect("they are taken");
    stream.publish(Vec::new()).await.expect("there is nothing to take");
    stream.publish(vec![event(3_000)]).await.expect("it is taken");
    assert_eq!(stream.last().await, Ok(headers(3_000)));
    assert!(events(&options).await.into_iter().eq(0..3_001));
    let again = open(&options).await;
    assert_eq!(again.last().await, Ok(headers(3_000)));
    again.publish(vec![event(3_001)]).await.expect("it is taken");
}

#[tokio::test]
async fn a_failure_in_the_middle_lets_no_later_event_in() {
    let options = nats_options();
    let stream = open(&options).await;
    stream.last().await.expect("it answers");
    let mut batch: Vec<Publication> = (0..50).map(event).collect();
    batch[20].body = vec![0; 2 * 1024 * 1024].into();
    let failed = stream.publish(batch).await;
    assert_eq!(failed, Err(PublishError::TooLarge { bytes: 2 * 1024 * 1024 }));
    // Nobody goes on without having looked.
    assert!(stream.publish(vec![event(21)]).await.is_err());
    assert_eq!(stream.last().await, Ok(headers(19)));
    stream.publish((20..50).map(event).collect()).await.expect("they are taken");
    assert!(events(&options).await.into_iter().eq(0..50));
    let broken = Publication { headers: vec![("a", "b\r\nc: d".into())], ..event(50) };
    assert!(stream.publish(vec![broken]).await.is_err());
    assert_eq!(stream.last().await, Ok(headers(49)));
}

#[tokio::test]
async fn of_two_publishers_one_is_stopped() {
    let options = nats_options();
    let (one, other) = (open(&options).await, open(&options).await);
    assert_eq!(one.last().await, Ok(None));
    assert_eq!(other.last().await, Ok(None));
    one.publish((0..10).map(event).collect()).await.expect("they are taken");
    assert!(other.publish((5..20).map(event).collect()).await.is_err());
    assert_eq!(other.last().await, Ok(headers(9)));
    other.publish((10..20).map(event).collect()).await.expect("they are taken");
    assert!(one.publish((20..30).map(event).collect()).await.is_err());
    assert_eq!(one.last().await, Ok(headers(19)));
    other.publish((20..23).map(event).collect()).await.expect("they are taken");
    // Those that are there already, in the same place, are there; the later ones follow them.
    one.publish((20..30).map(event).collect()).await.expect("they are taken");
    assert!(events(&options).await.into_iter().eq(0..30));
}

#[tokio::test]
async fn a_stream_survives_a_restart_and_is_made_anew_where_it_is_lost() {
    let mut nats = ScratchNats::start().await;
    let options = nats.options();
    let stream = open(&options).await;
    stream.last().await.expect("it answers");
    stream.publish((0..10).map(event).collect()).await.expect("they are taken");
    nats.kill().await;
    assert!(stream.publish(vec![event(10)]).await.is_err());
    assert!(stream.last().await.is_err());
    nats.restart().await;
    let last = soon("it comes back", async {
        loop {
            if let Ok(last) = stream.last().await {
                return last;
            }
        }
    });
    // The one that failed may have waited for the connection.
    let last = last.await;
    let next = if last == headers(9) { 10 } else { 11 };
    assert_eq!(last, headers(next - 1));
    stream.publish((next..20).map(event).collect()).await.expect("they are taken");
    assert!(events(&options).await.into_iter().eq(0..20));
    nats.wipe().await;
    assert!(stream.publish(vec![event(20)]).await.is_err());
    let last = soon("it comes back", async {
        loop {
            if let Ok(last) = stream.last().await {
                return last;
            }
        }
    });
    assert_eq!(last.await, None);
    stream.publish((20..30).map(event).collect()).await.expect("they are taken");
    assert!(tokio::time::timeout(LONG, events(&options)).await.is_ok_and(|e| e.len() == 10));
}
