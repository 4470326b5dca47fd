//! `llm`: asks a model, checks structured output, and falls back to other profiles.
//!
//! `with`: `model` (a profile's name, or an inline profile; default the project's), `system`,
//! `prompt`, `prompt_spec` or `messages`, `schema`, `tools`, `temperature`, `max_tokens`, `stream`.
//! Result: `{text, value, tool_calls, finish_reason, model, usage}`.

mod anthropic;
mod mock;
mod openai;
mod profile;
mod request;
mod streaming;
mod structured;
mod wire;

use protocol::task::{FailureKind, Success};
use protocol::view::Usage;
use reqwest::header::HeaderMap;
use serde_json::{Map, Value, json};

pub(super) use profile::Keys;

use self::profile::{Models, Profile};
use self::request::{Prompt, Request};
use self::structured::Structure;
use super::{Services, only};
use crate::context::{Bound, Context};
use crate::fault::{Ended, Fault, invalid, permanent};
use crate::live::Live;
use crate::meters;

pub(crate) struct Llm {
    models: Models,
    prompt: Prompt,
    structure: Option<Structure>,
    tools: Option<Bound>,
    temperature: Option<Bound>,
    max_tokens: Option<Bound>,
    stream: Option<Bound>,
}

/// What a model said.
#[derive(Debug, Default)]
struct Reply {
    text: String,
    /// Structured output that came apart from the text.
    value: Option<Value>,
    /// `[{id, name, arguments}]`.
    tool_calls: Vec<Value>,
    /// `stop`, `length`, `tool_calls`, `content_filter`, or the provider's own word.
    finish_reason: String,
    /// The name that the provider gave the model.
    model: String,
    input_tokens: u64,
    output_tokens: u64,
}

impl Llm {
    pub(crate) fn compile(
        with: &Map<String, Value>,
        work: &protocol::task::Work,
    ) -> Result<Self, Fault> {
        only(
            with,
            &[
                "model",
                "system",
                "prompt",
                "prompt_spec",
                "messages",
                "schema",
                "tools",
                "temperature",
                "max_tokens",
                "stream",
            ],
        )?;
        let prompt = Prompt::compile(with, work)?;
        let optional = |key: &str| {
            with.get(key).map(|value| Bound::compile(&format!("with.{key}"), value)).transpose()
        };
        let schema = with.get("schema").or(prompt.output_schema.as_ref());
        Ok(Self {
            models: Models::compile(with.get("model"), work)?,
            structure: schema.map(Structure::compile).transpose()?,
            tools: optional("tools")?,
            temperature: optional("temperature")?,
            max_tokens: optional("max_tokens")?,
            stream: optional("stream")?,
            prompt,
        })
    }

    pub(crate) async fn perform(&self, context: &Context<'_>, services: &Services) -> Ended {
        if context.task.timeout.is_some() {
            return self.chain(context, services).await;
        }
        let limit = services.llm_timeout;
        tokio::time::timeout(limit, self.chain(context, services)).await.unwrap_or_else(|_| {
            let message = format!("no answer within {} s", limit.as_secs());
            Err(crate::fault::transient("timeout", message))
        })
    }

    /// Tries the profiles in turn. A policy failure ends the chain: it must not be walked around.
    async fn chain(&self, context: &Context<'_>, services: &Services) -> Ended {
        let request = self.request(context)?;
        let mut live = Live::new(*context, &*services.sink);
        let mut usage = Usage::default();
        let mut failed: Vec<(String, Fault)> = Vec::new();
        for profile in self.models.chain(context)? {
            match self.ask(&profile, &request, services, &mut live).await {
                Ok(mut success) => {
                    usage.add(&success.usage);
                    success.usage = usage;
                    success.result["usage"] = json!(usage);
                    return Ok(success);
                }
                Err(fault) => {
                    usage.add(&fault.usage);
                    let is_final =
                        fault.kind == FailureKind::Policy || fault.code == "schema_mismatch";
                    failed.push((profile.label(), fault));
                    if is_final {
                        return Err(told(failed, None, usage));
                    }
                }
            }
        }
        Err(most_hopeful(failed, usage))
    }

