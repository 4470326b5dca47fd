//! The wire format of OpenAI's chat completions, as many servers speak it.

use reqwest::header::{AUTHORIZATION, HeaderValue};
use serde_json::{Map, Value, json};

use super::profile::Profile;
use super::request::Request;
use super::wire::Post;
use super::{Live, Reply, Services, json_headers, streaming, wire};
use crate::fault::{Fault, permanent};

mod pieces;

use pieces::Pieces;

const BASE_URL: &str = "https://api.openai.com/v1";

pub(super) async fn ask(
    profile: &Profile,
    request: &Request,
    services: &Services,
    live: &mut Live<'_>,
) -> Result<Reply, Fault> {
    let key = services.keys.of(profile)?;
    let mut headers = json_headers();
    if let Some(key) = &key {
        let mut value = HeaderValue::from_str(&format!("Bearer {key}")).map_err(|_| {
            permanent("missing_api_key", "the api key can't stand in a header: set it again")
        })?;
        value.set_sensitive(true);
        headers.insert(AUTHORIZATION, value);
    }
    let base_url = profile.base_url.as_deref().unwrap_or(BASE_URL);
    let body = body(profile, request);
    let key = key.as_deref();
    let call = Post { base_url, path: "chat/completions", headers, body, key };
    let answer = match request.stream {
        true => streaming::post::<Pieces>(services, call, live).await?,
        false => wire::post(services, call).await?,
    };
    read(profile, answer)
}

fn body(profile: &Profile, request: &Request) -> Value {
    let native = request.wants_object();
    let system = if native { request.system.clone() } else { request.system_with_schema() }
        .or_else(|| request.system.clone());
    let mut messages: Vec<Value> = Vec::new();
    messages.extend(system.map(|text| json!({"role": "system", "content": text})));
    messages.extend(request.messages.iter().cloned().map(Value::Object));
    let mut body = json!({"model": profile.model, "messages": messages});
    if let Some(temperature) = request.temperature.or(profile.temperature) {
        body["temperature"] = json!(temperature);
    }
    if let Some(max_tokens) = request.max_tokens.or(profile.max_tokens) {
        // OpenAI itself has renamed the field; compatible servers know the old name.
        let field = if profile.base_url.is_none() { "max_completion_tokens" } else { "max_tokens" };
        body[field] = json!(max_tokens);
    }
    if native && let Some(schema) = &request.schema {
        body["response_format"] = json!({
            "type": "json_schema",
            "json_schema": {"name": "answer", "schema": schema, "strict": is_strict(schema)},
        });
    }
    if request.stream {
        body["stream"] = json!(true);
        // Else nothing is said of what the answer cost.
        body["stream_options"] = json!({"include_usage": true});
    }
    if !request.tools.is_empty() {
        let tools = request.tools.iter().map(|tool| {
            let mut function = json!({"name": tool.name, "parameters": tool.parameters});
            if let Some(description) = &tool.description {
                function["description"] = json!(description);
            }
            json!({"type": "function", "function": function})
        });
        body["tools"] = tools.collect();
    }
    body
}

/// Whether a schema keeps to what OpenAI's strict mode takes: every object closed, and all its
/// members required. Others are asked for without it, and checked here all the same.
fn is_strict(schema: &Value) -> bool {
    match schema {
        Value::Array(schemas) => schemas.iter().all(is_strict),
        Value::Object(schema) => {
            let none = Map::new();
            let members = schema.get("properties").and_then(Value::as_object).unwrap_or(&none);
            let required = schema.get("required").and_then(Value::as_array);
            let named = |name: &str| required.is_some_and(|r| r.iter().any(|n| n == name));
            let object = schema.contains_key("properties")
                || schema.get("type").is_some_and(|kind| kind == "object");
            let closed = schema.get("additionalProperties") == Some(&Value::Bool(false));
            let fits = !object || (closed && members.keys().all(|name| named(name)));
            fits && !schema.contains_key("oneOf")
                && schema
                    .iter()
                    .filter(|(key, _)| {
                        !["enum", "const", "default", "examples"].contains(&key.as_str())
                    })
                    .all(|(_, inner)| is_strict(inner))
        }
        _ => true,
    }
}

fn read(profile: &Profile, mut answer: Value) -> Result<Reply, Fault> {
    let mut choice = answer
        .pointer_mut("/choices/0")
        .map(Value::take)
        .ok_or_else(|| wire::misshapen("choices"))?;
    let mut message = choice["message"].take();
    if !message.is_object() {
        return Err(wire::misshapen("message"));
    }
    let refused = message["refusal"].as_str().is_some_and(|refusal| !refusal.is_empty());
    let finish = choice["finish_reason"].as_str().unwrap_or("stop");
    let (input_tokens, output_tokens) = tokens(&answer["usage"]);
    let calls = message["tool_calls"].take();
    Ok(Reply {
        text: message["content"].as_str().unwrap_or_default().to_owned(),
        value: None,
        tool_calls: calls.as_array().into_iter().flatten().map(tool_call).collect(),
        finish_reason: match finish {
            _ if refused => "content_filter",
            "function_call" => "tool_calls",
            other => other,
        }
        .to_owned(),
        model: answer["model"].as_str().unwrap_or(&profile.model).to_owned(),
        input_tokens,
        output_tokens,
    })
}

/// Tokens of input and output.
fn tokens(usage: &Value) -> (u64, u64) {
    let tokens = |field: &str| usage[field].as_u64().unwrap_or(0);
    (tokens("prompt_tokens"), tokens("completion_tokens"))
}

/// Arguments come as a text of JSON; one that isn't JSON stays a text.
fn tool_call(call: &Value) -> Value {
    let arguments = &call["function"]["arguments"];
    let parsed = arguments.as_str().and_then(|text| serde_json::from_str(text).ok());
    let arguments: Value = parsed.unwrap_or_else(|| arguments.clone());
    json!({"id": call["id"], "name": call["function"]["name"], "arguments": arguments})
}
