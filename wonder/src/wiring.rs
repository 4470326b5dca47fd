//! All services of a platform, started and wired together in this process.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use async_trait::async_trait;
use chassis::clock::{Clock, SystemClock};
use chassis::journal::Journal;
use chassis::journal::sqlite::{SqliteJournal, SqliteOptions};
use chassis::telemetry::{self, LogFormat, Telemetry, TelemetryConfig};
use commands::{CommandService, CoordinatorConfig};
use domain::ids::{ProjectId, WorkspaceId};
use executor::{Executor, ExecutorConfig};
use gateway::{
    Administrator, AuthConfig, Dependency, Gateway, GatewayConfig, Health, Readiness,
    RenderMetrics, ServeError, SystemEnvironment,
};
use projections::Projections;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::config::{AuthMode, Config};

/// The journal, in the data folder.
const JOURNAL: &str = "journal.db";
/// The read tables, in the data folder. Made anew from the journal where they are missing.
const VIEWS: &str = "views.db";
/// How long each part may take to stop.
const STOP: Duration = Duration::from_secs(20);

/// A platform that runs in this process.
pub(crate) struct Platform {
    /// Where it answers, as `http://127.0.0.1:7420`.
    pub(crate) url: String,
    /// Where it keeps its data.
    pub(crate) data_dir: PathBuf,
    edge: Part<Result<(), ServeError>>,
    executor: Executor,
    executor_stop: CancellationToken,
    commands_stop: CancellationToken,
    commands: TaskTracker,
    projections_stop: CancellationToken,
    projections: Vec<JoinHandle<()>>,
    journal: Arc<SqliteJournal>,
}

struct Part<T> {
    stop: CancellationToken,
    task: JoinHandle<T>,
}

/// Starts journal, commands, projections, executor and gateway on a bound listener. Returns when
/// it is ready to serve.
pub(crate) async fn start(
    config: &Config,
    listener: std::net::TcpListener,
) -> anyhow::Result<Platform> {
    let telemetry = telemetry::init(&TelemetryConfig {
        version: env!("CARGO_PKG_VERSION"),
        commit: option_env!("WONDER_COMMIT").unwrap_or("unknown"),
        filter: config.log.clone(),
        format: LogFormat::Auto,
    })?;
    let data_dir = config.data_dir.clone();
    std::fs::create_dir_all(&data_dir)
        .with_context(|| format!("can't make the data folder {}", data_dir.display()))?;
    let clock: Arc<dyn Clock> = Arc::new(SystemClock::new());
    let sqlite = SqliteJournal::open(&data_dir.join(JOURNAL), SqliteOptions::default()).await?;
    let journal: Arc<dyn Journal> = Arc::clone(&sqlite) as Arc<dyn Journal>;

    let (commands_stop, tracker) = (CancellationToken::new(), TaskTracker::new());
    let coordinator = CoordinatorConfig::default();
    let commands = CommandService::start(
        Arc::clone(&journal),
        Arc::clone(&clock),
        &coordinator,
        commands_stop.clone(),
        &tracker,
    )
    .await?;

    let projections_stop = CancellationToken::new();
    let views = Projections::open(
        Arc::clone(&journal),
        &data_dir.join(VIEWS),
        projections::Config::default(),
    )
    .await?;
    let folds = views.start(&projections_stop);
    views.caught_up(journal.head().await?).await;

    let executor_stop = CancellationToken::new();
    let executor =
        Executor::start(commands.tasks(), executor_config(config)?, executor_stop.clone())?;

    let workspace_id = commands.defaults().workspace_id;
    let url = format!("http://{}", listener.local_addr()?);
    let edge_stop = CancellationToken::new();
    let gateway = Gateway {
        commands,
        resources: Arc::clone(&views) as _,
        runs: Arc::clone(&views) as _,
        events: Arc::clone(&views) as _,
        environment: Arc::new(SystemEnvironment),
        config: GatewayConfig::new(auth(config, workspace_id), default_project),
        health: Arc::new(Platforms { journal: Arc::clone(&journal), views }),
        metrics: metrics(telemetry),
        shutdown: edge_stop.clone(),
    };
    let listener = tokio::net::TcpListener::from_std(listener)?;
    let task = tokio::spawn(gateway::serve(listener, gateway, edge_stop.clone()));
    Ok(Platform {
        url,
        data_dir,
        edge: Part { stop: edge_stop, task },
        executor,
        executor_stop,
        commands_stop,
        commands: tracker,
        projections_stop,
        projections: folds,
        journal: sqlite,
    })
}

impl Platform {
    /// Stops in order: no new requests, what is under way ends, the journal closes.
    pub(crate) async fn stop(self) -> anyhow::Result<()> {
        self.edge.stop.cancel();
        let served = within("the edge", self.edge.task).await;
        self.executor_stop.cancel();
        within("the executor", self.executor.join()).await;
        self.commands_stop.cancel();
        self.commands.close();
        within("the coordinator", self.commands.wait()).await;
        self.projections_stop.cancel();
        for fold in self.projections {
            within("a projection", fold).await;
        }
        self.journal.close().await;
        match served {
            Some(served) => Ok(served??),
            None => Ok(()),
        }
    }
}

/// Waits for a part to end, but not for ever: what it leaves undone is owed, and done after the
/// next start.
async fn within<T>(part: &'static str, ended: impl Future<Output = T>) -> Option<T> {
    let ended = tokio::time::timeout(STOP, ended).await;
    if ended.is_err() {
        tracing::warn!(part, "did not stop in time");
    }
    ended.ok()
}

fn executor_config(config: &Config) -> anyhow::Result<ExecutorConfig> {
    let allowed = config.allow_private_hosts.iter().map(|host| Ok(host.parse()?));
    Ok(ExecutorConfig {
        concurrency: config.executor_concurrency,
        allow_private_hosts: allowed.collect::<anyhow::Result<_>>()?,
        ..ExecutorConfig::default()
    })
}

fn auth(config: &Config, workspace_id: WorkspaceId) -> AuthConfig {
    match config.auth {
        AuthMode::Dev => AuthConfig::Dev { workspace_id },
        AuthMode::Keys => AuthConfig::Keys {
            administrator: config
                .admin_key
                .as_ref()
                .map(|key| Administrator::new(key.reveal(), workspace_id)),
        },
    }
}

/// The project that every workspace's runs belong to where none is named.
fn default_project(workspace_id: WorkspaceId) -> ProjectId {
    ProjectId::derived(&workspace_id.to_string(), "default")
}

fn metrics(telemetry: Telemetry) -> RenderMetrics {
    Arc::new(move || telemetry.render())
}

/// Readiness of the embedded platform.
struct Platforms {
    journal: Arc<dyn Journal>,
    views: Arc<Projections>,
}

#[async_trait]
impl Health for Platforms {
    async fn readiness(&self) -> Readiness {
        let head = self.journal.head().await;
        let mut dependencies = vec![Dependency {
            name: "journal".to_owned(),
            ready: head.is_ok(),
            detail: head.err().map(|error| error.to_string()),
            lag: None,
        }];
        for standing in self.views.standings().await.into_iter().flatten() {
            dependencies.push(Dependency {
                name: format!("projection {}", standing.projection),
                ready: standing.stopped.is_none(),
                detail: standing.stopped.map(|reason| reason.to_string()),
                lag: Some(standing.lag_events),
            });
        }
        Readiness::of(dependencies)
    }
}
