//! Configuration of a server: flag, then environment, then file, then default; parsed once.

use std::fmt;
use std::io::ErrorKind;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use chassis::bus::Storage;
use chassis::config::{Loaded, Sources};
use domain::audit::AuditKey;
use serde::{Deserialize, Serialize, Serializer};
use tracing::Level;

mod flags;

pub(crate) use flags::ServerArgs;

/// What a server is started with.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Config {
    /// Where the journal and the read tables are kept, where no database is named. One process at
    /// a time.
    pub(crate) data_dir: PathBuf,
    /// What this process does; everything where nothing is named.
    pub(crate) roles: Vec<Role>,
    /// The PostgreSQL database of journal and read tables: `postgres://user:password@host/name`.
    pub(crate) database_url: Option<Secret>,
    /// Connections to the database at most.
    pub(crate) database_connections: u32,
    /// The NATS servers between processes: `nats://host:4222`, several with commas.
    pub(crate) nats_url: Option<Secret>,
    /// A `.creds` file for NATS.
    pub(crate) nats_credentials: Option<PathBuf>,
    /// Certificates (PEM) that the NATS servers' are signed with.
    pub(crate) nats_ca_file: Option<PathBuf>,
    /// The first part of all subjects; the same in every process of a platform.
    pub(crate) nats_prefix: String,
    /// Copies of each stream in a cluster of NATS servers.
    pub(crate) nats_replicas: usize,
    /// Where NATS keeps tasks; nothing takes the stream as it is, and makes it in memory.
    pub(crate) nats_task_storage: Option<Storage>,
    /// Bytes of the stream of events for subscribers; the servers set them aside at once.
    pub(crate) nats_events_bytes: u64,
    /// The one address of API, streams, docs and metrics. Port 0 takes a free one.
    pub(crate) listen: SocketAddr,
    /// Who may call.
    pub(crate) auth: AuthMode,
    /// The administrator's API key; needed off loopback.
    pub(crate) admin_key: Option<Secret>,
    /// The private key (Ed25519, PKCS #8 in PEM) that heads of the audit chain are signed with. In a
    /// data folder one is made where none is named.
    pub(crate) audit_key: Option<PathBuf>,
    /// Tasks that the executor works on at the same time.
    pub(crate) executor_concurrency: usize,
    /// Hosts with private addresses that `http` actions may call all the same.
    pub(crate) allow_private_hosts: Vec<String>,
    /// A filter like `info` or `warn,commands=debug`.
    pub(crate) log: String,
    /// What of the log is kept in the log store: this level and above, or nothing.
    pub(crate) logs_level: LogsLevel,
    /// Days that the log store keeps a record.
    pub(crate) logs_max_days: u32,
    /// Records that the log store keeps.
    pub(crate) logs_max_records: u64,
    /// The folder that records are appended to, a file a day, before they leave the log store.
    pub(crate) logs_archive: Option<PathBuf>,
    /// The folder that runs are written to before content of them is dropped.
    pub(crate) archive_dir: Option<PathBuf>,
}

/// What of the log is kept in the log store.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "snake_case")]
pub(crate) enum LogsLevel {
    /// Nothing
    Off,
    /// Errors
    Error,
    /// Warnings and above
    Warn,
    /// All but what is for debugging
    Info,
}

impl LogsLevel {
    /// The level, as the log has it, if any.
    pub(crate) const fn level(self) -> Option<Level> {
        match self {
            Self::Off => None,
            Self::Error => Some(Level::ERROR),
            Self::Warn => Some(Level::WARN),
            Self::Info => Some(Level::INFO),
        }
    }
}

/// What a process does.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, clap::ValueEnum,
)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Role {
    /// The edge: HTTP
    Gateway,
    /// The write side: resources and runs
    Commands,
    /// The read side: read tables, queries, streams, events for subscribers
    Projections,
    /// Workers
    Executor,
}

impl Role {
    /// All of them.
    pub(crate) const ALL: [Self; 4] =
        [Self::Gateway, Self::Commands, Self::Projections, Self::Executor];

