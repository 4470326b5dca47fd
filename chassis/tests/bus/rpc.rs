//! Requests and their answers.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use async_trait::async_trait;
use bytes::Bytes;
use chassis::bus::{Handler, Nats, RequestError};
use chassis::scratch::nats::{ScratchNats, nats_options};
use futures::StreamExt;
use futures::future::{join, join_all};
use tokio::sync::Semaphore;

use crate::wait::{LONG, by_hand, soon, until};

const MIB: usize = 1024 * 1024;

/// Gives the body back, or does what it says.
#[derive(Default)]
struct Echo {
    calls: AtomicUsize,
    done: AtomicUsize,
}

#[async_trait]
impl Handler for Echo {
    async fn handle(&self, body: Bytes) -> Bytes {
        self.calls.fetch_add(1, Ordering::SeqCst);
        match &body[..] {
            b"panic" => panic!("as asked"),
            b"too large" => return Bytes::from(vec![0; 16 * MIB + 1]),
            b"never" => std::future::pending().await,
            _ => tokio::task::yield_now().await,
        }
        self.done.fetch_add(1, Ordering::SeqCst);
        body
    }
}

/// Waits for a permit.
struct Gate(Arc<Semaphore>, AtomicUsize);

#[async_trait]
impl Handler for Gate {
    async fn handle(&self, body: Bytes) -> Bytes {
        self.1.fetch_add(1, Ordering::SeqCst);
        self.0.acquire().await.expect("it stays open").forget();
        body
    }
}

async fn pair() -> (Nats, Nats) {
    let options = nats_options();
    let server = Nats::connect(&options).await.expect("it is there");
    (server, Nats::connect(&options).await.expect("it is there"))
}

#[tokio::test]
async fn bodies_of_any_size_come_back_as_they_were() {
    let (server, client) = pair().await;
    let echo = Arc::new(Echo::default());
    let served = server.serve("echo", "all", echo, 4).await.expect("it serves");
    for bytes in [0, 1, MIB - 1_025, MIB - 1_024, MIB - 1_023, MIB, 5 * MIB + 7, 16 * MIB] {
        let body: Bytes = (0..bytes).map(|n| (n % 251) as u8).collect::<Vec<u8>>().into();
        let answer = client.request("echo", body.clone(), LONG).await;
        assert!(answer.as_ref() == Ok(&body), "{bytes}: {:?}", answer.map(|body| body.len()));
    }
    let bytes = 16 * MIB + 1;
    let answer = client.request("echo", Bytes::from(vec![0; bytes]), LONG).await;
    assert_eq!(answer, Err(RequestError::TooLarge { bytes }));
    let answer = client.request("echo", Bytes::from("too large"), LONG).await;
    assert_eq!(answer, Err(RequestError::TooLarge { bytes }));
    served.stop().await;
}

#[tokio::test]
async fn the_server_says_how_large_a_message_may_be() {
    let config = tempfile::NamedTempFile::new().expect("a file can be made");
    std::fs::write(&config, "max_payload: 5000").expect("it can be written");
    let path = config.path().to_str().expect("a path in UTF-8");
    let nats = ScratchNats::start_with(&["-c", path]).await;
    let client = Nats::connect(&nats.options()).await.expect("it is there");
    let echo = Arc::new(Echo::default());
    let served = client.serve("echo", "all", echo, 4).await.expect("it serves");
    for bytes in [3_976, 3_977, 5_000, 1_000_000] {
        let body = Bytes::from(vec![5; bytes]);
        assert_eq!(client.request("echo", body.clone(), LONG).await, Ok(body));
    }
    served.stop().await;
}

#[tokio::test]
async fn large_requests_side_by_side_are_not_mixed_up() {
    let (server, client) = pair().await;
    let echo = Arc::new(Echo::default());
    let served = server.serve("echo", "all", echo, 3).await.expect("it serves");
    let asked = (0..12_u8).map(|n| {
        let body = Bytes::from(vec![n; 2 * MIB + usize::from(n)]);
        let client = client.clone();
        async move { (client.request("echo", body.clone(), LONG).await, body) }
    });
    for (answer, body) in join_all(asked).await {
        assert!(answer == Ok(body));
    }
    served.stop().await;
}

#[tokio::test]
async fn an_answer_with_a_part_missing_is_none() {
    let options = nats_options();
    let client = Nats::connect(&options).await.expect("it is there");
    let (raw, mut requests) = by_hand(&options, "echo").await;
    for parts in [vec!["0 3 6", "2 3 6"], vec!["1 3 6"], vec!["0 2 3", "1 2 3"], vec!["nonsense"]] {
        let answer = async {
            let request = requests.next().await.expect("it comes");
            for part in parts {
                let mut headers = async_nats::HeaderMap::new();
                headers.insert("Part", part);
                let reply = request.reply.clone().expect("it wants an answer");
                raw.publish_with_headers(reply, headers, "ab".into()).await.expect("it is sent");
            }
        };
        let short = Duration::from_millis(300);
        let request = client.request("echo", Bytes::new(), short);
        let (asked, ()) = soon("the answer", join(request, answer)).await;
        assert_eq!(asked, Err(RequestError::Timeout));
    }
}

