//! Which addresses may be called: public ones, and those that the configuration allows.
//!
//! A URL's host is checked before each hop, and every address that a name resolves to is checked
//! at the moment of connecting, so a name can't change its mind in between.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::str::FromStr;
use std::sync::Arc;

use reqwest::Url;
use reqwest::dns::{Addrs, Name, Resolve, Resolving};

/// A host that may be called although it isn't public: `name`, `name:port`, an IP address with or
/// without a port, or a network (`10.1.0.0/16`).
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum AllowedHost {
    /// A network; a single address is one of full length.
    Net { address: IpAddr, prefix: u8 },
    /// A host as it stands in URLs, in lower case, on this port or on any.
    Host { name: String, port: Option<u16> },
}

/// Why a text isn't an [`AllowedHost`].
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "{0:?} is not a host: write a name, name:port, an ip address or a network such as 10.1.0.0/16"
)]
pub struct InvalidAllowedHost(pub String);

impl FromStr for AllowedHost {
    type Err = InvalidAllowedHost;
    fn from_str(text: &str) -> Result<Self, InvalidAllowedHost> {
        let invalid = || InvalidAllowedHost(text.chars().take(100).collect());
        let bits = |address: &IpAddr| if address.is_ipv4() { 32 } else { 128 };
        if let Some((address, prefix)) = text.split_once('/') {
            let address: IpAddr = address.parse().map_err(|_| invalid())?;
            let prefix: u8 = prefix.parse().map_err(|_| invalid())?;
            if prefix > bits(&address) {
                return Err(invalid());
            }
            return Ok(Self::Net { address, prefix });
        }
        if let Ok(address) = text.parse::<IpAddr>() {
            return Ok(Self::Net { address, prefix: bits(&address) });
        }
        // The URL parser settles ports, brackets and international names.
        let url = Url::parse(&format!("http://{text}/")).map_err(|_| invalid())?;
        let name = url.host_str().ok_or_else(invalid)?.to_owned();
        let plain = url.path() == "/" && url.query().is_none() && url.username().is_empty();
        let port = match text.rsplit_once(':') {
            Some((_, port)) if !text.ends_with(']') => Some(port.parse().map_err(|_| invalid())?),
            _ => None,
        };
        if plain { Ok(Self::Host { name, port }) } else { Err(invalid()) }
    }
}

/// What may not be called, and why. It names no more of a URL than its host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Refused(pub(crate) String);

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Refused {}

/// How a hop that may be made is connected.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Route {
    /// Through the guard's resolver.
    Guarded,
    /// The host's name is allowed, whatever it resolves to.
    Allowed,
}

/// The rules.
#[derive(Debug, Clone)]
pub(crate) struct Guard(Arc<Vec<AllowedHost>>);

impl Guard {
    pub(crate) fn new(allowed: Vec<AllowedHost>) -> Self {
        Self(Arc::new(allowed))
    }

    /// Checks a hop's URL: scheme, credentials, literal addresses.
    pub(crate) fn check(&self, url: &Url) -> Result<Route, Refused> {
        if !matches!(url.scheme(), "http" | "https") {
            return Err(Refused(format!("{}: only http and https are called", url.scheme())));
        }
        if !url.username().is_empty() || url.password().is_some() {
            return Err(Refused("a url must not hold credentials: use a header".to_owned()));
        }
        let Some(host) = url.host_str() else {
            return Err(Refused("the url has no host".to_owned()));
        };
        let bare = host.trim_end_matches('.');
        let port = url.port_or_known_default();
        let named = self.0.iter().any(|allowed| match allowed {
            AllowedHost::Host { name, port: wanted } => {
                name == bare && (wanted.is_none() || *wanted == port)
            }
            AllowedHost::Net { .. } => false,
        });
        if named {
            return Ok(Route::Allowed);
        }
        // The URL parser has turned octal, hexadecimal and one-number forms into plain ones.
        let literal = host.trim_start_matches('[').trim_end_matches(']').parse::<IpAddr>();
        match literal {
            Ok(address) => self.check_address(host, address).map(|()| Route::Guarded),
            Err(_) => Ok(Route::Guarded),
        }
    }

    fn check_address(&self, host: &str, address: IpAddr) -> Result<(), Refused> {
        let allowed = self.0.iter().any(|allowed| match allowed {
            AllowedHost::Net { address: net, prefix } => contains(*net, *prefix, address),
            AllowedHost::Host { .. } => false,
        });
        if allowed || is_public(address) {
            return Ok(());
        }
        let message = format!(
            "{host} is at an address that is not public; add the host to allow_private_hosts \
             if workers may call it"
        );
        Err(Refused(message))
    }
}

