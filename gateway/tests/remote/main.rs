//! The edge's end of the bus, against far sides that answer by a script, over a real NATS.

mod commands;
mod ephemeral;
mod far;
mod follow;
mod queries;
mod waits;
