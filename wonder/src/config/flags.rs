//! The flags of commands that start or look at a server's own data.

use std::net::SocketAddr;
use std::path::PathBuf;

use serde::Serialize;

use super::{AuthMode, LogsLevel, Role};

/// Where a server keeps its data, where it listens, and whom it lets in. Serialises to the keys
/// that were given.
#[derive(Debug, Clone, Default, clap::Args, Serialize)]
pub(crate) struct ServerArgs {
    /// Configuration file [default: ./wonder.toml, then ~/.config/wonder/wonder.toml]
    #[serde(skip)]
    #[arg(long, value_name = "FILE", env = "WONDER_CONFIG", help_heading = "Server")]
    pub(crate) config: Option<PathBuf>,
    /// Folder of the journal and the read tables [default: ~/.local/share/wonder; of `wonder dev`: the folder dev in it]
    #[arg(long, value_name = "DIR", help_heading = "Server")]
    pub(crate) data_dir: Option<PathBuf>,
    /// What this process does, with commas between [default: everything]
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[arg(long, value_enum, value_delimiter = ',', value_name = "ROLES", help_heading = "Server")]
    pub(crate) roles: Vec<Role>,
    /// PostgreSQL database of journal and read tables, instead of a folder [env: DATABASE_URL]
    #[arg(long, value_name = "URL", help_heading = "Server")]
    pub(crate) database_url: Option<String>,
    /// NATS servers between the processes of a platform [env: NATS_URL]
    #[arg(long, value_name = "URL", help_heading = "Server")]
    pub(crate) nats_url: Option<String>,
    /// First part of all NATS subjects [default: wonder]
    #[arg(long, value_name = "WORD", help_heading = "Server")]
    pub(crate) nats_prefix: Option<String>,
    /// Address to listen on [default: 127.0.0.1:7420]
    #[arg(long, value_name = "IP:PORT", help_heading = "Server")]
    pub(crate) listen: Option<SocketAddr>,
    /// Who may call: everybody on loopback as `dev`, or API keys only
    #[arg(long, value_enum, help_heading = "Server")]
    pub(crate) auth: Option<AuthMode>,
    /// Private key (Ed25519, PEM) that signs the audit chain [default: of a data folder: audit-key.pem in it]
    #[arg(long, value_name = "FILE", help_heading = "Server")]
    pub(crate) audit_key: Option<PathBuf>,
    /// Tasks worked on at the same time [default: 256]
    #[arg(long, value_name = "N", help_heading = "Server")]
    pub(crate) executor_concurrency: Option<usize>,
    /// A host with a private address that http actions may call (repeatable)
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[arg(
        long = "allow-private-host",
        alias = "allow-private-hosts",
        value_name = "HOST",
        help_heading = "Server"
    )]
    pub(crate) allow_private_hosts: Vec<String>,
    /// Log filter, as in `warn,commands=debug` [default: info; of `wonder dev`: warn, but for failed attempts]
    #[arg(long, value_name = "FILTER", help_heading = "Server")]
    pub(crate) log: Option<String>,
    /// What of the log is kept for `wonder logs` [default: warn]
    #[arg(long, value_enum, value_name = "LEVEL", help_heading = "Server")]
    pub(crate) logs_level: Option<LogsLevel>,
    /// Folder that old log records are appended to, a file of JSON lines a day
    #[arg(long, value_name = "DIR", help_heading = "Server")]
    pub(crate) logs_archive: Option<PathBuf>,
    /// Folder (or file:// URL) that runs are written to, before what their project wants to go is dropped
    #[arg(long, value_name = "DIR", help_heading = "Server")]
    pub(crate) archive_dir: Option<PathBuf>,
}
