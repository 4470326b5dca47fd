//! The clock and the source of chance, so that tests can set both.

use chrono::{DateTime, Utc};
use sha2::{Digest, Sha256};
use uuid::Uuid;

/// What the edge takes from the machine.
pub trait Environment: Send + Sync {
    /// The time of day.
    fn now(&self) -> DateTime<Utc>;

    /// A new UUIDv7, for ids of commands.
    fn id(&self) -> Uuid;

    /// 128 bits of which 122 are random, for ids of traces.
    fn random(&self) -> Uuid;

    /// 256 random bits, for secrets.
    fn secret(&self) -> [u8; 32];
}

/// The machine's clock and the operating system's random numbers.
#[derive(Debug, Clone, Copy, Default)]
pub struct SystemEnvironment;

impl Environment for SystemEnvironment {
    fn now(&self) -> DateTime<Utc> {
        Utc::now()
    }

    fn id(&self) -> Uuid {
        Uuid::now_v7()
    }

    fn random(&self) -> Uuid {
        Uuid::new_v4()
    }

    /// Three UUIDv4 hold 366 random bits; their hash keeps 256 of them.
    fn secret(&self) -> [u8; 32] {
        let mut hash = Sha256::new();
        for _ in 0..3 {
            hash.update(Uuid::new_v4().as_bytes());
        }
        hash.finalize().into()
    }
}
