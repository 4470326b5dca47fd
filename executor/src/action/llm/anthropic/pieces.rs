//! A message put together from the events of its stream, so that it reads like one that came whole.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::tokens;
use crate::action::llm::streaming::Assembly;

/// What has come so far.
#[derive(Default)]
pub(super) struct Pieces {
    message: Value,
    blocks: BTreeMap<u64, Block>,
    is_whole: bool,
}

/// A part of the content: as it began, and what was added.
struct Block {
    begun: Value,
    added: String,
}

impl Block {
    fn whole(self) -> Value {
        let Self { mut begun, added } = self;
        if begun["type"] == "tool_use" {
            if !added.is_empty() {
                // Cut off by the limit of tokens, it isn't JSON; then it stays a text.
                begun["input"] = serde_json::from_str(&added).unwrap_or(Value::String(added));
            }
        } else if begun["type"] == "text" {
            let text = begun["text"].as_str().unwrap_or_default();
            begun["text"] = json!(format!("{text}{added}"));
        }
        begun
    }
}

impl Assembly for Pieces {
    fn take(&mut self, mut event: Value) -> Option<String> {
        if !event.is_object() {
            return None;
        }
        let index = event["index"].as_u64().unwrap_or(0);
        let kind = event["type"].take();
        match kind.as_str()? {
            "message_start" => {
                self.message = event["message"].take();
                None
            }
            "content_block_start" => {
                let begun = event["content_block"].take();
                let text = begun["text"].as_str().unwrap_or_default().to_owned();
                self.blocks.insert(index, Block { begun, added: String::new() });
                Some(text)
            }
            "content_block_delta" => {
                let block = self.blocks.get_mut(&index)?;
                let delta = &event["delta"];
                // Thinking and its signature aren't part of the answer.
                let added = match delta["type"].as_str()? {
                    "text_delta" => delta["text"].as_str()?,
                    "input_json_delta" => delta["partial_json"].as_str()?,
                    _ => return None,
                };
                block.added.push_str(added);
                (block.begun["type"] == "text").then(|| added.to_owned())
            }
            "message_delta" => {
                let merge = |into: &mut Value, from: Value| {
                    if let Value::Object(members) = from {
                        for (name, value) in members.into_iter().filter(|(_, v)| !v.is_null()) {
                            into[name] = value;
                        }
                    }
                };
                if self.message.is_object() {
                    merge(&mut self.message, event["delta"].take());
                    if self.message["usage"].is_object() || self.message["usage"].is_null() {
                        merge(&mut self.message["usage"], event["usage"].take());
                    }
                }
                None
            }
            "message_stop" => {
                self.is_whole = true;
                None
            }
            _ => None,
        }
    }

    fn is_whole(&self) -> bool {
        self.is_whole
    }

    fn may_end(&self) -> bool {
        false
    }

    fn tokens(&self) -> (u64, u64) {
        tokens(&self.message["usage"])
    }

    fn answer(self) -> Value {
        let Self { mut message, blocks, .. } = self;
        if message.is_object() {
            message["content"] = blocks.into_values().map(Block::whole).collect();
        }
        message
    }
}
