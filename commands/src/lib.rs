//! The write side: commands become events, and events become work.
//!
//! [`CommandService`] is the way in. Resources go through cqrs-es (`store`), runs through the
//! coordinator. Decisions load from the journal, never from projections.

mod access;
mod coordinator;
mod experiments;
mod prepared;
mod queues;
pub mod remote;
pub mod resolve;
pub mod resources;
mod retention;
mod service;
mod store;
mod triggers;

pub use coordinator::CoordinatorConfig;
pub use queues::Queues;
pub use resources::{Defaults, Resources};
pub use retention::Archives;
pub use service::{CommandService, Foundation};
pub use store::Writes;
