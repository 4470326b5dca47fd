//! What happens to a resource. Events are the only truth; they only grow.

use serde::{Deserialize, Serialize};

use crate::resource::Spec;

/// An event of a resource. `type` is the journal's event type; the rest is its payload.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum Event {
    /// The first event: the resource exists, with revision 1 of its spec.
    Created {
        spec: Box<Spec>,
        /// Always 1.
        revision: u64,
    },
    /// The spec was replaced as a whole.
    Revised {
        spec: Box<Spec>,
        /// The number of this revision; one more than the last one's.
        revision: u64,
    },
    /// The resource was taken out of use. Its history stays.
    Archived,
}

impl Event {
    /// The journal's event type.
    pub const fn event_type(&self) -> &'static str {
        match self {
            Self::Created { .. } => "created",
            Self::Revised { .. } => "revised",
            Self::Archived => "archived",
        }
    }

    /// The version of the event's payload.
    pub const fn event_version(&self) -> u32 {
        1
    }

    /// The spec that the event brings, with its revision.
    pub fn revision(&self) -> Option<(u64, &Spec)> {
        match self {
            Self::Created { spec, revision } | Self::Revised { spec, revision } => {
                Some((*revision, spec))
            }
            Self::Archived => None,
        }
    }
}
