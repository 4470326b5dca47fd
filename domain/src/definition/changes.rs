//! What differs between two definitions, by place (JSON Pointer).
//!
//! Definitions are compared as they are understood: the order of keys, and defaults that are
//! spelled out, make no difference. Transitions have no names; they are matched by where they lead
//! from and to, for which outcome, and their order among those that are equal in that, so that one
//! that was inserted isn't a change of all that follow.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::model::{Definition, On, Transition, decode_nodes};
use super::problem::escaped;
use crate::limits;

/// Bytes of a pointer from which on a value is compared whole.
const POINTER_BYTES: usize = 512;

/// One difference.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Change {
    pub kind: ChangeKind,
    /// The place in the second definition; of what was removed, in the first one.
    pub pointer: String,
    /// The place in the first definition, where it is another one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub from_pointer: Option<String>,
    /// The transition that it is about, as in `draft -> review`, with its outcome where that isn't
    /// the success.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub transition: Option<String>,
    /// What stood there; absent of what was added or moved.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub before: Option<Value>,
    /// What stands there now; absent of what was removed or moved.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub after: Option<Value>,
}

/// What became of a part of a definition.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ChangeKind {
    Added,
    Removed,
    Changed,
    /// A transition comes at another place among those of its node: branches are numbered in that
    /// order.
    Moved,
}

impl ChangeKind {
    /// The text in JSON.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Added => "added",
            Self::Removed => "removed",
            Self::Changed => "changed",
            Self::Moved => "moved",
        }
    }
}

/// What two definitions differ in: at most [`limits::CHANGES`] differences, and how many there are
/// beyond those.
///
/// # Errors
/// Only of a document that [`super::parse`] refuses.
pub fn changes(
    from: &Definition,
    to: &Definition,
) -> Result<(Vec<Change>, u64), serde_json::Error> {
    let mut found = Found::default();
    found.compare(&Place::new(""), &rest(from)?, &rest(to)?);
    found.compare(&Place::new("/nodes"), &nodes(from)?, &nodes(to)?);
    found.transitions(&from.transitions, &to.transitions)?;
    Ok((found.changes, found.left_out))
}

/// What two values differ in, by place: at most [`limits::CHANGES`] differences, and how many there
/// are beyond those. Lists of different lengths are compared whole.
pub fn differences(from: &Value, to: &Value) -> (Vec<Change>, u64) {
    let mut found = Found::default();
    found.compare(&Place::new(""), from, to);
    (found.changes, found.left_out)
}

/// All but nodes and transitions.
fn rest(definition: &Definition) -> Result<Value, serde_json::Error> {
    let rest = Definition { nodes: Map::new(), transitions: Vec::new(), ..definition.clone() };
    serde_json::to_value(rest)
}

fn nodes(definition: &Definition) -> Result<Value, serde_json::Error> {
    serde_json::to_value(decode_nodes(&definition.nodes)?)
}

/// Where something stands, in both definitions.
#[derive(Clone)]
struct Place {
    from: String,
    to: String,
    transition: Option<String>,
}

impl Place {
    fn new(pointer: &str) -> Self {
        Self { from: pointer.to_owned(), to: pointer.to_owned(), transition: None }
    }

    fn below(&self, key: &str) -> Self {
        let key = escaped(key);
        Self {
            from: format!("{}/{key}", self.from),
            to: format!("{}/{key}", self.to),
            transition: self.transition.clone(),
        }
    }
}

#[derive(Default)]
struct Found {
    changes: Vec<Change>,
    left_out: u64,
}

impl Found {
    fn push(&mut self, place: &Place, before: Option<&Value>, after: Option<&Value>) {
        let kind = match (before, after) {
            (None, Some(_)) => ChangeKind::Added,
            (Some(_), None) => ChangeKind::Removed,
            (Some(_), Some(_)) => ChangeKind::Changed,
            (None, None) => ChangeKind::Moved,
        };
        if self.changes.len() >= limits::CHANGES {
            self.left_out += 1;
            return;
        }
        let is_there = kind != ChangeKind::Removed;
        self.changes.push(Change {
            kind,
            pointer: if is_there { &place.to } else { &place.from }.clone(),
            from_pointer: (before.is_some() || after.is_none())
                .then(|| place.from.clone())
                .filter(|from| is_there && *from != place.to),
            transition: place.transition.clone(),
            before: before.cloned(),
            after: after.cloned(),
        });
    }

