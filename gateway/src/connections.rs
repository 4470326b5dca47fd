//! Connections: accepted up to a number, given a time for each request's head, ended with grace.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::serve::Listener;
use hyper::Request;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::{Service as _, service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tokio_util::task::task_tracker::TaskTrackerToken;

/// The other end of a request's connection. Who holds it after the request, as a WebSocket does,
/// keeps the connection's place and is waited for at the end.
#[derive(Debug, Clone)]
pub(crate) struct Peer {
    pub(crate) address: IpAddr,
    _place: Arc<(OwnedSemaphorePermit, TaskTrackerToken)>,
}

/// How connections are served.
pub(crate) struct Connections {
    http: http1::Builder,
    places: Arc<Semaphore>,
    open: TaskTracker,
    shutdown: CancellationToken,
}

impl Connections {
    /// At most so many at a time, until the token is cancelled.
    pub(crate) fn new(
        header_timeout: Duration,
        max_connections: usize,
        shutdown: CancellationToken,
    ) -> Self {
        // HTTP/1 only: telling the versions apart by their first bytes has no time-out.
        let mut http = http1::Builder::new();
        http.timer(TokioTimer::new()).header_read_timeout(header_timeout);
        let places = Arc::new(Semaphore::new(max_connections));
        Self { http, places, open: TaskTracker::new(), shutdown }
    }

    /// Accepts until the shutdown, and returns when the last connection is done.
    pub(crate) async fn serve(self, mut listener: TcpListener, router: Router) {
        let service = TowerToHyperService::new(router.with_state::<()>(()));
        loop {
            let (stream, peer) = tokio::select! {
                biased;
                () = self.shutdown.cancelled() => break,
                // Waits out errors, such as too many open files.
                accepted = Listener::accept(&mut listener) => accepted,
            };
            match Arc::clone(&self.places).try_acquire_owned() {
                Ok(place) => {
                    let place = Arc::new((place, self.open.token()));
                    let peer = Peer { address: peer.ip(), _place: place };
                    self.open(stream, peer, service.clone());
                }
                Err(_) => {
                    metrics::counter!("wonder_http_connections_refused_total").increment(1);
                    drop(stream);
                }
            }
        }
        drop(listener);
        self.open.close();
        self.open.wait().await;
    }

    fn open(&self, stream: TcpStream, peer: Peer, service: TowerToHyperService<Router>) {
        if let Err(error) = stream.set_nodelay(true) {
            tracing::debug!(%error, "socket option was refused");
        }
        // A token of its own, so that connections don't share a lock at each wake.
        let (http, shutdown) = (self.http.clone(), self.shutdown.child_token());
        self.open.spawn(async move {
            let service = service_fn(move |mut request: Request<Incoming>| {
                request.extensions_mut().insert(peer.clone());
                service.call(request)
            });
            let connection = http.serve_connection(TokioIo::new(stream), service).with_upgrades();
            let mut connection = std::pin::pin!(connection);
            let ended = tokio::select! {
                ended = connection.as_mut() => ended,
                () = shutdown.cancelled() => {
                    connection.as_mut().graceful_shutdown();
                    connection.await
                }
            };
            if let Err(error) = ended {
                tracing::debug!(%error, "connection broke off");
            }
        });
    }
}
