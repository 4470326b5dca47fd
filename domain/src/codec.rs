//! The codec: how typed events become journal bytes and back, the same for writers and readers.
//!
//! A payload is the event's canonical JSON (RFC 8785) without its `type`, which the journal keeps
//! beside it. Values above [`INLINE_VALUE_BYTES`] stand elsewhere, under the hash of their
//! content, and leave `{"$ref": "<hash>"}` in the payload. `{"$ref":…}` and `{"$enc":…}` (a sealed
//! value) are reserved; a user's own key of that name gets one more `$` on the way in and loses it
//! on the way out.

use std::borrow::Cow;

use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Map, Number, Value};
use sha2::{Digest, Sha256};

use crate::ids::WorkspaceId;
use crate::limits::{INLINE_VALUE_BYTES, JSON_DEPTH};
use crate::{access, experiment, hold, resource, retention, run, trigger};

mod canonical;

/// An event as the journal stores it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Encoded {
    /// Canonical JSON, without the `type`.
    pub payload: Vec<u8>,
    /// Values that moved out, by hash, as canonical JSON. They hold no references themselves.
    pub blobs: Vec<(String, Vec<u8>)>,
}

/// Why an event can't be stored.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum EncodeError {
    #[error("a value is nested deeper than {JSON_DEPTH} levels: flatten it")]
    TooDeep,
    #[error("a value has no JSON form: {0}")]
    NotJson(String),
    #[error("the integer {0} is not exact as a JSON number (2^53 and beyond): send it as a text")]
    Inexact(Number),
    #[error("a text holds the character U+0000: leave it out")]
    Nul,
    #[error("the key {0:?} is reserved: use another one")]
    ReservedKey(String),
}

/// Keys that begin so are refused: serde_json reads an object with such a first key as raw text.
pub const RESERVED_KEYS: &str = "$serde_json::private::";

/// Why a stored event can't be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    #[error("no event is called {0:?}: run a newer release on this store")]
    UnknownType(String),
    #[error("{event_type} has no version {version}: run a newer release on this store")]
    UnknownVersion { event_type: String, version: u32 },
    #[error("the stored value {0} that an event refers to is missing")]
    MissingBlob(String),
    #[error("a value of the event is sealed and its key isn't here")]
    Sealed,
    #[error("the payload of {event_type} is damaged: {reason}")]
    Damaged { event_type: String, reason: String },
}

/// A family of events that the journal holds: an enum that is tagged by `type`.
pub trait Stored: Serialize + DeserializeOwned {
    /// The version that this release writes for an event type; `None` for a foreign type.
    fn newest_version(event_type: &str) -> Option<u32>;

    /// Turns a payload of version `from` into the next version. The default knows no old ones.
    fn upcast(
        event_type: &str,
        from: u32,
        payload: Map<String, Value>,
    ) -> Option<Map<String, Value>> {
        let _ = (event_type, from, payload);
        None
    }
}

/// Every event type of a run; the golden files hold one of each.
pub(crate) const RUN_EVENTS: [&str; 39] = [
    "run_started",
    "run_queued",
    "run_admitted",
    "task_succeeded",
    "task_failed",
    "retry_started",
    "task_handed_out",
    "node_computed",
    "node_failed",
    "token_routed",
    "branches_spawned",
    "join_fired",
    "join_failed",
    "tokens_cancelled",
    "group_ended",
    "mutex_awaited",
    "mutex_taken",
    "wait_started",
    "wait_ended",
    "signal_received",
    "gate_opened",
    "gate_answered",
    "gate_closed",
    "event_emitted",
    "metric_emitted",
    "child_started",
    "child_ended",
    "run_paused",
    "run_resumed",
    "run_forked",
    "compensation_started",
    "undo_started",
    "undo_succeeded",
    "undo_failed",
    "compensation_ended",
    "run_completed",
    "run_failed",
    "run_cancelled",
    "run_timed_out",
];

impl Stored for run::Event {
    fn newest_version(event_type: &str) -> Option<u32> {
        is_run_event(event_type).then_some(1)
    }
}

/// Whether an event of a run is called so.
pub fn is_run_event(event_type: &str) -> bool {
    RUN_EVENTS.contains(&event_type)
}

impl Stored for trigger::Event {
    fn newest_version(event_type: &str) -> Option<u32> {
        trigger::Event::TYPES.contains(&event_type).then_some(1)
    }
}