    fn compare(&mut self, place: &Place, before: &Value, after: &Value) {
        if before == after {
            return;
        }
        let may_descend = place.to.len() <= POINTER_BYTES;
        match (before, after) {
            (Value::Object(before), Value::Object(after)) if may_descend => {
                for (key, was) in before {
                    match after.get(key) {
                        Some(is) => self.compare(&place.below(key), was, is),
                        None => self.push(&place.below(key), Some(was), None),
                    }
                }
                for (key, is) in after.iter().filter(|(key, _)| !before.contains_key(*key)) {
                    self.push(&place.below(key), None, Some(is));
                }
            }
            (Value::Array(before), Value::Array(after))
                if may_descend && before.len() == after.len() =>
            {
                for (index, (was, is)) in before.iter().zip(after).enumerate() {
                    self.compare(&place.below(&index.to_string()), was, is);
                }
            }
            _ => self.push(place, Some(before), Some(after)),
        }
    }

    fn transitions(
        &mut self,
        from: &[Transition],
        to: &[Transition],
    ) -> Result<(), serde_json::Error> {
        let (was, is) = (keyed(from), keyed(to));
        let pointer = |index: usize| format!("/transitions/{index}");
        let mut matched: BTreeMap<&str, Vec<(usize, usize)>> = BTreeMap::new();
        for (key, before) in &was {
            let transition = Some(named(&from[*before]));
            let value = serde_json::to_value(&from[*before])?;
            match is.get(key) {
                None => {
                    let place = Place { transition, ..Place::new(&pointer(*before)) };
                    self.push(&place, Some(&value), None);
                }
                Some(after) => {
                    let place = Place { from: pointer(*before), to: pointer(*after), transition };
                    self.compare(&place, &value, &serde_json::to_value(&to[*after])?);
                    matched.entry(key.from).or_default().push((*before, *after));
                }
            }
        }
        for (_, after) in is.iter().filter(|(key, _)| !was.contains_key(key)) {
            let (transition, value) =
                (Some(named(&to[*after])), serde_json::to_value(&to[*after])?);
            let place = Place { transition, ..Place::new(&pointer(*after)) };
            self.push(&place, None, Some(&value));
        }
        for pairs in matched.values_mut() {
            pairs.sort_unstable();
            let mut order: Vec<_> = pairs.iter().map(|(_, after)| *after).collect();
            order.sort_unstable();
            for ((before, after), _) in
                pairs.iter().zip(&order).filter(|((_, after), at)| after != *at)
            {
                let transition = Some(named(&to[*after]));
                self.push(
                    &Place { from: pointer(*before), to: pointer(*after), transition },
                    None,
                    None,
                );
            }
        }
        Ok(())
    }
}

/// What transitions are matched by.
#[derive(PartialEq, Eq, PartialOrd, Ord)]
struct Key<'a> {
    from: &'a str,
    to: &'a str,
    on: &'static str,
    /// The place among those that are equal in the rest.
    nth: usize,
}

fn keyed(transitions: &[Transition]) -> BTreeMap<Key<'_>, usize> {
    let mut counts: BTreeMap<(&str, &str, &str), usize> = BTreeMap::new();
    let keyed = transitions.iter().enumerate().map(|(index, one)| {
        let (from, to, on) = (one.from.as_str(), one.to.as_str(), outcome(one.on));
        let count = counts.entry((from, to, on)).or_default();
        *count += 1;
        (Key { from, to, on, nth: *count }, index)
    });
    keyed.collect()
}

const fn outcome(on: On) -> &'static str {
    match on {
        On::Success => "success",
        On::Failure => "failure",
        On::Timeout => "timeout",
        On::Rejected => "rejected",
    }
}

fn named(transition: &Transition) -> String {
    let Transition { from, to, on, .. } = transition;
    match on {
        On::Success => format!("{from} -> {to}"),
        On::Failure | On::Timeout | On::Rejected => {
            format!("{from} -> {to} (on {})", outcome(*on))
        }
    }
}

#[cfg(test)]
mod tests;
