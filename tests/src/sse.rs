//! A reader of event streams, as a browser reads them.

use std::time::Duration;

use reqwest::Method;
use serde_json::Value;
use tokio::io::AsyncWriteExt;
use tokio::net::{TcpSocket, TcpStream};

use crate::client::Client;
use crate::wait::within;

/// One event of a stream.
#[derive(Debug, Clone, PartialEq)]
pub struct Sent {
    /// The cursor to resume after; empty where the event had none.
    pub id: String,
    /// The event's type, `end` or `error`.
    pub name: String,
    pub data: Value,
}

/// An open stream.
#[derive(Debug)]
pub struct Follower {
    response: reqwest::Response,
    unread: Vec<u8>,
}

impl Client {
    /// Follows a stream of events (`/events`, `/runs/{id}/events`) after a cursor, or from the
    /// first event.
    pub async fn follow(&self, path: &str, after: Option<&str>) -> Follower {
        self.try_follow(path, after).await.expect("the platform streams events")
    }

    /// The same where nobody may be there to stream; `None` where none does.
    ///
    /// # Panics
    /// When the cursor is refused.
    pub async fn try_follow(&self, path: &str, after: Option<&str>) -> Option<Follower> {
        let mut request = self.request(Method::GET, path).header("accept", "text/event-stream");
        if let Some(after) = after {
            request = request.header("last-event-id", after);
        }
        let request = request.timeout(Duration::from_secs(600));
        let response = self.response(request).await.ok()?;
        let status = response.status().as_u16();
        assert!(!(400..500).contains(&status), "a stream was refused with {status}");
        (status == 200).then_some(Follower { response, unread: Vec::new() })
    }

    /// Opens a stream from the first event on, and reads nothing of it. The connection takes a few
    /// KiB that nobody reads, and no more.
    pub async fn open_unread(&self, path: &str) -> TcpStream {
        let base = self.base();
        let address = base.trim_start_matches("http://");
        let socket = TcpSocket::new_v4().expect("a socket can be made");
        socket.set_recv_buffer_size(4096).expect("a buffer can be small");
        let peer = address.parse().expect("an address");
        let mut stream = socket.connect(peer).await.expect("the platform listens");
        let head = format!(
            "GET /api/v1{path} HTTP/1.1\r\nhost: {address}\r\naccept: text/event-stream\r\n\r\n"
        );
        stream.write_all(head.as_bytes()).await.expect("the platform reads");
        stream
    }
}

impl Follower {
    /// The next event; `None` where the stream has ended or broken off.
    ///
    /// # Panics
    /// When none comes within a minute.
    pub async fn next(&mut self) -> Option<Sent> {
        within("an event of a stream", async {
            loop {
                if let Some(end) = self.unread.windows(2).position(|two| two == b"\n\n") {
                    let block: Vec<u8> = self.unread.drain(..end + 2).collect();
                    match parse(&String::from_utf8_lossy(&block)) {
                        Some(sent) => return Some(sent),
                        None => continue,
                    }
                }
                let chunk = self.response.chunk().await.ok()??;
                self.unread.extend_from_slice(&chunk);
            }
        })
        .await
    }
}

/// A block that has data; comments and the retry hint have none.
fn parse(block: &str) -> Option<Sent> {
    let mut sent = Sent { id: String::new(), name: String::new(), data: Value::Null };
    let mut data = String::new();
    for line in block.lines() {
        let Some((field, value)) = line.split_once(':') else { continue };
        let value = value.strip_prefix(' ').unwrap_or(value);
        match field {
            "id" => sent.id = value.to_owned(),
            "event" => sent.name = value.to_owned(),
            "data" => data.push_str(value),
            _ => {}
        }
    }
    sent.data = serde_json::from_str(&data).ok()?;
    Some(sent)
}