impl Resolve for Guard {
    fn resolve(&self, name: Name) -> Resolving {
        let guard = self.clone();
        Box::pin(async move {
            let host = name.as_str();
            let found: Vec<SocketAddr> = tokio::net::lookup_host((host, 0)).await?.collect();
            for address in &found {
                guard.check_address(host, address.ip())?;
            }
            Ok(Box::new(found.into_iter()) as Addrs)
        })
    }
}

fn contains(net: IpAddr, prefix: u8, address: IpAddr) -> bool {
    match (net, address) {
        (IpAddr::V4(net), IpAddr::V4(address)) => {
            in_net(u128::from(net.to_bits()), u128::from(address.to_bits()), 32, prefix)
        }
        (IpAddr::V6(net), IpAddr::V6(address)) => {
            in_net(net.to_bits(), address.to_bits(), 128, prefix)
        }
        _ => false,
    }
}

fn in_net(net: u128, address: u128, bits: u8, prefix: u8) -> bool {
    let shift = u32::from(bits - prefix);
    net.checked_shr(shift).unwrap_or(0) == address.checked_shr(shift).unwrap_or(0)
}

/// Whether an address is reachable by everybody: not in the IANA special-purpose registries.
pub(crate) fn is_public(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(address) => is_public_v4(address),
        IpAddr::V6(address) => is_public_v6(address),
    }
}

fn is_public_v4(address: Ipv4Addr) -> bool {
    const REFUSED: [([u8; 4], u8); 16] = [
        ([0, 0, 0, 0], 8),
        ([10, 0, 0, 0], 8),
        // Shared by carriers; 100.100.100.200 is a cloud's metadata service.
        ([100, 64, 0, 0], 10),
        ([127, 0, 0, 0], 8),
        // Link-local; 169.254.169.254 and 169.254.170.2 are metadata services.
        ([169, 254, 0, 0], 16),
        ([172, 16, 0, 0], 12),
        ([192, 0, 0, 0], 24),
        ([192, 0, 2, 0], 24),
        ([192, 31, 196, 0], 24),
        ([192, 52, 193, 0], 24),
        ([192, 88, 99, 0], 24),
        ([192, 168, 0, 0], 16),
        ([198, 18, 0, 0], 15),
        ([198, 51, 100, 0], 24),
        ([203, 0, 113, 0], 24),
        // Multicast, reserved and broadcast.
        ([224, 0, 0, 0], 3),
    ];
    !REFUSED
        .iter()
        .any(|(net, prefix)| contains(IpAddr::V4((*net).into()), *prefix, address.into()))
}

fn is_public_v6(address: Ipv6Addr) -> bool {
    if let Some(embedded) = embedded_v4(address) {
        return embedded.into_iter().all(is_public_v4);
    }
    const REFUSED: [(u128, u8); 4] = [
        // Special purposes: Teredo is treated above; benchmarking, ORCHID and others are here.
        (0x2001_0000 << 96, 23),
        // Documentation.
        (0x2001_0db8 << 96, 32),
        (0x3fff_0000 << 96, 20),
        // Segment routing.
        (0x5f00_0000 << 96, 16),
    ];
    let bits = address.to_bits();
    // Only 2000::/3 is given out as global; that leaves out loopback, local, site-local, unique
    // local (fd00:ec2::254 is a metadata service) and multicast addresses.
    bits >> 125 == 1 && !REFUSED.iter().any(|(net, prefix)| in_net(*net, bits, 128, *prefix))
}