#[tokio::test]
async fn nobody_there_is_told_apart_from_no_answer() {
    let (server, client) = pair().await;
    let nobody = Err(RequestError::NoResponders("echo".into()));
    assert_eq!(client.request("echo", Bytes::new(), LONG).await, nobody);
    let echo = Arc::new(Echo::default());
    let served = server.serve("echo", "all", echo.clone(), 4).await.expect("it serves");
    let short = Duration::from_millis(100);
    let answer = client.request("echo", Bytes::from("never"), short).await;
    assert_eq!(answer, Err(RequestError::Timeout));
    served.stop().await;
    assert_eq!(client.request("echo", Bytes::new(), LONG).await, nobody);
    assert_eq!(client.request("echo", Bytes::from(vec![0; 2 * MIB]), LONG).await, nobody);
    assert_eq!(echo.calls.load(Ordering::SeqCst), 1);
}

#[tokio::test]
async fn what_waited_past_its_deadline_is_not_done() {
    let (server, client) = pair().await;
    let echo = Arc::new(Echo::default());
    let served = server.serve("echo", "all", echo.clone(), 1).await.expect("it serves");
    let blocked = Duration::from_millis(400);
    let first = client.request("echo", Bytes::from("never"), blocked);
    let second = async {
        until("the first is under way", async || echo.calls.load(Ordering::SeqCst) == 1).await;
        client.request("echo", Bytes::from("late"), Duration::from_millis(50)).await
    };
    let (first, second) = tokio::join!(first, second);
    assert_eq!((first, second), (Err(RequestError::Timeout), Err(RequestError::Timeout)));
    // The server gave the first one up at its deadline, so there is room again.
    let third = client.request("echo", Bytes::from("third"), LONG).await;
    assert_eq!(third, Ok(Bytes::from("third")));
    assert_eq!(echo.calls.load(Ordering::SeqCst), 2);
    served.stop().await;
}

#[tokio::test]
async fn more_than_may_wait_is_refused_at_once() {
    let (server, client) = pair().await;
    let gate = Arc::new(Semaphore::new(0));
    let handler = Arc::new(Gate(Arc::clone(&gate), AtomicUsize::new(0)));
    let served = server.serve("gate", "all", handler, 1).await.expect("it serves");
    let asked = join_all((0..100).map(|_| client.request("gate", Bytes::new(), LONG)));
    let open = async {
        // An answer to a request says that those before it have come.
        let refused = client.request("gate", Bytes::new(), LONG).await;
        gate.add_permits(1_000);
        refused
    };
    let (answers, refused) = tokio::join!(asked, open);
    assert!(matches!(refused, Err(RequestError::Unavailable(_))), "{refused:?}");
    let refused = answers.iter().filter(|a| matches!(a, Err(RequestError::Unavailable(_))));
    assert_eq!(refused.count(), 35);
    assert_eq!(answers.iter().filter(|answer| answer.is_ok()).count(), 65);
    served.stop().await;
}

#[tokio::test]
async fn a_handler_that_panics_answers_nothing_and_serves_on() {
    let (server, client) = pair().await;
    let echo = Arc::new(Echo::default());
    let served = server.serve("echo", "all", echo, 1).await.expect("it serves");
    let short = Duration::from_millis(200);
    let answer = client.request("echo", Bytes::from("panic"), short).await;
    assert_eq!(answer, Err(RequestError::Timeout));
    let answer = client.request("echo", Bytes::from("well"), LONG).await;
    assert_eq!(answer, Ok(Bytes::from("well")));
    served.stop().await;
}

