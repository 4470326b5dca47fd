//! Server-sent events: parsed as they come, and resumed by cursor when the line is cut.

use std::collections::VecDeque;
use std::time::Duration;

use chassis::sse::{Message, Parser};
use futures::StreamExt;
use futures::stream::BoxStream;
use protocol::{EphemeralEnvelope, EventEnvelope};

use super::{ApiProblem, Client};
use crate::exit::Failure;

/// Attempts in a row without an event after which the server counts as gone.
const MAX_ATTEMPTS: u32 = 8;
const FIRST_DELAY: Duration = Duration::from_millis(100);
const MAX_DELAY: Duration = Duration::from_secs(3);
/// An event's payload is at most a few MiB; more without an end isn't a stream of events.
const MAX_BUFFER: usize = 32 << 20;

/// What a stream tells.
#[derive(Debug)]
pub(crate) enum Told {
    Event(Box<EventEnvelope>),
    /// Where it was asked for: what goes on, and is kept nowhere.
    Ephemeral(Box<EphemeralEnvelope>),
}

/// A message, and the text that it came in.
pub(crate) type Received = (Told, String);

/// Events of the journal, live, without a gap or a duplicate across reconnects.
pub(crate) struct EventStream {
    client: Client,
    path: String,
    query: Vec<(String, String)>,
    cursor: Option<String>,
    body: Option<BoxStream<'static, reqwest::Result<bytes::Bytes>>>,
    parser: Parser,
    ready: VecDeque<Message>,
    attempts: u32,
}

impl Client {
    /// Follows a path's events after a cursor; from the first one where it is `None`.
    pub(crate) fn follow(
        &self,
        path: &str,
        query: Vec<(String, String)>,
        after: Option<String>,
    ) -> EventStream {
        EventStream {
            client: self.clone(),
            path: path.to_owned(),
            query,
            cursor: after,
            body: None,
            parser: Parser::default(),
            ready: VecDeque::new(),
            attempts: 0,
        }
    }
}

impl EventStream {
    /// The next message; `None` after a run's last one. Fails where the server refuses, or has
    /// been away for several attempts.
    pub(crate) async fn next(&mut self) -> Result<Option<Received>, Failure> {
        loop {
            if let Some(message) = self.ready.pop_front() {
                if message.event == "end" {
                    return Ok(None);
                }
                if message.event == "error" {
                    self.take_error(&message)?;
                    continue;
                }
                let told = if message.event == "ephemeral" {
                    serde_json::from_str(&message.data).map(Told::Ephemeral)
                } else {
                    serde_json::from_str(&message.data).map(Told::Event)
                };
                let Ok(told) = told else { continue };
                if let Told::Event(event) = &told {
                    self.cursor = Some(event.cursor.to_string());
                }
                self.attempts = 0;
                return Ok(Some((told, message.data)));
            }
            self.read_more().await?;
        }
    }

    /// A server that drops us for lagging says so in the stream; we go on from our cursor.
    fn take_error(&mut self, message: &Message) -> Result<(), Failure> {
        let problem = ApiProblem::read(0, &message.data);
        let status = serde_json::from_str::<serde_json::Value>(&message.data)
            .ok()
            .and_then(|value| value["status"].as_u64())
            .unwrap_or(503);
        if matches!(status, 429 | 503) {
            self.cut();
            return Ok(());
        }
        let status = u16::try_from(status).unwrap_or(500);
        Err(Failure::Api(Box::new(ApiProblem { status, ..problem })))
    }

    async fn read_more(&mut self) -> Result<(), Failure> {
        if self.body.is_none() {
            self.connect().await?;
        }
        let chunk = match self.body.as_mut() {
            Some(body) => body.next().await,
            None => None,
        };
        match chunk {
            Some(Ok(bytes)) => {
                self.ready.extend(self.parser.push(&bytes));
                if self.parser.held() > MAX_BUFFER {
                    return Err(anyhow::anyhow!(
                        "the server's stream holds an event of more than {MAX_BUFFER} bytes"
                    )
                    .into());
                }
            }
            Some(Err(_)) | None => self.cut(),
        }
        Ok(())
    }

    fn cut(&mut self) {
        self.body = None;
        self.parser = Parser::default();
        self.ready.clear();
    }

    async fn connect(&mut self) -> Result<(), Failure> {
        let mut delay = FIRST_DELAY;
        loop {
            self.attempts += 1;
            if self.attempts > 1 {
                tokio::time::sleep(delay).await;
                delay = (delay * 2).min(MAX_DELAY);
            }
            let cursor = self.cursor.as_deref();
            let failure = match self.client.open_stream(&self.path, &self.query, cursor).await {
                Ok(response) => {
                    self.body = Some(response.bytes_stream().boxed());
                    return Ok(());
                }
                Err(failure) => failure,
            };
            let lasting = matches!(&failure, Failure::Api(problem) if problem.status < 500);
            // A first connection that is refused is an answer; a cut one may come back.
            let never_there = self.cursor.is_none() && self.attempts == 1;
            if lasting || never_there || self.attempts >= MAX_ATTEMPTS {
                return Err(failure);
            }
        }
    }
}
