//! Connections: their number and their time are bounded, and they end with grace.

use std::net::SocketAddr;
use std::time::Duration;

use gateway::{AuthConfig, ServeError};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::fakes::{gateway as edge, home};

struct Server {
    address: SocketAddr,
    shutdown: CancellationToken,
    task: JoinHandle<Result<(), ServeError>>,
}

async fn serve(header_timeout: Duration, max_connections: usize) -> Server {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("an address");
    let mut gateway = edge(&Default::default(), AuthConfig::Dev { workspace_id: home() });
    gateway.config.header_timeout = header_timeout;
    gateway.config.max_connections = max_connections;
    let shutdown = CancellationToken::new();
    let task = tokio::spawn(gateway::serve(listener, gateway, shutdown.clone()));
    Server { address, shutdown, task }
}

impl Server {
    async fn connect(&self) -> TcpStream {
        TcpStream::connect(self.address).await.expect("a connection")
    }

    async fn stop(self) {
        self.shutdown.cancel();
        self.task.await.expect("no panic").expect("a clean end");
    }
}

/// Sends a whole request and reads the start of its answer.
async fn is_answered(socket: &mut TcpStream) -> bool {
    let request = b"GET /livez HTTP/1.1\r\nhost: localhost\r\n\r\n";
    let mut start = [0; 12];
    socket.write_all(request).await.is_ok()
        && socket.read_exact(&mut start).await.is_ok()
        && &start == b"HTTP/1.1 200"
}

/// Reads to the end of the connection, which must come.
async fn end(socket: &mut TcpStream) -> Vec<u8> {
    let mut rest = Vec::new();
    let read = tokio::time::timeout(Duration::from_secs(20), socket.read_to_end(&mut rest));
    read.await.expect("it is closed in time").ok();
    rest
}

#[tokio::test]
async fn half_a_request_is_closed_in_time() {
    let server = serve(Duration::from_millis(50), 100).await;
    for half in ["", "GET /li", "PRI * HTTP", "GET /livez HTTP/1.1\r\nhost: local"] {
        let mut socket = server.connect().await;
        socket.write_all(half.as_bytes()).await.expect("it is sent");
        let rest = end(&mut socket).await;
        assert!(!rest.starts_with(b"HTTP/1.1 200"), "{half:?}");
    }
    assert!(is_answered(&mut server.connect().await).await);
    server.stop().await;
}

#[tokio::test]
async fn the_time_for_the_head_does_not_end_a_stream() {
    let server = serve(Duration::from_millis(50), 100).await;
    let mut socket = server.connect().await;
    let request = "GET /api/v1/events HTTP/1.1\r\nhost: localhost\r\n\
                   accept: text/event-stream\r\n\r\n";
    socket.write_all(request.as_bytes()).await.expect("it is sent");
    let mut seen = Vec::new();
    while !seen.ends_with(b"retry: 2000\n\n\r\n") {
        assert!(socket.read_buf(&mut seen).await.expect("it goes on") > 0);
    }
    let more = tokio::time::timeout(Duration::from_millis(250), socket.read_u8()).await;
    assert!(more.is_err(), "a stream without events stays open and silent");
    server.stop().await;
}

#[tokio::test]
async fn connections_above_their_number_are_closed_and_places_come_back() {
    let server = serve(Duration::from_secs(10), 1).await;
    let mut first = server.connect().await;
    assert!(is_answered(&mut first).await);
    let mut second = server.connect().await;
    assert_eq!(end(&mut second).await, b"");
    drop(first);
    while !is_answered(&mut server.connect().await).await {
        tokio::task::yield_now().await;
    }
    server.stop().await;
}

#[tokio::test]
async fn a_shutdown_does_not_wait_for_idle_connections() {
    let server = serve(Duration::from_secs(3_600), 10).await;
    let mut idle = server.connect().await;
    assert!(is_answered(&mut idle).await);
    let address = server.address;
    server.stop().await;
    end(&mut idle).await;
    assert!(TcpStream::connect(address).await.is_err());
}

/// The head of a request whose body is refused for its length alone.
fn too_large(length: usize, more: &str) -> String {
    format!(
        "POST /api/v1/projects HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\n\
         content-length: {length}\r\n{more}\r\n"
    )
}

#[tokio::test]
async fn a_client_that_sends_all_of_a_refused_body_is_answered_and_may_go_on() {
    let server = serve(Duration::from_secs(60), 8).await;
    let mut socket = server.connect().await;
    let body = vec![b' '; 8 * 1024 * 1024];
    socket.write_all(too_large(body.len(), "").as_bytes()).await.expect("the head is taken");
    socket.write_all(&body).await.expect("the body is taken to its end");
    let mut answer = vec![0; 12];
    socket.read_exact(&mut answer).await.expect("an answer");
    assert_eq!(answer, b"HTTP/1.1 413");
    while !answer.ends_with(b"}") {
        answer.push(socket.read_u8().await.expect("the whole answer"));
    }
    assert!(String::from_utf8_lossy(&answer).contains("body_too_large"));
    assert!(is_answered(&mut socket).await, "the connection goes on");
    drop(socket);
    server.stop().await;
}

#[tokio::test]
async fn what_nobody_would_wait_for_is_not_taken_to_its_end() {
    let server = serve(Duration::from_secs(60), 8).await;
    // More than is taken off the wire, a body that doesn't come, and one that wasn't asked for.
    for (sent, more) in [(40 << 20, ""), (10, ""), (0, "expect: 100-continue\r\n")] {
        let mut socket = server.connect().await;
        socket.write_all(too_large(64 << 20, more).as_bytes()).await.expect("the head is taken");
        socket.write_all(&vec![b' '; sent]).await.ok();
        let rest = end(&mut socket).await;
        assert!(sent > 1_000 || rest.starts_with(b"HTTP/1.1 413"), "{sent}: {rest:?}");
    }
    server.stop().await;
}
