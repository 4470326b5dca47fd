//! The queues of a worker's runs, by concurrency key. All runs of a key have the worker's home in
//! their ids, so that what is decided here is decided over all of them.
//!
//! Nothing here is recorded: a queue is put together from the runs that are open. Until all of them
//! are known (after a shard was taken over) a queue is shut: nobody is let in.

use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::Arc;

use chrono::{DateTime, TimeDelta, Utc};
use domain::definition::Overflow;
use domain::ids::{DefinitionId, Home, RunId, WorkflowId};
use domain::queue::{self, Entered, Found, Hold, Queue};
use domain::run::event::{Admission, QueueReason};
use domain::run::state::Header;
use protocol::shard_of;

use super::Verdict;

/// Whose runs are counted together.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
struct Scope {
    definition: DefinitionId,
    key: Option<String>,
}

impl Scope {
    fn home(&self) -> Home {
        Home::of_queue(self.definition, self.key.as_deref())
    }
}

/// What is asked of a run because of its queue.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Move {
    Admit(RunId),
    Displace { run_id: RunId, by: RunId },
}

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Admissions {
    queues: HashMap<Arc<Scope>, Queue>,
    of_run: HashMap<RunId, Arc<Scope>>,
    /// Queues that may let somebody in, each once.
    due: VecDeque<Arc<Scope>>,
    /// Shards whose open runs weren't all named yet.
    unnamed: HashSet<u16>,
    /// Runs that were named and aren't known yet, by their home.
    unknown: HashMap<Home, HashSet<RunId>>,
    last_start: DateTime<Utc>,
    /// Queues were opened since it was asked.
    has_opened: bool,
}

impl Admissions {
    /// Takes a run that is started now, and says whether it begins; `None` where that can't be said
    /// yet. Starts of one moment get ranks of their own, so that their order is kept.
    pub(super) fn enter(
        &mut self,
        run_id: RunId,
        definition: DefinitionId,
        admission: &mut Admission,
        paused: Option<WorkflowId>,
        now: DateTime<Utc>,
    ) -> Option<Verdict> {
        self.last_start = now.max(self.last_start + TimeDelta::microseconds(1));
        admission.rank = queue::rank(self.last_start, admission.priority);
        let is_open = self.is_open(run_id);
        if paused.is_none() && !is_open && admission.then == Overflow::Drop {
            return None;
        }
        let scope = Arc::new(Scope { definition, key: admission.key.clone() });
        let queue = self.queues.entry(Arc::clone(&scope)).or_default();
        if let Some(workflow_id) = paused {
            queue.restore(run_id, admission, Found::Waiting);
            queue.hold(run_id, Hold::Workflow, true);
            self.of_run.insert(run_id, scope);
            return Some(Verdict::Waits(QueueReason::WorkflowPaused { workflow_id }));
        }
        let verdict = match queue.enter(run_id, admission, is_open) {
            Entered::Admitted => Verdict::Begins,
            Entered::Dropped => return Some(Verdict::IsDropped),
            Entered::Waits { ahead } => {
                let (key, limit) = (admission.key.clone(), admission.limit);
                Verdict::Waits(QueueReason::Concurrency { key, limit, ahead })
            }
        };
        self.of_run.insert(run_id, Arc::clone(&scope));
        if matches!(verdict, Verdict::Waits(_)) {
            self.due.push_back(scope);
        }
        Some(verdict)
    }

    /// Whether a run is in a queue, or was let in.
    pub(super) fn knows(&self, run_id: RunId) -> bool {
        self.of_run.contains_key(&run_id)
    }

    /// Takes a run as it was found in the journal.
    pub(super) fn restore(&mut self, header: &Header, found: Found) {
        let Some(admission) = &header.admission else { return };
        let (definition, key) = (header.definition.id, admission.key.clone());
        let scope = Arc::new(Scope { definition, key });
        self.last_start = self.last_start.max(header.started_at);
        let queue = self.queues.entry(Arc::clone(&scope)).or_default();
        queue.restore(header.run_id, admission, found);
        self.of_run.insert(header.run_id, Arc::clone(&scope));
        self.due.push_back(scope);
    }

