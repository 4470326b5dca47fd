//! Where a process keeps its data, and what it is connected to.

use std::sync::Arc;
use std::time::Duration;

use chassis::bus::{Nats, NatsOptions};
use chassis::clock::{Clock, DatabaseClock, SystemClock};
use chassis::database::{Database, DatabaseOptions};
use chassis::journal::{Journal, PostgresJournal, PostgresOptions, SqliteJournal, SqliteOptions};

use crate::config::{Config, Role};

/// How long the database may take to answer at all.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// The connections of this process.
pub(super) struct Store {
    pub(super) data: Data,
    nats: Option<Nats>,
}

/// The journal's storage.
pub(super) enum Data {
    /// A folder, for one process.
    Folder(Arc<SqliteJournal>),
    /// A database, for several.
    Database(Shared),
    /// None of its own: this process only asks others.
    Elsewhere,
}

/// A database and what is opened in it.
pub(super) struct Shared {
    pub(super) database: Database,
    pub(super) journal: Arc<PostgresJournal>,
    pub(super) clock: Arc<DatabaseClock>,
}

impl Store {
    /// Opens what the roles of this process need.
    pub(super) async fn open(config: &Config) -> anyhow::Result<Self> {
        let nats = match &config.nats_url {
            Some(url) => Some(Nats::connect(&nats_options(config, url.reveal())).await?),
            None => None,
        };
        let keeps_data = config.has(Role::Commands) || config.has(Role::Projections);
        let data = match &config.database_url {
            Some(url) if keeps_data => Data::Database(shared(config, url.reveal()).await?),
            Some(_) => Data::Elsewhere,
            None if keeps_data => Data::Folder(folder(config).await?),
            None => Data::Elsewhere,
        };
        Ok(Self { data, nats })
    }

    pub(super) fn nats(&self) -> Option<&Nats> {
        self.nats.as_ref()
    }

    /// The journal, where this process has one.
    pub(super) fn journal(&self) -> Option<Arc<dyn Journal>> {
        match &self.data {
            Data::Folder(journal) => Some(Arc::clone(journal) as _),
            Data::Database(shared) => Some(Arc::clone(&shared.journal) as _),
            Data::Elsewhere => None,
        }
    }

    /// The time that all processes agree on.
    pub(super) fn clock(&self) -> Arc<dyn Clock> {
        match &self.data {
            Data::Database(shared) => Arc::clone(&shared.clock) as _,
            Data::Folder(_) | Data::Elsewhere => Arc::new(SystemClock::new()),
        }
    }

    /// Where the data is, for people; without secrets.
    pub(super) fn place(&self, config: &Config) -> String {
        match &self.data {
            Data::Folder(_) => config.data_dir.display().to_string(),
            Data::Database(_) => "postgresql".to_owned(),
            Data::Elsewhere => "elsewhere".to_owned(),
        }
    }

    pub(super) async fn close(&self) {
        match &self.data {
            Data::Folder(journal) => journal.close().await,
            Data::Database(shared) => {
                shared.journal.close().await;
                shared.database.close().await;
            }
            Data::Elsewhere => {}
        }
        if let Some(nats) = &self.nats {
            nats.close().await;
        }
    }
}

async fn folder(config: &Config) -> anyhow::Result<Arc<SqliteJournal>> {
    use anyhow::Context;
    let folder = &config.data_dir;
    chassis::private::folder(folder)
        .with_context(|| format!("can't make the data folder {}", folder.display()))?;
    Ok(SqliteJournal::open(&config.journal_path(), SqliteOptions::default()).await?)
}

async fn shared(config: &Config, url: &str) -> anyhow::Result<Shared> {
    let database = Database::connect(&database_options(config, url)).await?;
    database.migrate().await?;
    let clock = DatabaseClock::start(&database).await?;
    let journal = PostgresJournal::open(&database, PostgresOptions::default()).await?;
    Ok(Shared { database, journal, clock })
}

/// How this process uses the database.
pub(crate) fn database_options(config: &Config, url: &str) -> DatabaseOptions {
    DatabaseOptions {
        url: url.to_owned(),
        connections: config.database_connections,
        name: name(config),
        connect_timeout: CONNECT_TIMEOUT,
    }
}

fn nats_options(config: &Config, url: &str) -> NatsOptions {
    NatsOptions {
        url: url.to_owned(),
        credentials: config.nats_credentials.clone(),
        ca_file: config.nats_ca_file.clone(),
        name: name(config),
        prefix: config.nats_prefix.clone(),
        replicas: config.nats_replicas,
        task_storage: config.nats_task_storage,
    }
}

/// What servers show of this process: its roles and its number.
pub(super) fn name(config: &Config) -> String {
    let roles: Vec<_> = config.roles.iter().map(|role| role.as_str()).collect();
    format!("wonder {} {}", roles.join("+"), std::process::id())
}
