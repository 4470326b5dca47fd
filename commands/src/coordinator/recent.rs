//! How runs ended that have just left memory, for those who ask right after.

use std::collections::{HashMap, VecDeque};

use domain::ids::{RunId, WorkspaceId};
use protocol::RunOutcome;

use super::outcome;

/// Ends that are remembered.
const RECENT: usize = 2_048;

/// Their ends, the oldest forgotten first. Large outputs aren't kept: they are loaded again.
#[derive(Default)]
pub(super) struct Recent {
    ends: HashMap<RunId, (WorkspaceId, RunOutcome)>,
    order: VecDeque<RunId>,
}

impl Recent {
    pub(super) fn keep(&mut self, run_id: RunId, workspace_id: WorkspaceId, outcome: RunOutcome) {
        if !outcome::is_small(&outcome) {
            return;
        }
        self.ends.insert(run_id, (workspace_id, outcome));
        self.order.push_back(run_id);
        if self.order.len() > RECENT
            && let Some(oldest) = self.order.pop_front()
        {
            self.ends.remove(&oldest);
        }
    }

    pub(super) fn get(&self, run_id: RunId) -> Option<&(WorkspaceId, RunOutcome)> {
        self.ends.get(&run_id)
    }
}
