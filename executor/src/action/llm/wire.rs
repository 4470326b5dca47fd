//! What both wire formats share: the call, and what a provider's refusal means.

use std::time::Duration;

use bytes::Bytes;
use protocol::task::FailureKind;
use reqwest::header::HeaderMap;
use reqwest::{Method, Url};
use serde_json::{Value, json};

use super::Services;
use crate::fault::{Fault, excerpt, fault, invalid, transient};
use crate::web::{Call, Reply, retry_after};

/// Bytes of a provider's error message that are recorded.
const EXCERPT_BYTES: usize = 2_048;
/// The attempt's own time-out ends a call sooner; this only keeps it from being endless.
const LONGEST: Duration = Duration::from_secs(3_600);

/// Posts a body and answers the parsed one. Redirects aren't followed: they would carry the key.
pub(super) async fn post(
    services: &Services,
    base_url: &str,
    path: &str,
    headers: HeaderMap,
    body: &Value,
    key: Option<&str>,
) -> Result<Value, Fault> {
    let url = format!("{}/{path}", base_url.trim_end_matches('/'));
    let url = Url::parse(&url).map_err(|error| invalid("model.base_url", error))?;
    let body = Some(Bytes::from(body.to_string()));
    let call = Call { method: Method::POST, url, headers, body };
    let reply = services.web.send(call, |_| true, LONGEST).await?;
    if !reply.status.is_success() {
        return Err(refused(&reply, key));
    }
    serde_json::from_slice(&reply.body)
        .map_err(|error| transient("malformed_answer", format!("the answer isn't JSON: {error}")))
}

/// An answer of another shape than the format has.
pub(super) fn misshapen(what: &str) -> Fault {
    transient("malformed_answer", format!("the model's answer has no {what}"))
}

fn refused(reply: &Reply, key: Option<&str>) -> Fault {
    let status = reply.status.as_u16();
    let body: Value = serde_json::from_slice(&reply.body).unwrap_or(Value::Null);
    let text = |pointer: &str| body.pointer(pointer).and_then(Value::as_str).unwrap_or_default();
    let (said, code) = (text("/error/message"), text("/error/code"));
    let too_long = code == "context_length_exceeded"
        || ["prompt is too long", "maximum context length", "context window"]
            .iter()
            .any(|mark| said.contains(mark));
    let (kind, code) = match status {
        400 | 413 | 422 if too_long => (FailureKind::Permanent, "context_length"),
        429 if code == "insufficient_quota" => (FailureKind::Permanent, "quota_exhausted"),
        429 => (FailureKind::Transient, "rate_limited"),
        503 | 529 => (FailureKind::Transient, "overloaded"),
        408 | 409 | 425 | 500..=599 => (FailureKind::Transient, "provider_error"),
        401 | 403 => (FailureKind::Permanent, "unauthorized"),
        404 => (FailureKind::Permanent, "model_not_found"),
        413 => (FailureKind::Permanent, "request_too_large"),
        400 | 422 => (FailureKind::Permanent, "bad_request"),
        _ => (FailureKind::Permanent, "http_status"),
    };
    let mut fault = fault(kind, code, format!("the model's provider answers {}", reply.status));
    // A provider that refuses a key may repeat parts of it.
    let mut said = if matches!(status, 401 | 403) { String::new() } else { said.to_owned() };
    if let Some(key) = key {
        said = said.replace(key, "[key]");
    }
    fault.detail = json!({"status": status, "message": excerpt(&said, EXCERPT_BYTES)});
    fault.retry_after = retry_after(&reply.headers);
    fault
}
