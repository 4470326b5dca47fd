//! The queue of one concurrency key: which runs go on, which wait, and who is next.
//!
//! The order is that of [`Admission::rank`]: when a run was started, moved forward by its priority.
//! Since a priority moves by a bounded time, a run is passed by those alone that are started within
//! that time after it: none waits for ever behind others. (Priorities that are worth time are
//! Inngest's `priority.run`.) Runs of equal priority go in the order in which they were started.
//!
//! A queue is no aggregate. It is put together from the runs that are open ([`Queue::restore`]), in
//! whatever order they come, and follows their events; each change costs O(log n).

use std::collections::{BTreeSet, HashMap};

use chrono::{DateTime, TimeDelta, Utc};

use crate::definition::Overflow;
use crate::ids::RunId;
use crate::limits;
use crate::run::event::Admission;

#[cfg(test)]
mod tests;

/// By how much a step of priority moves a run forward.
const STEP: TimeDelta = TimeDelta::minutes(1);

/// The place in its queue of a run that is started at a time.
pub fn rank(started_at: DateTime<Utc>, priority: i32) -> DateTime<Utc> {
    started_at.checked_sub_signed(STEP * priority).unwrap_or(started_at)
}

type Place = (DateTime<Utc>, RunId);

/// See the module.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct Queue {
    runs: HashMap<RunId, Entry>,
    /// Those that go on, but for those that are to end.
    going: BTreeSet<Place>,
    waiting: BTreeSet<Place>,
    /// Those of the waiting whose start takes the place of the oldest run.
    pressing: BTreeSet<Place>,
    /// Those that go on, and are to end.
    leaving: usize,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Entry {
    rank: DateTime<Utc>,
    limit: u32,
    then: Overflow,
    stage: Stage,
    /// Why it isn't let in although it waits.
    holds: BTreeSet<Hold>,
}

/// Why a run that waits is left out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Hold {
    /// It is paused itself.
    Run,
    /// Its workflow is paused.
    Workflow,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    Going,
    Waiting,
    /// It waits, and is held.
    Aside,
    /// It goes on, or waits, and is to end.
    Leaving {
        is_going: bool,
    },
}

/// How far a run is that is found in the journal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Found {
    Admitted,
    Waiting,
}

/// What a start comes to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Entered {
    Admitted,
    /// It waits behind so many, counted as in [`crate::run::event::QueueReason::Concurrency`].
    Waits {
        ahead: u64,
    },
    /// It isn't kept: as many go on as may.
    Dropped,
}

impl Queue {
    /// Whether no run is in it.
    pub fn is_empty(&self) -> bool {
        self.runs.is_empty()
    }

    /// Takes a run that is started. Where `is_open` is false nobody is let in now.
    pub fn enter(&mut self, run_id: RunId, admission: &Admission, is_open: bool) -> Entered {
        let place = (admission.rank, run_id);
        self.put(run_id, admission, Stage::Waiting);
        if is_open && self.is_next(place) {
            self.set(run_id, Stage::Going);
            return Entered::Admitted;
        }
        if is_open && admission.then == Overflow::Drop {
            self.leave(run_id);
            return Entered::Dropped;
        }
        Entered::Waits { ahead: self.ahead(place) }
    }

    /// Takes a run as the journal has it; what was known of it is replaced.
    pub fn restore(&mut self, run_id: RunId, admission: &Admission, found: Found) {
        let stage = match found {
            Found::Admitted => Stage::Going,
            Found::Waiting => Stage::Waiting,
        };
        self.put(run_id, admission, stage);
    }

    /// A run has ended, or was never written.
    pub fn leave(&mut self, run_id: RunId) {
        if let Some(entry) = self.runs.remove(&run_id) {
            self.forget(run_id, &entry);
        }
    }

