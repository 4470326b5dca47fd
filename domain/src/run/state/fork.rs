//! Where a run comes from: the run that it was forked from, and those above it.

use serde::{Deserialize, Serialize};

use super::Header;
use crate::ids::RunId;
use crate::run::event::{Adopt, ParentRun, TokenId};

/// Where a run was forked from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Fork {
    pub run_id: RunId,
    /// The last event that both have.
    pub sequence: u64,
    /// Outcomes that the other run recorded after that and up to this are looked at.
    pub until: u64,
    pub adopt: Adopt,
}

impl Header {
    /// How many runs are above it.
    pub fn depth(&self) -> u32 {
        self.parent.map_or(0, |parent| parent.depth)
    }

    /// What a child of this run says of its parent.
    pub fn parent_of_child(&self, token: TokenId) -> ParentRun {
        let root_run_id = self.parent.map_or(self.run_id, |parent| parent.root_run_id);
        ParentRun { run_id: self.run_id, token, root_run_id, depth: self.depth() + 1 }
    }
}
