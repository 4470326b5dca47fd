//! The guard of dev mode, where everybody who reaches the port is signed in: a web page elsewhere
//! can make a browser send requests to loopback by a name that it rebinds to 127.0.0.1, so the
//! `Host` must be a loopback one.

use axum::http::{HeaderMap, StatusCode, Uri};

use super::origin::host;
use crate::problem::Problem;

/// Refuses requests to a name that isn't this machine's own.
pub(super) fn guard(headers: &HeaderMap, uri: &Uri) -> Result<(), Problem> {
    if host(headers, uri).is_some_and(is_loopback) {
        return Ok(());
    }
    let detail = "dev mode answers only to localhost, 127.0.0.1 and [::1]; \
                  use one of them, or run with api keys";
    Err(Problem::new(StatusCode::FORBIDDEN, "host_not_allowed", detail))
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
