//! The bus over a real NATS server: the one of the test run, and own ones that are stopped.

mod connection;
mod events;
mod faults;
mod leftovers;
mod passing;
mod queue;
mod rpc;
mod streams;
mod survey;
mod wait;
