//! Which of a worker's runs belong to which workflow, and which workflows are paused.
//!
//! What is known of a workflow comes with its runs, when they are started and loaded, and with
//! looks at the journal; the newest version counts.

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};

use domain::ids::{RunId, WorkflowId};
use protocol::shard_of;

/// What a version of a workflow says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Standing {
    pub version: u64,
    pub is_paused: bool,
}

#[derive(Debug)]
struct Known {
    standing: Standing,
    runs: BTreeSet<RunId>,
}

/// See the module. What is gone through is in order, so that the same follows each time.
#[derive(Debug, Default)]
pub(super) struct Workflows {
    known: BTreeMap<WorkflowId, Known>,
    of_run: HashMap<RunId, WorkflowId>,
    /// Runs that are to be told how their workflow stands.
    due: VecDeque<RunId>,
}

impl Workflows {
    /// A run belongs to a workflow that was found to stand so; answers the runs that this is news
    /// for.
    pub(super) fn enter(
        &mut self,
        run_id: RunId,
        workflow_id: WorkflowId,
        standing: Standing,
    ) -> Vec<RunId> {
        let changed = self.stands(workflow_id, standing);
        let known = self.known.entry(workflow_id);
        let known = known.or_insert_with(|| Known { standing, runs: BTreeSet::new() });
        known.runs.insert(run_id);
        self.of_run.insert(run_id, workflow_id);
        changed
    }

    /// A workflow was found to stand so; answers the runs that this is news for.
    pub(super) fn stands(&mut self, workflow_id: WorkflowId, standing: Standing) -> Vec<RunId> {
        let Some(known) = self.known.get_mut(&workflow_id) else { return Vec::new() };
        if known.standing.version >= standing.version {
            return Vec::new();
        }
        let is_news = known.standing.is_paused != standing.is_paused;
        known.standing = standing;
        let changed: Vec<RunId> = known.runs.iter().copied().filter(|_| is_news).collect();
        self.due.extend(&changed);
        changed
    }

    /// Whether a workflow has runs here.
    pub(super) fn knows(&self, workflow_id: WorkflowId) -> bool {
        self.known.contains_key(&workflow_id)
    }

    /// The paused workflow of a run.
    pub(super) fn paused(&self, run_id: RunId) -> Option<WorkflowId> {
        let workflow_id = self.of_run.get(&run_id)?;
        self.known.get(workflow_id).filter(|known| known.standing.is_paused).map(|_| *workflow_id)
    }

    /// A run has to be told how its workflow stands.
    pub(super) fn tell(&mut self, run_id: RunId) {
        self.due.push_back(run_id);
    }

    /// The next run to be told, and its workflow.
    pub(super) fn next(&mut self) -> Option<(RunId, WorkflowId)> {
        loop {
            let run_id = self.due.pop_front()?;
            if let Some(workflow_id) = self.of_run.get(&run_id) {
                return Some((run_id, *workflow_id));
            }
        }
    }

    /// The workflows that have runs here.
    pub(super) fn ids(&self) -> Vec<WorkflowId> {
        self.known.keys().copied().collect()
    }

    /// A run has ended, or was never written.
    pub(super) fn leave(&mut self, run_id: RunId) {
        let Some(workflow_id) = self.of_run.remove(&run_id) else { return };
        if let Some(known) = self.known.get_mut(&workflow_id) {
            known.runs.remove(&run_id);
            if known.runs.is_empty() {
                self.known.remove(&workflow_id);
            }
        }
    }

    /// Takes off all runs of a shard.
    pub(super) fn forget_shard(&mut self, shard: u16) {
        let gone: Vec<RunId> =
            self.of_run.keys().copied().filter(|run_id| shard_of(*run_id) == shard).collect();
        gone.into_iter().for_each(|run_id| self.leave(run_id));
    }
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::*;

    #[test]
    fn only_newer_versions_count_and_only_changes_are_news() {
        let run = |number| RunId::new(Uuid::from_u128(number));
        let workflow_id = WorkflowId::derived("", "w");
        let at = |version, is_paused| Standing { version, is_paused };
        let mut workflows = Workflows::default();
        assert!(workflows.enter(run(1), workflow_id, at(1, false)).is_empty());
        assert_eq!(workflows.stands(workflow_id, at(3, true)), [run(1)]);
        assert_eq!(workflows.paused(run(1)), Some(workflow_id));
        assert!(workflows.stands(workflow_id, at(2, false)).is_empty());
        assert!(workflows.enter(run(2), workflow_id, at(2, false)).is_empty());
        assert_eq!(workflows.paused(run(2)), Some(workflow_id));
        assert!(workflows.stands(workflow_id, at(4, true)).is_empty());
        assert_eq!(workflows.next(), Some((run(1), workflow_id)));
        assert_eq!(workflows.next(), None);
        workflows.leave(run(2));
        workflows.forget_shard(1);
        assert!(workflows.ids().is_empty() && workflows.paused(run(1)).is_none());
    }
}
