//! From which page a request comes: a browser lets any page send requests that change something,
//! and open WebSockets, to any server that it can reach.

use axum::http::{HeaderMap, StatusCode, Uri, header};

use crate::problem::Problem;

/// The host that a request names.
pub(super) fn host<'a>(headers: &'a HeaderMap, uri: &'a Uri) -> Option<&'a str> {
    let named = headers.get(header::HOST).and_then(|host| host.to_str().ok());
    named.or_else(|| uri.authority().map(|authority| authority.as_str()))
}

/// Refuses requests that a page of another origin may have caused. Who is no browser says nothing
/// of an origin.
pub(super) fn guard(headers: &HeaderMap, uri: &Uri) -> Result<(), Problem> {
    let text = |name: &str| headers.get(name).map(|value| value.to_str().unwrap_or("?"));
    let site = text("sec-fetch-site").is_none_or(|site| site == "same-origin" || site == "none");
    let origin = text("origin").is_none_or(|origin| {
        let from = origin.split_once("://").map(|(_, from)| from);
        from.zip(host(headers, uri)).is_some_and(|(from, to)| from.eq_ignore_ascii_case(to))
    });
    if site && origin {
        return Ok(());
    }
    let detail = "a page of another origin may not change or follow anything here";
    Err(Problem::new(StatusCode::FORBIDDEN, "cross_site_request", detail))
}
