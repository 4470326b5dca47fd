//! Private databases and servers for tests, gone with the test.

pub mod database;
pub mod nats;
pub mod stream;

pub use database::ScratchDatabase;
