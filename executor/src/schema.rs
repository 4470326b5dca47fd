//! JSON Schema checks with errors short enough to be recorded.

use jsonschema::{PatternOptions, Validator};
use serde_json::Value;

use crate::fault::{Fault, excerpt, invalid};

/// Errors that are told of one value.
const ERRORS: usize = 8;
/// Bytes of one error's text.
const ERROR_BYTES: usize = 240;

/// Compiles a schema. Nothing is fetched, and patterns run in linear time.
pub(crate) fn compile(place: &str, schema: &Value) -> Result<Validator, Fault> {
    jsonschema::options()
        .with_pattern_options(PatternOptions::regex())
        .build(schema)
        .map_err(|error| invalid(place, format!("not a JSON Schema: {error}")))
}

/// What is wrong with a value, in words with JSON Pointers; empty where nothing is.
pub(crate) fn errors(validator: &Validator, value: &Value) -> Vec<String> {
    if validator.is_valid(value) {
        return Vec::new();
    }
    validator
        .iter_errors(value)
        .take(ERRORS)
        .map(|error| {
            let path = error.instance_path().to_string();
            let place = if path.is_empty() { "the value" } else { path.as_str() };
            excerpt(&format!("{place}: {error}"), ERROR_BYTES).to_owned()
        })
        .collect()
}

/// Whether a value is nested at most so deep.
pub(crate) fn is_shallow(value: &Value, levels: usize) -> bool {
    match value {
        Value::Array(items) => levels > 0 && items.iter().all(|v| is_shallow(v, levels - 1)),
        Value::Object(members) => levels > 0 && members.values().all(|v| is_shallow(v, levels - 1)),
        _ => true,
    }
}
