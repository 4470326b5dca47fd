//! What a stream of events holds, as a subscriber outside gets it.

use async_nats::jetstream;
use bytes::Bytes;

use crate::bus::NatsOptions;

/// A message of a stream.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredMessage {
    pub subject: String,
    pub headers: Vec<(String, String)>,
    pub body: Bytes,
}

impl StoredMessage {
    /// A header's value, or nothing.
    pub fn header(&self, name: &str) -> &str {
        let found = self.headers.iter().find(|(one, _)| one.eq_ignore_ascii_case(name));
        found.map_or("", |(_, value)| value)
    }
}

/// All that a stream (in capitals, without the prefix) holds at the moment, in its order. Nothing
/// where it isn't there.
///
/// # Panics
/// Where the server doesn't answer.
pub async fn stored(options: &NatsOptions, name: &str) -> Vec<StoredMessage> {
    let client = async_nats::connect(&options.url).await.expect("nats is there");
    let name = format!("{}_{name}", options.prefix.to_uppercase());
    let Ok(stream) = jetstream::new(client).get_stream(name).await else { return Vec::new() };
    let state = stream.cached_info().state.clone();
    let mut messages = Vec::new();
    if state.messages == 0 {
        return messages;
    }
    for sequence in state.first_sequence..=state.last_sequence {
        let message = stream.get_raw_message(sequence).await.expect("a message that is kept");
        let headers = message.headers.iter().flat_map(|(name, values)| {
            values.iter().map(move |value| (name.to_string(), value.to_string()))
        });
        messages.push(StoredMessage {
            subject: message.subject.to_string(),
            headers: headers.collect(),
            body: message.payload.clone(),
        });
    }
    messages
}
