//! Answers that come piece by piece: read, put together as if they had come whole, and told on.

use std::pin::pin;

use bytes::Bytes;
use chassis::sse::{Message, Parser};
use serde_json::Value;

use super::wire::{self, LONGEST, Post};
use super::{Live, Services};
use crate::fault::{Fault, transient};
use crate::web::{Opened, Streamed};

/// What OpenAI's format ends with.
const DONE: &str = "[DONE]";

/// An answer of a format, being put together.
pub(super) trait Assembly: Default {
    /// Takes a message's data; gives what it adds to the answer's text.
    fn take(&mut self, data: Value) -> Option<String>;

    /// Whether the provider has said that this is all.
    fn is_whole(&self) -> bool;

    /// Whether it may be all where the provider has closed the connection without saying so.
    fn may_end(&self) -> bool;

    /// The answer, in the form in which it comes whole.
    fn answer(self) -> Value;
}

/// Posts a body and answers what the pieces of the answer come to. Tells each text as it comes. A
/// provider may answer whole all the same.
pub(super) async fn post<A: Assembly>(
    services: &Services,
    post: Post<'_>,
    live: &mut Live<'_>,
) -> Result<Value, Fault> {
    let key = post.key;
    let mut stream = match services.web.open(post.call()?, LONGEST).await? {
        Opened::Whole(reply) => return wire::parsed(&reply, key),
        Opened::Stream(stream) => stream,
    };
    let (mut parser, mut assembly) = (Parser::default(), A::default());
    while let Some(bytes) = next(&mut stream, live).await? {
        for message in parser.push(&bytes) {
            if message.data == DONE {
                return Ok(assembly.answer());
            }
            if let Some(text) = assembly.take(read(&message, key)?) {
                live.add(&text);
            }
            if assembly.is_whole() {
                return Ok(assembly.answer());
            }
        }
    }
    if assembly.may_end() {
        return Ok(assembly.answer());
    }
    Err(transient("transport", "the answer broke off"))
}

/// The next bytes; what came before is told when it is due.
async fn next(stream: &mut Streamed, live: &mut Live<'_>) -> Result<Option<Bytes>, Fault> {
    let mut next = pin!(stream.next());
    loop {
        let Some(due) = live.due() else { return next.await };
        tokio::select! {
            biased;
            bytes = &mut next => return bytes,
            () = tokio::time::sleep_until(due) => live.flush(),
        }
    }
}

fn read(message: &Message, key: Option<&str>) -> Result<Value, Fault> {
    let data: Value = serde_json::from_str(&message.data).map_err(|error| {
        transient("malformed_answer", format!("a piece of the answer isn't JSON: {error}"))
    })?;
    match data.get("error") {
        None | Some(Value::Null) => Ok(data),
        Some(error) => Err(wire::broken_off(error, key)),
    }
}