impl Stored for access::Event {
    fn newest_version(event_type: &str) -> Option<u32> {
        access::Event::TYPES.contains(&event_type).then_some(1)
    }
}

impl Stored for experiment::Event {
    fn newest_version(event_type: &str) -> Option<u32> {
        experiment::Event::TYPES.contains(&event_type).then_some(1)
    }
}

impl Stored for hold::Event {
    fn newest_version(event_type: &str) -> Option<u32> {
        hold::Event::TYPES.contains(&event_type).then_some(1)
    }
}

impl Stored for retention::Event {
    fn newest_version(event_type: &str) -> Option<u32> {
        retention::Event::TYPES.contains(&event_type).then_some(1)
    }
}

impl Stored for resource::Event {
    fn newest_version(event_type: &str) -> Option<u32> {
        ["created", "revised", "archived"].contains(&event_type).then_some(1)
    }
}

/// Encodes an event of a workspace.
pub fn encode<E: Serialize>(event: &E, workspace: WorkspaceId) -> Result<Encoded, EncodeError> {
    let payload = canonical::to_vec(event, Some("type"))?;
    if payload.len() <= INLINE_VALUE_BYTES {
        return Ok(Encoded { payload, blobs: Vec::new() });
    }
    Ok(move_out(&payload, workspace))
}

/// Decodes a stored event. `blobs` answers a stored value by its hash; fetch what [`refs`] names
/// beforehand.
pub fn decode<E: Stored>(
    event_type: &str,
    event_version: u32,
    payload: &[u8],
    blobs: &dyn Fn(&str) -> Option<Vec<u8>>,
) -> Result<E, DecodeError> {
    let newest = E::newest_version(event_type)
        .ok_or_else(|| DecodeError::UnknownType(event_type.to_owned()))?;
    let damaged =
        |reason: String| DecodeError::Damaged { event_type: event_type.to_owned(), reason };
    if event_version == newest && !may_be_marked(payload) {
        let tagged = with_type(event_type, payload)
            .ok_or_else(|| damaged("it is not a JSON object".to_owned()))?;
        return serde_json::from_slice(&tagged).map_err(|error| damaged(error.to_string()));
    }
    let Value::Object(mut object) = value(payload, blobs)? else {
        return Err(damaged("it is not a JSON object".to_owned()));
    };
    let unknown_version = || DecodeError::UnknownVersion {
        event_type: event_type.to_owned(),
        version: event_version,
    };
    if event_version == 0 || event_version > newest {
        return Err(unknown_version());
    }
    for from in event_version..newest {
        object = E::upcast(event_type, from, object).ok_or_else(unknown_version)?;
    }
    object.insert("type".to_owned(), Value::String(event_type.to_owned()));
    serde_json::from_value(Value::Object(object)).map_err(|error| damaged(error.to_string()))
}

/// A stored JSON value (a payload or a part of one) as its writer meant it: references are
/// replaced by what they name, and escaped keys lose their extra `$`.
pub fn value(stored: &[u8], blobs: &dyn Fn(&str) -> Option<Vec<u8>>) -> Result<Value, DecodeError> {
    let parsed = value_as_stored(stored)?;
    if may_be_marked(stored) { resolve(parsed, blobs, Absent::Fails) } else { Ok(parsed) }
}

/// Like [`value`], for eyes: references that `blobs` doesn't answer and sealed values stay as
/// they are stored.
pub fn shown(stored: &[u8], blobs: &dyn Fn(&str) -> Option<Vec<u8>>) -> Result<Value, DecodeError> {
    let stored_value = value_as_stored(stored)?;
    if may_be_marked(stored) {
        resolve(stored_value, blobs, Absent::Stays)
    } else {
        Ok(stored_value)
    }
}

fn value_as_stored(stored: &[u8]) -> Result<Value, DecodeError> {
    serde_json::from_slice(stored).map_err(|error| DecodeError::Damaged {
        event_type: "a stored value".to_owned(),
        reason: error.to_string(),
    })
}

/// Whether a stored text has another in it: a look before it is parsed, as with a member that few
/// have.
pub fn mentions(stored: &[u8], text: &str) -> bool {
    memchr::memmem::find(stored, text.as_bytes()).is_some()
}

/// The whole numbers that follow a text wherever it stands in a stored one: a look before it is
/// parsed, too.
pub fn numbers<'a>(stored: &'a [u8], text: &'a str) -> impl Iterator<Item = u64> + 'a {
    let ends = memchr::memmem::find_iter(stored, text).map(|start| start + text.len());
    ends.filter_map(|start| {
        let digits = stored[start..].iter().take_while(|byte| byte.is_ascii_digit()).count();
        std::str::from_utf8(&stored[start..start + digits]).ok()?.parse().ok()
    })
}

