//! What a process without an edge answers, and an edge that is about to end.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use gateway::{AuthConfig, Operations, ServeError};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::fakes::{World, gateway as edge, home};

async fn listener() -> (TcpListener, SocketAddr) {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("an address");
    (listener, address)
}

/// The whole answer to one request on a connection of its own; `None` where none is taken.
async fn ask(address: SocketAddr, method: &str, path: &str) -> Option<String> {
    let mut socket = TcpStream::connect(address).await.ok()?;
    let request =
        format!("{method} {path} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n");
    socket.write_all(request.as_bytes()).await.ok()?;
    let mut answer = String::new();
    socket.read_to_string(&mut answer).await.ok()?;
    Some(answer).filter(|answer| !answer.is_empty())
}

async fn status(address: SocketAddr, path: &str) -> Option<u16> {
    ask(address, "GET", path).await?.get(9..12)?.parse().ok()
}

#[tokio::test]
async fn a_process_without_an_edge_answers_for_itself_and_nothing_else() {
    let (listener, address) = listener().await;
    let world = Arc::new(World::default());
    let shutdown = CancellationToken::new();
    let metrics = Arc::new(|| "up 1\n".to_owned());
    let operations = Operations { health: world.clone(), metrics };
    let served = tokio::spawn(gateway::serve_operations(listener, operations, shutdown.clone()));
    assert_eq!(status(address, "/livez").await, Some(200));
    assert_eq!(status(address, "/readyz").await, Some(200));
    let metrics = ask(address, "GET", "/metrics").await.expect("an answer");
    assert!(metrics.ends_with("\r\n\r\nup 1\n"), "{metrics}");
    *world.lag.lock().expect("lock") = true;
    assert_eq!(status(address, "/readyz").await, Some(503));
    *world.lag.lock().expect("lock") = false;
    for path in ["/", "/docs", "/api/v1/runs", "/livez/"] {
        let answer = ask(address, "GET", path).await.expect("an answer");
        assert!(answer.starts_with("HTTP/1.1 404"), "{answer}");
        assert!(answer.contains("content-type: application/problem+json"), "{answer}");
        assert!(answer.contains("\"code\":\"not_found\""), "{answer}");
    }
    let posted = ask(address, "POST", "/readyz").await.expect("an answer");
    assert!(posted.starts_with("HTTP/1.1 405"), "{posted}");
    shutdown.cancel();
    served.await.expect("no panic").expect("a clean end");
    assert_eq!(status(address, "/livez").await, None);
}

async fn leaving_edge(
    lame_duck: Duration,
) -> (SocketAddr, CancellationToken, JoinHandle<Result<(), ServeError>>) {
    let (listener, address) = listener().await;
    let mut gateway = edge(&Default::default(), AuthConfig::Dev { workspace_id: home() });
    gateway.config.lame_duck = lame_duck;
    let shutdown = CancellationToken::new();
    let served = tokio::spawn(gateway::serve(listener, gateway, shutdown.clone()));
    (address, shutdown, served)
}

#[tokio::test]
async fn an_edge_that_leaves_is_not_ready_but_answers() {
    let (address, shutdown, served) = leaving_edge(Duration::from_secs(3_600)).await;
    assert_eq!(status(address, "/readyz").await, Some(200));
    shutdown.cancel();
    let readiness = ask(address, "GET", "/readyz").await.expect("an answer");
    assert!(readiness.starts_with("HTTP/1.1 503"), "{readiness}");
    assert!(readiness.contains("it is shutting down"), "{readiness}");
    assert_eq!(status(address, "/api/v1/runs").await, Some(200));
    served.abort();
}

#[tokio::test]
async fn an_edge_has_left_when_its_time_is_up() {
    let (address, shutdown, served) = leaving_edge(Duration::from_millis(50)).await;
    shutdown.cancel();
    served.await.expect("no panic").expect("a clean end");
    assert_eq!(status(address, "/livez").await, None);
}
