//! The harness of tests that see the platform as its users do: a process, its HTTP API, its files.
//!
//! [`Platform`] runs the real binary on a folder of its own, and kills, stops and restarts it.
//! [`Client`] speaks the public API. [`Records`] reads the journal's file once nobody has it open.
//! [`Writer`] is the write side without a process, for tests that play the worker themselves.
//!
//! It panics with a message that says what was waited for, because a test has nothing better to
//! do, and every wait in it is bounded.

mod client;
mod platform;
mod records;
mod sse;
mod wait;
pub mod workflows;
mod writer;

pub use client::{Answer, Client};
pub use platform::Platform;
pub use records::{Records, Step};
pub use sse::{Follower, Sent};
pub use wait::{Pace, wait_for, within};
pub use writer::Writer;
