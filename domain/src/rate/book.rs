//! Whether runs that have begun kept to their rate: for those who check a journal afterwards.
//!
//! Where no two slots of a key overlap, and each begins when its run does or later by no more than a
//! burst, no stretch of a period has more beginnings than may. The order in which the runs stand in
//! the journal doesn't matter.

use std::collections::{BTreeMap, HashMap};

use chrono::{DateTime, Utc};

use super::SETTLED;
use crate::ids::DefinitionId;
use crate::run::event::Admission;
use crate::run::state::Live;
use crate::run::{Event, Run};

/// The slots of a key.
#[derive(Debug, Default)]
struct Taken {
    /// By their begin, with their end; those that touch are one.
    slots: BTreeMap<DateTime<Utc>, DateTime<Utc>>,
    /// When the newest run began.
    newest: DateTime<Utc>,
}

/// The slots of runs, by what they are counted under.
#[derive(Debug, Default)]
pub struct Book(HashMap<(DefinitionId, Option<String>), Taken>);

impl Book {
    /// Enters an event of a run, which was as it is here before, and recorded at a time. What a
    /// fork shares is entered with the other run.
    ///
    /// # Errors
    /// What is wrong with the slot that the run takes, in words.
    pub fn enter(&mut self, run: &Run, event: &Event, at: DateTime<Utc>) -> Result<(), String> {
        let (definition, admission) = match (event, run.header()) {
            (Event::RunStarted(started), _) if started.forked_from.is_none() => {
                (started.definition.id, started.admission.as_ref())
            }
            (Event::RunForked(forked), Some(header)) => {
                let definition = forked.definition.as_ref().unwrap_or(&header.definition);
                (definition.id, forked.admission.as_deref())
            }
            (_, Some(header)) if run.live().is_some_and(Live::is_its_own) => {
                (header.definition.id, header.admission.as_ref())
            }
            _ => return Ok(()),
        };
        let Some(Admission { key, rate: Some(rate), .. }) = admission else { return Ok(()) };
        let begins = match event {
            Event::RunAdmitted { .. } => true,
            Event::RunStarted(_) | Event::RunForked(_) => rate.until.is_some(),
            _ => false,
        };
        if !begins {
            return Ok(());
        }
        let Some(until) = event.slot_until() else {
            // With its start, then.
            let is_counted = rate.until.is_some();
            return if is_counted {
                Ok(())
            } else {
                Err("the run begins without a slot".to_owned())
            };
        };
        let (limit, period, burst) = (rate.limit, rate.period, rate.burst);
        let from = until - rate.slot();
        if at + rate.reach() < until {
            return Err(format!(
                "the run takes a slot to {until} already, and {burst} may begin at once"
            ));
        }
        // Times don't go back within a run: where the clock did, they stand still, and the slot
        // tells what the clock said.
        let stands_still = || run.live().is_some_and(|live| live.at == at);
        if from < at && !stands_still() {
            return Err(format!("the run takes a slot from {from}, before it begins"));
        }
        let at = at.min(from);
        let taken = self.0.entry((definition, key.clone())).or_default();
        match taken.take(at, from, until) {
            // It was taken by a slower rate, of another version.
            Some(end) if end > at + rate.reach() => Ok(()),
            Some(_) => Err(format!(
                "the run begins in a slot that another one has taken: {limit} may in {period}"
            )),
            None => Ok(()),
        }
    }
}

impl Taken {
    /// Takes a slot at a time; gives the end of another one that it meets.
    fn take(
        &mut self,
        at: DateTime<Utc>,
        mut from: DateTime<Utc>,
        mut until: DateTime<Utc>,
    ) -> Option<DateTime<Utc>> {
        if at + SETTLED < self.newest {
            // The clock was put back: it comes to the same time once more.
            self.slots.split_off(&at);
            if let Some(mut last) = self.slots.last_entry() {
                *last.get_mut() = at.min(*last.get());
            }
            self.newest = at;
        }
        self.newest = self.newest.max(at);
        let before = |slots: &BTreeMap<_, _>, until| {
            slots.range(..=until).next_back().map(|(begin, end)| (*begin, *end))
        };
        let met = self.slots.range(..until).next_back().map(|(_, end)| *end);
        let met = met.filter(|end| *end > from);
        while let Some((begin, end)) = before(&self.slots, until).filter(|(_, end)| *end >= from) {
            self.slots.remove(&begin);
            (from, until) = (from.min(begin), until.max(end));
        }
        self.slots.insert(from, until);
        met
    }
}

#[cfg(test)]
mod tests;
