//! What the edge is made of and how it is set up.

use std::sync::Arc;
use std::time::Duration;

use domain::ids::{ProjectId, WorkspaceId};
use protocol::{Commands, Events, ResourceQueries, RunQueries};
use tokio_util::sync::CancellationToken;

use crate::environment::Environment;
use crate::health::Health;

/// Gives the process's metrics as Prometheus text.
pub type RenderMetrics = Arc<dyn Fn() -> String + Send + Sync>;

/// The edge service, before it listens.
#[derive(Clone)]
pub struct Gateway {
    pub commands: Arc<dyn Commands>,
    pub resources: Arc<dyn ResourceQueries>,
    pub runs: Arc<dyn RunQueries>,
    pub events: Arc<dyn Events>,
    pub environment: Arc<dyn Environment>,
    pub config: GatewayConfig,
    pub health: Arc<dyn Health>,
    pub metrics: RenderMetrics,
    /// Ends streams and waits, so that a shutdown isn't held up by them.
    pub shutdown: CancellationToken,
}

/// Settings; [`GatewayConfig::new`] gives the usual ones.
#[derive(Debug, Clone)]
pub struct GatewayConfig {
    pub auth: AuthConfig,
    /// The project that runs and definitions of a workspace belong to where none is named.
    pub default_project: fn(WorkspaceId) -> ProjectId,
    /// How long a request may take, its body included; streams and waits are apart.
    pub request_timeout: Duration,
    /// Requests at the same time; more are refused with 429.
    pub max_requests: usize,
    /// Event streams at the same time; more are refused with 429.
    pub max_streams: usize,
    /// How often the right to an open stream is checked again.
    pub recheck_streams: Duration,
}

impl GatewayConfig {
    /// 30 s a request, 4,096 requests and 5,000 streams at a time, streams checked each 60 s.
    pub fn new(auth: AuthConfig, default_project: fn(WorkspaceId) -> ProjectId) -> Self {
        Self {
            auth,
            default_project,
            request_timeout: Duration::from_secs(30),
            max_requests: 4_096,
            max_streams: 5_000,
            recheck_streams: Duration::from_secs(60),
        }
    }
}

/// Who may come in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AuthConfig {
    /// Everybody is `dev` with all scopes in this workspace. On loopback only, and only for
    /// requests that name a loopback host.
    Dev { workspace_id: WorkspaceId },
    /// API keys only.
    Keys,
}
