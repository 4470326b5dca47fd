//! A chat completion put together from its chunks, so that it reads like one that came whole.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::tokens;
use crate::action::llm::streaming::Assembly;

/// What has come so far.
#[derive(Default)]
pub(super) struct Pieces {
    model: Option<Value>,
    usage: Option<Value>,
    finish_reason: Option<Value>,
    has_begun: bool,
    content: String,
    refusal: String,
    calls: BTreeMap<u64, Call>,
}

/// A call of a tool.
#[derive(Default)]
struct Call {
    id: String,
    name: String,
    arguments: String,
}

impl Call {
    fn take(&mut self, piece: &Value) {
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        // Some servers repeat what only the first chunk has to say.
        if self.id.is_empty() {
            self.id = text(&piece["id"]);
        }
        if self.name.is_empty() {
            self.name = text(&piece["function"]["name"]);
        }
        self.arguments.push_str(&text(&piece["function"]["arguments"]));
    }
}

impl Assembly for Pieces {
    fn take(&mut self, mut chunk: Value) -> Option<String> {
        if chunk["model"].is_string() {
            self.model = Some(chunk["model"].take());
        }
        if chunk["usage"].is_object() {
            self.usage = Some(chunk["usage"].take());
        }
        let choice = chunk.pointer_mut("/choices/0")?;
        self.has_begun = true;
        if choice["finish_reason"].is_string() {
            self.finish_reason = Some(choice["finish_reason"].take());
        }
        let delta = &choice["delta"];
        for (at, piece) in delta["tool_calls"].as_array().into_iter().flatten().enumerate() {
            let index = piece["index"].as_u64().unwrap_or(at as u64);
            self.calls.entry(index).or_default().take(piece);
        }
        self.refusal.push_str(delta["refusal"].as_str().unwrap_or_default());
        let text = delta["content"].as_str()?;
        self.content.push_str(text);
        Some(text.to_owned())
    }

    /// A last message says it (`[DONE]`).
    fn is_whole(&self) -> bool {
        false
    }

    /// Servers that are only compatible may leave the last message out.
    fn may_end(&self) -> bool {
        self.finish_reason.is_some()
    }

    /// They come last.
    fn tokens(&self) -> (u64, u64) {
        tokens(self.usage.as_ref().unwrap_or(&Value::Null))
    }

    fn answer(self) -> Value {
        let call = |call: Call| {
            let function = json!({"name": call.name, "arguments": call.arguments});
            json!({"id": call.id, "type": "function", "function": function})
        };
        let message = json!({
            "role": "assistant",
            "content": self.content,
            "refusal": self.refusal,
            "tool_calls": self.calls.into_values().map(call).collect::<Vec<_>>(),
        });
        let choice = json!({"message": message, "finish_reason": self.finish_reason});
        let choices = if self.has_begun { vec![choice] } else { Vec::new() };
        json!({"model": self.model, "choices": choices, "usage": self.usage})
    }
}
