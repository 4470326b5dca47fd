//! Streams that their reader paces.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use async_trait::async_trait;
use bytes::Bytes;
use chassis::bus::{Nats, RequestError, StreamHandler};
use chassis::scratch::nats::nats_options;
use futures::future::join;
use futures::stream::BoxStream;
use futures::{Stream, StreamExt};

use crate::wait::{LONG, by_hand, soon, until};

const MIB: usize = 1024 * 1024;

/// Numbers, as text; how many were taken from it, and how many streams are open.
#[derive(Default)]
struct Numbers {
    pulled: Arc<AtomicUsize>,
    open: Arc<AtomicUsize>,
}

impl Numbers {
    fn pulled(&self) -> usize {
        self.pulled.load(Ordering::SeqCst)
    }

    fn open(&self) -> usize {
        self.open.load(Ordering::SeqCst)
    }
}

struct Counted {
    inner: BoxStream<'static, Bytes>,
    pulled: Arc<AtomicUsize>,
    open: Arc<AtomicUsize>,
}

impl Stream for Counted {
    type Item = Bytes;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Bytes>> {
        let item = std::task::ready!(self.inner.poll_next_unpin(context));
        self.pulled.fetch_add(usize::from(item.is_some()), Ordering::SeqCst);
        Poll::Ready(item)
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.open.fetch_sub(1, Ordering::SeqCst);
    }
}

#[async_trait]
impl StreamHandler for Numbers {
    /// `up to 7`, `silent`, `large`, `panic`.
    async fn open(&self, body: Bytes) -> BoxStream<'static, Bytes> {
        let text = String::from_utf8(body.to_vec()).expect("the tests send text");
        let numbers = |end: usize| futures::stream::iter(0..end).map(|n| n.to_string().into());
        let inner: BoxStream<'static, Bytes> = match text.as_str() {
            "silent" => futures::stream::pending().boxed(),
            "large" => {
                let sizes = [3 * MIB, 0, 16 * MIB, MIB - 1_024, MIB - 1_023, 1];
                futures::stream::iter(sizes).map(|bytes| vec![7; bytes].into()).boxed()
            }
            "panic" => {
                let panics = futures::stream::once(async { panic!("as asked") });
                numbers(3).chain(panics).boxed()
            }
            text => {
                let end = text.strip_prefix("up to ").and_then(|end| end.parse().ok());
                numbers(end.expect("the tests say how many")).boxed()
            }
        };
        self.open.fetch_add(1, Ordering::SeqCst);
        let (pulled, open) = (Arc::clone(&self.pulled), Arc::clone(&self.open));
        Counted { inner, pulled, open }.boxed()
    }
}

struct Setting {
    server: Nats,
    client: Nats,
    numbers: Arc<Numbers>,
}

