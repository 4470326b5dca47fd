//! The queues of a worker's runs, by concurrency key. All runs of a key have the worker's home in
//! their ids, so that what is decided here is decided over all of them.
//!
//! Nothing here is recorded: a queue is put together from the runs that are open, and until when the
//! runs of a key count for its rate stands in the journal's marks, with the events that say so. Until
//! all of that is known (after a shard was taken over) a queue is shut: nobody is let in.

use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::Arc;

use chassis::journal::Mark;
use chrono::{DateTime, TimeDelta, Utc};
use domain::definition::{Excess, Overflow};
use domain::ids::{DefinitionId, Home, RunId, WorkflowId};
use domain::queue::{self, Entered, Found, Hold, Next, Queue};
use domain::rate::Slots;
use domain::run::event::{Admission, Dropped, QueueReason};
use domain::run::state::Header;
use protocol::shard_of;

use super::Verdict;
use super::timers::Timers;

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
    Admit { run_id: RunId, slot: Option<RateSlot> },
    Displace { run_id: RunId, by: RunId },
}

/// A slot of a rate: when it was taken, which is when the run begins, and when it ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct RateSlot {
    pub at: DateTime<Utc>,
    pub until: DateTime<Utc>,
}

/// The mark that says until when the runs of a home count for their rate.
pub(super) fn mark(home: Home, until: DateTime<Utc>) -> Mark {
    Mark { name: Arc::from(format!("{MARK}{}", home.first_run())), until }
}

/// The home that a mark is about.
pub(super) fn marked(name: &str) -> Option<Home> {
    name.strip_prefix(MARK)?.parse().ok().map(RunId::home)
}

const MARK: &str = "rate/";

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
    /// When the newest slot ends that a run of a home has taken, while it isn't over. All runs of a
    /// home have one key.
    counted: Timers<Home>,
    /// Queues whose next run has to wait for its slot.
    opening: Timers<Arc<Scope>>,
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
        let drops = admission.rate.is_some_and(|rate| rate.then == Excess::Drop)
            || (paused.is_none() && admission.then == Overflow::Drop);
        if drops && !is_open {
            return None;
        }
        let home = run_id.home();
        let mut slots = Slots(self.counted.get(&home));
        if paused.is_some() && !queue::takes_slot(admission, &mut slots, now) {
            return Some(Verdict::IsDropped(Dropped::RateLimit));
        }
        let scope = Arc::new(Scope { definition, key: admission.key.clone() });
        let queue = self.queues.entry(Arc::clone(&scope)).or_default();
        let verdict = match paused {
            Some(workflow_id) => {
                queue.restore(run_id, admission, Found::Waiting);
                queue.hold(run_id, Hold::Workflow, true);
                Verdict::Waits(QueueReason::WorkflowPaused { workflow_id })
            }
            None => match queue.enter(run_id, admission, &mut slots, now, is_open) {
                Entered::Admitted => Verdict::Begins,
                Entered::Dropped(over) => {
                    if queue.is_empty() {
                        self.queues.remove(&scope);
                    }
                    return Some(Verdict::IsDropped(over));
                }
                Entered::Waits { ahead, has_room, not_before } => {
                    Verdict::Waits(admission.reason(ahead, has_room, not_before))
                }
            },
        };
        self.counted.set(home, slots.0);
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

    /// When the next run may have to be let in, whatever happens until then.
    pub(super) fn next_at(&self) -> Option<DateTime<Utc>> {
        self.opening.next()
    }

    /// Runs of a home are counted until then, at least.
    pub(super) fn count(&mut self, home: Home, until: DateTime<Utc>) {
        let known = self.counted.get(&home);
        self.counted.set(home, known.max(Some(until)));
    }

    /// What is to be asked of runs now, as much as is given room for.
    pub(super) fn moves(&mut self, room: usize, now: DateTime<Utc>) -> Vec<Move> {
        // A slot that is over says nothing.
        while self.counted.pop_due(now).is_some() {}
        while let Some(scope) = self.opening.pop_due(now) {
            self.due.push_back(scope);
        }
        let mut moves = Vec::new();
        while let Some(scope) = self.due.pop_front() {
            if !self.is_open(scope.home().first_run()) {
                // It is looked at again when it opens.
                continue;
            }
            let Some(queue) = self.queues.get_mut(&scope) else { continue };
            let home = scope.home();
            let mut slots = Slots(self.counted.get(&home));
            while moves.len() < room {
                // First, so that nobody begins who would be displaced at once.
                if let Some((run_id, by)) = queue.displace() {
                    moves.push(Move::Displace { run_id, by });
                    continue;
                }
                let next = queue.admit(&mut slots, now);
                let Next::Begins { run_id, until } = next else {
                    if let Next::At(opens_at) = next {
                        self.opening.set(Arc::clone(&scope), Some(opens_at));
                    }
                    break;
                };
                let slot = until.map(|until| RateSlot { at: now, until });
                moves.push(Move::Admit { run_id, slot });
            }
            self.counted.set(home, slots.0);
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
        self.counted.retain(|home| stays(home.first_run()));
        self.opening.retain(|scope| stays(scope.home().first_run()));
        self.unnamed.remove(&shard);
        self.has_opened = true;
    }
}