    /// The word for it, which its crate is called too.
    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Self::Gateway => "gateway",
            Self::Commands => "commands",
            Self::Projections => "projections",
            Self::Executor => "executor",
        }
    }
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

/// Shown, never sent: what is written out is where settings are listed.
impl Serialize for Secret {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str("(hidden)")
    }
}

/// Reads the configuration of this process. `auth` is the mode where nothing names one.
pub(crate) fn load(args: &ServerArgs, auth: AuthMode) -> anyhow::Result<Loaded<Config>> {
    let environment = chassis::config::environment();
    let file = args.config.clone().or_else(|| default_file(&environment));
    load_from(args, environment, file, auth)
}

/// The same, from given sources.
fn load_from(
    args: &ServerArgs,
    environment: Environment,
    file: Option<PathBuf>,
    auth: AuthMode,
) -> anyhow::Result<Loaded<Config>> {
    let defaults = defaults(&environment, auth);
    let secrets = &[];
    let sources = Sources { file, environment, prefix: "WONDER_", secrets };
    let loaded = chassis::config::load(&sources, &defaults, args)?;
    check_roles(&loaded.value)?;
    let concurrency = loaded.value.executor_concurrency;
    anyhow::ensure!(
        (1..=10_000).contains(&concurrency),
        "executor_concurrency is {concurrency}: choose 1 to 10000"
    );
    let Config { logs_max_days: days, logs_max_records: records, .. } = loaded.value;
    anyhow::ensure!((1..=3_650).contains(&days), "logs_max_days is {days}: choose 1 to 3650");
    anyhow::ensure!(
        (1..=10_000_000).contains(&records),
        "logs_max_records is {records}: choose 1 to 10000000"
    );
    Ok(loaded)
}

/// Refuses a process that could not do its part, and says what it lacks.
fn check_roles(config: &Config) -> anyhow::Result<()> {
    let roles = &config.roles;
    anyhow::ensure!(!roles.is_empty(), "roles is empty: name at least one, or leave it out");
    let is_whole = Role::ALL.iter().all(|role| roles.contains(role));
    anyhow::ensure!(
        is_whole || config.nats_url.is_some(),
        "some roles alone need the others in reach: set NATS_URL, or leave out --roles"
    );
    let keeps_data = roles.contains(&Role::Commands) || roles.contains(&Role::Projections);
    anyhow::ensure!(
        config.database_url.is_some() || config.nats_url.is_none() || !keeps_data,
        "processes that share NATS share a database too: set DATABASE_URL, or leave out NATS_URL"
    );
    anyhow::ensure!(
        (1024 * 1024..=1 << 50).contains(&config.nats_events_bytes),
        "nats_events_bytes is {}: choose 1 MiB (1048576) or more",
        config.nats_events_bytes
    );
    anyhow::ensure!(
        (4..=1_000).contains(&config.database_connections),
        "database_connections is {}: choose 4 to 1000",
        config.database_connections
    );
    Ok(())
}

impl Config {
    /// Whether this process has a role.
    pub(crate) fn has(&self, role: Role) -> bool {
        self.roles.contains(&role)
    }

    /// The journal: the only truth, and the file to back up.
    pub(crate) fn journal_path(&self) -> PathBuf {
        self.data_dir.join(JOURNAL_FILE)
    }

    /// The read tables; they can be rebuilt from the journal.
    pub(crate) fn views_path(&self) -> PathBuf {
        self.data_dir.join("views.db")
    }

    /// The audit key, where one is named or stands in the data folder.
    pub(crate) fn audit_key(&self) -> anyhow::Result<Option<AuditKey>> {
        let path = self.audit_key_path();
        match std::fs::read_to_string(&path) {
            Ok(pem) => AuditKey::from_pem(&pem)
                .map(Some)
                .with_context(|| format!("{} can't be used", path.display())),
            Err(error) if error.kind() == ErrorKind::NotFound && self.audit_key.is_none() => {
                Ok(None)
            }
            Err(error) => Err(error).with_context(|| format!("{} can't be read", path.display())),
        }
    }

