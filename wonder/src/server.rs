//! Binding the listener, and running a platform until somebody ends it.

use std::io::ErrorKind;
use std::net::{SocketAddr, TcpListener};
use std::time::Duration;

use chassis::shutdown::Shutdown;
use tokio::time::timeout;

use crate::config::{AuthMode, Config};
use crate::exit::Failure;
use crate::output::say;
use crate::wiring::Platform;

/// How many ports after the wanted one are tried.
const PORTS_TRIED: u16 = 50;
/// What a platform gets to put its things away where nobody waits for its work any more.
const AT_ONCE: Duration = Duration::from_millis(300);

/// What to do where the port is taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum PortBusy {
    Fail,
    TakeNext,
}

/// Binds the configured address.
pub(crate) fn bind(listen: SocketAddr, busy: PortBusy) -> Result<TcpListener, Failure> {
    let last = match busy {
        PortBusy::TakeNext if listen.port() != 0 => listen.port().saturating_add(PORTS_TRIED),
        _ => listen.port(),
    };
    for port in listen.port()..=last {
        match TcpListener::bind((listen.ip(), port)) {
            Ok(listener) => {
                listener.set_nonblocking(true)?;
                if port != listen.port() {
                    say!("port {} is busy, took {port}", listen.port());
                }
                return Ok(listener);
            }
            Err(error) if error.kind() == ErrorKind::AddrInUse => {}
            Err(error) => {
                return Err(Failure::Refused(format!("cannot listen on {listen}: {error}")));
            }
        }
    }
    Err(Failure::Refused(format!(
        "{listen} is in use: end what listens there, or choose another with --listen"
    )))
}

/// Refuses a server that strangers could reach and nobody administers.
pub(crate) fn check_exposure(config: &Config) -> Result<(), Failure> {
    if config.listen.ip().is_loopback() {
        return Ok(());
    }
    let listen = config.listen;
    if config.auth == AuthMode::Dev {
        return Err(Failure::Refused(format!(
            "auth `dev` lets everybody in, so it is for loopback only, and {listen} is not: \
             use --auth keys"
        )));
    }
    if config.admin_key.is_none() {
        return Err(Failure::Refused(format!(
            "{listen} can be reached from elsewhere, and there is no administrator: set \
             WONDER_ADMIN_KEY to a secret of at least 32 characters (openssl rand -hex 32), \
             or listen on 127.0.0.1"
        )));
    }
    check_admin_key(config)
}

/// Refuses a key that can be guessed.
fn check_admin_key(config: &Config) -> Result<(), Failure> {
    match &config.admin_key {
        Some(key) if key.reveal().len() < 32 => Err(Failure::Refused(
            "the administrator's key is too short: WONDER_ADMIN_KEY needs at least 32 characters"
                .to_owned(),
        )),
        _ => Ok(()),
    }
}

/// The shutdown that an interrupt or a termination signal asks for; a second one means now.
pub(crate) fn signals() -> Result<Shutdown, Failure> {
    let shutdown = Shutdown::new();
    shutdown.listen()?;
    Ok(shutdown)
}

/// Stops a platform whose work nobody waits for any more: in order as far as that takes a moment;
/// what is on workers then is left.
pub(crate) async fn stop_at_once(platform: Platform, shutdown: &Shutdown) -> Result<(), Failure> {
    match timeout(AT_ONCE, platform.stop(shutdown)).await {
        Ok(stopped) => Ok(stopped?),
        Err(_) => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(listen: &str, auth: AuthMode, key: Option<&str>) -> Config {
        let mut config = Config::unconfigured(AuthMode::Keys);
        config.listen = listen.parse().expect("an address");
        config.auth = auth;
        config.admin_key =
            key.map(|key| serde_json::from_value(key.into()).expect("a secret is a text"));
        config
    }

    #[test]
    fn off_loopback_an_administrator_is_needed() {
        let key = "0123456789abcdef0123456789abcdef";
        assert!(check_exposure(&config("127.0.0.1:1", AuthMode::Dev, None)).is_ok());
        assert!(check_exposure(&config("[::1]:1", AuthMode::Keys, None)).is_ok());
        assert!(check_exposure(&config("0.0.0.0:1", AuthMode::Keys, Some(key))).is_ok());
        for refused in [
            config("0.0.0.0:1", AuthMode::Dev, Some(key)),
            config("0.0.0.0:1", AuthMode::Keys, None),
            config("[::]:1", AuthMode::Keys, Some("short")),
        ] {
            let failure = check_exposure(&refused).expect_err("it is refused");
            assert_eq!(failure.exit(), crate::exit::Exit::Refused);
        }
    }

    #[test]
    fn a_busy_port_fails_or_moves_on() {
        let first = bind("127.0.0.1:0".parse().expect("address"), PortBusy::Fail).expect("free");
        let taken = first.local_addr().expect("it is bound");
        assert!(bind(taken, PortBusy::Fail).is_err());
        let next = bind(taken, PortBusy::TakeNext).expect("one of the next ports is free");
        assert_ne!(next.local_addr().expect("it is bound").port(), taken.port());
    }
}
