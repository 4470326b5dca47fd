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
pub(super) const LONGEST: Duration = Duration::from_secs(3_600);

/// A request of a provider.
pub(super) struct Post<'a> {
    pub(super) base_url: &'a str,
    pub(super) path: &'a str,
    pub(super) headers: HeaderMap,
    pub(super) body: Value,
    /// Kept out of what the provider says.
    pub(super) key: Option<&'a str>,
}

impl Post<'_> {
    pub(super) fn call(self) -> Result<Call, Fault> {
        let url = format!("{}/{}", self.base_url.trim_end_matches('/'), self.path);
        let url = Url::parse(&url).map_err(|error| invalid("model.base_url", error))?;
        let body = Some(Bytes::from(self.body.to_string()));
        Ok(Call { method: Method::POST, url, headers: self.headers, body })
    }
}

/// Posts a body and answers the parsed one. Redirects aren't followed: they would carry the key.
pub(super) async fn post(services: &Services, post: Post<'_>) -> Result<Value, Fault> {
    let key = post.key;
    let reply = services.web.send(post.call()?, |_| true, LONGEST).await?;
    parsed(&reply, key)
}

/// The answer that came whole.
pub(super) fn parsed(reply: &Reply, key: Option<&str>) -> Result<Value, Fault> {
    if !reply.status.is_success() {
        return Err(refused(reply, key));
    }
    serde_json::from_slice(&reply.body)
        .map_err(|error| transient("malformed_answer", format!("the answer isn't JSON: {error}")))
}

/// What a provider says has gone wrong, in an answer that had begun as if nothing would.
pub(super) fn broken_off(error: &Value, key: Option<&str>) -> Fault {
    let word = |name: &str| error[name].as_str().unwrap_or_default();
    let (kind, code) = match (word("type"), word("code")) {
        (_, "insufficient_quota") => (FailureKind::Permanent, "quota_exhausted"),
        (_, "context_length_exceeded") => (FailureKind::Permanent, "context_length"),
        ("overloaded_error", _) => (FailureKind::Transient, "overloaded"),
        ("rate_limit_error", _) | (_, "rate_limit_exceeded") => {
            (FailureKind::Transient, "rate_limited")
        }
        ("authentication_error" | "permission_error", _) => {
            (FailureKind::Permanent, "unauthorized")
        }
        ("invalid_request_error", _) => (FailureKind::Permanent, "bad_request"),
        _ => (FailureKind::Transient, "provider_error"),
    };
    let mut fault = fault(kind, code, "the model's provider broke its answer off");
    let said = masked(error["message"].as_str().unwrap_or_default(), key);
    fault.detail = json!({"message": excerpt(&said, EXCERPT_BYTES)});
    fault
}

/// A text of a provider without the key.
fn masked(said: &str, key: Option<&str>) -> String {
    match key {
        Some(key) => said.replace(key, "[key]"),
        None => said.to_owned(),
    }
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
    let said = if matches!(status, 401 | 403) { "" } else { said };
    let said = masked(said, key);
    fault.detail = json!({"status": status, "message": excerpt(&said, EXCERPT_BYTES)});
    fault.retry_after = retry_after(&reply.headers);
    fault
}
