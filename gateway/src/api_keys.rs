//! Making API keys: the secret is drawn here, shown once, and only its hash goes on.

use axum::http::StatusCode;
use axum::response::Response;
use chrono::{DateTime, Utc};
use domain::ids::{ApiKeyId, Name};
use domain::resource::{ApiKeySpec, Scope, Spec};
use protocol::Command;
use serde::Deserialize;
use serde_json::json;

use crate::auth::Secret;
use crate::call::{Call, answer, located, tagged};
use crate::headers;
use crate::problem::Problem;

/// What a client says of a new key.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct NewKey {
    name: Name,
    scopes: Vec<Scope>,
    #[serde(default)]
    expires_at: Option<DateTime<Utc>>,
}

/// `POST`: 201 with `secret`, which is never shown again.
pub(crate) async fn create(call: Call) -> Result<Response, Problem> {
    if headers::idempotency_key(&call.parts.headers)?.is_some() {
        let detail = "a secret can't be shown twice: leave it out here, \
                      and archive a key whose answer was lost";
        return Err(Problem::header("Idempotency-Key", detail));
    }
    let NewKey { name, scopes, expires_at } = call.json()?;
    let refuse = |pointer: &str, detail: &str| {
        let status = StatusCode::UNPROCESSABLE_ENTITY;
        Err(Problem::new(status, "invalid_body", detail).at(pointer))
    };
    if scopes.is_empty() {
        return refuse("/scopes", "name at least one of read, run, write, admin");
    }
    if expires_at.is_some_and(|end| end <= call.edge.gateway.environment.now()) {
        return refuse("/expires_at", "the key would have expired already");
    }
    let workspace_id = call.caller()?.workspace_id;
    let secret = Secret::new(&*call.edge.gateway.environment);
    let secret_hash = secret.hash();
    let spec = ApiKeySpec { workspace_id, name, secret_hash, scopes, expires_at };
    let receipt = call.execute(Command::Create(Box::new(Spec::ApiKey(spec)))).await?;
    let id: ApiKeyId = receipt.id.parse().map_err(|_| Problem::internal())?;
    let body = json!({
        "id": receipt.id,
        "secret": secret.token(id),
        "version": receipt.version,
        "position": receipt.position,
        "at": receipt.at,
    });
    let response = tagged(answer(StatusCode::CREATED, &body)?, receipt.version);
    Ok(located(response, &format!("{}/{}", call.route.path, receipt.id)))
}
