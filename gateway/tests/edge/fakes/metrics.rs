//! Metrics of the fake read side: it keeps what it was asked.

use async_trait::async_trait;
use domain::ids::WorkspaceId;
use protocol::{MetricAnswer, MetricList, MetricQueries, MetricQuery, Rejection, RejectionKind};

use super::World;

#[async_trait]
impl MetricQueries for World {
    async fn query(&self, _: WorkspaceId, asked: MetricQuery) -> Result<MetricAnswer, Rejection> {
        let message = format!("there is no metric {}", asked.metric);
        self.metric_queries.lock().expect("lock").push(asked);
        Err(Rejection::new(RejectionKind::Malformed, "unknown_metric", message))
    }

    async fn list(&self, _: WorkspaceId, _: Option<u64>) -> Result<MetricList, Rejection> {
        Ok(MetricList { items: Vec::new() })
    }
}
