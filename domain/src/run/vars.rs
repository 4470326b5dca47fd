//! One level of `state`: names to values, cheap to copy, written by path.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::resource::merge;

/// The values that were written on one level. Copies share what they don't change.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Vars(Arc<BTreeMap<String, Arc<Value>>>);

impl Vars {
    /// Whether nothing was written on this level.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// A value by its top-level name.
    pub fn get(&self, name: &str) -> Option<&Arc<Value>> {
        self.0.get(name)
    }

    /// The names and values of this level.
    pub fn iter(&self) -> impl Iterator<Item = (&String, &Arc<Value>)> {
        self.0.iter()
    }

    /// Sets the value at a dotted path. Where the path leads into a name that this level doesn't
    /// have yet, `beneath` (the value seen from below) is taken over first. A member of something
    /// that isn't an object replaces it by an object.
    pub fn set(&mut self, path: &str, value: Value, beneath: Option<Arc<Value>>) {
        let values = Arc::make_mut(&mut self.0);
        let mut names = path.split('.');
        let name = names.next().unwrap_or_default();
        let rest: Vec<&str> = names.collect();
        if rest.is_empty() {
            values.insert(name.to_owned(), Arc::new(value));
            return;
        }
        let entry = values
            .entry(name.to_owned())
            .or_insert_with(|| beneath.unwrap_or_else(|| Arc::new(Value::Object(Map::new()))));
        set_member(Arc::make_mut(entry), &rest, value);
    }

    /// Changes the value of a top-level name by a merge patch; `beneath` is what is seen of it from
    /// below where this level doesn't have it.
    pub fn patch(&mut self, name: &str, patch: &Value, beneath: Option<Arc<Value>>) {
        let values = Arc::make_mut(&mut self.0);
        if patch.is_null() {
            values.remove(name);
            return;
        }
        let entry = values.entry(name.to_owned());
        let entry = entry.or_insert_with(|| beneath.unwrap_or_default());
        merge(Arc::make_mut(entry), patch);
    }
}

fn set_member(target: &mut Value, path: &[&str], value: Value) {
    let Some((name, rest)) = path.split_first() else {
        *target = value;
        return;
    };
    if !target.is_object() {
        *target = Value::Object(Map::new());
    }
    if let Value::Object(members) = target {
        set_member(members.entry(*name).or_insert(Value::Null), rest, value);
    }
}

/// Bytes that a value takes, roughly its compact JSON.
pub fn size_of(value: &Value) -> usize {
    match value {
        Value::Null | Value::Bool(_) => 4,
        Value::Number(_) => 8,
        Value::String(text) => text.len() + 2,
        Value::Array(items) => 2 + items.iter().map(|item| size_of(item) + 1).sum::<usize>(),
        Value::Object(members) => {
            2 + members.iter().map(|(name, member)| name.len() + 4 + size_of(member)).sum::<usize>()
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_nested_write_copies_what_lies_beneath() {
        let beneath = Arc::new(json!({"a": 1}));
        let mut vars = Vars::default();
        vars.set("doc.b", json!(2), Some(Arc::clone(&beneath)));
        assert_eq!(vars.get("doc").map(|v| (**v).clone()), Some(json!({"a": 1, "b": 2})));
        assert_eq!(*beneath, json!({"a": 1}));
    }

    #[test]
    fn a_member_of_a_scalar_replaces_it() {
        let mut vars = Vars::default();
        vars.set("n", json!(1), None);
        vars.set("n.x.y", json!(2), None);
        assert_eq!(vars.get("n").map(|v| (**v).clone()), Some(json!({"x": {"y": 2}})));
    }
}
