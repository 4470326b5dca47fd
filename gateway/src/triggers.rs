//! Triggers: webhooks as they come, and lists of a workflow's triggers.

use std::collections::BTreeMap;

use axum::http::StatusCode;
use axum::response::Response;
use domain::ids::{CommandId, Name, WorkflowId, WorkspaceId};
use protocol::{Command, CommandEnvelope, Webhook};
use serde_json::json;

use crate::call::{Call, answer, located};
use crate::problem::Problem;

/// `POST /hooks/{id}/{trigger}`. Nothing is judged here: whose it is, the write side finds out.
pub(crate) async fn deliver(call: Call) -> Result<Response, Problem> {
    let workflow_id: WorkflowId = call.id()?;
    let not_found = |error: domain::ids::InvalidName| Problem::not_found(error.to_string());
    let trigger: Name = call.segment("trigger").parse().map_err(not_found)?;
    let body = String::from_utf8(call.body.to_vec()).map_err(|_| {
        Problem::new(StatusCode::BAD_REQUEST, "invalid_json", "the body is no utf-8 text")
    })?;
    let texts = call.parts.headers.iter().filter_map(|(name, value)| {
        let value = value.to_str().ok()?;
        Some((name.as_str().to_owned(), value.to_owned()))
    });
    let headers: BTreeMap<_, _> = texts.collect();
    let header = |name| headers.get(name).cloned().unwrap_or_default();
    let webhook = Webhook {
        workflow_id,
        trigger,
        id: header("webhook-id"),
        timestamp: header("webhook-timestamp"),
        signature: header("webhook-signature"),
        headers,
        body,
    };
    // Its run's, so that a delivery that is repeated goes where the first one went.
    let id = CommandId::new(webhook.run_id().bits());
    let nobodys = WorkspaceId::new(uuid::Uuid::nil());
    let command = Command::DeliverWebhook(Box::new(webhook));
    let envelope = CommandEnvelope {
        origin: Some(Box::new(call.origin())),
        traceparent: Some(call.trace.traceparent.clone()),
        ..CommandEnvelope::new(id, nobodys, "webhook", command)
    };
    let receipt = call.edge.gateway.commands.execute(envelope).await?;
    let body = json!({"run_id": receipt.id, "position": receipt.position});
    let response = answer(StatusCode::ACCEPTED, &body)?;
    Ok(located(response, &format!("/api/v1/runs/{}", receipt.id)))
}

/// `GET /workflows/{id}/triggers`.
pub(crate) async fn list(call: Call) -> Result<Response, Problem> {
    let workspace = call.caller()?.workspace_id;
    let (now, position) = (call.edge.gateway.environment.now(), call.min_position()?);
    let resources = &call.edge.gateway.resources;
    let items = resources.triggers(workspace, call.id()?, now, position).await?;
    answer(StatusCode::OK, &json!({"items": items}))
}