/// Asks again and again until told to stop; how often, and what else than an answer came.
async fn load(client: Nats, go_on: Arc<Semaphore>) -> (usize, Vec<RequestError>) {
    let (mut answered, mut errors) = (0, Vec::new());
    while let Ok(_go_on) = go_on.acquire().await {
        match client.request("echo", Bytes::from("load"), LONG).await {
            Ok(_) => answered += 1,
            Err(error) => {
                errors.push(error);
                break;
            }
        }
    }
    (answered, errors)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_stops_loses_no_request() {
    let (server, client) = pair().await;
    let echo = Arc::new(Echo::default());
    let stays = server.serve("echo", "all", echo.clone(), 2_000).await.expect("it serves");
    let go_on = Arc::new(Semaphore::new(1_000));
    let load = (0..1_000).map(|_| tokio::spawn(load(client.clone(), Arc::clone(&go_on))));
    let load: Vec<_> = load.collect();
    for _ in 0..8 {
        let leaves = server.serve("echo", "all", echo.clone(), 2_000).await.expect("it serves");
        let before = echo.done.load(Ordering::SeqCst);
        until("there is traffic", async || echo.done.load(Ordering::SeqCst) > before + 500).await;
        soon("it stops", leaves.stop()).await;
    }
    go_on.close();
    let mut answered = 0;
    for load in load {
        let (some, errors) = soon("the load ends", load).await.expect("no panic");
        assert_eq!(errors, []);
        answered += some;
    }
    assert_eq!(answered, echo.done.load(Ordering::SeqCst));
    stays.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn also_after_a_lost_connection_a_server_that_stops_loses_no_request() {
    let mut nats = ScratchNats::start().await;
    let options = nats.options();
    let server = Nats::connect(&options).await.expect("it is there");
    let client = Nats::connect(&options).await.expect("it is there");
    let echo = Arc::new(Echo::default());
    let mut leaves = Vec::new();
    for _ in 0..4 {
        leaves.push(server.serve("echo", "all", echo.clone(), 2_000).await.expect("it serves"));
    }
    // Traffic, so that both sides have counted.
    for _ in 0..500 {
        let answer = client.request("echo", Bytes::from("load"), LONG).await;
        assert_eq!(answer, Ok(Bytes::from("load")));
    }
    nats.kill().await;
    until("they notice", async || !client.is_connected() && !server.is_connected()).await;
    nats.restart().await;
    soon("they come back", async {
        while server.ping(LONG).await.is_err() || client.ping(LONG).await.is_err() {}
    })
    .await;
    let stays = server.serve("echo", "all", echo.clone(), 2_000).await.expect("it serves");
    let go_on = Arc::new(Semaphore::new(1_000));
    let load = (0..500).map(|_| tokio::spawn(load(client.clone(), Arc::clone(&go_on))));
    let load: Vec<_> = load.collect();
    for leaves in leaves {
        let before = echo.done.load(Ordering::SeqCst);
        until("there is traffic", async || echo.done.load(Ordering::SeqCst) > before + 500).await;
        soon("it stops", leaves.stop()).await;
    }
    go_on.close();
    for load in load {
        let (_, errors) = soon("the load ends", load).await.expect("no panic");
        assert_eq!(errors, []);
    }
    stays.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_last_server_that_stops_answers_all_it_has_taken() {
    let (server, client) = pair().await;
    let echo = Arc::new(Echo::default());
    for _ in 0..5 {
        let served = server.serve("echo", "all", echo.clone(), 2_000).await.expect("it serves");
        let before = echo.done.load(Ordering::SeqCst);
        let go_on = Arc::new(Semaphore::new(1_000));
        let load = (0..1_000).map(|_| tokio::spawn(load(client.clone(), Arc::clone(&go_on))));
        let load: Vec<_> = load.collect();
        until("there is traffic", async || echo.done.load(Ordering::SeqCst) > before + 500).await;
        soon("it stops", served.stop()).await;
        let mut answered = 0;
        for load in load {
            let (some, errors) = soon("the load ends", load).await.expect("no panic");
            assert_eq!(errors, [RequestError::NoResponders("echo".into())]);
            answered += some;
        }
        assert_eq!(answered, echo.done.load(Ordering::SeqCst) - before);
    }
}

#[tokio::test]
async fn while_the_connection_is_away_requests_fail_fast() {
    let mut nats = ScratchNats::start().await;
    let options = nats.options();
    let (server, client) = (Nats::connect(&options).await, Nats::connect(&options).await);
    let (server, client) = (server.expect("it is there"), client.expect("it is there"));
    let echo = Arc::new(Echo::default());
    let served = server.serve("echo", "all", echo, 4).await.expect("it serves");
    nats.kill().await;
    until("it notices", async || !client.is_connected()).await;
    let began = Instant::now();
    let answer = client.request("echo", Bytes::new(), LONG).await;
    assert!(matches!(answer, Err(RequestError::Unavailable(_))), "{answer:?}");
    assert!(began.elapsed() < Duration::from_secs(3), "{:?}", began.elapsed());
    nats.restart().await;
    soon("it serves again", async {
        while client.request("echo", Bytes::from("again"), LONG).await.is_err() {}
    })
    .await;
    // Also what was subscribed anew is left without a loss.
    soon("it stops", served.stop()).await;
    let nobody = Err(RequestError::NoResponders("echo".into()));
    assert_eq!(client.request("echo", Bytes::new(), LONG).await, nobody);
}
