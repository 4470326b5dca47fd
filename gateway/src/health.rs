//! Readiness, as the binary that wires the services knows it.

use async_trait::async_trait;
use serde::Serialize;

/// Whether each dependency can do its work.
#[async_trait]
pub trait Health: Send + Sync {
    /// Looks at each dependency now; answers within a second.
    async fn readiness(&self) -> Readiness;
}

/// What `/readyz` answers: 200 where all dependencies are ready, 503 where one isn't.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, utoipa::ToSchema)]
pub struct Readiness {
    pub ready: bool,
    pub dependencies: Vec<Dependency>,
}

impl Readiness {
    /// Ready where every dependency is.
    pub fn of(dependencies: Vec<Dependency>) -> Self {
        Self { ready: dependencies.iter().all(|dependency| dependency.ready), dependencies }
    }

    /// Of a process that is about to end.
    pub(crate) fn leaving() -> Self {
        let detail = Some("it is shutting down".to_owned());
        let process = Dependency { name: "process".to_owned(), ready: false, detail, lag: None };
        Self::of(vec![process])
    }
}

/// One of them: the journal, its migrations, each projection.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, utoipa::ToSchema)]
pub struct Dependency {
    pub name: String,
    pub ready: bool,
    /// Why it isn't ready, without addresses or secrets.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub detail: Option<String>,
    /// Journal positions that a projection is behind.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub lag: Option<u64>,
}