    /// A run has ended, or was never written.
    pub(super) fn leave(&mut self, run_id: RunId) {
        let Some(scope) = self.of_run.remove(&run_id) else { return };
        let Some(queue) = self.queues.get_mut(&scope) else { return };
        queue.leave(run_id);
        if queue.is_empty() {
            self.queues.remove(&scope);
        } else {
            self.due.push_back(scope);
        }
    }

    /// A run that waits is held back, or isn't any more.
    pub(super) fn hold(&mut self, run_id: RunId, hold: Hold, is_held: bool) {
        let Some(scope) = self.of_run.get(&run_id) else { return };
        if let Some(queue) = self.queues.get_mut(scope) {
            queue.hold(run_id, hold, is_held);
            self.due.push_back(Arc::clone(scope));
        }
    }

    /// How many wait before a run.
    pub(super) fn ahead(&self, run_id: RunId) -> u64 {
        let queue = self.of_run.get(&run_id).and_then(|scope| self.queues.get(scope));
        queue.map_or(0, |queue| queue.ahead_of(run_id))
    }

    /// Whether somebody may have to be let in.
    pub(super) fn is_due(&self) -> bool {
        !self.due.is_empty()
    }

    /// What is to be asked of runs, as much as is given room for.
    pub(super) fn moves(&mut self, room: usize) -> Vec<Move> {
        let mut moves = Vec::new();
        while let Some(scope) = self.due.pop_front() {
            if !self.is_open(scope.home().first_run()) {
                // It is looked at again when it opens.
                continue;
            }
            let Some(queue) = self.queues.get_mut(&scope) else { continue };
            while moves.len() < room {
                let next = queue
                    .admit()
                    .map(Move::Admit)
                    .or_else(|| queue.displace().map(|(run_id, by)| Move::Displace { run_id, by }));
                let Some(next) = next else { break };
                moves.push(next);
            }
            if moves.len() >= room {
                self.due.push_front(scope);
                break;
            }
        }
        moves
    }

    fn is_open(&self, run_id: RunId) -> bool {
        !self.unnamed.contains(&shard_of(run_id)) && !self.unknown.contains_key(&run_id.home())
    }

    /// A shard is owned from now on.
    pub(super) fn shut(&mut self, shard: u16) {
        self.unnamed.insert(shard);
    }

    /// An open run was named, and is being loaded.
    pub(super) fn expect(&mut self, run_id: RunId) {
        self.unknown.entry(run_id.home()).or_default().insert(run_id);
    }

    /// A run was loaded, or isn't there.
    pub(super) fn know(&mut self, run_id: RunId) {
        let home = run_id.home();
        let Some(unknown) = self.unknown.get_mut(&home) else { return };
        unknown.remove(&run_id);
        if unknown.is_empty() {
            self.unknown.remove(&home);
            self.look_again(|one| one == home);
        }
    }

    /// All open runs of a shard were named.
    pub(super) fn named(&mut self, shard: u16) {
        if self.unnamed.remove(&shard) {
            self.look_again(|home| shard_of(home.first_run()) == shard);
        }
    }

    fn look_again(&mut self, of: impl Fn(Home) -> bool) {
        self.has_opened = true;
        let found = self.queues.keys().filter(|scope| of(scope.home()));
        let mut found: Vec<_> = found.cloned().collect();
        // In the same order each time, whatever follows from it.
        found.sort_unstable();
        self.due.extend(found);
    }

    /// Whether queues were opened, or have left, since this was asked.
    pub(super) fn take_opened(&mut self) -> bool {
        std::mem::take(&mut self.has_opened)
    }

    /// Takes off all runs of a shard.
    pub(super) fn forget_shard(&mut self, shard: u16) {
        let stays = |run_id: RunId| shard_of(run_id) != shard;
        self.of_run.retain(|run_id, _| stays(*run_id));
        self.queues.retain(|scope, _| stays(scope.home().first_run()));
        self.unknown.retain(|home, _| stays(home.first_run()));
        self.unnamed.remove(&shard);
        self.has_opened = true;
    }
}
