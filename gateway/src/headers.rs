//! The request headers that mean something here, read strictly.

use std::time::Duration;

use axum::http::{HeaderMap, StatusCode, header};

use crate::problem::Problem;

/// The longest wait that `Prefer: wait=N` may ask for.
pub(crate) const MAX_WAIT_SECONDS: u64 = 60;
const KEY_BYTES: usize = 255;

fn text<'a>(headers: &'a HeaderMap, name: &str) -> Result<Option<&'a str>, Problem> {
    let Some(value) = headers.get(name) else {
        return Ok(None);
    };
    let visible = value.to_str().map_err(|_| Problem::header(name, "use visible ascii characters"));
    visible.map(Some)
}

/// `Idempotency-Key`: 1 to 255 visible ASCII characters.
pub(crate) fn idempotency_key(headers: &HeaderMap) -> Result<Option<&str>, Problem> {
    let Some(key) = text(headers, "idempotency-key")? else {
        return Ok(None);
    };
    let fits = (1..=KEY_BYTES).contains(&key.len()) && key.bytes().all(|b| b.is_ascii_graphic());
    if fits {
        return Ok(Some(key));
    }
    Err(Problem::header("Idempotency-Key", "use 1 to 255 visible ascii characters without spaces"))
}

/// `If-Match: "17"`: the aggregate's version that the client saw.
pub(crate) fn if_match(headers: &HeaderMap) -> Result<Option<u64>, Problem> {
    let Some(tag) = text(headers, "if-match")? else {
        return Ok(None);
    };
    if tag == "*" {
        let detail = "* is not taken: leave the header out, since what isn't there is a 404 anyway";
        return Err(Problem::header("If-Match", detail));
    }
    let version = tag.strip_prefix('"').and_then(|rest| rest.strip_suffix('"'));
    let version = version.and_then(|digits| digits.parse().ok());
    let wrong = || Problem::header("If-Match", "pass on an etag as it was given, like \"17\"");
    version.map(Some).ok_or_else(wrong)
}

/// `Prefer: wait=N` in seconds, 1 to 60; other preferences are left alone (RFC 7240).
pub(crate) fn wait(headers: &HeaderMap) -> Result<Option<Duration>, Problem> {
    let Some(preferences) = text(headers, "prefer")? else {
        return Ok(None);
    };
    let mut names = preferences.split([',', ';']).map(str::trim);
    let Some(wait) = names.find_map(|preference| {
        let (name, value) = preference.split_once('=')?;
        name.trim().eq_ignore_ascii_case("wait").then(|| value.trim())
    }) else {
        return Ok(None);
    };
    match wait.parse() {
        Ok(seconds @ 1..=MAX_WAIT_SECONDS) => Ok(Some(Duration::from_secs(seconds))),
        _ => Err(Problem::header("Prefer", "wait takes whole seconds from 1 to 60")),
    }
}

/// The media type of the body, in lower case and without parameters.
pub(crate) fn media_type(headers: &HeaderMap) -> Result<Option<String>, Problem> {
    let value = text(headers, header::CONTENT_TYPE.as_str())?;
    Ok(value.map(|value| value.split(';').next().unwrap_or_default().trim().to_ascii_lowercase()))
}

/// Whether the client asks for a stream of events.
pub(crate) fn wants_stream(headers: &HeaderMap) -> bool {
    let accept = headers.get(header::ACCEPT).and_then(|value| value.to_str().ok());
    accept.is_some_and(|accept| {
        accept.split(',').any(|range| {
            let mut parts = range.split(';').map(str::trim);
            let name = parts.next().unwrap_or_default();
            name.eq_ignore_ascii_case("text/event-stream") && !parts.any(is_unwanted)
        })
    })
}

/// Whether a parameter of `Accept` is a weight of zero: not this one.
fn is_unwanted(parameter: &str) -> bool {
    let weight =
        parameter.split_once('=').filter(|(name, _)| name.trim().eq_ignore_ascii_case("q"));
    weight.is_some_and(|(_, weight)| weight.trim().parse::<f32>() == Ok(0.0))
}

/// Refuses a compressed body: it would be read as it stands.
pub(crate) fn refuse_encoding(headers: &HeaderMap) -> Result<(), Problem> {
    let encodings = headers.get_all(header::CONTENT_ENCODING);
    let is_plain = |encodings: &str| {
        encodings.split(',').all(|encoding| {
            matches!(encoding.trim(), "") || encoding.trim().eq_ignore_ascii_case("identity")
        })
    };
    if encodings.iter().all(|value| value.to_str().is_ok_and(is_plain)) {
        return Ok(());
    }
    let detail = "content-encoding is not taken: send the body uncompressed";
    Err(Problem::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, "unsupported_media_type", detail))
}

/// Refuses a body of another media type than these.
pub(crate) fn expect_media(headers: &HeaderMap, allowed: &[&str]) -> Result<String, Problem> {
    let given = media_type(headers)?.unwrap_or_default();
    if allowed.contains(&given.as_str()) {
        return Ok(given);
    }
    let detail = format!("send the body with content-type {}", allowed.join(" or "));
    Err(Problem::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, "unsupported_media_type", detail))
}