    fn request(&self, context: &Context<'_>) -> Result<Request, Fault> {
        let eval = |bound: &Option<Bound>| -> Result<Option<Value>, Fault> {
            let value = bound.as_ref().map(|bound| bound.eval(context)).transpose()?;
            Ok(value.filter(|value| !value.is_null()))
        };
        let temperature = eval(&self.temperature)?
            .map(|value| value.as_f64().filter(|t| (0.0..=2.0).contains(t)))
            .map(|t| t.ok_or_else(|| invalid("with.temperature", "give a number from 0 to 2")));
        let max_tokens = eval(&self.max_tokens)?
            .map(|value| value.as_u64().and_then(|n| u32::try_from(n).ok()).filter(|n| *n > 0))
            .map(|n| n.ok_or_else(|| invalid("with.max_tokens", "give a whole number above 0")));
        let stream = eval(&self.stream)?.unwrap_or(Value::Bool(false)).as_bool();
        let (system, messages) = self.prompt.render(context)?;
        Ok(Request {
            system,
            messages,
            tools: request::tools(eval(&self.tools)?)?,
            temperature: temperature.transpose()?,
            max_tokens: max_tokens.transpose()?,
            stream: stream.ok_or_else(|| invalid("with.stream", "give true or false"))?,
            schema: self.structure.as_ref().map(|structure| structure.schema.clone()),
        })
    }

    /// Asks one profile; where the answer doesn't satisfy the schema, once more with the errors.
    async fn ask(
        &self,
        profile: &Profile,
        request: &Request,
        services: &Services,
        live: &mut Live<'_>,
    ) -> Ended {
        let first = exchange(profile, request, services, live).await?;
        let Some(structure) = self.structure.as_ref().filter(|_| first.tool_calls.is_empty())
        else {
            let tokens = (first.input_tokens, first.output_tokens);
            return Ok(success(profile, first, Value::Null, tokens));
        };
        let mut tokens = (first.input_tokens, first.output_tokens);
        let errors = match structure.read(&first) {
            Ok(value) => return Ok(success(profile, first, value, tokens)),
            Err(errors) => errors,
        };
        let spent = |mut fault: Fault, tokens| {
            fault.usage.add(&used(profile, tokens));
            fault
        };
        let again = request.repaired(&first, &errors);
        let second = exchange(profile, &again, services, live).await;
        let second = second.map_err(|fault| spent(fault, tokens))?;
        tokens.0 = tokens.0.saturating_add(second.input_tokens);
        tokens.1 = tokens.1.saturating_add(second.output_tokens);
        match structure.read(&second) {
            Ok(value) => Ok(success(profile, second, value, tokens)),
            Err(errors) => Err(spent(structured::mismatch(&second, &errors), tokens)),
        }
    }
}

async fn exchange(
    profile: &Profile,
    request: &Request,
    services: &Services,
    live: &mut Live<'_>,
) -> Result<Reply, Fault> {
    use domain::resource::Provider;
    live.begin();
    let asked = match profile.provider {
        Provider::Openai => openai::ask(profile, request, services, live).await,
        Provider::Anthropic => anthropic::ask(profile, request, services, live).await,
        Provider::Mock => Ok(mock::ask(profile, request)),
    };
    let reply = asked.map_err(|mut fault| {
        fault.usage = used(profile, (fault.usage.input_tokens, fault.usage.output_tokens));
        fault
    })?;
    if request.stream {
        // All of it is told before its outcome is, also where it came whole.
        live.end(&reply.text);
    }
    let tokens = (reply.input_tokens, reply.output_tokens);
    meters::model_usage(profile.provider_name(), &profile.model, &used(profile, tokens));
    let empty = reply.text.is_empty() && reply.value.is_none() && reply.tool_calls.is_empty();
    if empty {
        let mut fault = match reply.finish_reason.as_str() {
            "content_filter" => permanent("content_filtered", "the model declined to answer"),
            "length" => permanent("max_tokens", "the answer was cut off before its first word"),
            _ => crate::fault::transient("empty_answer", "the model's answer is empty"),
        };
        fault.usage = used(profile, tokens);
        return Err(fault);
    }
    Ok(reply)
}

