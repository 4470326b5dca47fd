//! The harness of tests that see the platform as its users do: a process, its HTTP API, its files.
//!
//! [`Platform`] runs the real binary on data of its own, as one process or as several with
//! PostgreSQL and NATS, and kills, stops, freezes and restarts them. [`Client`] speaks the public
//! API. [`Traffic`] is clients at work, and [`Book`] what they were told. [`Records`] reads the
//! journal. [`Writer`] is the write side without a process, for tests that play the worker
//! themselves; a [`World`] outlives it.
//!
//! It panics with a message that says what was waited for, because a test has nothing better to
//! do, and every wait in it is bounded.

mod book;
mod client;
mod platform;
mod process;
mod records;
mod services;
mod shape;
mod socket;
mod sse;
pub mod traffic;
mod wait;
pub mod workflows;
mod world;
mod writer;

pub use book::Book;
pub use client::{Answer, Client};
pub use platform::Platform;
pub use records::{Records, Step};
pub use services::{Echo, NatsServer, PostgresServer};
pub use shape::{Setting, Shape};
pub use socket::Socket;
pub use sse::{Follower, Sent};
pub use traffic::{OPS, Traffic};
pub use wait::{Pace, wait_for, wait_within, within};
pub use world::World;
pub use writer::Writer;
