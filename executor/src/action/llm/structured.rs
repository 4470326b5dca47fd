//! Structured output: reads a value from an answer and checks it against its schema.

use serde_json::{Value, json};

use super::Reply;
use crate::fault::{Fault, excerpt, permanent};
use crate::schema;

/// Bytes of a wrong answer that are recorded.
const EXCERPT_BYTES: usize = 2_048;

/// A schema with its check.
pub(super) struct Structure {
    pub(super) schema: Value,
    validator: jsonschema::Validator,
}

impl Structure {
    pub(super) fn compile(schema: &Value) -> Result<Self, Fault> {
        let validator = schema::compile("with.schema", schema)?;
        Ok(Self { schema: schema.clone(), validator })
    }

    /// The value of an answer, or what is wrong with it.
    pub(super) fn read(&self, reply: &Reply) -> Result<Value, Vec<String>> {
        let value = match &reply.value {
            Some(value) => value.clone(),
            None => serde_json::from_str(unfenced(&reply.text))
                .map_err(|error| vec![format!("the answer is not JSON: {error}")])?,
        };
        let errors = schema::errors(&self.validator, &value);
        if errors.is_empty() { Ok(value) } else { Err(errors) }
    }
}

/// The failure of an answer that stayed wrong.
pub(super) fn mismatch(reply: &Reply, errors: &[String]) -> Fault {
    let message = "the model's answer doesn't satisfy the schema, after one repair";
    let mut fault = permanent("schema_mismatch", message);
    let text = match &reply.value {
        Some(value) => value.to_string(),
        None => reply.text.clone(),
    };
    fault.detail = json!({
        "errors": errors,
        "text": excerpt(&text, EXCERPT_BYTES),
        "finish_reason": reply.finish_reason,
    });
    fault
}

/// The text without a Markdown fence around all of it.
fn unfenced(text: &str) -> &str {
    let text = text.trim();
    let inner = text.strip_prefix("```").and_then(|rest| rest.strip_suffix("```"));
    match inner.and_then(|inner| inner.split_once('\n')) {
        Some((_language, body)) => body.trim(),
        None => text,
    }
}

#[cfg(test)]
mod tests {
    use super::unfenced;

    #[test]
    fn fences_are_stripped() {
        assert_eq!(unfenced("```json\n{\"a\": 1}\n```"), "{\"a\": 1}");
        assert_eq!(unfenced("```\n[1]\n```\n"), "[1]");
        assert_eq!(unfenced(" {\"a\": \"```\"} "), "{\"a\": \"```\"}");
    }
}
