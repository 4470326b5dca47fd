//! Configuration: flag, then environment, then TOML file, then default; and which of them it was.
//!
//! The structure belongs to the caller: a value of it gives the keys and the defaults, and
//! `#[serde(deny_unknown_fields)]` makes a misspelt key an error that names its place.

use std::path::PathBuf;

use figment::providers::{Format, Serialized, Toml};
use figment::value::{Dict, Map, Value};
use figment::{Figment, Metadata, Profile, Provider};
use serde::Serialize;
use serde::de::DeserializeOwned;

/// Variables that are known by these names everywhere, and the keys that they set.
const WELL_KNOWN: [(&str, &str); 2] = [("DATABASE_URL", "database_url"), ("NATS_URL", "nats_url")];
const HIDDEN: &str = "(hidden)";

/// Where settings are looked for.
#[derive(Debug, Clone, Default)]
pub struct Sources {
    /// A TOML file that has to exist.
    pub file: Option<PathBuf>,
    /// Names and values; [`environment`] gives the process's own.
    pub environment: Vec<(String, String)>,
    /// What a variable of ours begins with, like `WONDER_`; `__` goes one level down. Variables
    /// that stand for no key are left alone: a cluster sets some of its own with any prefix.
    pub prefix: &'static str,
    /// Keys whose values are never shown, beside those that are called `…secret`, `…password`,
    /// `…token` or `…_key`.
    pub secrets: &'static [&'static str],
}

/// Settings and where each came from.
#[derive(Debug, Clone)]
pub struct Loaded<T> {
    pub value: T,
    /// By key.
    pub settings: Vec<Setting>,
}

/// One value in force.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Setting {
    /// With dots between levels.
    pub key: String,
    /// As text, without secrets.
    pub value: String,
    /// `default`, a file, a variable or a flag.
    pub source: String,
}

/// Why there is no configuration. The message says which key of which source is wrong.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    #[error("the configuration file {0} can't be read: create it, or leave the option out")]
    NoFile(PathBuf),
    #[error("the configuration is wrong: {0}")]
    Invalid(#[from] Box<figment::Error>),
}

/// The process's environment, as far as it is text. An empty variable counts as unset.
pub fn environment() -> Vec<(String, String)> {
    std::env::vars_os()
        .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)))
        .filter(|(_, value)| !value.is_empty())
        .collect()
}

/// Loads settings. `defaults` serialises to every key there is, null where it has no default;
/// `flags` to the keys that were given as flags, absent or null for the others.
pub fn load<T>(
    sources: &Sources,
    defaults: &T,
    flags: &impl Serialize,
) -> Result<Loaded<T>, ConfigError>
where
    T: DeserializeOwned + Serialize,
{
    let defaults = Value::serialize(defaults).map_err(Box::new)?;
    let mut figment = Figment::from(Serialized::defaults(&defaults));
    if let Some(file) = &sources.file {
        if !file.is_file() {
            return Err(ConfigError::NoFile(file.clone()));
        }
        figment = figment.merge(Toml::file_exact(file));
    }
    for (variable, key) in WELL_KNOWN.iter().filter(|(_, key)| defaults.find_ref(key).is_some()) {
        figment = merge_variable(figment, sources, variable, key, &defaults);
    }
    for (variable, _) in &sources.environment {
        let Some(name) = variable.strip_prefix(sources.prefix) else {
            continue;
        };
        let key = name.to_ascii_lowercase().replace("__", ".");
        if defaults.find_ref(&key).is_some() {
            figment = merge_variable(figment, sources, variable, &key, &defaults);
        }
    }
    let flags = Value::serialize(flags).map_err(Box::new)?;
    let mut given = Vec::new();
    leaves("", &flags, &mut given);
    for (key, value) in given {
        if !matches!(value, Value::Empty(..)) {
            let source = format!("flag --{}", key.replace(['_', '.'], "-"));
            figment = figment.merge(Layer { source, data: figment::util::nest(&key, value) });
        }
    }
    let value = figment.extract().map_err(Box::new)?;
    let settings = settings(&figment, sources)?;
    Ok(Loaded { value, settings })
}

