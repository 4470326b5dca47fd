//! The edge through its router, with fakes behind it.

mod access;
mod bodies;
mod bundles;
mod connections;
mod documents;
mod experiments;
mod fakes;
mod forks;
mod hooks;
mod metrics;
mod pace;
mod probes;
mod refusals;
mod retention;
mod socket;
mod streams;
mod time_travel;
mod waiting;
mod writes;
