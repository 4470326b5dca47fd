//! What the edge is made of and how it is set up.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use domain::ids::{ProjectId, WorkspaceId};
use protocol::{
    AuditQueries, Commands, EphemeralSource, Events, GateQueries, LogQueries, MetricQueries,
    ResourceQueries, RunQueries,
};
use sha2::{Digest, Sha256};
use tokio_util::sync::CancellationToken;

use crate::auth::same;
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
    pub gates: Arc<dyn GateQueries>,
    /// Metrics over runs; those of the process are `metrics`.
    pub run_metrics: Arc<dyn MetricQueries>,
    pub events: Arc<dyn Events>,
    /// What workers tell that no journal has.
    pub ephemerals: Arc<dyn EphemeralSource>,
    pub audit: Arc<dyn AuditQueries>,
    pub logs: Arc<dyn LogQueries>,
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
    /// How long a connection may take for the head of its next request, and lie idle before it.
    pub header_timeout: Duration,
    /// Connections at the same time; more are closed at once.
    pub max_connections: usize,
    /// How often the right to an open stream is checked again.
    pub recheck_streams: Duration,
    /// How long requests are still taken once a shutdown was asked for, while `/readyz` already
    /// fails, so that a load balancer can turn away first.
    pub lame_duck: Duration,
}

impl GatewayConfig {
    /// 30 s a request and 60 s for its head, 10,000 connections with 4,096 requests and 5,000
    /// streams at a time, streams checked each 60 s, and a shutdown that begins at once.
    pub fn new(auth: AuthConfig, default_project: fn(WorkspaceId) -> ProjectId) -> Self {
        Self {
            auth,
            default_project,
            request_timeout: Duration::from_secs(30),
            max_requests: 4_096,
            max_streams: 5_000,
            header_timeout: Duration::from_secs(60),
            max_connections: 10_000,
            recheck_streams: Duration::from_secs(60),
            lame_duck: Duration::ZERO,
        }
    }
}

/// Who may come in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AuthConfig {
    /// Everybody is `dev` with all scopes in this workspace. On loopback only, and only for
    /// requests that name a loopback host.
    Dev { workspace_id: WorkspaceId },
    /// API keys, and the administrator's key where one was set up.
    Keys { administrator: Option<Administrator> },
}

/// The administrator's key, from the configuration: all scopes, over all workspaces.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Administrator {
    hash: [u8; 32],
    pub(crate) workspace_id: WorkspaceId,
}

impl Administrator {
    /// Who sends this secret as `Authorization: Bearer …` is the administrator; what it makes
    /// belongs to the workspace.
    pub fn new(secret: &str, workspace_id: WorkspaceId) -> Self {
        Self { hash: Sha256::digest(secret).into(), workspace_id }
    }

    pub(crate) fn is(&self, token: &str) -> bool {
        same(&self.hash, &Sha256::digest(token).into())
    }
}

impl fmt::Debug for Administrator {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Administrator({})", self.workspace_id)
    }
}
