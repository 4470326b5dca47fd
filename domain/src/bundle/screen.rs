//! What goes through a bundle's lines before they are given to others: finds secrets that somebody
//! has typed in, and masks them where that is asked for.

use std::collections::HashMap;

use serde_json::Value;
use serde_json::value::RawValue;

use super::{Line, StoredEvent, StoredPayload};
use crate::codec;
use crate::ids::WorkspaceId;
use crate::secrets::{self, Shape};

/// Findings that are kept; all are counted.
const KEPT: usize = 100;

/// Findings that are named where a bundle is refused for them.
const NAMED: usize = 20;

/// A secret, and where it stands.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct Finding {
    /// `run_… event 3 (task_succeeded)`, another aggregate's, or `value 5f0c…` of one that stands
    /// apart.
    pub of: String,
    /// The text, within the payload or the value.
    pub pointer: String,
    pub shape: Shape,
}

/// Where secrets stand, in words. What they are isn't told, not even where a member is called so.
pub fn places(first: &[Finding], count: u64) -> String {
    let mut text = format!("what looks like a key stands in {count} places of it:");
    for found in first.iter().take(NAMED) {
        let pointer = secrets::mask(&found.pointer);
        text.push_str(&format!("\n  {} at {pointer} of {}", found.shape, found.of));
    }
    if first.len() > NAMED {
        text.push_str("\n  …");
    }
    text
}

/// Looks through lines, in their order.
#[derive(Debug)]
pub struct Screen {
    masks: bool,
    workspace_id: WorkspaceId,
    found: Vec<Finding>,
    count: u64,
    /// Values that are others now, by the hashes that they had.
    renamed: HashMap<String, String>,
}

impl Screen {
    /// Over the lines of a bundle of a workspace; with masks, lines with secrets are given others.
    pub fn new(workspace_id: WorkspaceId, masks: bool) -> Self {
        Self { masks, workspace_id, found: Vec::new(), count: 0, renamed: HashMap::new() }
    }

    /// The line that is to be written in the place of one. The end isn't: it is made anew.
    ///
    /// # Errors
    /// Where what is stored isn't JSON.
    pub fn take(&mut self, line: Line) -> Result<Line, serde_json::Error> {
        Ok(match line {
            Line::WonderBundle(mut manifest) => {
                manifest.is_masked |= self.masks;
                Line::WonderBundle(manifest)
            }
            Line::Payload(StoredPayload { hash, value }) => {
                let of = format!("value {}…", hash.get(..8).unwrap_or(&hash));
                let Some(value) = self.screened(&of, &value)? else {
                    return Ok(Line::Payload(StoredPayload { hash, value }));
                };
                let other = codec::hash(value.get().as_bytes(), self.workspace_id);
                self.renamed.insert(hash, other.clone());
                Line::Payload(StoredPayload { hash: other, value })
            }
            Line::Event(event) => {
                let StoredEvent { aggregate_id, sequence, event_type, .. } = &*event;
                let of = format!("{aggregate_id} event {sequence} ({event_type})");
                let payload = self.screened(&of, &event.payload)?;
                let metadata = match &event.metadata {
                    Some(metadata) => self.screened(&format!("metadata of {of}"), metadata)?,
                    None => None,
                };
                Line::Event(Box::new(StoredEvent {
                    payload: payload.unwrap_or_else(|| event.payload.clone()),
                    metadata: metadata.or_else(|| event.metadata.clone()),
                    ..*event
                }))
            }
            Line::End(end) => Line::End(end),
        })
    }

    /// What was found so far, the first of it, and how many there are.
    pub fn found(&self) -> (&[Finding], u64) {
        (&self.found, self.count)
    }

    /// What was found, the first of it, and how many there are.
    pub fn finish(self) -> (Vec<Finding>, u64) {
        (self.found, self.count)
    }

    /// Looks through JSON; what it is to be, where that is something else.
    fn screened(
        &mut self,
        of: &str,
        json: &RawValue,
    ) -> Result<Option<Box<RawValue>>, serde_json::Error> {
        let mut value: Value = serde_json::from_str(json.get())?;
        let before = self.count;
        secrets::scan(&value, &mut |pointer, shape| {
            self.count += 1;
            if self.found.len() < KEPT {
                let (of, pointer) = (of.to_owned(), pointer.to_owned());
                self.found.push(Finding { of, pointer, shape });
            }
        });
        if !self.masks {
            return Ok(None);
        }
        let is_found = self.count > before;
        if is_found {
            secrets::mask_value(&mut value);
        }
        if !refer(&mut value, &self.renamed) && !is_found {
            return Ok(None);
        }
        let bytes = serde_json_canonicalizer::to_vec(&value)?;
        serde_json::from_slice(&bytes).map(Some)
    }
}

/// Lets references name values as they are called now; whether there were any.
fn refer(value: &mut Value, renamed: &HashMap<String, String>) -> bool {
    match value {
        Value::Array(items) => {
            let mut any = false;
            for item in items {
                any |= refer(item, renamed);
            }
            any
        }
        Value::Object(members) => {
            let only = members.len() == 1;
            members.iter_mut().fold(false, |any, (name, member)| {
                let other = match member {
                    Value::String(hash) if only && name == "$ref" => renamed.get(hash.as_str()),
                    _ => None,
                };
                match other {
                    Some(other) => {
                        *member = Value::String(other.clone());
                        true
                    }
                    None => refer(member, renamed) || any,
                }
            })
        }
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => false,
    }
}
