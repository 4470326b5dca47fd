//! Configuration of a server: flag, then environment, then file, then default; parsed once.

use std::fmt;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use anyhow::Context;
use figment::providers::{Format, Toml};
use figment::value::{Dict, Map, Value};
use figment::{Figment, Metadata, Profile, Provider};
use serde::{Deserialize, Deserializer, Serialize};

mod flags;

pub(crate) use flags::ServerArgs;

/// What a server is started with.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Config {
    /// Where the journal and the read tables are kept. One process at a time.
    pub(crate) data_dir: PathBuf,
    /// The one address of API, streams, docs and metrics. Port 0 takes a free one.
    pub(crate) listen: SocketAddr,
    /// Who may call.
    pub(crate) auth: AuthMode,
    /// The administrator's API key; needed off loopback.
    #[serde(default)]
    pub(crate) admin_key: Option<Secret>,
    /// Tasks that the executor works on at the same time.
    #[serde(deserialize_with = "number")]
    pub(crate) executor_concurrency: usize,
    /// Hosts with private addresses that `http` actions may call all the same.
    #[serde(deserialize_with = "list")]
    pub(crate) allow_private_hosts: Vec<String>,
    /// A filter like `info` or `warn,commands=debug`.
    pub(crate) log: String,
}

/// How callers are known.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "snake_case")]
pub(crate) enum AuthMode {
    /// Everybody on loopback is signed in as `dev`.
    Dev,
    /// Only API keys.
    Keys,
}

/// A value that never stands in a log or an output.
#[derive(Clone, PartialEq, Eq, Deserialize)]
#[serde(transparent)]
pub(crate) struct Secret(String);

impl Secret {
    /// The value, for where it is compared or sent.
    pub(crate) fn reveal(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("(hidden)")
    }
}

/// One key in force: its value as text, and where it came from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(crate) struct Setting {
    pub(crate) key: &'static str,
    pub(crate) value: String,
    pub(crate) source: String,
}

const KEYS: [&str; 7] = [
    "data_dir",
    "listen",
    "auth",
    "admin_key",
    "executor_concurrency",
    "allow_private_hosts",
    "log",
];

/// The configuration with the origin of each key.
pub(crate) struct Loaded {
    pub(crate) config: Config,
    figment: Figment,
}

/// Reads the configuration of this process. `auth` is the mode where nothing names one.
pub(crate) fn load(args: &ServerArgs, auth: AuthMode) -> anyhow::Result<Loaded> {
    let env = |name: &str| std::env::var(name).ok().filter(|value| !value.is_empty());
    let file = match args.config.clone() {
        Some(named) => {
            anyhow::ensure!(named.is_file(), "the file {} does not exist", named.display());
            Some(named)
        }
        None => default_file(&env),
    };
    load_from(args.layer(), &env, file.as_deref(), auth)
}

/// The same, from given sources.
fn load_from(
    flags: Vec<Layer>,
    env: &dyn Fn(&str) -> Option<String>,
    file: Option<&Path>,
    auth: AuthMode,
) -> anyhow::Result<Loaded> {
    let mut figment = Figment::new();
    for layer in defaults(env, auth) {
        figment = figment.merge(layer);
    }
    if let Some(file) = file {
        figment = figment.merge(Toml::file_exact(file));
    }
    for key in KEYS {
        let name = format!("WONDER_{}", key.to_uppercase());
        if let Some(value) = env(&name) {
            figment = figment.merge(Layer::new(format!("environment {name}"), key, value));
        }
    }
    for layer in flags {
        figment = figment.merge(layer);
    }
    let config: Config = figment.extract().context("the configuration is invalid")?;
    anyhow::ensure!(
        (1..=10_000).contains(&config.executor_concurrency),
        "executor_concurrency is {}: choose 1 to 10000",
        config.executor_concurrency
    );
    Ok(Loaded { config, figment })
}

impl Loaded {
    /// What is in force and where it came from; secrets hidden.
    pub(crate) fn settings(&self) -> Vec<Setting> {
        let config = &self.config;
        KEYS.into_iter()
            .map(|key| Setting { key, value: config.text(key), source: self.source(key) })
            .collect()
    }

    fn source(&self, key: &str) -> String {
        let Some(metadata) = self.figment.find_metadata(key) else {
            return "default".to_owned();
        };
        match metadata.source.as_ref().and_then(|source| source.file_path()) {
            Some(path) => format!("file {}", path.display()),
            None => metadata.name.to_string(),
        }
    }
}

impl Config {
    fn text(&self, key: &str) -> String {
        match key {
            "data_dir" => self.data_dir.display().to_string(),
            "listen" => self.listen.to_string(),
            "auth" => match self.auth {
                AuthMode::Dev => "dev".to_owned(),
                AuthMode::Keys => "keys".to_owned(),
            },
            "admin_key" => match &self.admin_key {
                Some(secret) => format!("{secret:?}"),
                None => String::new(),
            },
            "executor_concurrency" => self.executor_concurrency.to_string(),
            "allow_private_hosts" => self.allow_private_hosts.join(","),
            _ => self.log.clone(),
        }
    }

