//! Scratch services for tests: private ones, gone with the test.

pub mod nats;