/// Whether a stored value reads as it stands there: it refers to nothing, and no key is escaped.
pub fn is_plain(stored: &[u8]) -> bool {
    !may_be_marked(stored)
}

/// The hashes of stored values that a payload refers to, each once. Cheap where there are none.
pub fn refs(payload: &[u8]) -> Vec<String> {
    let mut found: Vec<String> = Vec::new();
    if mentions(payload, "\"$ref\"")
        && let Ok(parsed) = serde_json::from_slice::<Value>(payload)
    {
        collect_refs(&parsed, &mut found);
    }
    found
}

/// Gives a value the form that it has when it is read back from the journal: 1.0 becomes 1,
/// members stand in canonical order. State in memory is then what a later fold gives, down to the
/// text that an object is printed as. Call it on every value that enters an event; what a journal
/// couldn't give back unchanged is refused.
pub fn normalise(value: &mut Value) -> Result<(), EncodeError> {
    normalise_within(value, JSON_DEPTH)
}

/// The same of a value that may nest so deep, as where levels of ours are around one of a client.
pub(crate) fn normalise_within(value: &mut Value, depth: usize) -> Result<(), EncodeError> {
    let inner = depth.checked_sub(1).ok_or(EncodeError::TooDeep);
    match value {
        Value::Null | Value::Bool(_) => Ok(()),
        Value::String(text) => storable(text),
        Value::Number(number) => {
            if !is_exact(number) {
                return Err(EncodeError::Inexact(number.clone()));
            }
            if !number.as_i64().is_some_and(canonical::is_exact) {
                let bytes = canonical::to_vec(&*number, None)?;
                *number = serde_json::from_slice::<Number>(&bytes)
                    .map_err(|error| EncodeError::NotJson(error.to_string()))?;
            }
            Ok(())
        }
        Value::Array(items) => {
            let inner = inner?;
            items.iter_mut().try_for_each(|item| normalise_within(item, inner))
        }
        Value::Object(members) => {
            let inner = inner?;
            for key in members.keys() {
                storable(key)?;
                if key.starts_with(RESERVED_KEYS) {
                    return Err(EncodeError::ReservedKey(key.clone()));
                }
            }
            let in_order = |a: &String, b: &String| a.encode_utf16().le(b.encode_utf16());
            if !members.keys().is_sorted_by(|a, b| in_order(a, b)) {
                let mut sorted: Vec<_> = std::mem::take(members).into_iter().collect();
                sorted.sort_by(|(a, _), (b, _)| a.encode_utf16().cmp(b.encode_utf16()));
                *members = sorted.into_iter().collect();
            }
            members.values_mut().try_for_each(|member| normalise_within(member, inner))
        }
    }
}

fn storable(text: &str) -> Result<(), EncodeError> {
    if text.as_bytes().contains(&0) { Err(EncodeError::Nul) } else { Ok(()) }
}

/// Whether a number stays the same as a double, which is what JSON's numbers are to most readers.
fn is_exact(number: &Number) -> bool {
    match (number.as_i64(), number.as_u64()) {
        (Some(integer), _) => (integer as f64) as i128 == i128::from(integer),
        (None, Some(integer)) => (integer as f64) as i128 == i128::from(integer),
        (None, None) => true,
    }
}

/// Whether a payload may hold reserved or escaped keys.
fn may_be_marked(payload: &[u8]) -> bool {
    mentions(payload, "\"$")
}

fn with_type(event_type: &str, payload: &[u8]) -> Option<Vec<u8>> {
    let rest = payload.strip_prefix(b"{")?;
    let mut tagged = Vec::with_capacity(payload.len() + event_type.len() + 12);
    tagged.extend_from_slice(b"{\"type\":\"");
    tagged.extend_from_slice(event_type.as_bytes());
    tagged.push(b'"');
    if rest != b"}" {
        tagged.push(b',');
    }
    tagged.extend_from_slice(rest);
    Some(tagged)
}