    /// The journal: the only truth, and the file to back up.
    pub(crate) fn journal_path(&self) -> PathBuf {
        self.data_dir.join(JOURNAL_FILE)
    }

    /// The read tables; they can be rebuilt from the journal.
    pub(crate) fn views_path(&self) -> PathBuf {
        self.data_dir.join("views.db")
    }

    /// The configuration of a server that lives only as long as this process: a throwaway
    /// folder, loopback, a free port.
    pub(crate) fn throwaway(data_dir: &Path) -> Self {
        Self {
            data_dir: data_dir.to_owned(),
            listen: SocketAddr::from(([127, 0, 0, 1], 0)),
            auth: AuthMode::Dev,
            admin_key: None,
            executor_concurrency: DEFAULT_CONCURRENCY,
            allow_private_hosts: Vec::new(),
            log: "warn".to_owned(),
        }
    }
}

/// The journal's file in the data folder.
pub(crate) const JOURNAL_FILE: &str = "journal.db";
const DEFAULT_CONCURRENCY: usize = 256;

fn defaults(env: &dyn Fn(&str) -> Option<String>, auth: AuthMode) -> Vec<Layer> {
    let auth = if auth == AuthMode::Dev { "dev" } else { "keys" };
    let layer = |key, value: Value| Layer::new("default".to_owned(), key, value);
    vec![
        layer("data_dir", default_data_dir(env).display().to_string().into()),
        layer("listen", "127.0.0.1:7420".into()),
        layer("auth", auth.into()),
        layer("executor_concurrency", DEFAULT_CONCURRENCY.into()),
        layer("allow_private_hosts", "".into()),
        layer("log", "info".into()),
    ]
}

/// `$XDG_DATA_HOME/wonder`, `~/.local/share/wonder`, or `./wonder-data` where there is no home.
fn default_data_dir(env: &dyn Fn(&str) -> Option<String>) -> PathBuf {
    match (env("XDG_DATA_HOME"), env("HOME")) {
        (Some(data), _) if Path::new(&data).is_absolute() => Path::new(&data).join("wonder"),
        (_, Some(home)) => Path::new(&home).join(".local/share/wonder"),
        _ => PathBuf::from("wonder-data"),
    }
}

/// `./wonder.toml`, else `$XDG_CONFIG_HOME/wonder/wonder.toml`, whichever is there.
fn default_file(env: &dyn Fn(&str) -> Option<String>) -> Option<PathBuf> {
    let config = env("XDG_CONFIG_HOME")
        .map(PathBuf::from)
        .or_else(|| env("HOME").map(|home| Path::new(&home).join(".config")))
        .map(|folder| folder.join("wonder/wonder.toml"));
    std::iter::once(PathBuf::from("wonder.toml")).chain(config).find(|path| path.is_file())
}

/// One key with its origin, as a source for figment.
#[derive(Debug, Clone)]
struct Layer {
    name: String,
    key: &'static str,
    value: Value,
}

impl Layer {
    fn new(name: String, key: &'static str, value: impl Into<Value>) -> Self {
        Self { name, key, value: value.into() }
    }
}

impl Provider for Layer {
    fn metadata(&self) -> Metadata {
        Metadata::named(self.name.clone())
    }

    fn data(&self) -> Result<Map<Profile, Dict>, figment::Error> {
        let values = Dict::from([(self.key.to_owned(), self.value.clone())]);
        Ok(Map::from([(Profile::Default, values)]))
    }
}

/// A whole number; environment variables and flags bring it as text.
fn number<'de, D: Deserializer<'de>>(deserializer: D) -> Result<usize, D::Error> {
    #[derive(Deserialize)]
    #[serde(untagged, expecting = "a whole number")]
    enum Form {
        Number(usize),
        Text(String),
    }
    match Form::deserialize(deserializer)? {
        Form::Number(number) => Ok(number),
        Form::Text(text) => text
            .parse()
            .map_err(|_| serde::de::Error::custom(format!("{text:?} is not a whole number"))),
    }
}

/// A list, or names separated by commas.
fn list<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<String>, D::Error> {
    #[derive(Deserialize)]
    #[serde(untagged, expecting = "a list of texts, or one text with commas")]
    enum Form {
        List(Vec<String>),
        Text(String),
    }
    Ok(match Form::deserialize(deserializer)? {
        Form::List(list) => list,
        Form::Text(text) => {
            text.split(',').map(str::trim).filter(|s| !s.is_empty()).map(str::to_owned).collect()
        }
    })
}

#[cfg(test)]
mod tests;
