//! Private databases and subjects for tests.

pub mod database;

pub use database::ScratchDatabase;
