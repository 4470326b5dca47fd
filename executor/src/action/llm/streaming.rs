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

    /// The input and output tokens that the provider has counted until now.
    fn tokens(&self) -> (u64, u64);
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
    let mut assembly = A::default();
    match read(&mut stream, &mut assembly, key, live).await {
        Ok(()) => Ok(assembly.answer()),
        Err(mut fault) => {
            // What it has cost by then is known to some, and priced by the caller.
            (fault.usage.input_tokens, fault.usage.output_tokens) = assembly.tokens();
            Err(fault)
        }
    }
}

/// Reads until the answer is whole.
async fn read<A: Assembly>(
    stream: &mut Streamed,
    assembly: &mut A,
    key: Option<&str>,
    live: &mut Live<'_>,
) -> Result<(), Fault> {
    let mut parser = Parser::default();
    while let Some(bytes) = next(stream, live).await? {
        for message in parser.push(&bytes) {
            if message.data == DONE {
                return Ok(());
            }
            if let Some(text) = assembly.take(data(&message, key)?) {
                live.add(&text);
            }
            if assembly.is_whole() {
                return Ok(());
            }
        }
    }
    match assembly.may_end() {
        true => Ok(()),
        false => Err(transient("transport", "the answer broke off")),
    }
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

fn data(message: &Message, key: Option<&str>) -> Result<Value, Fault> {
    let data: Value = serde_json::from_str(&message.data).map_err(|error| {
        transient("malformed_answer", format!("a piece of the answer isn't JSON: {error}"))
    })?;
    match data.get("error") {
        None | Some(Value::Null) => Ok(data),
        Some(error) => Err(wire::broken_off(error, key)),
    }
}
