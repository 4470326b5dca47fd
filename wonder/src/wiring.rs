//! All services of a platform, started and wired together in this process.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use async_trait::async_trait;
use chassis::clock::{Clock, SystemClock};
use chassis::journal::Journal;
use chassis::journal::sqlite::{SqliteJournal, SqliteOptions};
use chassis::shutdown::{Drained, Shutdown, Stage};
use chassis::telemetry::{self, LogFormat, Telemetry, TelemetryConfig};
use commands::{CommandService, CoordinatorConfig};
use domain::ids::{ProjectId, WorkspaceId};
use executor::{Executor, ExecutorConfig};
use futures::future::join_all;
use gateway::{
    Administrator, AuthConfig, Dependency, Gateway, GatewayConfig, Health, Readiness,
    RenderMetrics, ServeError, SystemEnvironment,
};
use projections::{Projections, Views};
use tokio::task::JoinHandle;

use crate::config::{AuthMode, Config};

/// How long all parts together may take to stop; what they leave undone is owed, and done after
/// the next start. With the journal's own time it stays below 25 s, after which orchestrators kill.
const STOP: Duration = Duration::from_millis(23_500);
const CLOSE_JOURNAL: Duration = Duration::from_secs(1);

/// A platform that runs in this process.
pub(crate) struct Platform {
    /// Where it answers, as `http://127.0.0.1:7420`.
    pub(crate) url: String,
    /// Where it keeps its data.
    pub(crate) data_dir: PathBuf,
    /// In the order in which they stop.
    stages: [Stage; 3],
    edge: JoinHandle<Result<(), ServeError>>,
    journal: Arc<SqliteJournal>,
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
    chassis::private::folder(&data_dir)
        .with_context(|| format!("can't make the data folder {}", data_dir.display()))?;
    let clock: Arc<dyn Clock> = Arc::new(SystemClock::new());
    let sqlite = SqliteJournal::open(&config.journal_path(), SqliteOptions::default()).await?;
    let journal: Arc<dyn Journal> = Arc::clone(&sqlite) as Arc<dyn Journal>;

    // The edge and the executor both bring work in, and what they have begun ends side by side.
    let intake = Stage::new("edge and executor");
    let coordinator = Stage::new("coordinator");
    let folds = Stage::new("projections");

    let commands = CommandService::start(
        Arc::clone(&journal),
        Arc::clone(&clock),
        &CoordinatorConfig::default(),
        coordinator.token(),
        coordinator.tasks(),
    )
    .await?;

    let views = Projections::open(
        Arc::clone(&journal),
        Views::File(config.views_path()),
        projections::Config::default(),
    )
    .await?;
    folds.spawn(join_all(views.start(None, &folds.token())));
    views.caught_up(journal.head().await?).await;

    let executor = Executor::start(commands.tasks(), executor_config(config)?, intake.token())?;
    intake.spawn(executor.join());

    let workspace_id = commands.defaults().workspace_id;
    let url = format!("http://{}", listener.local_addr()?);
    let gateway = Gateway {
        commands,
        resources: Arc::clone(&views) as _,
        runs: Arc::clone(&views) as _,
        events: Arc::clone(&views) as _,
        environment: Arc::new(SystemEnvironment),
        config: GatewayConfig::new(auth(config, workspace_id), default_project),
        health: Arc::new(Platforms { journal: Arc::clone(&journal), views }),
        metrics: metrics(telemetry),
        shutdown: intake.token(),
    };
    let listener = tokio::net::TcpListener::from_std(listener)?;
    let edge = intake.spawn(gateway::serve(listener, gateway, intake.token()));
    let stages = [intake, coordinator, folds];
    Ok(Platform { url, data_dir, stages, edge, journal: sqlite })
}

impl Platform {
    /// Stops in order: no new requests and tasks while those under way end, then the coordinator,
    /// then the projections; the journal closes last.
    pub(crate) async fn stop(self, shutdown: &Shutdown) -> anyhow::Result<()> {
        let drained = shutdown.drain(&self.stages, STOP).await;
        let closed = tokio::time::timeout(CLOSE_JOURNAL, self.journal.close()).await;
        if closed.is_err() {
            tracing::warn!("the journal did not close in time, it recovers at the next start");
        }
        match drained {
            Drained::Clean => Ok(self.edge.await??),
            Drained::Abandoned { .. } => Ok(()),
        }
    }
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
        let unread = self.journal.head().await.err().map(|error| error.to_string());
        let wrong = unread.or_else(|| self.journal.fault().map(|fault| fault.to_string()));
        let mut dependencies = vec![Dependency {
            name: "journal".to_owned(),
            ready: wrong.is_none(),
            detail: wrong,
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

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use chassis::journal::{Append, NewEvent};

    use super::*;

    fn append(bytes: usize) -> Append {
        let event = NewEvent {
            id: Default::default(),
            event_type: "noted".into(),
            event_version: 1,
            payload: Bytes::from(vec![b'1'; bytes]),
        };
        Append {
            aggregate_type: "note".into(),
            aggregate_id: "note_1".into(),
            expected_sequence: 0,
            workspace_id: "".into(),
            metadata: Bytes::new(),
            recorded_at: SystemClock::new().now(),
            events: vec![event],
            inbox: Vec::new(),
            payloads: Vec::new(),
            open: None,
            snapshot: None,
            shard: 0,
            epoch: None,
        }
    }

    #[tokio::test]
    async fn readiness_tells_that_the_storage_is_full_until_it_is_not() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let options = SqliteOptions { max_bytes: 1024 * 1024, ..SqliteOptions::default() };
        let opened = SqliteJournal::open(&folder.path().join("journal.db"), options).await;
        let journal: Arc<dyn Journal> = opened.expect("it opens");
        let path = folder.path().join("views.db");
        let views =
            Projections::open(Arc::clone(&journal), Views::File(path), Default::default()).await;
        let health = Platforms { journal: Arc::clone(&journal), views: views.expect("it opens") };
        assert!(health.readiness().await.ready);
        assert!(journal.append(append(2 * 1024 * 1024)).await.is_err());
        let full = health.readiness().await;
        assert!(!full.ready && !full.dependencies[0].ready);
        assert_eq!(full.dependencies[0].detail.as_deref(), Some("the journal's storage is full"));
        journal.append(append(1)).await.expect("there is room for a small one");
        assert!(health.readiness().await.ready);
    }
}