fn merge_variable(
    figment: Figment,
    sources: &Sources,
    variable: &str,
    key: &str,
    defaults: &Value,
) -> Figment {
    let Some((_, text)) = sources.environment.iter().find(|(name, _)| name == variable) else {
        return figment;
    };
    let value = match defaults.find_ref(key) {
        // Text stays text even where it looks like a number.
        Some(Value::String(..)) => Value::from(text.as_str()),
        _ if is_secret(key, sources) => Value::from(text.as_str()),
        Some(Value::Array(..)) => {
            let items = text.split(',').map(str::trim).filter(|item| !item.is_empty());
            Value::from(items.collect::<Vec<_>>())
        }
        _ => text.parse().unwrap_or_else(|never| match never {}),
    };
    let source = format!("variable {variable}");
    figment.merge(Layer { source, data: figment::util::nest(key, value) })
}

fn settings(figment: &Figment, sources: &Sources) -> Result<Vec<Setting>, ConfigError> {
    let all: Value = figment.extract().map_err(Box::new)?;
    let mut found = Vec::new();
    leaves("", &all, &mut found);
    let settings = found.into_iter().map(|(key, value)| {
        let source = match figment.find_metadata(&key).and_then(|found| found.source.as_ref()) {
            Some(figment::Source::File(path)) => format!("file {}", path.display()),
            Some(figment::Source::Custom(name)) => name.clone(),
            _ => "default".into(),
        };
        let hidden = is_secret(&key, sources) && !matches!(value, Value::Empty(..));
        let value = if hidden { HIDDEN.into() } else { shown(&value) };
        Setting { key, value, source }
    });
    Ok(settings.collect())
}

/// Values that have no keys below them, with the path of keys to each.
fn leaves(path: &str, value: &Value, found: &mut Vec<(String, Value)>) {
    match value {
        Value::Dict(_, dict) => {
            for (name, value) in dict {
                let path = if path.is_empty() { name.clone() } else { format!("{path}.{name}") };
                leaves(&path, value, found);
            }
        }
        value => found.push((path.to_owned(), value.clone())),
    }
}

fn is_secret(key: &str, sources: &Sources) -> bool {
    let endings = ["secret", "password", "token", "_key"];
    sources.secrets.contains(&key) || endings.iter().any(|ending| key.ends_with(ending))
}

/// A value as text; of a URL, the user's password is left out.
fn shown(value: &Value) -> String {
    match value {
        Value::Empty(..) => String::new(),
        Value::String(_, text) => without_password(text),
        Value::Array(_, items) => items.iter().map(shown).collect::<Vec<_>>().join(","),
        other => serde_json::to_string(other).unwrap_or_else(|_| HIDDEN.into()),
    }
}

fn without_password(text: &str) -> String {
    let Some((scheme, rest)) = text.split_once("://") else {
        return text.into();
    };
    let end = rest.find(['/', '?', '#']).unwrap_or(rest.len());
    // A password may hold `@` and `/` unescaped; rather hide too much than too little.
    let Some(at) = rest[..end].rfind('@').or_else(|| rest.rfind('@')) else {
        return text.into();
    };
    let user = rest[..at].split_once(':').map_or(&rest[..at], |(user, _)| user);
    format!("{scheme}://{user}:{HIDDEN}@{}", &rest[at + 1..])
}

/// Some keys with one source.
struct Layer {
    source: String,
    data: Value,
}

impl Provider for Layer {
    fn metadata(&self) -> Metadata {
        Metadata::from(self.source.clone(), figment::Source::Custom(self.source.clone()))
    }

    fn data(&self) -> Result<Map<Profile, Dict>, figment::Error> {
        let dict = self.data.clone().into_dict().unwrap_or_default();
        Ok(Map::from([(Profile::Default, dict)]))
    }
}

#[cfg(test)]
mod tests;