async fn setting() -> Setting {
    let options = nats_options();
    let server = Nats::connect(&options).await.expect("it is there");
    let client = Nats::connect(&options).await.expect("it is there");
    Setting { server, client, numbers: Arc::new(Numbers::default()) }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn messages_come_in_order_and_the_stream_ends() {
    let Setting { server, client, numbers } = setting().await;
    let served = server.serve_streams("numbers", "all", numbers.clone(), 4).await;
    let served = served.expect("it serves");
    for end in [0, 1, 15, 16, 17, 10_000] {
        let text = Bytes::from(format!("up to {end}"));
        let stream = client.open_stream("numbers", text).await.expect("it opens");
        let got: Vec<_> = soon("all numbers", stream.collect()).await;
        let expected = (0..end).map(|n: usize| Ok(Bytes::from(n.to_string())));
        assert!(got.into_iter().eq(expected), "up to {end}");
    }
    until("all are closed", async || numbers.open() == 0).await;
    served.stop().await;
    let nobody = client.open_stream("numbers", Bytes::from("up to 1")).await;
    assert_eq!(nobody.err(), Some(RequestError::NoResponders("numbers".into())));
}

#[tokio::test]
async fn messages_of_any_size_come_as_they_were() {
    let Setting { server, client, numbers } = setting().await;
    let served = server.serve_streams("numbers", "all", numbers, 4).await.expect("it serves");
    let stream = client.open_stream("numbers", Bytes::from("large")).await.expect("it opens");
    let sizes: Vec<usize> = soon("all of them", stream.collect::<Vec<_>>())
        .await
        .into_iter()
        .map(|body| body.expect("it comes to its end"))
        .map(|body| if body.iter().all(|byte| *byte == 7) { body.len() } else { usize::MAX })
        .collect();
    assert_eq!(sizes, [3 * MIB, 0, 16 * MIB, MIB - 1_024, MIB - 1_023, 1]);
    served.stop().await;
}

#[tokio::test]
async fn a_reader_that_takes_nothing_holds_the_server_back_and_is_not_taken_for_gone() {
    let Setting { server, client, numbers } = setting().await;
    let served = server.serve_streams("numbers", "all", numbers.clone(), 4).await;
    let served = served.expect("it serves");
    let mut slow =
        client.open_stream("numbers", Bytes::from("up to 1000")).await.expect("it opens");
    until("the window is full", async || numbers.pulled() == 16).await;
    // Another reader passes it by.
    let fast = client.open_stream("numbers", Bytes::from("up to 5000")).await.expect("it opens");
    assert_eq!(soon("the other", fast.count()).await, 5_000);
    assert_eq!(numbers.pulled(), 5_016);
    // Longer than a server waits for a sign of life.
    let began = Instant::now();
    until("time", async || began.elapsed() > Duration::from_secs(9)).await;
    assert_eq!(numbers.pulled(), 5_016);
    for n in 0..1_000 {
        let next = soon("the next", slow.next()).await;
        assert_eq!(next, Some(Ok(Bytes::from(n.to_string()))));
        assert!(numbers.pulled() <= 5_000 + n + 1 + 16, "{n}: {}", numbers.pulled());
    }
    assert_eq!(soon("the end", slow.next()).await, None);
    served.stop().await;
}

#[tokio::test]
async fn a_lost_message_ends_a_stream_with_an_error() {
    let options = nats_options();
    let client = Nats::connect(&options).await.expect("it is there");
    let (raw, mut requests) = by_hand(&options, "numbers").await;
    // One in the middle, the last one before the end, the last one before a sign of life.
    for frames in [["w1", "w3"], ["w1", "e2"], ["w1", "b2"]] {
        let answer = async {
            let request = requests.next().await.expect("it comes");
            let deliver = request.headers.as_ref().and_then(|headers| headers.get("Deliver"));
            let deliver = deliver.expect("it says where to").to_string();
            let reply = request.reply.expect("it wants an answer").to_string();
            let messages = [(reply, "Control", "nobody")].into_iter();
            let frames = frames.map(|frame| (deliver.clone(), "Frame", frame));
            for (subject, name, value) in messages.chain(frames) {
                let mut headers = async_nats::HeaderMap::new();
                headers.insert(name, value);
                raw.publish_with_headers(subject, headers, "a".into()).await.expect("it is sent");
            }
        };
        let opening = client.open_stream("numbers", Bytes::new());
        let (stream, ()) = soon("a stream", join(opening, answer)).await;
        let got: Vec<_> = soon("the end", stream.expect("it opens").collect()).await;
        assert_eq!(got.len(), 2, "{got:?}");
        assert_eq!(got[0], Ok(Bytes::from("a")));
        assert!(matches!(got[1], Err(RequestError::Unavailable(_))), "{got:?}");
    }
}

#[tokio::test]
async fn a_stream_whose_server_is_gone_ends_with_an_error() {
    let Setting { server, client, numbers } = setting().await;
    let served = server.serve_streams("numbers", "all", numbers, 4).await.expect("it serves");
    let mut stream = client.open_stream("numbers", Bytes::from("silent")).await.expect("it opens");
    let began = Instant::now();
    // Nobody says good-bye.
    server.close().await;
    let end = soon("the end", stream.next()).await;
    assert!(matches!(end, Some(Err(RequestError::Unavailable(_)))), "{end:?}");
    assert!(began.elapsed() < Duration::from_secs(9), "{:?}", began.elapsed());
    assert_eq!(stream.next().await, None);
    drop(served);
}

#[tokio::test]
async fn a_server_that_stops_ends_its_streams_with_an_error() {
    let Setting { server, client, numbers } = setting().await;
    let served = server.serve_streams("numbers", "all", numbers.clone(), 4).await;
    let served = served.expect("it serves");
    let mut stream = client.open_stream("numbers", Bytes::from("silent")).await.expect("it opens");
    soon("it stops", served.stop()).await;
    assert_eq!(numbers.open(), 0);
    let end = soon("the end", stream.next()).await;
    assert!(matches!(end, Some(Err(RequestError::Unavailable(_)))), "{end:?}");
    assert_eq!(stream.next().await, None);
}

#[tokio::test]
async fn a_stream_whose_source_panics_ends_with_an_error() {
    let Setting { server, client, numbers } = setting().await;
    let served = server.serve_streams("numbers", "all", numbers, 4).await.expect("it serves");
    let stream = client.open_stream("numbers", Bytes::from("panic")).await.expect("it opens");
    let got: Vec<_> = soon("the end", stream.collect()).await;
    assert_eq!(got.len(), 4);
    assert!(matches!(got.last(), Some(Err(RequestError::Unavailable(_)))), "{got:?}");
    served.stop().await;
}

#[tokio::test]
async fn a_stream_whose_reader_is_gone_is_dropped() {
    let Setting { server, client, numbers } = setting().await;
    let served = server.serve_streams("numbers", "all", numbers.clone(), 4).await;
    let served = served.expect("it serves");
    let stream = client.open_stream("numbers", Bytes::from("silent")).await.expect("it opens");
    until("it is open", async || numbers.open() == 1).await;
    let began = Instant::now();
    drop(stream);
    until("it is dropped", async || numbers.open() == 0).await;
    assert!(began.elapsed() < Duration::from_secs(1), "{:?}", began.elapsed());
    let stream = client.open_stream("numbers", Bytes::from("up to 100")).await.expect("it opens");
    until("it is open", async || numbers.open() == 1).await;
    // Nobody says good-bye.
    client.close().await;
    until("it is dropped", async || numbers.open() == 0).await;
    drop(stream);
    served.stop().await;
}

#[tokio::test]
async fn more_streams_than_are_served_are_refused() {
    let Setting { server, client, numbers } = setting().await;
    let served = server.serve_streams("numbers", "all", numbers, 2).await.expect("it serves");
    let silent = Bytes::from("silent");
    let one = client.open_stream("numbers", silent.clone()).await.expect("it opens");
    let other = client.open_stream("numbers", silent.clone()).await.expect("it opens");
    let third = client.open_stream("numbers", silent.clone()).await;
    assert!(matches!(third.err(), Some(RequestError::Unavailable(_))));
    drop(one);
    soon("there is room again", async {
        while client.open_stream("numbers", silent.clone()).await.is_err() {}
    })
    .await;
    drop(other);
    soon("it stops", served.stop()).await;
    client.ping(LONG).await.expect("all is well");
}