    /// Where the audit key is, or would be.
    pub(crate) fn audit_key_path(&self) -> PathBuf {
        self.audit_key.clone().unwrap_or_else(|| self.data_dir.join("audit-key.pem"))
    }

    /// The configuration of a server that lives only as long as this process: a throwaway
    /// folder, loopback, a free port, nobody to sign in; the rest as it is.
    pub(crate) fn throwaway(self, data_dir: &Path) -> Self {
        Self {
            data_dir: data_dir.to_owned(),
            listen: SocketAddr::from(([127, 0, 0, 1], 0)),
            auth: AuthMode::Dev,
            admin_key: None,
            audit_key: None,
            logs_archive: None,
            archive_dir: None,
            ..self.alone()
        }
    }

    /// The same for one process with everything in a folder, whatever databases are named.
    pub(crate) fn alone(self) -> Self {
        Self { roles: Role::ALL.to_vec(), database_url: None, nats_url: None, ..self }
    }

    /// What holds where nothing is configured.
    #[cfg(test)]
    pub(crate) fn unconfigured(auth: AuthMode) -> Self {
        defaults(&Environment::new(), auth)
    }
}

/// The journal's file in the data folder.
pub(crate) const JOURNAL_FILE: &str = "journal.db";

/// Names and values.
type Environment = Vec<(String, String)>;

fn defaults(environment: &Environment, auth: AuthMode) -> Config {
    Config {
        // Who develops doesn't play with the data of who serves.
        data_dir: match auth {
            AuthMode::Dev => default_data_dir(environment).join("dev"),
            AuthMode::Keys => default_data_dir(environment),
        },
        roles: Role::ALL.to_vec(),
        database_url: None,
        database_connections: 16,
        nats_url: None,
        nats_credentials: None,
        nats_ca_file: None,
        nats_prefix: "wonder".to_owned(),
        nats_replicas: 1,
        nats_task_storage: None,
        nats_events_bytes: 1024 * 1024 * 1024,
        listen: SocketAddr::from(([127, 0, 0, 1], 7420)),
        auth,
        admin_key: None,
        audit_key: None,
        executor_concurrency: 256,
        allow_private_hosts: Vec::new(),
        // Who develops reads the terminal, where failed attempts are told otherwise; who serves
        // keeps a log.
        log: match auth {
            AuthMode::Dev => "warn,executor::attempts=error".to_owned(),
            AuthMode::Keys => "info".to_owned(),
        },
        logs_level: LogsLevel::Warn,
        logs_max_days: 7,
        logs_max_records: 100_000,
        logs_archive: None,
        archive_dir: None,
    }
}

fn variable<'a>(environment: &'a Environment, name: &str) -> Option<&'a Path> {
    let found = environment.iter().find(|(key, _)| key == name);
    found.map(|(_, value)| Path::new(value))
}

/// `$XDG_DATA_HOME/wonder`, `~/.local/share/wonder`, or `./wonder-data` where there is no home.
fn default_data_dir(environment: &Environment) -> PathBuf {
    match (variable(environment, "XDG_DATA_HOME"), variable(environment, "HOME")) {
        (Some(data), _) if data.is_absolute() => data.join("wonder"),
        (_, Some(home)) => home.join(".local/share/wonder"),
        _ => PathBuf::from("wonder-data"),
    }
}

/// `./wonder.toml`, else `$XDG_CONFIG_HOME/wonder/wonder.toml`, whichever is there.
fn default_file(environment: &Environment) -> Option<PathBuf> {
    let config = variable(environment, "XDG_CONFIG_HOME")
        .map(Path::to_owned)
        .or_else(|| variable(environment, "HOME").map(|home| home.join(".config")))
        .map(|folder| folder.join("wonder/wonder.toml"));
    std::iter::once(PathBuf::from("wonder.toml")).chain(config).find(|path| path.is_file())
}

#[cfg(test)]
mod tests;
