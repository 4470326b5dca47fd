//! Private databases and subjects for tests.

pub mod database;
pub mod nats;
pub mod stream;

pub use database::ScratchDatabase;
pub use nats::{ScratchNats, nats_options};
