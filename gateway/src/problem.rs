//! Errors as problem+json (RFC 9457), and the one place where refusals become HTTP.

use std::borrow::Cow;

use axum::body::Body;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::Response;
use domain::definition::Problem as Finding;
use protocol::{Rejection, RejectionKind};
use serde_json::{Map, Value, json};

/// The codes that the edge itself answers; each has a page under `docs/errors`.
pub const EDGE_CODES: &[&str] = &[
    "body_too_large",
    "body_unreadable",
    "bundle_has_keys",
    "cross_site_request",
    "duplicate_key",
    "forbidden",
    "host_not_allowed",
    "internal",
    "invalid_body",
    "invalid_definition",
    "invalid_header",
    "invalid_json",
    "invalid_parameter",
    "json_too_deep",
    "lone_surrogate",
    "method_not_allowed",
    "not_found",
    "nul_character",
    "number_out_of_range",
    "overloaded",
    "reserved_key",
    "stored_data_unreadable",
    "timeout",
    "unauthenticated",
    "unknown_parameter",
    "unsupported_media_type",
    "websocket_required",
];

/// What is answered about stored data that is missing or damaged.
const UNREADABLE: &str = "stored_data_unreadable";

/// A refusal on its way out.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Problem {
    pub(crate) status: StatusCode,
    pub(crate) code: Cow<'static, str>,
    pub(crate) detail: String,
    pub(crate) pointer: Option<String>,
    pub(crate) findings: Vec<Finding>,
}

impl Problem {
    pub(crate) fn new(status: StatusCode, code: &'static str, detail: impl Into<String>) -> Self {
        Self {
            status,
            code: Cow::Borrowed(code),
            detail: detail.into(),
            pointer: None,
            findings: Vec::new(),
        }
    }

    pub(crate) fn at(mut self, pointer: impl Into<String>) -> Self {
        self.pointer = Some(pointer.into());
        self
    }

    pub(crate) fn not_found(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::NOT_FOUND, "not_found", detail)
    }

    pub(crate) fn parameter(name: &str, detail: impl std::fmt::Display) -> Self {
        let detail = format!("query parameter {name}: {detail}");
        Self::new(StatusCode::BAD_REQUEST, "invalid_parameter", detail)
    }

    pub(crate) fn header(name: &str, detail: impl std::fmt::Display) -> Self {
        let detail = format!("header {name}: {detail}");
        Self::new(StatusCode::BAD_REQUEST, "invalid_header", detail)
    }

    pub(crate) fn internal() -> Self {
        let detail = "a defect on our side; the log has it under the trace id";
        Self::new(StatusCode::INTERNAL_SERVER_ERROR, "internal", detail)
    }

    /// The problems of a definition, moved below a place of the request's body.
    pub(crate) fn definition(mut findings: Vec<Finding>, below: &str) -> Self {
        for finding in &mut findings {
            finding.pointer.insert_str(0, below);
        }
        let count = findings.len();
        let detail = format!("the definition has {count} problem(s), listed in errors");
        let status = StatusCode::UNPROCESSABLE_ENTITY;
        Self { findings, ..Self::new(status, "invalid_definition", detail) }
    }

    /// The document, as it stands in bodies and in streams.
    pub(crate) fn document(&self, trace_id: &str) -> Value {
        let mut document = Map::new();
        document.insert("type".into(), format!("/docs/errors/{}", self.code).into());
        document.insert("title".into(), self.code.replace('_', " ").into());
        document.insert("status".into(), self.status.as_u16().into());
        document.insert("detail".into(), self.detail.as_str().into());
        document.insert("code".into(), self.code.as_ref().into());
        if let Some(pointer) = &self.pointer {
            document.insert("pointer".into(), pointer.as_str().into());
        }
        if !self.findings.is_empty() {
            document.insert("errors".into(), json!(self.findings));
        }
        document.insert("trace_id".into(), trace_id.into());
        Value::Object(document)
    }

    pub(crate) fn into_response(self, trace_id: &str) -> Response {
        let mut response = Response::new(Body::from(self.document(trace_id).to_string()));
        *response.status_mut() = self.status;
        let headers = response.headers_mut();
        let problem = HeaderValue::from_static("application/problem+json");
        headers.insert(header::CONTENT_TYPE, problem);
        match self.status {
            StatusCode::TOO_MANY_REQUESTS | StatusCode::SERVICE_UNAVAILABLE => {
                headers.insert(header::RETRY_AFTER, HeaderValue::from_static("1"));
            }
            StatusCode::UNAUTHORIZED => {
                let scheme = HeaderValue::from_static("Bearer realm=\"wonder\"");
                headers.insert(header::WWW_AUTHENTICATE, scheme);
            }
            _ => {}
        }
        response
    }
}

impl From<Rejection> for Problem {
    fn from(rejection: Rejection) -> Self {
        let status = match rejection.kind {
            RejectionKind::Malformed => StatusCode::BAD_REQUEST,
            RejectionKind::Invalid => StatusCode::UNPROCESSABLE_ENTITY,
            RejectionKind::NotFound => StatusCode::NOT_FOUND,
            RejectionKind::Conflict => StatusCode::CONFLICT,
            RejectionKind::Gone => StatusCode::GONE,
            RejectionKind::PreconditionFailed => StatusCode::PRECONDITION_FAILED,
            RejectionKind::TooLarge => StatusCode::PAYLOAD_TOO_LARGE,
            RejectionKind::Unauthenticated => StatusCode::UNAUTHORIZED,
            RejectionKind::Forbidden => StatusCode::FORBIDDEN,
            RejectionKind::Overloaded => StatusCode::TOO_MANY_REQUESTS,
            RejectionKind::Unavailable => StatusCode::SERVICE_UNAVAILABLE,
            RejectionKind::Internal => {
                let Rejection { code, message, .. } = &rejection;
                tracing::error!(%code, detail = %message, "service failed");
                if ![UNREADABLE, "event_damaged"].contains(&code.as_str()) {
                    return Self::internal();
                }
                let detail = "what is stored for this can't be read, and trying again won't help; \
                              the log has more under the trace id";
                return Self::new(StatusCode::INTERNAL_SERVER_ERROR, UNREADABLE, detail);
            }
        };
        Self {
            status,
            code: Cow::Owned(rejection.code),
            detail: rejection.message,
            pointer: rejection.pointer,
            findings: rejection.problems,
        }
    }
}
