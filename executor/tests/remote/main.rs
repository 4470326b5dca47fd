//! The worker's end of the work queues, over a real NATS server; the test is the
//! coordinator.

mod ends;
mod outages;
mod place;
mod redelivery;
mod sink;
mod tasks;
