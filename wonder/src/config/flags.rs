//! The flags of commands that start or look at a server's own data.

use std::net::SocketAddr;
use std::path::PathBuf;

use super::{AuthMode, Layer};

/// Where a server keeps its data, where it listens, and whom it lets in.
#[derive(Debug, Clone, Default, clap::Args)]
pub(crate) struct ServerArgs {
    /// Configuration file [default: ./wonder.toml, then ~/.config/wonder/wonder.toml]
    #[arg(long, value_name = "FILE", env = "WONDER_CONFIG", help_heading = "Server")]
    pub(crate) config: Option<PathBuf>,
    /// Folder of the journal and the read tables [default: ~/.local/share/wonder]
    #[arg(long, value_name = "DIR", help_heading = "Server")]
    pub(crate) data_dir: Option<PathBuf>,
    /// Address to listen on [default: 127.0.0.1:7420]
    #[arg(long, value_name = "IP:PORT", help_heading = "Server")]
    pub(crate) listen: Option<SocketAddr>,
    /// Who may call: everybody on loopback as `dev`, or API keys only
    #[arg(long, value_enum, help_heading = "Server")]
    pub(crate) auth: Option<AuthMode>,
    /// Tasks worked on at the same time [default: 256]
    #[arg(long, value_name = "N", help_heading = "Server")]
    pub(crate) executor_concurrency: Option<usize>,
    /// A host with a private address that http actions may call (repeatable)
    #[arg(long = "allow-private-host", value_name = "HOST", help_heading = "Server")]
    pub(crate) allow_private_hosts: Vec<String>,
    /// Log filter, as in `warn,commands=debug` [default: info]
    #[arg(long, value_name = "FILTER", help_heading = "Server")]
    pub(crate) log: Option<String>,
}

impl ServerArgs {
    /// The flags that were given, as the topmost sources.
    pub(super) fn layer(&self) -> Vec<Layer> {
        let mut layers = Vec::new();
        let mut set = |key: &'static str, value: Option<String>| {
            if let Some(value) = value {
                let name = match key {
                    "allow_private_hosts" => "flag --allow-private-host".to_owned(),
                    _ => format!("flag --{}", key.replace('_', "-")),
                };
                layers.push(Layer::new(name, key, value));
            }
        };
        set("data_dir", self.data_dir.as_ref().map(|path| path.display().to_string()));
        set("listen", self.listen.map(|address| address.to_string()));
        set(
            "auth",
            self.auth.map(|mode| if mode == AuthMode::Dev { "dev" } else { "keys" }.to_owned()),
        );
        set("executor_concurrency", self.executor_concurrency.map(|number| number.to_string()));
        let hosts = self.allow_private_hosts.join(",");
        set("allow_private_hosts", (!hosts.is_empty()).then_some(hosts));
        set("log", self.log.clone());
        layers
    }
}
