//! Metrics over runs: which there are, and how they went.

use axum::http::StatusCode;
use axum::response::Response;
use protocol::MetricQuery;

use crate::call::{Call, answer};
use crate::problem::Problem;

/// Dimensions that have a parameter of their own.
const DIMENSIONS: [&str; 8] =
    ["project_id", "workflow_id", "definition", "version", "node", "kind", "model", "status"];

/// `GET /metrics`.
pub(crate) async fn list(call: Call) -> Result<Response, Problem> {
    let workspace = call.caller()?.workspace_id;
    let position = call.min_position()?;
    answer(StatusCode::OK, &call.edge.gateway.run_metrics.list(workspace, position).await?)
}

/// `GET /metrics/query`.
pub(crate) async fn query(call: Call) -> Result<Response, Problem> {
    let metric = call.asked("metric");
    let metric = metric.ok_or_else(|| {
        Problem::parameter("metric", "name one of those that GET /api/v1/metrics lists")
    })?;
    let given = |name| call.asked(name).map(|value| (String::from(name), value.to_owned()));
    let mut filters: Vec<_> = DIMENSIONS.into_iter().filter_map(given).collect();
    for text in call.asked_all("dimension") {
        let wrong = || Problem::parameter("dimension", "write name=value");
        let (name, value) = text.split_once('=').ok_or_else(wrong)?;
        filters.push((format!("dimensions.{name}"), value.to_owned()));
    }
    let groups = call.asked_all("group_by").flat_map(|text| text.split(','));
    let asked = MetricQuery {
        metric: metric.to_owned(),
        from: call.asked_time("from")?,
        to: call.asked_time("to")?,
        now: call.edge.gateway.environment.now(),
        step: call.asked_as("step")?,
        group_by: groups.filter(|name| !name.is_empty()).map(str::to_owned).collect(),
        filters,
        min_position: call.min_position()?,
    };
    let workspace = call.caller()?.workspace_id;
    answer(StatusCode::OK, &call.edge.gateway.run_metrics.query(workspace, asked).await?)
}
