//! The services of a platform that this process has the roles of, started and wired together.
//!
//! In one process with its data in a folder they call each other directly. With NATS they ask each
//! other over it, whether they are in one process or in several.

use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use chassis::shutdown::{Drained, Shutdown, Stage};
use chassis::telemetry::{self, LogFormat, Telemetry, TelemetryConfig};
use domain::ids::{ProjectId, WorkspaceId};
use executor::{Executor, ExecutorConfig, RemoteSink, RemoteTasks};
use gateway::{
    Administrator, AuthConfig, Gateway, GatewayConfig, Operations, Remote, RenderMetrics,
    ServeError, SystemEnvironment,
};
use protocol::{
    AuditQueries, Commands, EphemeralSource, Events, GateQueries, LogQueries, MetricQueries,
    ResourceQueries, RunQueries, Tasks,
};
use tokio::task::JoinHandle;

use crate::config::{AuthMode, Config, Role};

mod archives;
mod ephemerals;
mod hints;
mod logs;
mod read_side;
mod readiness;
mod store;
mod write_side;

use ephemerals::Ephemerals;
use read_side::ReadSide;
use readiness::Readinesses;
use store::Store;
pub(crate) use store::database_options;
use write_side::WriteSide;

/// How long all parts together may take to stop; what they leave undone is owed, and done after
/// the next start. With the journal's own time it stays below 25 s, after which orchestrators kill.
const STOP: Duration = Duration::from_millis(23_000);
const CLOSE: Duration = Duration::from_millis(1_500);
/// How long an edge among several goes on taking requests after it has said that it isn't ready,
/// so that who spreads the load can turn away.
const LAME_DUCK: Duration = Duration::from_millis(500);

/// A platform, or a part of one, that runs in this process.
pub(crate) struct Platform {
    /// Where it answers, as `http://127.0.0.1:7420`.
    pub(crate) url: String,
    /// Where its data is, for people.
    pub(crate) place: String,
    /// In the order in which they stop.
    stages: Vec<Stage>,
    edge: JoinHandle<Result<(), ServeError>>,
    store: Store,
}

/// What an edge asks.
struct Services {
    commands: Arc<dyn Commands>,
    resources: Arc<dyn ResourceQueries>,
    runs: Arc<dyn RunQueries>,
    gates: Arc<dyn GateQueries>,
    run_metrics: Arc<dyn MetricQueries>,
    events: Arc<dyn Events>,
    audit: Arc<dyn AuditQueries>,
    logs: Arc<dyn LogQueries>,
    ephemerals: Arc<dyn EphemeralSource>,
}

/// Starts the services of this process's roles on a bound listener. Returns when they are ready to
/// serve.
pub(crate) async fn start(
    config: &Config,
    listener: std::net::TcpListener,
) -> anyhow::Result<Platform> {
    let telemetry = telemetry::init(&TelemetryConfig {
        version: env!("CARGO_PKG_VERSION"),
        commit: option_env!("WONDER_COMMIT").unwrap_or("unknown"),
        filter: config.log.clone(),
        format: LogFormat::Auto,
        records: config.logs_level.level(),
    })?;
    let store = Store::open(config).await?;
    // The edge and the executor both bring work in, and what they have begun ends side by side.
    let intake = Stage::new("edge and executor");
    let write_side = match config.has(Role::Commands) {
        true => Some(WriteSide::start(config, &store).await?),
        false => None,
    };
    let read_side = match config.has(Role::Projections) {
        true => Some(ReadSide::start(config, &store).await?),
        false => None,
    };
    let logs = logs::start(config, &telemetry, &store, read_side.as_ref());
    let within = Arc::new(Ephemerals::default());
    if config.has(Role::Executor) {
        start_executor(config, &store, write_side.as_ref(), &within, &intake).await?;
    }
    let url = format!("http://{}", listener.local_addr()?);
    let listener = tokio::net::TcpListener::from_std(listener)?;
    let health = Arc::new(Readinesses::of(config, &store, write_side.as_ref(), read_side.as_ref()));
    let metrics = metrics(telemetry);
    let edge = if config.has(Role::Gateway) {
        let services = services(&store, write_side.as_ref(), read_side.as_ref(), within)?;
        let gateway = Gateway {
            commands: services.commands,
            resources: services.resources,
            runs: services.runs,
            gates: services.gates,
            run_metrics: services.run_metrics,
            events: services.events,
            audit: services.audit,
            logs: services.logs,
            ephemerals: services.ephemerals,
            environment: Arc::new(SystemEnvironment),
            config: gateway_config(config),
            health,
            metrics,
            shutdown: intake.token(),
        };
        intake.spawn(gateway::serve(listener, gateway, intake.token()))
    } else {
        let operations = Operations { health, metrics };
        intake.spawn(gateway::serve_operations(listener, operations, intake.token()))
    };
    let mut stages = vec![intake];
    stages.extend(write_side.into_iter().flat_map(|side| side.stages));
    stages.push(logs);
    stages.extend(read_side.map(|side| side.stage));
    Ok(Platform { url, place: store.place(config), stages, edge, store })
}

