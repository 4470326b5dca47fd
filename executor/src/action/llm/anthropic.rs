//! The wire format of Anthropic's messages.
//!
//! A schema of an object is asked for as a tool that the model has to call, which every model
//! knows; with tools of the definition's own, or another schema, it is asked for in words.

use reqwest::header::{HeaderName, HeaderValue};
use serde_json::{Map, Value, json};

use super::profile::Profile;
use super::request::Request;
use super::wire::Post;
use super::{Live, Reply, Services, json_headers, streaming, wire};
use crate::fault::{Fault, permanent};

mod pieces;

use pieces::Pieces;

const BASE_URL: &str = "https://api.anthropic.com/v1";
const VERSION: &str = "2023-06-01";
/// The format requires a limit.
const DEFAULT_MAX_TOKENS: u32 = 4_096;
/// The name of the tool that stands for the schema.
const ANSWER: &str = "answer";

pub(super) async fn ask(
    profile: &Profile,
    request: &Request,
    services: &Services,
    live: &mut Live<'_>,
) -> Result<Reply, Fault> {
    let key = services.keys.of(profile)?;
    let mut headers = json_headers();
    headers.insert(HeaderName::from_static("anthropic-version"), HeaderValue::from_static(VERSION));
    if let Some(key) = &key {
        let mut value = HeaderValue::from_str(key).map_err(|_| {
            permanent("missing_api_key", "the api key can't stand in a header: set it again")
        })?;
        value.set_sensitive(true);
        headers.insert(HeaderName::from_static("x-api-key"), value);
    }
    let base_url = profile.base_url.as_deref().unwrap_or(BASE_URL);
    let as_tool = request.wants_object() && request.tools.is_empty();
    let body = body(profile, request, as_tool);
    let key = key.as_deref();
    let call = Post { base_url, path: "messages", headers, body, key };
    let answer = match request.stream {
        true => streaming::post::<Pieces>(services, call, live).await?,
        false => wire::post(services, call).await?,
    };
    read(profile, &answer, as_tool)
}

fn body(profile: &Profile, request: &Request, as_tool: bool) -> Value {
    let mut system = if as_tool { None } else { request.system_with_schema() }
        .or_else(|| request.system.clone())
        .unwrap_or_default();
    let mut messages = Vec::new();
    for message in &request.messages {
        // System messages have no place among the others here.
        match (message.get("role").and_then(Value::as_str), message.get("content")) {
            (Some("system"), Some(Value::String(text))) => {
                system =
                    if system.is_empty() { text.clone() } else { format!("{system}\n\n{text}") };
            }
            (Some("tool"), _) => messages.push(tool_result(message)),
            _ => messages.push(Value::Object(message.clone())),
        }
    }
    let max_tokens = request.max_tokens.or(profile.max_tokens).unwrap_or(DEFAULT_MAX_TOKENS);
    let mut body = json!({"model": profile.model, "max_tokens": max_tokens, "messages": messages});
    if !system.is_empty() {
        body["system"] = json!(system);
    }
    if let Some(temperature) = request.temperature.or(profile.temperature) {
        body["temperature"] = json!(temperature);
    }
    if request.stream {
        body["stream"] = json!(true);
    }
    if as_tool {
        let description = "Gives the answer.";
        body["tools"] = json!([
            {"name": ANSWER, "description": description, "input_schema": request.schema}
        ]);
        body["tool_choice"] = json!({"type": "tool", "name": ANSWER});
    } else if !request.tools.is_empty() {
        let tools = request.tools.iter().map(|tool| {
            let mut entry = json!({"name": tool.name, "input_schema": tool.parameters});
            if let Some(description) = &tool.description {
                entry["description"] = json!(description);
            }
            entry
        });
        body["tools"] = tools.collect();
    }
    body
}

/// A tool's result as the other format writes it (`role: tool`, `tool_call_id`).
fn tool_result(message: &Map<String, Value>) -> Value {
    let part = json!({
        "type": "tool_result",
        "tool_use_id": message.get("tool_call_id"),
        "content": message.get("content"),
    });
    json!({"role": "user", "content": [part]})
}

fn read(profile: &Profile, answer: &Value, as_tool: bool) -> Result<Reply, Fault> {
    let parts = answer["content"].as_array().ok_or_else(|| wire::misshapen("content"))?;
    let mut reply = Reply {
        model: answer["model"].as_str().unwrap_or(&profile.model).to_owned(),
        ..Reply::default()
    };
    for part in parts {
        match part["type"].as_str() {
            Some("text") => reply.text.push_str(part["text"].as_str().unwrap_or_default()),
            Some("tool_use") if as_tool && part["name"] == ANSWER => {
                reply.value = Some(part["input"].clone());
            }
            Some("tool_use") => reply
                .tool_calls
                .push(json!({"id": part["id"], "name": part["name"], "arguments": part["input"]})),
            // Thinking and parts of later versions aren't part of the answer.
            _ => {}
        }
    }
    reply.finish_reason = match answer["stop_reason"].as_str().unwrap_or("end_turn") {
        "end_turn" | "stop_sequence" => "stop",
        "max_tokens" | "model_context_window_exceeded" => "length",
        "tool_use" if reply.value.is_some() => "stop",
        "tool_use" => "tool_calls",
        "refusal" => "content_filter",
        other => other,
    }
    .to_owned();
    (reply.input_tokens, reply.output_tokens) = tokens(&answer["usage"]);
    Ok(reply)
}

/// Tokens of input and output. Cached input is counted apart there; all of it is input here.
fn tokens(usage: &Value) -> (u64, u64) {
    let tokens = |field: &str| usage[field].as_u64().unwrap_or(0);
    let input = tokens("input_tokens")
        .saturating_add(tokens("cache_creation_input_tokens"))
        .saturating_add(tokens("cache_read_input_tokens"));
    (input, tokens("output_tokens"))
}
