//! Model profiles: which one answers, which follow where it fails, and their keys.

use std::collections::BTreeMap;

use domain::ids::Name;
use domain::resource::{ModelProfileSpec, Prices, Provider};
use protocol::task::{FailureKind, Work};
use serde::Deserialize;
use serde_json::Value;

use crate::config::{Environment, ExecutorConfig};
use crate::context::{Bound, Context};
use crate::fault::{Fault, fault, invalid, permanent};
use crate::secrets;

/// A model as an action sees it; an inline `model` object has exactly these keys.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Profile {
    #[serde(skip)]
    name: Option<String>,
    pub(super) provider: Provider,
    pub(super) model: String,
    #[serde(default)]
    pub(super) base_url: Option<String>,
    #[serde(default)]
    api_key_env: Option<String>,
    #[serde(default)]
    pub(super) temperature: Option<f64>,
    #[serde(default)]
    pub(super) max_tokens: Option<u32>,
    #[serde(default)]
    pub(super) prices: Prices,
    #[serde(default)]
    fallback: Vec<Name>,
}

impl Profile {
    fn of(spec: &ModelProfileSpec) -> Self {
        Self {
            name: Some(spec.name.to_string()),
            provider: spec.provider,
            model: spec.model.clone(),
            base_url: spec.base_url.clone(),
            api_key_env: spec.api_key_env.clone(),
            temperature: spec.temperature,
            max_tokens: spec.max_tokens,
            prices: spec.prices,
            fallback: spec.fallback.clone(),
        }
    }

    /// What people call it.
    pub(super) fn label(&self) -> String {
        self.name.clone().unwrap_or_else(|| self.model.clone())
    }

    pub(super) const fn provider_name(&self) -> &'static str {
        match self.provider {
            Provider::Openai => "openai",
            Provider::Anthropic => "anthropic",
            Provider::Mock => "mock",
        }
    }
}

/// Who is asked.
pub(super) struct Models {
    first: First,
    known: BTreeMap<String, Profile>,
}

enum First {
    Inline(Box<Profile>),
    Named(String),
    Bound(Bound),
}

impl Models {
    pub(super) fn compile(model: Option<&Value>, work: &Work) -> Result<Self, Fault> {
        let known: BTreeMap<_, _> =
            work.models.iter().map(|(name, spec)| (name.clone(), Profile::of(spec))).collect();
        let first = match model.filter(|model| !model.is_null()) {
            None => First::Named(work.default_model.clone().ok_or_else(|| {
                invalid("with.model", "name a model profile, or give the project a default_model")
            })?),
            Some(Value::String(name)) if !name.contains("${") => First::Named(name.clone()),
            Some(value @ Value::String(_)) => First::Bound(Bound::compile("with.model", value)?),
            Some(value) => {
                let profile = Profile::deserialize(value);
                First::Inline(Box::new(profile.map_err(|error| invalid("with.model", error))?))
            }
        };
        let models = Self { first, known };
        if let First::Named(name) = &models.first {
            models.named(name)?;
        }
        Ok(models)
    }

    /// The profiles in the order in which they are tried, each once.
    pub(super) fn chain(&self, context: &Context<'_>) -> Result<Vec<Profile>, Fault> {
        let first = match &self.first {
            First::Inline(profile) => (**profile).clone(),
            First::Named(name) => self.named(name)?.clone(),
            First::Bound(bound) => self.named(&bound.text(context)?)?.clone(),
        };
        let mut chain = vec![first];
        for name in chain[0].fallback.clone() {
            let next = self.named(name.as_str())?;
            if !chain.iter().any(|profile| profile.name == next.name) {
                chain.push(next.clone());
            }
        }
        Ok(chain)
    }

    fn named(&self, name: &str) -> Result<&Profile, Fault> {
        self.known.get(name).ok_or_else(|| {
            permanent("unknown_model", format!("with.model: no model profile named {name:?}"))
        })
    }
}

/// The worker's API keys, as far as profiles may name them.
pub(crate) struct Keys {
    patterns: Vec<String>,
    environment: Environment,
}

impl Keys {
    pub(crate) fn new(config: &ExecutorConfig) -> Self {
        Self { patterns: config.api_key_envs.clone(), environment: config.environment.clone() }
    }

    /// The key that a profile's calls carry. A profile with an address of its own and no
    /// `api_key_env` carries none: a provider's key must not go to another's server.
    pub(super) fn of(&self, profile: &Profile) -> Result<Option<String>, Fault> {
        let variable = match (&profile.api_key_env, &profile.base_url, profile.provider) {
            (Some(variable), _, _) => variable.as_str(),
            (None, None, Provider::Openai) => "OPENAI_API_KEY",
            (None, None, Provider::Anthropic) => "ANTHROPIC_API_KEY",
            _ => return Ok(None),
        };
        let allowed = self.patterns.iter().any(|pattern| match pattern.strip_prefix('*') {
            Some(end) => variable.ends_with(end),
            None => variable == pattern,
        });
        if !allowed {
            let message = format!(
                "api_key_env {variable:?} is not a variable that model profiles may name; the \
                 worker's configuration api_key_envs lists them"
            );
            return Err(fault(FailureKind::Policy, "api_key_env_refused", message));
        }
        let key = self.environment.read(variable).ok_or_else(|| {
            let message = format!("set the environment variable {variable} on the worker");
            permanent("missing_api_key", message)
        })?;
        secrets::given(variable);
        Ok(Some(key))
    }
}
