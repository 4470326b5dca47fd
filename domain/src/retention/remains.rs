//! What remains of an event's payload.

use serde_json::{Map, Value};

use super::Keep;

/// A payload that isn't what this release writes.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("its payload can't be read: {0}")]
pub struct Unreadable(String);

/// Values that stand apart from events, by their hash.
type Blobs<'a> = &'a dyn Fn(&str) -> Option<Vec<u8>>;

/// What is done with a member of a payload, where it is there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Rule {
    /// The run's input, output or error: it becomes null, or an error without what it tells; with
    /// [`Keep::Results`] it stays.
    Result,
    Error,
    /// It becomes null.
    Null,
    /// It is gone.
    Gone,
    /// It is there, and empty.
    Stub,
    /// A text that is empty.
    Blank,
    /// Of what an attempt gave, the model that answered: metrics count by it.
    Model,
    /// What conditions read, values that branches brought, and items are gone from within.
    Read,
    Brought,
    Items,
}

/// What is done with the members of an event; `None` of a type that no run has.
pub(super) fn rules(event_type: &str) -> Option<&'static [(&'static str, Rule)]> {
    use Rule::{Blank, Brought, Error, Gone, Items, Model, Null, Read, Result, Stub};
    Some(match event_type {
        "run_started" => &[("input", Result)],
        "run_forked" => &[("input", Result), ("state", Gone), ("branches", Gone)],
        "run_completed" => &[("output", Result)],
        "run_failed" | "run_timed_out" => &[("error", Result)],
        "task_succeeded" => &[("result", Model), ("writes", Gone), ("undo", Stub)],
        "undo_succeeded" => &[("result", Model)],
        "task_failed" | "undo_failed" | "node_failed" | "join_failed" | "compensation_started" => {
            &[("error", Error)]
        }
        "compensation_ended" => &[("failures", Gone)],
        "node_computed" | "join_fired" => &[("writes", Gone)],
        "token_routed" => &[("considered", Read), ("fired", Brought), ("extended", Items)],
        "branches_spawned" => &[("items", Gone)],
        "wait_ended" => &[("result", Null), ("writes", Gone)],
        "signal_received" => &[("payload", Gone)],
        "gate_opened" => &[("title", Blank), ("form", Gone)],
        "gate_answered" => &[("value", Gone)],
        "gate_closed" => &[("result", Gone), ("writes", Gone), ("error", Error)],
        "event_emitted" => &[("data", Gone)],
        "child_ended" => &[("result", Gone), ("writes", Gone), ("undo", Stub), ("error", Error)],
        "run_queued" | "run_admitted" | "task_handed_out" | "retry_started"
        | "tokens_cancelled" | "group_ended" | "mutex_awaited" | "mutex_taken" | "wait_started"
        | "metric_emitted" | "child_started" | "run_paused" | "run_resumed" | "undo_started"
        | "run_cancelled" => &[],
        _ => return None,
    })
}

/// What remains of a stored payload of a run's event, as it is stored then; `None` where that is
/// all of it. It decodes as the event that it was, and a run folded from what remains has the same
/// tokens, groups, times and end.
///
/// `blobs` answers a value that stands apart from its event: fetch what [`crate::codec::refs`]
/// names beforehand. Where something of it remains, it stands in the event again.
///
/// # Errors
/// Where the payload isn't a JSON object.
pub fn remains(
    event_type: &str,
    payload: &[u8],
    keep: Keep,
    blobs: Blobs<'_>,
) -> Result<Option<Vec<u8>>, Unreadable> {
    let Some(rules) = rules(event_type).filter(|rules| keep < Keep::Full && !rules.is_empty())
    else {
        return Ok(None);
    };
    let unreadable = |error: serde_json::Error| Unreadable(error.to_string());
    let mut members: Map<String, Value> = serde_json::from_slice(payload).map_err(unreadable)?;
    for (name, rule) in rules {
        let Some(member) = members.get_mut(*name) else { continue };
        match rule {
            Rule::Result if keep == Keep::Results => {}
            Rule::Result if *name == "error" => without_message(member, blobs),
            Rule::Result | Rule::Null => *member = Value::Null,
            Rule::Error => without_message(member, blobs),
            Rule::Gone => drop(members.remove(*name)),
            Rule::Stub if member.is_null() => {}
            Rule::Stub => *member = Value::Object(Map::new()),
            Rule::Blank => *member = Value::String(String::new()),
            Rule::Model => *member = model(member),
            Rule::Read => each(member, blobs, |one| drop(one.remove("read"))),
            Rule::Brought => each(member, blobs, |one| {
                let arrived = one.get_mut("arrived").and_then(Value::as_object_mut);
                let brought = arrived.and_then(|one| one.get_mut("value"));
                if let Some(value) = brought.and_then(|one| one.get_mut("value")) {
                    *value = Value::Null;
                }
            }),
            Rule::Items => each(member, blobs, |one| drop(one.remove("items"))),
        }
    }
    let remains = serde_json_canonicalizer::to_vec(&members).map_err(unreadable)?;
    Ok((remains != payload).then_some(remains))
}

/// Changes the items of a list; it, or each of them, may stand apart.
fn each(list: &mut Value, blobs: Blobs<'_>, change: impl Fn(&mut Map<String, Value>)) {
    bring_back(list, blobs);
    for item in list.as_array_mut().into_iter().flatten() {
        bring_back(item, blobs);
        item.as_object_mut().into_iter().for_each(&change);
    }
}

/// Puts a value that stands apart where it is referred to.
fn bring_back(value: &mut Value, blobs: Blobs<'_>) {
    let apart = value.get("$ref").and_then(Value::as_str).and_then(blobs);
    if let Some(whole) = apart.and_then(|bytes| serde_json::from_slice(&bytes).ok()) {
        *value = whole;
    }
}

/// What kind of error it was, and where.
fn without_message(error: &mut Value, blobs: Blobs<'_>) {
    bring_back(error, blobs);
    if let Value::Object(members) = error {
        members.remove("detail");
        if let Some(message) = members.get_mut("message") {
            *message = Value::String(String::new());
        }
    }
}

fn model(result: &Value) -> Value {
    match result.get("model") {
        Some(Value::String(model)) => serde_json::json!({ "model": model }),
        _ => Value::Null,
    }
}
