//! Checking the model of an `llm` action: a profile's name, or a whole profile inline.

use serde_json::Value;

use super::super::ProblemCode;
use super::super::problem::escaped;
use super::Checker;
use super::scopes::Names;
use crate::expression::closest;
use crate::ids::Name;
use crate::limits;

/// The keys of an inline profile.
const KEYS: [&str; 8] = [
    "provider",
    "model",
    "base_url",
    "api_key_env",
    "temperature",
    "max_tokens",
    "prices",
    "fallback",
];
const PROVIDERS: [&str; 3] = ["openai", "anthropic", "mock"];
const PRICES: [&str; 2] = ["input_micros", "output_micros"];
/// The longest name of a provider's model, in bytes.
const MODEL_BYTES: usize = 256;

impl Checker<'_> {
    /// Checks a profile's name, or an expression that gives one.
    pub(super) fn model_name(&mut self, place: &str, value: &Value, names: &Names<'_>) {
        match value {
            Value::String(text) if text.contains("${") => self.value(place, value, names),
            Value::String(text) => {
                let name = text.split_once('@').map_or(text.as_str(), |(name, _)| name);
                if let Err(error) = name.parse::<Name>() {
                    self.problem(ProblemCode::InvalidName, place, error.to_string());
                }
            }
            // The same as leaving it out.
            Value::Null => {}
            _ => {
                let message = "this must be a model profile's name, or a mapping: {provider, \
                               model, …}";
                self.problem(ProblemCode::InvalidValue, place, message);
            }
        }
    }

    /// Checks an inline profile: it is taken as it stands, without expressions.
    pub(super) fn inline_model(&mut self, place: &str, value: &Value) {
        for key in ["provider", "model"].iter().filter(|key| value.get(**key).is_none()) {
            let message = format!("an inline model needs `{key}`");
            self.problem(ProblemCode::MissingKey, place, message);
        }
        for (key, value) in value.as_object().into_iter().flatten() {
            let place = format!("{place}/{}", escaped(key));
            match key.as_str() {
                "provider" => self.provider(&place, value),
                "prices" => self.prices(&place, value),
                key if !KEYS.contains(&key) => self.unknown(&place, key, KEYS.to_vec()),
                key => {
                    if let Some(message) = unfit(key, value) {
                        self.problem(ProblemCode::InvalidValue, &place, message);
                    }
                }
            }
        }
    }

    fn provider(&mut self, place: &str, value: &Value) {
        let name = value.as_str().unwrap_or_default();
        if !PROVIDERS.contains(&name) {
            let like = closest(name, PROVIDERS);
            let message = format!("{value} isn't one of {}", PROVIDERS.join(", "));
            self.suggest(ProblemCode::InvalidValue, place, message, like);
        }
    }

    fn prices(&mut self, place: &str, value: &Value) {
        let Some(prices) = value.as_object() else {
            let message = "this must be a mapping: {input_micros, output_micros}";
            return self.problem(ProblemCode::InvalidValue, place, message);
        };
        for (key, value) in prices {
            let place = format!("{place}/{}", escaped(key));
            if !PRICES.contains(&key.as_str()) {
                self.unknown(&place, key, PRICES.to_vec());
            } else if !value.is_u64() {
                let message = "this must be a whole number: millionths per million tokens";
                self.problem(ProblemCode::InvalidValue, &place, message);
            }
        }
    }
}

/// What a key's value must be, where it isn't.
fn unfit(key: &str, value: &Value) -> Option<&'static str> {
    let text = value.as_str();
    let optional = |fits: bool| fits || value.is_null();
    let (fits, message) = match key {
        "model" => (
            text.is_some_and(|text| !text.trim().is_empty() && text.len() <= MODEL_BYTES),
            "this must be the provider's name of a model, 1 to 256 bytes",
        ),
        "base_url" => (
            optional(
                text.is_some_and(|url| url.starts_with("https://") || url.starts_with("http://")),
            ),
            "this must start with https:// or http://",
        ),
        "api_key_env" => (
            optional(text.is_some_and(is_variable_name)),
            "this must be the name of an environment variable (A-Z 0-9 _), never the key itself",
        ),
        "temperature" => (
            optional(value.as_f64().is_some_and(|degree| (0.0..=2.0).contains(&degree))),
            "this must be a number from 0 to 2",
        ),
        "max_tokens" => (
            optional(value.as_u64().is_some_and(|n| (1..=u64::from(u32::MAX)).contains(&n))),
            "this must be a whole number from 1",
        ),
        "fallback" => (
            value.as_array().is_some_and(|profiles| {
                let is_name =
                    |name: &Value| name.as_str().is_some_and(|name| name.parse::<Name>().is_ok());
                profiles.len() <= limits::FALLBACKS && profiles.iter().all(is_name)
            }),
            "this must be a list of at most 8 names of model profiles",
        ),
        _ => return None,
    };
    (!fits).then_some(message)
}

fn is_variable_name(name: &str) -> bool {
    (1..=128).contains(&name.len())
        && !name.starts_with(|c: char| c.is_ascii_digit())
        && name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_')
}