impl Platform {
    /// Stops in order: no new requests and tasks while those under way end, then the write side,
    /// then the way to the log store and the projections; the journal closes last.
    pub(crate) async fn stop(self, shutdown: &Shutdown) -> anyhow::Result<()> {
        let drained = shutdown.drain(&self.stages, STOP).await;
        if tokio::time::timeout(CLOSE, self.store.close()).await.is_err() {
            tracing::warn!("the journal did not close in time, it recovers at the next start");
        }
        match drained {
            Drained::Clean => Ok(self.edge.await??),
            Drained::Abandoned { .. } => Ok(()),
        }
    }
}

/// What an edge of this process asks: the services in it, or those behind NATS.
fn services(
    store: &Store,
    write_side: Option<&WriteSide>,
    read_side: Option<&ReadSide>,
    within: Arc<Ephemerals>,
) -> anyhow::Result<Services> {
    if let Some(nats) = store.nats() {
        let remote = Arc::new(Remote::new(nats.clone()));
        return Ok(Services {
            commands: Arc::clone(&remote) as _,
            resources: Arc::clone(&remote) as _,
            runs: Arc::clone(&remote) as _,
            gates: Arc::clone(&remote) as _,
            run_metrics: Arc::clone(&remote) as _,
            events: Arc::clone(&remote) as _,
            audit: Arc::clone(&remote) as _,
            logs: Arc::clone(&remote) as _,
            ephemerals: remote,
        });
    }
    let (write_side, read_side) =
        write_side.zip(read_side).context("an edge without NATS needs the other roles")?;
    let views = &read_side.projections;
    Ok(Services {
        commands: Arc::clone(&write_side.service) as _,
        resources: Arc::clone(views) as _,
        runs: Arc::clone(views) as _,
        gates: Arc::clone(views) as _,
        run_metrics: Arc::clone(views) as _,
        events: Arc::clone(views) as _,
        audit: Arc::clone(views) as _,
        logs: Arc::clone(views) as _,
        ephemerals: within,
    })
}

async fn start_executor(
    config: &Config,
    store: &Store,
    write_side: Option<&WriteSide>,
    within: &Arc<Ephemerals>,
    intake: &Stage,
) -> anyhow::Result<()> {
    let allowed = config.allow_private_hosts.iter().map(|host| Ok(host.parse()?));
    let settings = ExecutorConfig {
        concurrency: config.executor_concurrency,
        allow_private_hosts: allowed.collect::<anyhow::Result<_>>()?,
        ..ExecutorConfig::default()
    };
    let Some(nats) = store.nats() else {
        let write_side = write_side.context("an executor without NATS needs the other roles")?;
        let (tasks, sink) = (write_side.service.tasks(), Arc::clone(within) as _);
        let executor = Executor::start(tasks, sink, settings, intake.token())?;
        intake.spawn(executor.join());
        return Ok(());
    };
    let pool = protocol::remote::DEFAULT_POOL;
    let tasks = RemoteTasks::connect(nats.clone(), pool, config.executor_concurrency).await?;
    let source = Arc::clone(&tasks) as Arc<dyn Tasks>;
    let sink = RemoteSink::connect(nats.clone()).await?;
    let executor = Executor::start(source, sink, settings, intake.token())?;
    intake.spawn(async move {
        executor.join().await;
        tasks.close().await;
    });
    Ok(())
}

fn gateway_config(config: &Config) -> GatewayConfig {
    // The same names give the same ids in every process.
    let workspace_id = WorkspaceId::derived("", "default");
    let auth = match config.auth {
        AuthMode::Dev => AuthConfig::Dev { workspace_id },
        AuthMode::Keys => AuthConfig::Keys {
            administrator: config
                .admin_key
                .as_ref()
                .map(|key| Administrator::new(key.reveal(), workspace_id)),
        },
    };
    let mut gateway = GatewayConfig::new(auth, default_project);
    if config.nats_url.is_some() {
        gateway.lame_duck = LAME_DUCK;
    }
    gateway
}

/// The project that every workspace's runs belong to where none is named.
fn default_project(workspace_id: WorkspaceId) -> ProjectId {
    ProjectId::derived(&workspace_id.to_string(), "default")
}

fn metrics(telemetry: Telemetry) -> RenderMetrics {
    Arc::new(move || telemetry.render())
}