/// What so many tokens cost: rounded half up to a whole micro, in whole numbers throughout.
fn used(profile: &Profile, (input_tokens, output_tokens): (u64, u64)) -> Usage {
    let part = |tokens: u64, price: u64| u128::from(tokens) * u128::from(price);
    let total = part(input_tokens, profile.prices.input_micros)
        .saturating_add(part(output_tokens, profile.prices.output_micros));
    let cost = total.saturating_add(500_000) / 1_000_000;
    Usage { input_tokens, output_tokens, cost_micros: u64::try_from(cost).unwrap_or(u64::MAX) }
}

fn success(profile: &Profile, reply: Reply, value: Value, tokens: (u64, u64)) -> Success {
    let usage = used(profile, tokens);
    let text = match &reply.value {
        Some(value) if reply.text.is_empty() => value.to_string(),
        _ => reply.text,
    };
    let result = json!({
        "text": text,
        "value": value,
        "tool_calls": reply.tool_calls,
        "finish_reason": reply.finish_reason,
        "model": reply.model,
        "usage": usage,
    });
    Success { result, usage }
}

/// The failure that speaks for all: a retryable one if there is any, else the last.
fn most_hopeful(failed: Vec<(String, Fault)>, usage: Usage) -> Fault {
    let hopeful = failed.iter().position(|(_, fault)| fault.kind.is_retryable());
    told(failed, hopeful, usage)
}

/// One of the failures (the last where none is named), with all that were met on the way.
fn told(failed: Vec<(String, Fault)>, at: Option<usize>, usage: Usage) -> Fault {
    let tried: Vec<_> = failed
        .iter()
        .map(|(model, fault)| json!({"model": model, "code": fault.code, "message": fault.message}))
        .collect();
    let at = at.unwrap_or(failed.len().saturating_sub(1));
    let Some((_, mut fault)) = failed.into_iter().nth(at) else {
        return invalid("with.model", "no model is configured");
    };
    fault.usage = usage;
    if tried.len() > 1 {
        let detail = std::mem::take(&mut fault.detail);
        fault.detail = json!({"tried": tried, "detail": detail});
    }
    fault
}

/// The headers of a call with a JSON body.
fn json_headers() -> HeaderMap {
    use reqwest::header::{ACCEPT, CONTENT_TYPE, HeaderValue};
    let json = HeaderValue::from_static("application/json");
    HeaderMap::from_iter([(CONTENT_TYPE, json.clone()), (ACCEPT, json)])
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::profile::Profile;

    #[test]
    fn costs_are_rounded_half_up_in_whole_numbers() {
        let cost = |input, output, prices: (u64, u64), tokens| {
            let profile: Profile = serde_json::from_value(json!({
                "provider": "mock", "model": "m",
                "prices": {"input_micros": prices.0, "output_micros": prices.1},
            }))
            .expect("a profile");
            let used = super::used(&profile, (input, output));
            assert_eq!((used.input_tokens, used.output_tokens), tokens);
            used.cost_micros
        };
        assert_eq!(cost(1_000_000, 0, (3_000_000, 0), (1_000_000, 0)), 3_000_000);
        assert_eq!(cost(1, 0, (499_999, 0), (1, 0)), 0);
        assert_eq!(cost(1, 0, (500_000, 0), (1, 0)), 1);
        assert_eq!(cost(1, 1, (250_000, 250_000), (1, 1)), 1);
        assert_eq!(cost(7, 11, (3_000_000, 15_000_000), (7, 11)), 186);
        assert_eq!(cost(u64::MAX, u64::MAX, (u64::MAX, u64::MAX), (u64::MAX, u64::MAX)), u64::MAX);
    }
}
