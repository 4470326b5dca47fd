//! The child runs that runs of a worker wait for, and how far each of them is.
//!
//! A child is owned by the worker of its parent, so all of this is local. Nothing here is recorded:
//! what is awaited is derived from the state of the parents (`Run::owed`).

use std::collections::{HashMap, HashSet, VecDeque};

use domain::ids::RunId;
use domain::run::event::TokenId;
use protocol::shard_of;

/// Starts of children that a worker has under way at the same time.
const STARTS: usize = 64;

/// A child that is waited for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Awaited {
    pub parent: RunId,
    pub token: TokenId,
    pub stage: Stage,
}

/// How far a child is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Stage {
    /// It is looked for in the journal.
    Sought,
    /// It isn't there yet.
    Due,
    Starting,
    /// It is there, and tells its end.
    Live,
}

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Children {
    awaited: HashMap<RunId, Awaited>,
    /// Those that are due, by their parents, which take turns.
    due: HashMap<RunId, VecDeque<RunId>>,
    turns: VecDeque<RunId>,
    starting: HashSet<RunId>,
    /// Children in memory of which their parents, which are being loaded, have to say whether they
    /// wait for them.
    unverified: HashMap<RunId, Vec<RunId>>,
}

impl Children {
    pub(super) fn get(&self, child: RunId) -> Option<Awaited> {
        self.awaited.get(&child).copied()
    }

    /// A child that isn't there yet is awaited.
    pub(super) fn due(&mut self, child: RunId, parent: RunId, token: TokenId) {
        self.awaited.insert(child, Awaited { parent, token, stage: Stage::Due });
        self.starting.remove(&child);
        let due = self.due.entry(parent).or_insert_with(|| {
            self.turns.push_back(parent);
            VecDeque::new()
        });
        due.push_back(child);
    }

    /// A child is awaited of which it isn't known how far it is; false where it is known.
    pub(super) fn seek(&mut self, child: RunId, parent: RunId, token: TokenId) -> bool {
        let is_new = !self.awaited.contains_key(&child);
        if is_new {
            self.awaited.insert(child, Awaited { parent, token, stage: Stage::Sought });
        }
        is_new
    }

    /// The next child to start, where one more may be under way.
    pub(super) fn next_start(&mut self) -> Option<(RunId, Awaited)> {
        while self.starting.len() < STARTS {
            let parent = self.turns.pop_front()?;
            let Some(due) = self.due.get_mut(&parent) else { continue };
            let child = due.pop_front();
            if due.is_empty() {
                self.due.remove(&parent);
            } else {
                self.turns.push_back(parent);
            }
            let awaited = child.and_then(|child| Some((child, self.awaited.get_mut(&child)?)));
            let Some((child, awaited)) = awaited else { continue };
            if awaited.stage == Stage::Due {
                awaited.stage = Stage::Starting;
                self.starting.insert(child);
                return Some((child, *awaited));
            }
        }
        None
    }

    /// A child is there; false where nobody is known to wait for it.
    pub(super) fn live(&mut self, child: RunId) -> bool {
        self.starting.remove(&child);
        let awaited = self.awaited.get_mut(&child);
        awaited.map(|awaited| awaited.stage = Stage::Live).is_some()
    }

    /// A child has ended, is given up, or has to be sought anew.
    pub(super) fn remove(&mut self, child: RunId) -> Option<Awaited> {
        self.starting.remove(&child);
        self.awaited.remove(&child)
    }

    /// A start came to nothing, and isn't tried again before the next restart.
    pub(super) fn stuck(&mut self, child: RunId) {
        self.starting.remove(&child);
    }

    /// Whether children of a run are still to be started.
    pub(super) fn starts_of(&self, parent: RunId) -> bool {
        let is_of = |child: &RunId| self.get(*child).is_some_and(|one| one.parent == parent);
        self.due.contains_key(&parent) || self.starting.iter().any(is_of)
    }

    pub(super) fn verify_later(&mut self, parent: RunId, child: RunId) {
        self.unverified.entry(parent).or_default().push(child);
    }

    pub(super) fn take_unverified(&mut self, parent: RunId) -> Vec<RunId> {
        if self.unverified.is_empty() {
            return Vec::new();
        }
        self.unverified.remove(&parent).unwrap_or_default()
    }

    /// Takes off all runs of a shard.
    pub(super) fn forget_shard(&mut self, shard: u16) {
        let stays = |run_id: &RunId| shard_of(*run_id) != shard;
        self.awaited.retain(|child, _| stays(child));
        self.due.retain(|parent, _| stays(parent));
        self.turns.retain(stays);
        self.starting.retain(stays);
        self.unverified.retain(|parent, _| stays(parent));
    }
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::*;

    fn run(bits: u128) -> RunId {
        RunId::new(Uuid::from_u128(bits))
    }

    #[test]
    fn parents_take_turns_and_a_bounded_number_of_starts_is_under_way() {
        let mut children = Children::default();
        for token in 0..1_000 {
            children.due(run(1).child(token), run(1), token);
        }
        children.due(run(2).child(1), run(2), 1);
        let first: Vec<_> = std::iter::from_fn(|| children.next_start()).collect();
        assert_eq!(first.len(), STARTS);
        assert_eq!(first[1].0, run(2).child(1));
        assert!(children.starts_of(run(1)) && children.starts_of(run(2)));
        assert!(children.live(first[1].0));
        assert!(!children.starts_of(run(2)));
        assert!(children.next_start().is_some() && children.next_start().is_none());
    }

    #[test]
    fn what_is_given_up_is_not_started_and_makes_room() {
        let mut children = Children::default();
        for token in 0..100 {
            children.due(run(1).child(token), run(1), token);
        }
        let started: Vec<_> = std::iter::from_fn(|| children.next_start()).collect();
        for (child, _) in &started {
            children.remove(*child);
        }
        children.remove(run(1).child(70));
        let rest: Vec<_> = std::iter::from_fn(|| children.next_start()).collect();
        assert_eq!(rest.len(), 100 - STARTS - 1);
        assert!(rest.iter().all(|(child, _)| *child != run(1).child(70)));
        assert!(!children.live(started[0].0));
    }

    #[test]
    fn a_lost_shard_is_forgotten() {
        let mut children = Children::default();
        children.due(run(1).child(1), run(1), 1);
        assert!(children.seek(run(2).child(1), run(2), 1));
        assert!(!children.seek(run(2).child(1), run(2), 1));
        children.forget_shard(1);
        assert!(children.next_start().is_none());
        assert!(children.get(run(2).child(1)).is_some());
    }
}