/// The IPv4 addresses that packets to this one end at, where it is a form that embeds any.
fn embedded_v4(address: Ipv6Addr) -> Option<Vec<Ipv4Addr>> {
    let s = address.segments();
    let v4 = |high: u16, low: u16| Ipv4Addr::from_bits(u32::from(high) << 16 | u32::from(low));
    match s {
        // IPv4-mapped, IPv4-compatible and IPv4-translated.
        [0, 0, 0, 0, 0, 0xffff, ..] | [0, 0, 0, 0, 0xffff, 0, ..] => Some(vec![v4(s[6], s[7])]),
        // NAT64, well-known prefix. The local one (64:ff9b:1::/48) is never public.
        [0x64, 0xff9b, 0, 0, 0, 0, ..] => Some(vec![v4(s[6], s[7])]),
        // 6to4.
        [0x2002, ..] => Some(vec![v4(s[1], s[2])]),
        // Teredo: the server, and the client's address inverted.
        [0x2001, 0, ..] => Some(vec![v4(s[2], s[3]), v4(!s[6], !s[7])]),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(allowed: &[&str], url: &str) -> Result<Route, Refused> {
        let allowed = allowed.iter().map(|text| text.parse().expect(text)).collect();
        Guard::new(allowed).check(&Url::parse(url).expect(url))
    }

    #[test]
    fn addresses_that_are_not_public_are_refused_in_every_notation() {
        for url in [
            "http://127.0.0.1/",
            "http://127.1/",
            "http://0177.0.0.1/",
            "http://0x7f.1/",
            "http://2130706433/",
            "http://0/",
            "http://10.0.0.1/",
            "http://172.16.5.4/",
            "http://172.31.255.255/",
            "http://192.168.1.1/",
            "http://169.254.169.254/latest",
            "http://169.254.170.2/",
            "http://100.100.100.200/",
            "http://100.64.0.1/",
            "http://192.0.2.1/",
            "http://198.51.100.7/",
            "http://203.0.113.9/",
            "http://198.18.0.1/",
            "http://224.0.0.1/",
            "http://255.255.255.255/",
            "http://240.0.0.1/",
            "http://[::]/",
            "http://[::1]/",
            "http://[fe80::1]/",
            "http://[fd00:ec2::254]/",
            "http://[fc00::1]/",
            "http://[ff02::1]/",
            "http://[2001:db8::1]/",
            "http://[::ffff:127.0.0.1]/",
            "http://[::ffff:a00:1]/",
            "http://[::127.0.0.1]/",
            "http://[64:ff9b::7f00:1]/",
            "http://[64:ff9b:1::1]/",
            "http://[2002:7f00:1::]/",
            "http://[2002:a9fe:a9fe::1]/",
            "http://[2001:0:808:808::80ff:fffe]/",
            "http://[2001:0:7f00:1::1]/",
            "http://[::ffff:0:7f00:1]/",
            "http://[fec0::1]/",
            "http://[100::1]/",
            "http://１２７.０.０.１/",
        ] {
            assert!(check(&[], url).is_err(), "{url}");
        }
    }

    #[test]
    fn public_addresses_and_names_pass() {
        for url in [
            "http://8.8.8.8/",
            "https://1.1.1.1:8443/x",
            "http://172.32.0.1/",
            "http://100.128.0.1/",
            "http://[2606:4700::1111]/",
            "http://[::ffff:8.8.8.8]/",
            "http://[64:ff9b::808:808]/",
            "http://[2002:808:808::1]/",
            "https://example.com/",
        ] {
            assert_eq!(check(&[], url), Ok(Route::Guarded), "{url}");
        }
    }

    #[test]
    fn other_schemes_and_credentials_are_refused() {
        for url in [
            "file:///etc/passwd",
            "ftp://example.com/",
            "gopher://example.com/",
            "http://user@example.com/",
            "http://u:p@example.com/",
        ] {
            assert!(check(&["example.com"], url).is_err(), "{url}");
        }
    }

    #[test]
    fn the_configuration_allows_hosts_ports_addresses_and_networks() {
        assert_eq!(check(&["localhost"], "http://LOCALHOST:80/"), Ok(Route::Allowed));
        assert_eq!(check(&["localhost:81"], "http://localhost:81/"), Ok(Route::Allowed));
        assert_eq!(check(&["localhost:81"], "http://localhost:82/"), Ok(Route::Guarded));
        assert_eq!(check(&["127.0.0.1:81"], "http://127.0.0.1:81/"), Ok(Route::Allowed));
        assert!(check(&["127.0.0.1:81"], "http://127.0.0.1/").is_err());
        assert_eq!(check(&["127.0.0.1"], "http://127.0.0.1:9/"), Ok(Route::Guarded));
        assert_eq!(check(&["10.1.0.0/16"], "http://10.1.2.3/"), Ok(Route::Guarded));
        assert!(check(&["10.1.0.0/16"], "http://10.2.2.3/").is_err());
        assert_eq!(check(&["fd00::/8"], "http://[fd12::1]/"), Ok(Route::Guarded));
        assert_eq!(check(&["[::1]:80"], "http://[::1]/"), Ok(Route::Allowed));
        assert_eq!(check(&["0.0.0.0/0"], "http://127.0.0.1/"), Ok(Route::Guarded));
    }

    #[test]
    fn what_is_not_a_host_is_refused() {
        for bad in ["", "a b", "http://x", "10.0.0.0/33", "x/y", "host:port", "host:99999", "u@h"] {
            assert!(bad.parse::<AllowedHost>().is_err(), "{bad}");
        }
    }

    #[tokio::test]
    async fn a_name_that_resolves_to_loopback_is_refused_at_connecting() {
        let guard = Guard::new(Vec::new());
        let found = guard.resolve("localhost".parse().expect("a name")).await;
        let error = found.err().expect("localhost is loopback");
        assert!(error.downcast_ref::<Refused>().is_some(), "{error}");
    }
}
