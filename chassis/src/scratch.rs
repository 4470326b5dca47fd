//! Private databases and subjects for tests.

pub mod database;
pub mod nats;

pub use database::ScratchDatabase;
pub use nats::{ScratchNats, nats_options};
