//! What is recorded beside every event of a command.

use bytes::Bytes;
use protocol::command::CommandEnvelope;
use serde::Serialize;

#[derive(Serialize)]
struct Metadata<'a> {
    actor: &'a str,
    command_id: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    traceparent: Option<&'a str>,
    engine_version: &'static str,
}

/// The metadata of a command's events, as compact JSON.
pub(crate) fn of(envelope: &CommandEnvelope) -> Bytes {
    let metadata = Metadata {
        actor: &envelope.actor.0,
        command_id: envelope.id.to_string(),
        traceparent: envelope.traceparent.as_deref(),
        engine_version: env!("CARGO_PKG_VERSION"),
    };
    // Texts always have a JSON form.
    serde_json::to_vec(&metadata).unwrap_or_default().into()
}
