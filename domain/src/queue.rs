//! The queue of one key: which runs go on, which wait, and who is next.
//!
//! The order is that of [`Admission::rank`]: when a run was started, moved forward by its priority.
//! Since a priority moves by a bounded time, a run is passed by those alone that are started within
//! that time after it: none waits for ever behind others. (Priorities that are worth time are
//! Inngest's `priority.run`.) Runs of equal priority go in the order in which they were started.
//!
//! Who is next begins where as few go on as have to, and where the rate has a slot ([`crate::rate`]).
//! Runs that aren't to wait for a slot take theirs when they are started, others when they begin.
//!
//! A queue is no aggregate. It is put together from the runs that are open ([`Queue::restore`]), in
//! whatever order they come, and follows their events; each change costs O(log n).

use std::collections::{BTreeSet, HashMap};

use chrono::{DateTime, TimeDelta, Utc};

use crate::definition::{Excess, Overflow};
use crate::ids::RunId;
use crate::limits;
use crate::rate::{Rate, Slots};
use crate::run::event::{Admission, Dropped};

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
    /// Those that are to end. Each keeps its room until it has, whether it goes on or waits: should
    /// its end not come to be written, who makes it leave waits still.
    leaving: usize,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Entry {
    rank: DateTime<Utc>,
    limit: Option<u32>,
    then: Overflow,
    /// Where it has to wait for a slot.
    rate: Option<Rate>,
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
    Leaving,
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
    /// It waits, for what [`Admission::reason`] makes of this.
    Waits {
        /// Counted as in [`crate::run::event::QueueReason::Concurrency`].
        ahead: u64,
        has_room: bool,
        not_before: Option<DateTime<Utc>>,
    },
    /// It isn't kept.
    Dropped(Dropped),
}

/// Who is next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Next {
    /// This one, from now on; `until` is when the slot ends that it took.
    Begins { run_id: RunId, until: Option<DateTime<Utc>> },
    /// Somebody, at this time.
    At(DateTime<Utc>),
    /// Nobody before something changes.
    Nobody,
}

/// Takes the slot of a run that isn't to wait for one; false where there is none.
pub fn takes_slot(admission: &mut Admission, slots: &mut Slots, now: DateTime<Utc>) -> bool {
    match &mut admission.rate {
        Some(rate) if rate.then == Excess::Drop => {
            rate.until = slots.take(rate, now);
            rate.until.is_some()
        }
        Some(_) | None => true,
    }
}

impl Queue {
    /// Whether no run is in it.
    pub fn is_empty(&self) -> bool {
        self.runs.is_empty()
    }

    /// Takes a run that is started now, with the slot that it takes. Where not all is known that is
    /// in the queue, nobody is let in; those that aren't to wait are to be kept until it is.
    pub fn enter(
        &mut self,
        run_id: RunId,
        admission: &mut Admission,
        slots: &mut Slots,
        now: DateTime<Utc>,
        is_known: bool,
    ) -> Entered {
        let place = (admission.rank, run_id);
        let others = self.going.len() + self.leaving + self.waiting.len();
        let is_full = admission.limit.is_some_and(|limit| others >= limit as usize);
        if is_known {
            if is_full && admission.then == Overflow::Drop {
                return Entered::Dropped(Dropped::Concurrency);
            }
            if !takes_slot(admission, slots, now) {
                return Entered::Dropped(Dropped::RateLimit);
            }
        }
        self.put(run_id, admission, Stage::Waiting);
        if is_known
            && self.waiting.first() == Some(&place)
            && let Next::Begins { until, .. } = self.admit(slots, now)
        {
            if let (Some(rate), Some(until)) = (&mut admission.rate, until) {
                rate.until = Some(until);
            }
            return Entered::Admitted;
        }
        let ahead = self.ahead(place);
        let own = self.runs.get(&run_id).and_then(|entry| entry.rate).filter(|_| is_known);
        let not_before = own.and_then(|rate| slots.opens_after(ahead, &rate, now));
        Entered::Waits { ahead, has_room: self.has_room(admission.limit), not_before }
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
            Stage::Going | Stage::Leaving => {}
        }
    }

    /// How many wait before a run, counted as in [`Entered::Waits`].
    pub fn ahead_of(&self, run_id: RunId) -> u64 {
        self.runs.get(&run_id).map_or(0, |entry| self.ahead((entry.rank, run_id)))
    }

    /// Lets in who is next, where there is room by its own limit, and a slot by its own rate.
    pub fn admit(&mut self, slots: &mut Slots, now: DateTime<Utc>) -> Next {
        let Some((_, run_id)) = self.waiting.first().copied() else { return Next::Nobody };
        let Some(Entry { limit, rate, .. }) = self.runs.get(&run_id) else { return Next::Nobody };
        if !self.has_room(*limit) {
            return Next::Nobody;
        }
        let until =
            rate.map(|rate| slots.take(&rate, now).ok_or_else(|| slots.opens_at(&rate, now)));
        match until.transpose() {
            Ok(until) => {
                self.set(run_id, Stage::Going);
                Next::Begins { run_id, until }
            }
            Err(opens_at) => Next::At(opens_at),
        }
    }

    /// The oldest run that is to end for a newer one to take its place, and that one: those that
    /// go on first, then those that wait. To be asked until there is none.
    pub fn displace(&mut self) -> Option<(RunId, RunId)> {
        let (_, by) = *self.pressing.last()?;
        let limit = self.runs.get(&by)?.limit? as usize;
        if self.going.len() + self.waiting.len() <= limit {
            return None;
        }
        let (_, oldest) = *self.going.first().or_else(|| self.waiting.first())?;
        if oldest == by {
            return None;
        }
        self.set(oldest, Stage::Leaving);
        Some((oldest, by))
    }

    /// How many wait before a place. Counting is bounded where it isn't the last one.
    fn ahead(&self, place: Place) -> u64 {
        let others = self.waiting.len().saturating_sub(1);
        let is_last = self.waiting.last() == Some(&place);
        let counted = || self.waiting.range(..place).take(limits::AHEAD_COUNTED).count();
        (if is_last { others } else { counted() }) as u64
    }

    fn has_room(&self, limit: Option<u32>) -> bool {
        limit.is_none_or(|limit| self.going.len() + self.leaving < limit as usize)
    }

    fn put(&mut self, run_id: RunId, admission: &Admission, stage: Stage) {
        let Admission { rank, limit, then, rate, .. } = *admission;
        self.leave(run_id);
        let waits = |rate: &Rate| rate.then == Excess::Queue && rate.until.is_none();
        let (rate, holds) = (rate.filter(waits), BTreeSet::new());
        let entry = Entry { rank, limit, then, rate, stage, holds };
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
            Stage::Leaving => self.leaving += 1,
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
            Stage::Leaving => self.leaving -= 1,
            Stage::Aside => {}
        }
    }
}
