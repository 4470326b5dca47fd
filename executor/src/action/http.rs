//! `http`: one request to the outside, and its answer.
//!
//! `with`: `method` (default `GET`), `url` (prose), `headers` and `query` (objects of texts,
//! numbers, booleans, or lists of them; `null` leaves one out), `body` (a text) or `json` (any
//! value), `expect` (a status such as 204, a class such as `2xx`, or a list; default `2xx`).
//! Result: `{status, headers, body}`; `encoding: base64` stands beside a body that isn't text.

use bytes::Bytes;
use data_encoding::BASE64;
use domain::span::Span;
use protocol::task::{FailureKind, Success};
use protocol::view::Usage;
use reqwest::header::{self, HeaderMap, HeaderName, HeaderValue};
use reqwest::{Method, StatusCode, Url};
use serde_json::{Map, Value, json};

use super::{Services, only};
use crate::context::{Bound, Context, Prose};
use crate::fault::{Ended, Fault, excerpt, fault, invalid, permanent};
use crate::web::{Call, Reply, retry_after};

/// Bytes of an unexpected answer that are recorded.
const EXCERPT_BYTES: usize = 2_048;

pub(crate) struct Http {
    method: Bound,
    url: Prose,
    headers: Bound,
    query: Bound,
    body: Option<Bound>,
    json: Option<Bound>,
    expect: Expect,
}

impl Http {
    pub(crate) fn compile(with: &Map<String, Value>) -> Result<Self, Fault> {
        only(with, &["method", "url", "headers", "query", "body", "json", "expect"])?;
        if with.contains_key("body") && with.contains_key("json") {
            return Err(invalid("with.json", "give `body` or `json`, not both"));
        }
        let or = |key: &str, default: Value| {
            Bound::compile(&format!("with.{key}"), with.get(key).unwrap_or(&default))
        };
        let optional = |key: &str| {
            with.get(key).map(|value| Bound::compile(&format!("with.{key}"), value)).transpose()
        };
        Ok(Self {
            method: or("method", json!("GET"))?,
            url: Prose::compile("with.url", with.get("url").unwrap_or(&Value::Null))?,
            headers: or("headers", json!({}))?,
            query: or("query", json!({}))?,
            body: optional("body")?,
            json: optional("json")?,
            expect: Expect::compile(with.get("expect"))?,
        })
    }

    pub(crate) async fn perform(&self, context: &Context<'_>, services: &Services) -> Ended {
        let call = self.call(context)?;
        let limit = match context.task.timeout {
            Some(span) => span.as_duration(),
            None => services.web.limits.total_timeout,
        };
        let reply = services.web.send(call, |status| self.expect.lists(status), limit).await?;
        if !self.expect.holds(reply.status) {
            return Err(unexpected(&reply));
        }
        Ok(Success { result: result(&reply)?, usage: Usage::default() })
    }

    fn call(&self, context: &Context<'_>) -> Result<Call, Fault> {
        let method = self.method.text(context)?.to_ascii_uppercase();
        let method = match method.as_str() {
            "GET" | "HEAD" | "POST" | "PUT" | "PATCH" | "DELETE" | "OPTIONS" => {
                method.parse::<Method>().map_err(|error| invalid("with.method", error))?
            }
            _ => return Err(invalid("with.method", "unknown method")),
        };
        let url = self.url.render(context)?;
        let mut url = Url::parse(url.trim()).map_err(|error| invalid("with.url", error))?;
        let query = pairs("with.query", &self.query.eval(context)?)?;
        if !query.is_empty() {
            url.query_pairs_mut().extend_pairs(query);
        }
        let mut headers = headers(&self.headers.eval(context)?)?;
        let body = self.body(context, &mut headers)?;
        let changes = matches!(method, Method::POST | Method::PUT | Method::PATCH | Method::DELETE);
        if changes && !headers.contains_key("idempotency-key") {
            let key = HeaderValue::from_str(&context.idempotency_key());
            headers.insert("idempotency-key", key.map_err(|e| invalid("step name", e))?);
        }
        Ok(Call { method, url, headers, body })
    }

    fn body(&self, context: &Context<'_>, headers: &mut HeaderMap) -> Result<Option<Bytes>, Fault> {
        let (text, kind) = match (&self.body, &self.json) {
            (Some(body), _) => (body.text(context)?, "text/plain; charset=utf-8"),
            (None, Some(json)) => (json.eval(context)?.to_string(), "application/json"),
            (None, None) => return Ok(None),
        };
        headers.entry(header::CONTENT_TYPE).or_insert(HeaderValue::from_static(kind));
        Ok(Some(Bytes::from(text)))
    }
}

/// Which statuses are a success.
enum Expect {
    /// The default, `2xx`.
    Success,
    /// Statuses from and to, both included.
    Listed(Vec<(u16, u16)>),
}

