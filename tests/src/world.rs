//! What outlives a write side: the folder of its journal, and a clock that the test moves.

use std::sync::Arc;

use chassis::clock::{Clock, ManualClock};
use chrono::DateTime;
use tempfile::TempDir;

use crate::writer::Writer;

/// A folder and a clock, for write sides that start, end and start again.
#[derive(Debug)]
pub struct World {
    pub folder: TempDir,
    pub clock: Arc<ManualClock>,
}

impl Default for World {
    fn default() -> Self {
        // A whole hour.
        let at = DateTime::from_timestamp(1_800_000_000, 0).expect("a time");
        let folder = tempfile::tempdir().expect("a temporary folder can be made");
        Self { folder, clock: Arc::new(ManualClock::new(at)) }
    }
}

impl World {
    /// Starts a write side on the folder's journal, by the clock as it stands.
    pub async fn start(&self) -> Writer {
        let clock = Arc::clone(&self.clock) as Arc<dyn Clock>;
        Writer::start_by(self.folder.path(), clock).await
    }
}
