//! Guards of dev mode, where everybody who reaches the port is signed in.
//!
//! A web page elsewhere can make a browser send requests to loopback: by a name that it rebinds
//! to 127.0.0.1 (so the `Host` must be a loopback one), or across sites (so requests that change
//! something must not come from another origin).

use axum::http::{HeaderMap, StatusCode, Uri, header};

use crate::problem::Problem;
use crate::route::Verb;

/// Refuses requests that a foreign page may have caused.
pub(super) fn guard(verb: Verb, headers: &HeaderMap, uri: &Uri) -> Result<(), Problem> {
    let named = headers.get(header::HOST).and_then(|host| host.to_str().ok());
    let host = named.or_else(|| uri.authority().map(|authority| authority.as_str()));
    let Some(host) = host.filter(|host| is_loopback(host)) else {
        let detail = "dev mode answers only to localhost, 127.0.0.1 and [::1]; \
                      use one of them, or run with api keys";
        return Err(Problem::new(StatusCode::FORBIDDEN, "host_not_allowed", detail));
    };
    if verb == Verb::Get {
        return Ok(());
    }
    let text = |name: &str| headers.get(name).map(|value| value.to_str().unwrap_or("?"));
    let site = text("sec-fetch-site").is_none_or(|site| site == "same-origin" || site == "none");
    let origin = text("origin").is_none_or(|origin| {
        origin.split_once("://").is_some_and(|(_, from)| from.eq_ignore_ascii_case(host))
    });
    if site && origin {
        return Ok(());
    }
    let detail = "a page of another origin may not change anything here";
    Err(Problem::new(StatusCode::FORBIDDEN, "cross_site_request", detail))
}

fn is_loopback(host: &str) -> bool {
    let (name, port) = match host.strip_prefix('[') {
        Some(rest) => match rest.split_once(']') {
            Some((name, port)) => (name, port),
            None => return false,
        },
        None => host.split_at(host.find(':').unwrap_or(host.len())),
    };
    let digits = port.strip_prefix(':').unwrap_or(port);
    let port =
        port.is_empty() || (!digits.is_empty() && digits.bytes().all(|b| b.is_ascii_digit()));
    let address = name.parse::<std::net::IpAddr>().is_ok_and(|address| address.is_loopback());
    port && (name.eq_ignore_ascii_case("localhost") || address)
}

#[cfg(test)]
mod tests {
    use super::is_loopback;

    #[test]
    fn only_loopback_names_and_addresses_pass() {
        for host in ["localhost", "LOCALHOST:80", "127.0.0.1:8080", "127.1.2.3", "[::1]", "[::1]:1"]
        {
            assert!(is_loopback(host), "{host}");
        }
        for host in [
            "",
            "example.com",
            "localhost.example.com",
            "127.0.0.1.nip.io",
            "0.0.0.0:80",
            "localhost:x",
            "localhost:80@example.com",
            "[::1",
            "[::1]x",
            "::1",
            "10.0.0.1",
        ] {
            assert!(!is_loopback(host), "{host}");
        }
    }
}