impl Expect {
    fn compile(value: Option<&Value>) -> Result<Self, Fault> {
        let one = |value: &Value| -> Option<(u16, u16)> {
            match value {
                Value::Number(number) => {
                    let status = u16::try_from(number.as_u64()?).ok()?;
                    (100..=599).contains(&status).then_some((status, status))
                }
                Value::String(text) => match text.as_bytes() {
                    [class @ b'1'..=b'5', b'x' | b'X', b'x' | b'X'] => {
                        let first = u16::from(class - b'0') * 100;
                        Some((first, first + 99))
                    }
                    _ => text.parse().ok().map(|status: u16| (status, status)),
                },
                _ => None,
            }
        };
        let listed = match value {
            None | Some(Value::Null) => return Ok(Self::Success),
            Some(Value::Array(values)) => values.iter().map(one).collect::<Option<Vec<_>>>(),
            Some(value) => one(value).map(|range| vec![range]),
        };
        match listed {
            Some(ranges) if !ranges.is_empty() => Ok(Self::Listed(ranges)),
            _ => Err(invalid("with.expect", "give statuses (204) or classes (2xx)")),
        }
    }

    /// Whether the definition names this status, so that a redirect is the answer itself.
    fn lists(&self, status: StatusCode) -> bool {
        matches!(self, Self::Listed(_)) && self.holds(status)
    }

    fn holds(&self, status: StatusCode) -> bool {
        match self {
            Self::Success => status.is_success(),
            Self::Listed(ranges) => {
                let status = status.as_u16();
                ranges.iter().any(|(from, to)| (*from..=*to).contains(&status))
            }
        }
    }
}

fn pairs(place: &str, value: &Value) -> Result<Vec<(String, String)>, Fault> {
    let Value::Object(members) = value else {
        return Err(invalid(place, "give an object of names and values"));
    };
    let mut pairs = Vec::new();
    for (name, value) in members {
        let values = match value {
            Value::Array(values) => values.as_slice(),
            one => std::slice::from_ref(one),
        };
        for value in values {
            let text = match value {
                Value::Null => continue,
                Value::String(text) => text.clone(),
                Value::Bool(_) | Value::Number(_) => value.to_string(),
                _ => {
                    return Err(invalid(&format!("{place}.{name}"), "give a text or a number"));
                }
            };
            pairs.push((name.clone(), text));
        }
    }
    Ok(pairs)
}

fn headers(value: &Value) -> Result<HeaderMap, Fault> {
    let mut headers = HeaderMap::new();
    for (name, value) in pairs("with.headers", value)? {
        let place = format!("with.headers.{name}");
        let name: HeaderName = name.parse().map_err(|error| invalid(&place, error))?;
        // These are the transport's: set by hand they could split or redirect a request.
        if [header::HOST, header::CONTENT_LENGTH, header::TRANSFER_ENCODING, header::CONNECTION]
            .contains(&name)
        {
            return Err(invalid(&place, "this header is set by the worker"));
        }
        let value = HeaderValue::from_str(&value).map_err(|error| invalid(&place, error))?;
        headers.append(name, value);
    }
    Ok(headers)
}

fn unexpected(reply: &Reply) -> Fault {
    let status = reply.status;
    let kind = match status.as_u16() {
        408 | 425 | 429 | 500..=599 => FailureKind::Transient,
        _ => FailureKind::Permanent,
    };
    let mut fault = fault(kind, "http_status", format!("the answer's status is {status}"));
    let body = String::from_utf8_lossy(&reply.body[..reply.body.len().min(EXCERPT_BYTES)]);
    fault.detail = json!({"status": status.as_u16(), "body": excerpt(&body, EXCERPT_BYTES)});
    fault.retry_after = retry_after(&reply.headers).filter(|span| *span > Span::from_millis(0));
    fault
}

fn result(reply: &Reply) -> Result<Value, Fault> {
    let mut headers = Map::new();
    for name in reply.headers.keys() {
        let values: Vec<_> = reply
            .headers
            .get_all(name)
            .iter()
            .map(|value| String::from_utf8_lossy(value.as_bytes()).into_owned())
            .collect();
        headers.insert(name.to_string(), Value::String(values.join(", ")));
    }
    let mut result = json!({"status": reply.status.as_u16(), "headers": headers});
    match body(reply)? {
        (body, false) => result["body"] = body,
        (body, true) => {
            result["body"] = body;
            result["encoding"] = json!("base64");
        }
    }
    Ok(result)
}

/// The body as a value, and whether it is base64.
fn body(reply: &Reply) -> Result<(Value, bool), Fault> {
    let kind = reply.headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok());
    let kind = kind.unwrap_or_default().split(';').next().unwrap_or_default().trim();
    let kind = kind.to_ascii_lowercase();
    if kind == "application/json" || kind.ends_with("+json") {
        if reply.body.is_empty() {
            return Ok((Value::Null, false));
        }
        return match serde_json::from_slice(&reply.body) {
            Ok(value) => Ok((value, false)),
            Err(error) => {
                let message = format!("the answer says it is JSON, but isn't: {error}");
                Err(permanent("malformed_json", message))
            }
        };
    }
    let textual = kind.is_empty()
        || kind.starts_with("text/")
        || kind.ends_with("+xml")
        || [
            "application/xml",
            "application/javascript",
            "application/yaml",
            "application/x-ndjson",
            "application/x-www-form-urlencoded",
        ]
        .contains(&kind.as_str());
    match std::str::from_utf8(&reply.body) {
        Ok(text) if textual && !text.contains('\0') => Ok((json!(text), false)),
        _ => Ok((json!(BASE64.encode(&reply.body)), true)),
    }
}
