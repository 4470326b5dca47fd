//! Plumbing that knows no business noun.

pub mod bus;
pub mod clock;
pub mod coalesce;
pub mod config;
pub mod database;
pub mod floor;
pub mod journal;
pub mod pauses;
pub mod private;
pub mod scratch;
pub mod shards;
pub mod shutdown;
pub mod sse;
pub mod telemetry;
