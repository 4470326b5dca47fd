//! Connecting, telling and listening.

use std::time::{Duration, Instant};

use bytes::Bytes;
use chassis::bus::{Nats, NatsError, NatsOptions};
use chassis::scratch::nats::{ScratchNats, nats_options};
use futures::StreamExt;

use crate::wait::{LONG, soon, until};

#[tokio::test]
async fn who_listens_is_told_within_its_prefix() {
    let options = nats_options();
    let (one, other) = (Nats::connect(&options).await, Nats::connect(&options).await);
    let (one, other) = (one.expect("it is there"), other.expect("it is there"));
    let stranger = Nats::connect(&nats_options()).await.expect("it is there");
    let mut heard = one.listen("news").await.expect("it listens");
    let mut elsewhere = stranger.listen("news").await.expect("it listens");
    other.tell("news", Bytes::from("first")).await.expect("it is sent");
    assert_eq!(soon("news", heard.next()).await, Some(Bytes::from("first")));
    stranger.tell("news", Bytes::from("own")).await.expect("it is sent");
    assert_eq!(soon("own news", elsewhere.next()).await, Some(Bytes::from("own")));
    one.ping(LONG).await.expect("it answers");
    one.close().await;
    assert!(!one.is_connected());
    assert_eq!(soon("the end", heard.next()).await, None);
    assert!(matches!(one.tell("news", Bytes::new()).await, Err(NatsError::Unavailable(_))));
    assert!(matches!(one.ping(LONG).await, Err(NatsError::Unavailable(_))));
}

#[tokio::test]
async fn a_first_connection_fails_in_time() {
    let mut server = ScratchNats::start().await;
    let options = server.options();
    server.kill().await;
    let began = Instant::now();
    assert!(matches!(Nats::connect(&options).await, Err(NatsError::Unavailable(_))));
    assert!(began.elapsed() < Duration::from_secs(7), "{:?}", began.elapsed());
}

#[tokio::test]
async fn a_url_may_sign_in() {
    let server = ScratchNats::start_with(&["--user", "me", "--pass", "a b@c"]).await;
    let began = Instant::now();
    for stranger in ["", "me:wrong@", "me@"] {
        let url = server.url().replace("//", &format!("//{stranger}"));
        let refused = Nats::connect(&NatsOptions::new(url)).await.err();
        assert!(matches!(refused, Some(NatsError::Unavailable(_))), "{refused:?}");
    }
    assert!(began.elapsed() < Duration::from_secs(3), "there is nothing to wait for");
    let url = server.url().replace("//", "//me:a%20b%40c@");
    let nats = Nats::connect(&NatsOptions::new(url)).await.expect("it signs in");
    nats.ping(LONG).await.expect("it answers");
}

#[tokio::test]
async fn a_lost_connection_comes_back_and_listens_again() {
    let mut server = ScratchNats::start().await;
    // One of several URLs is enough.
    let url = format!("nats://127.0.0.1:1,{}", server.url());
    let nats = Nats::connect(&NatsOptions { url, ..server.options() }).await;
    let nats = nats.expect("the second one is there");
    let mut heard = nats.listen("news").await.expect("it listens");
    server.kill().await;
    until("it notices", async || !nats.is_connected()).await;
    assert!(matches!(nats.tell("news", Bytes::new()).await, Err(NatsError::Unavailable(_))));
    assert!(matches!(nats.ping(Duration::from_millis(50)).await, Err(NatsError::Unavailable(_))));
    server.restart().await;
    soon("it comes back", async { while nats.ping(LONG).await.is_err() {} }).await;
    nats.tell("news", Bytes::from("again")).await.expect("it is sent");
    assert_eq!(soon("news", heard.next()).await, Some(Bytes::from("again")));
}

#[tokio::test]
async fn what_a_server_would_not_take_is_not_sent() {
    let nats = Nats::connect(&nats_options()).await.expect("it is there");
    let large = Bytes::from(vec![0; 2 * 1024 * 1024]);
    assert!(matches!(nats.tell("news", large).await, Err(NatsError::Setting(_))));
    nats.ping(LONG).await.expect("it is still connected");
}
