//! The router from the table of routes, and the listener.

use std::net::SocketAddr;
use std::sync::Arc;

use axum::Router;
use axum::extract::Request;
use axum::http::StatusCode;
use axum::routing::on;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use tower_http::CompressionLevel;
use tower_http::compression::CompressionLayer;
use tower_http::compression::predicate::{NotForContentType, Predicate as _, SizeAbove};

use crate::config::{AuthConfig, Gateway, GatewayConfig};
use crate::connections::Connections;
use crate::edge::{self, Edge};
use crate::table::routes;

/// Bytes below which an answer isn't worth compressing.
const COMPRESS_ABOVE_BYTES: u64 = 1_024;

/// Why the edge doesn't serve.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    #[error(
        "dev mode signs everybody in and {0} is not a loopback address: \
         listen on 127.0.0.1, or set up an administrator's api key"
    )]
    DevOffLoopback(SocketAddr),
    #[error("the listener failed: {0}")]
    Listener(#[from] std::io::Error),
}

/// All routes of the table, and problems for what isn't in it. Refusals are told to the write side
/// until the gateway's shutdown.
pub fn router(gateway: Gateway) -> Router {
    let shutdown = gateway.shutdown.clone();
    let edge = Arc::new(Edge::new(gateway, shutdown.clone()));
    let router = router_of(&edge);
    // Without a runtime nothing is asked of it either.
    if let Ok(runtime) = tokio::runtime::Handle::try_current() {
        runtime.spawn(async move { edge.refusals.tell(&edge.gateway, shutdown).await });
    }
    router
}

fn router_of(edge: &Arc<Edge>) -> Router {
    let mut router = Router::new();
    for route in routes() {
        let edge = Arc::clone(edge);
        let handler = move |request: Request| edge::handle(edge, Ok(route), request);
        router = router.route(route.path, on(route.verb.filter(), handler));
    }
    let unmatched = |status: StatusCode| {
        let edge = Arc::clone(edge);
        move |request: Request| edge::handle(edge, Err(status), request)
    };
    let worthwhile =
        SizeAbove::new(COMPRESS_ABOVE_BYTES).and(NotForContentType::const_new("text/event-stream"));
    let compression =
        CompressionLayer::new().quality(CompressionLevel::Fastest).compress_when(worthwhile);
    router
        .method_not_allowed_fallback(unmatched(StatusCode::METHOD_NOT_ALLOWED))
        .fallback(unmatched(StatusCode::NOT_FOUND))
        .layer(compression)
}

/// Serves until `shutdown`. From then on `/readyz` fails; after [`GatewayConfig::lame_duck`]
/// streams and waits end, open requests are answered, and no more are taken.
///
/// [`GatewayConfig::lame_duck`]: crate::GatewayConfig::lame_duck
pub async fn serve(
    listener: TcpListener,
    mut gateway: Gateway,
    shutdown: CancellationToken,
) -> Result<(), ServeError> {
    let address = listener.local_addr()?;
    let dev = matches!(gateway.config.auth, AuthConfig::Dev { .. });
    if dev && !address.ip().is_loopback() {
        return Err(ServeError::DevOffLoopback(address));
    }
    let ending = CancellationToken::new();
    gateway.shutdown = ending.clone();
    let GatewayConfig { header_timeout, max_connections, lame_duck, .. } = gateway.config;
    let connections = Connections::new(header_timeout, max_connections, ending.clone());
    let leave = async {
        shutdown.cancelled().await;
        tokio::time::sleep(lame_duck).await;
        ending.cancel();
    };
    let edge = Arc::new(Edge::new(gateway, shutdown.clone()));
    let (router, answered) = (router_of(&edge), CancellationToken::new());
    let serve = async {
        connections.serve(listener, router).await;
        answered.cancel();
    };
    let refusals = edge.refusals.tell(&edge.gateway, answered.clone());
    tokio::join!(serve, leave, refusals);
    Ok(())
}
