//! PostgreSQL and NATS servers of a test's own, to be killed, stopped and wiped.

use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use crate::wait::Pace;

mod echo;
mod nats;
mod postgres;

pub use echo::Echo;
pub use nats::NatsServer;
pub use postgres::PostgresServer;

/// Ports that servers are tried on: below those that the kernel gives to connections, or a client
/// that calls a server which is down might take its port.
const PORTS: std::ops::Range<u16> = 20_000..32_000;

/// A variable that `scripts/with-services` sets.
fn variable(name: &str) -> PathBuf {
    match std::env::var_os(name) {
        Some(value) => PathBuf::from(value),
        None => panic!("{name} isn't set: run the tests through scripts/with-services"),
    }
}

/// The folder of private servers' files.
fn private() -> PathBuf {
    variable("WONDER_TEST_PRIVATE")
}

/// A port on loopback that nobody listens on now.
fn free_port() -> u16 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).expect("it is after 1970");
    let seed = u64::from(now.subsec_nanos()) ^ (u64::from(std::process::id()) << 32);
    let mut pace = Pace::new(seed);
    let count = u64::from(PORTS.end - PORTS.start);
    let mut candidates = (0..200).map(|_| {
        let offset = pace.below(count);
        PORTS.start + u16::try_from(offset).expect("it is below the count")
    });
    let free = candidates.find(|port| TcpListener::bind(("127.0.0.1", *port)).is_ok());
    free.expect("one of 200 ports is free")
}

/// The end of a server's log, for a test that fails.
fn log_of(folder: &Path) -> String {
    crate::process::tail(&folder.join("log"))
}
