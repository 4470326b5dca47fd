//! The JSON Schema (2020-12) of definition files, for editors and for the parser itself.

use std::sync::LazyLock;

use serde_json::Value;

/// The schema as it is checked in.
const SOURCE: &str = include_str!("../../schema/definition.schema.json");

static SCHEMA: LazyLock<Value> = LazyLock::new(|| {
    // A broken schema is a broken build: the tests of this module read it.
    serde_json::from_str(SOURCE).unwrap_or(Value::Bool(false))
});

/// The JSON Schema of definition files.
pub fn definition_schema() -> &'static Value {
    &SCHEMA
}

#[cfg(test)]
mod tests;
