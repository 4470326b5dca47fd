//! What a write side is made of.

use std::sync::Arc;

use chassis::clock::Clock;
use chassis::journal::Journal;
use chassis::shards::{Ownership, Shards, sole_owner};
use protocol::{Commands, SHARDS};

use crate::queues::Queues;
use crate::retention::Archives;
use crate::store::Writes;

/// What a write side works over.
pub struct Foundation {
    pub journal: Arc<dyn Journal>,
    pub clock: Arc<dyn Clock>,
    /// Where resources are written.
    pub writes: Writes,
    /// The shards whose runs are decided here.
    pub ownership: Ownership,
    /// The keeper of the leases, told of shards that turn out to be another coordinator's.
    pub shards: Option<Arc<Shards>>,
    /// The work queues that tasks leave the process by, where they do.
    pub queues: Option<Arc<Queues>>,
    /// The write side of all processes, where others own shards.
    pub everywhere: Option<Arc<dyn Commands>>,
    /// Where runs are written to before content of them is dropped.
    pub archives: Option<Arc<dyn Archives>>,
}

impl Foundation {
    /// A journal that this process alone writes, with workers in the process itself.
    pub fn alone(journal: Arc<dyn Journal>, clock: Arc<dyn Clock>) -> Self {
        let ownership = sole_owner(SHARDS);
        Self {
            journal,
            clock,
            writes: Writes::Journal,
            ownership,
            shards: None,
            queues: None,
            everywhere: None,
            archives: None,
        }
    }
}