/// Moves large values out of a canonical payload. A member above the limit gives up those of its
/// own members or items that are above it; where that isn't enough it moves as a whole. So
/// references never stand inside of what moved, and at most a member's worth stays per member.
fn move_out(payload: &[u8], workspace: WorkspaceId) -> Encoded {
    let mut out = Encoded { payload: Vec::with_capacity(INLINE_VALUE_BYTES), blobs: Vec::new() };
    let members = canonical::children(payload).into_iter().map(|child| {
        let mut moved = Vec::new();
        let mut value = Cow::Borrowed(child.value);
        if value.len() > INLINE_VALUE_BYTES {
            value = Cow::Owned(shrink(child.value, workspace, &mut moved));
        }
        if value.len() > INLINE_VALUE_BYTES {
            moved.clear();
            value = Cow::Owned(reference(child.value, workspace, &mut moved));
        }
        out.blobs.append(&mut moved);
        (child.key, value)
    });
    let members: Vec<_> = members.collect();
    canonical::assemble(b'{', &members, &mut out.payload);
    out.blobs.sort();
    out.blobs.dedup();
    out
}

fn shrink(value: &[u8], workspace: WorkspaceId, blobs: &mut Vec<(String, Vec<u8>)>) -> Vec<u8> {
    if !matches!(value[0], b'{' | b'[') {
        return value.to_vec();
    }
    let parts: Vec<_> = canonical::children(value)
        .into_iter()
        .map(|child| {
            let large = child.value.len() > INLINE_VALUE_BYTES;
            let value = if large {
                Cow::Owned(reference(child.value, workspace, blobs))
            } else {
                Cow::Borrowed(child.value)
            };
            (child.key, value)
        })
        .collect();
    let mut out = Vec::new();
    canonical::assemble(value[0], &parts, &mut out);
    out
}

fn reference(value: &[u8], workspace: WorkspaceId, blobs: &mut Vec<(String, Vec<u8>)>) -> Vec<u8> {
    let hash = hash(value, workspace);
    let marker = format!("{{\"$ref\":\"{hash}\"}}").into_bytes();
    blobs.push((hash, value.to_vec()));
    marker
}

/// The hash that a value of a workspace is stored by.
pub fn hash(value: &[u8], workspace: WorkspaceId) -> String {
    let mut hash = Sha256::new();
    hash.update(workspace.to_string());
    hash.update([0]);
    hash.update(value);
    data_encoding::HEXLOWER.encode(&hash.finalize())
}

fn as_ref_marker(members: &Map<String, Value>) -> Option<&str> {
    let hash = members.get("$ref").filter(|_| members.len() == 1)?;
    hash.as_str()
}

fn collect_refs(value: &Value, found: &mut Vec<String>) {
    match value {
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
        Value::Array(items) => items.iter().for_each(|item| collect_refs(item, found)),
        Value::Object(members) => match as_ref_marker(members) {
            Some(hash) if !found.iter().any(|known| known == hash) => found.push(hash.to_owned()),
            Some(_) => {}
            None => members.values().for_each(|member| collect_refs(member, found)),
        },
    }
}

/// What becomes of a reference whose value isn't there, and of a sealed value.
#[derive(Clone, Copy)]
enum Absent {
    Fails,
    Stays,
}

fn resolve(
    value: Value,
    blobs: &dyn Fn(&str) -> Option<Vec<u8>>,
    absent: Absent,
) -> Result<Value, DecodeError> {
    let members = match value {
        Value::Object(members) => members,
        Value::Array(items) => {
            let items = items.into_iter().map(|item| resolve(item, blobs, absent));
            return items.collect::<Result<_, _>>().map(Value::Array);
        }
        plain => return Ok(plain),
    };
    if let Some(hash) = as_ref_marker(&members) {
        return match (blobs(hash), absent) {
            (Some(bytes), _) => resolve(value_as_stored(&bytes)?, blobs, absent),
            (None, Absent::Stays) => Ok(Value::Object(members)),
            (None, Absent::Fails) => Err(DecodeError::MissingBlob(hash.to_owned())),
        };
    }
    if members.len() == 1 && members.contains_key("$enc") {
        return match absent {
            Absent::Stays => Ok(Value::Object(members)),
            Absent::Fails => Err(DecodeError::Sealed),
        };
    }
    let members = members
        .into_iter()
        .map(|(key, member)| Ok((unescape(key), resolve(member, blobs, absent)?)));
    members.collect::<Result<_, _>>().map(Value::Object)
}

fn unescape(key: String) -> String {
    match key.strip_prefix('$') {
        Some(rest) if rest.starts_with('$') && canonical::is_reserved(rest.as_bytes()) => {
            rest.to_owned()
        }
        _ => key,
    }
}

#[cfg(test)]
mod tests;
