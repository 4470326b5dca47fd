//! A reader of the stream over a WebSocket, with the client that many programs use.

use futures::StreamExt as _;
use serde_json::Value;
use tokio::net::TcpStream;
use tokio_tungstenite::tungstenite::{Error, Message};
use tokio_tungstenite::{MaybeTlsStream, WebSocketStream, connect_async};

use crate::client::Client;
use crate::sse::Sent;
use crate::wait::within;

/// An open WebSocket. Dropped, it is cut off without a word.
#[derive(Debug)]
pub struct Socket(WebSocketStream<MaybeTlsStream<TcpStream>>);

impl Client {
    /// Follows `/stream` with a query (`run_id=…`) after a cursor, or from the first event.
    ///
    /// # Panics
    /// When it is refused.
    pub async fn follow_socket(&self, query: &str, after: Option<&str>) -> Socket {
        let base = self.base().replacen("http", "ws", 1);
        let after = after.map(|after| format!("&after={after}")).unwrap_or_default();
        let url = format!("{base}/api/v1/stream?{query}{after}");
        let (socket, _) = within("a websocket", connect_async(url)).await.expect("it is opened");
        Socket(socket)
    }
}

impl Socket {
    /// The next event; `None` where the stream has ended or broken off.
    ///
    /// # Panics
    /// When none comes within a minute.
    pub async fn next(&mut self) -> Option<Sent> {
        within("an event of a websocket", async {
            loop {
                match self.0.next().await? {
                    Ok(Message::Text(text)) => return Some(sent(&text)),
                    Ok(Message::Close(_)) | Err(Error::ConnectionClosed | Error::Io(_)) => {
                        return None;
                    }
                    Ok(_) => {}
                    Err(error) => panic!("no websocket: {error}"),
                }
            }
        })
        .await
    }
}

fn sent(text: &str) -> Sent {
    let mut frame: Value = serde_json::from_str(text).expect("a frame is json");
    let member = |name| frame[name].as_str().unwrap_or_default().to_owned();
    Sent { id: member("id"), name: member("event"), data: frame["data"].take() }
}
