//! What is recorded beside every event of a command.

use bytes::Bytes;
use domain::ids::CommandId;
use domain::run::state::WaitKinds;
use protocol::command::CommandEnvelope;
use serde::Serialize;
use serde_json::{Map, Value, json};

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
    by(&envelope.actor.0, envelope.id, envelope.traceparent.as_deref())
}

/// Metadata with what the run waits for after its events. It stands beside those that change it, for
/// readers: the events themselves say it too, but only to who folds the whole run.
pub(crate) fn waiting_on(metadata: &Bytes, waits: WaitKinds) -> Bytes {
    let mut members: Map<String, Value> = serde_json::from_slice(metadata).unwrap_or_default();
    members.insert("waits".to_owned(), json!(waits));
    serde_json::to_vec(&members).unwrap_or_default().into()
}

/// The same of what an actor does, under the id of a command.
pub(crate) fn by(actor: &str, command_id: CommandId, traceparent: Option<&str>) -> Bytes {
    let metadata = Metadata {
        actor,
        command_id: command_id.to_string(),
        traceparent,
        engine_version: env!("CARGO_PKG_VERSION"),
    };
    // Texts always have a JSON form.
    serde_json::to_vec(&metadata).unwrap_or_default().into()
}
