//! A feed over a WebSocket (RFC 6455): each message is a text frame `{id, event, data}`.
//!
//! Browsers can't set headers here, so a key may come as a subprotocol, `bearer.<key>`, beside
//! `wonder.v1`, which is the one that is answered. It is taken out of the request as soon as it is
//! read. The stream takes no messages: a client that sends one is cut off.

use std::pin::pin;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use axum::extract::FromRequestParts as _;
use axum::extract::ws::rejection::WebSocketUpgradeRejection;
use axum::extract::ws::{CloseFrame, Message as Frame, WebSocket, WebSocketUpgrade, close_code};
use axum::http::request::Parts;
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::Response;
use futures::stream::{SplitSink, SplitStream};
use futures::{SinkExt as _, StreamExt as _};
use protocol::Cursor;
use serde::Serialize;
use serde_json::value::RawValue;
use tokio::time::Instant;

use crate::call::Call;
use crate::connections::Peer;
use crate::feed::{End, Feed, Message};
use crate::problem::Problem;

/// The one subprotocol.
const PROTOCOL: &str = "wonder.v1";
/// What stands before a key among the subprotocols.
const KEY: &str = "bearer.";
/// Bytes of a frame or message of a client; pings have at most 125.
const TAKEN_BYTES: usize = 1_024;
/// Bytes that are read or gathered before they are written.
const BUFFER_BYTES: usize = 4 * 1_024;
/// How often a client is asked for a sign of life while there is nothing to tell.
const PING: Duration = Duration::from_secs(15);
/// How long a client that is told nothing may be silent.
const SILENCE: Duration = Duration::from_secs(60);
/// How long a client has to close its side, and to take what was sent before a shutdown.
const CLOSING: Duration = Duration::from_secs(2);

/// Takes a key that came as a subprotocol for an `Authorization` header; one of those comes first.
pub(crate) fn sign_in(headers: &mut HeaderMap) {
    let (mut key, mut others) = (None, Vec::new());
    for offered in offered(headers) {
        match offered.strip_prefix(KEY) {
            Some(sent) => key = HeaderValue::from_str(&format!("Bearer {sent}")).ok(),
            None => others.push(offered),
        }
    }
    let Some(mut key) = key else { return };
    match HeaderValue::from_str(&others.join(", ")) {
        Ok(others) if !others.is_empty() => {
            headers.insert(header::SEC_WEBSOCKET_PROTOCOL, others);
        }
        _ => {
            headers.remove(header::SEC_WEBSOCKET_PROTOCOL);
        }
    }
    key.set_sensitive(true);
    headers.entry(header::AUTHORIZATION).or_insert(key);
}

fn offered(headers: &HeaderMap) -> Vec<String> {
    let lists = headers.get_all(header::SEC_WEBSOCKET_PROTOCOL).iter();
    let lists = lists.filter_map(|list| list.to_str().ok());
    lists.flat_map(|list| list.split(',')).map(|offered| offered.trim().to_owned()).collect()
}

/// Whether the request is one that a WebSocket begins with.
pub(crate) async fn upgrade(parts: &mut Parts) -> Result<WebSocketUpgrade, Problem> {
    let offered = offered(&parts.headers);
    let upgrade = WebSocketUpgrade::from_request_parts(parts, &()).await.map_err(refused)?;
    // A browser gives up where none of what it offered is answered; this says why.
    if !offered.is_empty() && !offered.iter().any(|offered| offered == PROTOCOL) {
        let detail = format!("offer {PROTOCOL}, or nothing: no other subprotocol is spoken here");
        return Err(Problem::header("Sec-WebSocket-Protocol", detail));
    }
    Ok(upgrade.protocols([PROTOCOL]))
}

fn refused(rejection: WebSocketUpgradeRejection) -> Problem {
    match rejection {
        WebSocketUpgradeRejection::InvalidWebSocketVersionHeader(_) => {
            Problem::header("Sec-WebSocket-Version", "use version 13 (rfc 6455)")
        }
        WebSocketUpgradeRejection::WebSocketKeyHeaderMissing(_) => {
            Problem::header("Sec-WebSocket-Key", "send 16 random bytes in base64 (rfc 6455)")
        }
        _ => {
            let detail = "this is a websocket: connect with a websocket client over http/1.1, or \
                          read /api/v1/events";
            Problem::new(StatusCode::UPGRADE_REQUIRED, "websocket_required", detail)
        }
    }
}