    /// A run that waits is left out, or is back at its place once nothing holds it any more. Of one
    /// that goes on nothing changes.
    pub fn hold(&mut self, run_id: RunId, hold: Hold, is_held: bool) {
        let Some(entry) = self.runs.get_mut(&run_id) else { return };
        if is_held {
            entry.holds.insert(hold);
        } else {
            entry.holds.remove(&hold);
        }
        let stage = if entry.holds.is_empty() { Stage::Waiting } else { Stage::Aside };
        match entry.stage {
            Stage::Waiting | Stage::Aside => self.set(run_id, stage),
            Stage::Going | Stage::Leaving { .. } => {}
        }
    }

    /// How many wait before a run, counted as in [`Entered::Waits`].
    pub fn ahead_of(&self, run_id: RunId) -> u64 {
        self.runs.get(&run_id).map_or(0, |entry| self.ahead((entry.rank, run_id)))
    }

    /// Lets in who is next, where there is room by its own limit.
    pub fn admit(&mut self) -> Option<RunId> {
        let place = *self.waiting.first()?;
        self.is_next(place).then(|| {
            self.set(place.1, Stage::Going);
            place.1
        })
    }

    /// The oldest run that is to end for a newer one to take its place, and that one: those that
    /// go on first, then those that wait. To be asked until there is none.
    pub fn displace(&mut self) -> Option<(RunId, RunId)> {
        let (_, by) = *self.pressing.last()?;
        let limit = self.runs.get(&by)?.limit as usize;
        if self.going.len() + self.waiting.len() <= limit {
            return None;
        }
        let (_, oldest) = *self.going.first().or_else(|| self.waiting.first())?;
        if oldest == by {
            return None;
        }
        let is_going = self.going.first().is_some();
        self.set(oldest, Stage::Leaving { is_going });
        Some((oldest, by))
    }

    /// How many wait before a place. Counting is bounded where it isn't the last one.
    fn ahead(&self, place: Place) -> u64 {
        let others = self.waiting.len().saturating_sub(1);
        let is_last = self.waiting.last() == Some(&place);
        let counted = || self.waiting.range(..place).take(limits::AHEAD_COUNTED).count();
        (if is_last { others } else { counted() }) as u64
    }

    fn is_next(&self, place: Place) -> bool {
        let limit = self.runs.get(&place.1).map_or(0, |entry| entry.limit as usize);
        self.waiting.first() == Some(&place) && self.going.len() + self.leaving < limit
    }

    fn put(&mut self, run_id: RunId, admission: &Admission, stage: Stage) {
        let Admission { rank, limit, then, .. } = *admission;
        self.leave(run_id);
        let entry = Entry { rank, limit, then, stage, holds: BTreeSet::new() };
        self.keep(run_id, &entry);
        self.runs.insert(run_id, entry);
    }

    fn set(&mut self, run_id: RunId, stage: Stage) {
        let Some(mut entry) = self.runs.remove(&run_id) else { return };
        self.forget(run_id, &entry);
        entry.stage = stage;
        self.keep(run_id, &entry);
        self.runs.insert(run_id, entry);
    }

    fn keep(&mut self, run_id: RunId, entry: &Entry) {
        let place = (entry.rank, run_id);
        match entry.stage {
            Stage::Going => drop(self.going.insert(place)),
            Stage::Waiting => {
                self.waiting.insert(place);
                if entry.then == Overflow::CancelOldest {
                    self.pressing.insert(place);
                }
            }
            Stage::Leaving { is_going } => self.leaving += usize::from(is_going),
            Stage::Aside => {}
        }
    }

    fn forget(&mut self, run_id: RunId, entry: &Entry) {
        let place = (entry.rank, run_id);
        match entry.stage {
            Stage::Going => drop(self.going.remove(&place)),
            Stage::Waiting => {
                self.waiting.remove(&place);
                self.pressing.remove(&place);
            }
            Stage::Leaving { is_going } => self.leaving -= usize::from(is_going),
            Stage::Aside => {}
        }
    }
}
