//! A reader of event streams, as a browser reads them.

use std::time::Duration;

use reqwest::Method;
use serde_json::Value;

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
        let mut request = self.request(Method::GET, path).header("accept", "text/event-stream");
        if let Some(after) = after {
            request = request.header("last-event-id", after);
        }
        let response = self.response(request.timeout(Duration::from_secs(600))).await;
        let response = response.expect("the platform answers");
        assert_eq!(response.status(), 200, "a stream was refused");
        Follower { response, unread: Vec::new() }
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