/// Answers with a WebSocket that tells what the feed does.
pub(crate) fn respond(mut call: Call, upgrade: WebSocketUpgrade, feed: Feed) -> Response {
    // The connection keeps its place, and is waited for at the end.
    let peer = call.parts.extensions.remove::<Peer>();
    let upgrade = upgrade.max_message_size(TAKEN_BYTES).max_frame_size(TAKEN_BYTES);
    let upgrade = upgrade.read_buffer_size(BUFFER_BYTES).write_buffer_size(BUFFER_BYTES);
    upgrade.on_upgrade(|socket| async move {
        tell(socket, feed).await;
        drop(peer);
    })
}

/// Why a socket is closed; `None` where there is nobody to tell.
type Closed = Option<CloseFrame>;

async fn tell(socket: WebSocket, mut feed: Feed) {
    let (mut sink, mut frames) = socket.split();
    let shutdown = feed.shutdown();
    let heard = Heard::now();
    let closed = tokio::select! {
        closed = listen(&mut frames, &heard) => closed,
        closed = send(&mut sink, &mut feed, &heard) => closed,
        // Whoever takes nothing any more can't be told either.
        () = async { shutdown.cancelled().await; tokio::time::sleep(CLOSING).await } => None,
    };
    drop(feed);
    let Some(closed) = closed else { return };
    let farewell = async {
        if sink.send(Frame::Close(Some(closed))).await.is_ok() {
            // Until the client has closed too: what it hasn't read would be lost with a reset.
            while let Some(Ok(_)) = frames.next().await {}
        }
    };
    tokio::time::timeout(CLOSING, farewell).await.ok();
}

/// When a client last gave a sign of life.
struct Heard(Mutex<Instant>);

impl Heard {
    fn now() -> Self {
        Self(Mutex::new(Instant::now()))
    }

    fn again(&self) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Instant::now();
    }

    fn silence(&self) -> Duration {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).elapsed()
    }
}

/// Hears whether the client is there, until it isn't or breaks the rule.
async fn listen(frames: &mut SplitStream<WebSocket>, heard: &Heard) -> Closed {
    loop {
        match frames.next().await {
            Some(Ok(Frame::Ping(_) | Frame::Pong(_))) => heard.again(),
            Some(Ok(Frame::Text(_) | Frame::Binary(_))) => {
                return close(close_code::POLICY, "this stream takes no messages");
            }
            // It is answered as reading goes on.
            Some(Ok(Frame::Close(_))) => {}
            None => return None,
            Some(Err(error)) => {
                tracing::debug!(%error, "websocket broke off");
                return close(close_code::PROTOCOL, "that could not be read");
            }
        }
    }
}

/// Sends each message once the one before is on its way.
async fn send(sink: &mut SplitSink<WebSocket, Frame>, feed: &mut Feed, heard: &Heard) -> Closed {
    loop {
        let message = {
            let mut next = pin!(feed.next());
            loop {
                tokio::select! {
                    biased;
                    message = &mut next => break message,
                    () = tokio::time::sleep(PING) => {
                        if heard.silence() > SILENCE {
                            return close(close_code::POLICY, "no answer to pings");
                        }
                        sink.send(Frame::Ping(Default::default())).await.ok()?;
                    }
                }
            }
        };
        match message {
            Ok(message) => sink.send(Frame::text(frame(&message))).await.ok()?,
            Err(end) => return farewell(end),
        }
        // As long as it takes what it is told, it need not say so.
        heard.again();
    }
}

fn frame(message: &Message) -> String {
    #[derive(Serialize)]
    struct Told<'a> {
        #[serde(skip_serializing_if = "Option::is_none")]
        id: Option<Cursor>,
        event: &'a str,
        data: &'a RawValue,
    }
    let data = serde_json::from_str(&message.data);
    let told = |data| Told { id: message.id, event: &message.event, data };
    let text = data.and_then(|data| serde_json::to_string(&told(data)));
    text.unwrap_or_default()
}

fn farewell(end: End) -> Closed {
    match end {
        End::Over => close(close_code::NORMAL, "the run has ended"),
        End::Away => close(close_code::AWAY, "the server ends: go on after the last id"),
        End::Failed(StatusCode::TOO_MANY_REQUESTS | StatusCode::SERVICE_UNAVAILABLE) => {
            close(close_code::AGAIN, "go on after the last id")
        }
        End::Failed(status) if status.is_server_error() => {
            close(close_code::ERROR, "the last message says why")
        }
        End::Failed(_) => close(close_code::POLICY, "the last message says why"),
    }
}

fn close(code: u16, reason: &'static str) -> Closed {
    Some(CloseFrame { code, reason: reason.into() })
}
