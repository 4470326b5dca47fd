//! What is recorded beside every event of a command.

use bytes::Bytes;
use domain::ids::{CommandId, RunId};
use domain::run::state::WaitKinds;
use protocol::command::{Command, CommandEnvelope, Origin};
use protocol::event::SecretsUsed;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

/// What came with what somebody outside asked for or sent: whose trace it is part of, and where it
/// came from.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Along<'a> {
    pub(crate) traceparent: Option<&'a str>,
    pub(crate) origin: Option<&'a Origin>,
}

impl<'a> From<&'a CommandEnvelope> for Along<'a> {
    fn from(envelope: &'a CommandEnvelope) -> Self {
        Self { traceparent: envelope.traceparent.as_deref(), origin: envelope.origin.as_deref() }
    }
}

#[derive(Serialize)]
struct Metadata<'a> {
    actor: &'a str,
    command_id: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    traceparent: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    origin: Option<&'a Origin>,
    engine_version: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    shared: Option<u64>,
    /// The fork was asked for as a retry.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    retry: bool,
}

impl<'a> Metadata<'a> {
    fn new(actor: &'a str, command_id: CommandId, along: Along<'a>) -> Self {
        let Along { traceparent, origin } = along;
        Self {
            actor,
            command_id: command_id.to_string(),
            traceparent,
            origin,
            engine_version: env!("CARGO_PKG_VERSION"),
            shared: None,
            retry: false,
        }
    }

    fn of(envelope: &'a CommandEnvelope) -> Self {
        Self::new(&envelope.actor.0, envelope.id, envelope.into())
    }

    /// As compact JSON.
    fn written(&self) -> Bytes {
        // Texts and numbers always have a JSON form.
        serde_json::to_vec(self).unwrap_or_default().into()
    }
}

/// The metadata of a command's events, as compact JSON.
pub(crate) fn of(envelope: &CommandEnvelope) -> Bytes {
    Metadata::of(envelope).written()
}

/// Metadata with the secrets that attempts were given whose outcomes are among its events.
pub(crate) fn using(metadata: &Bytes, secrets: &[SecretsUsed]) -> Bytes {
    with(metadata, "secrets", &json!(secrets))
}

/// Metadata with what the run waits for after its events. It stands beside those that change it, for
/// readers: the events themselves say it too, but only to who folds the whole run.
pub(crate) fn waiting_on(metadata: &Bytes, waits: WaitKinds) -> Bytes {
    with(metadata, "waits", &json!(waits))
}

/// Metadata of events that nobody outside is told of: see [`protocol::event::is_quiet`].
pub(crate) fn quiet(metadata: &Bytes) -> Bytes {
    with(metadata, "quiet", &json!(true))
}

/// Metadata of events of which the first are shared.
pub(crate) fn sharing(metadata: &Bytes, shared: u64) -> Bytes {
    with(metadata, "shared", &json!(shared))
}

/// Metadata of events that are part of a trace.
pub(crate) fn in_trace(metadata: &Bytes, traceparent: &str) -> Bytes {
    with(metadata, "traceparent", &json!(traceparent))
}

/// The trace that events with this metadata are part of.
pub(crate) fn trace_in(metadata: &[u8]) -> Option<String> {
    #[derive(Deserialize)]
    struct Traced {
        #[serde(default)]
        traceparent: Option<String>,
    }
    serde_json::from_slice::<Traced>(metadata).ok()?.traceparent
}

/// The trace of a run that is part of no other: its own, made of its id. As in [W3C Trace
/// Context](https://www.w3.org/TR/trace-context/#traceparent-header).
pub(crate) fn own_trace(run_id: RunId) -> String {
    let bits = run_id.bits().as_u128();
    // Its lower half stands for the span; neither may be nothing but zeros.
    format!("00-{:032x}-{:016x}-01", bits.max(1), (bits as u64).max(1))
}

/// Metadata with one more member. It is an object that was written here, and has some.
fn with(metadata: &Bytes, name: &str, value: &Value) -> Bytes {
    let members = metadata.strip_suffix(b"}").unwrap_or(metadata);
    [members, format!(",\"{name}\":{value}}}").as_bytes()].concat().into()
}

/// The same of a fork, of which the first events are shared: see [`protocol::event::is_shared`].
pub(crate) fn of_fork(envelope: &CommandEnvelope, shared: u64) -> Bytes {
    let retry = matches!(envelope.command, Command::RetryRun { .. });
    Metadata { shared: Some(shared), retry, ..Metadata::of(envelope) }.written()
}

/// The same of what an actor does, under the id of a command.
pub(crate) fn by(actor: &str, command_id: CommandId, along: Along<'_>) -> Bytes {
    Metadata::new(actor, command_id, along).written()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_trace_that_is_written_is_read_and_one_of_a_run_is_its_id() {
        let actors = by("dev", CommandId::new(uuid::Uuid::from_u128(7)), Along::default());
        assert_eq!(trace_in(&actors), None);
        let trace = own_trace(RunId::new(uuid::Uuid::from_u128(0xabc)));
        let id = "00000000000000000000000000000abc";
        assert_eq!(trace, format!("00-{id}-0000000000000abc-01"));
        assert_eq!(trace_in(&in_trace(&actors, &trace)), Some(trace));
        assert_eq!(trace_in(b""), None);
    }
}
