//! What is closed leaves nothing behind, by the server's own count.

use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use chassis::bus::{Handler, Nats, StreamHandler};
use chassis::scratch::nats::ScratchNats;
use futures::StreamExt;
use futures::stream::BoxStream;
use serde_json::Value;

use crate::queue::{Setting, message, number, publish};
use crate::wait::{LONG, soon, until};

const ROUNDS: usize = 1_000;

struct Echo;

#[async_trait]
impl Handler for Echo {
    async fn handle(&self, body: Bytes) -> Bytes {
        body
    }
}

#[async_trait]
impl StreamHandler for Echo {
    async fn open(&self, body: Bytes) -> BoxStream<'static, Bytes> {
        futures::stream::repeat(body).boxed()
    }
}

async fn get(server: &ScratchNats, path: &str) -> Value {
    serde_json::from_str(&server.monitor(path).await).expect("it answers with JSON")
}

/// Subscriptions of all clients.
async fn subscriptions(server: &ScratchNats) -> u64 {
    let connections = get(server, "/connz").await;
    let connections = connections["connections"].as_array().expect("it lists them");
    connections.iter().filter_map(|one| one["subscriptions"].as_u64()).sum()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_thousand_servers_leave_no_subscription_behind() {
    let server = ScratchNats::start().await;
    let options = server.options();
    let serving = Nats::connect(&options).await.expect("it is there");
    let client = Nats::connect(&options).await.expect("it is there");
    let before = subscriptions(&server).await;
    for n in 0..ROUNDS {
        let served = serving.serve("echo", "all", Arc::new(Echo), 4).await.expect("it serves");
        let streams = serving.serve_streams("stream", "all", Arc::new(Echo), 4).await;
        if n % 10 == 0 {
            let answer = client.request("echo", Bytes::from("here"), LONG).await;
            assert_eq!(answer, Ok(Bytes::from("here")));
            let stream = client.open_stream("stream", Bytes::from("here")).await;
            let mut stream = stream.expect("it opens");
            assert_eq!(soon("one", stream.next()).await, Some(Ok(Bytes::from("here"))));
            let _listens = client.listen("news").await.expect("it listens");
        }
        soon("it stops", served.stop()).await;
        soon("it stops", streams.expect("it serves").stop()).await;
    }
    until("none is left", async || subscriptions(&server).await == before).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_thousand_pullers_leave_no_subscription_and_no_request_behind() {
    let server = ScratchNats::start().await;
    let setting = Setting::with(&server.options()).await;
    setting.consumer(LONG).await.close().await;
    let before = subscriptions(&server).await;
    for n in 0..ROUNDS {
        let mut consumer = setting.consumer(LONG).await;
        if n % 10 == 0 {
            publish(&setting.queue, n..n + 1).await;
            let delivery = soon("it", consumer.pull(4)).await.remove(0);
            assert_eq!(number(&delivery), n);
            delivery.ack().await;
        } else {
            let short = std::time::Duration::from_micros(500);
            assert!(tokio::time::timeout(short, consumer.pull(4)).await.is_err());
        }
        soon("it closes", consumer.close()).await;
    }
    until("none is left", async || subscriptions(&server).await == before).await;
    let info = get(&server, "/jsz").await;
    assert_eq!((&info["streams"], &info["consumers"]), (&1.into(), &1.into()), "{info}");
    // A request that somebody left behind would take it.
    let mut consumer = setting.consumer(LONG).await;
    publish(&setting.queue, ROUNDS..ROUNDS + 1).await;
    let delivery = soon("it", consumer.pull(1)).await.remove(0);
    assert_eq!((number(&delivery), delivery.deliveries), (ROUNDS, 1));
    assert_eq!(message(ROUNDS).body, delivery.body);
}
