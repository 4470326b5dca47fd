//! What a trigger is done with.

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};

use super::Event;

/// The version of the state's shape in snapshots.
pub const STATE_VERSION: u32 = 1;

/// A trigger's folded events.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Trigger {
    /// Scheduled times up to this one are done with.
    pub scheduled: Option<DateTime<Utc>>,
    /// Events up to this place in the journal are done with.
    pub position: Option<u64>,
}

impl Trigger {
    /// Folds an event.
    pub fn evolve(&mut self, event: &Event) {
        match event {
            Event::TriggerFired { at, position, .. }
            | Event::TriggerFailed { at, position, .. } => match position {
                Some(position) => self.position = self.position.max(Some(*position)),
                None => self.scheduled = self.scheduled.max(Some(*at)),
            },
            Event::TriggerMissed { last, .. } => {
                self.scheduled = self.scheduled.max(Some(*last));
            }
            Event::TriggerAdvanced { position, .. } => {
                self.position = self.position.max(Some(*position));
            }
        }
    }
}
