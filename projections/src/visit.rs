//! Single events of a long run, with the run as it was at each: folded from the states that are
//! kept, and not through what lies between.

use std::collections::BTreeSet;

use chassis::journal::RecordedEvent;
use domain::codec;
use domain::run::{Event, Run};
use protocol::{Rejection, StateAt};

use crate::histories::Histories;
use crate::refusal;
use crate::time_travel::PAGE_EVENTS;
use crate::timeline::Moment;

/// Events that are folded through rather than looked for a state that is kept.
const NEAR: u64 = 16;

/// Who visits events.
pub(crate) trait Visitor: Send {
    /// Takes an event and the run before it.
    fn before(&mut self, moment: Moment, event: &Event, run: &Run);

    /// Takes the run after it.
    fn after(&mut self, moment: Moment, run: &Run);
}

impl Histories<'_> {
    /// Visits events by their sequences.
    pub(crate) async fn visit(
        &self,
        id: &str,
        sequences: &BTreeSet<u64>,
        visitor: &mut impl Visitor,
    ) -> Result<(), Rejection> {
        let (mut run, mut folded) = (Run::default(), 0);
        let mut left = sequences.iter().copied().peekable();
        while let Some(next) = left.peek().copied() {
            if next > folded + NEAR {
                let kept = self.start_from(id, StateAt::Sequence(next - 1)).await?;
                if kept.1 > folded {
                    (run, folded) = kept;
                }
            }
            let mut until = next;
            for one in sequences.range(next..).copied() {
                if one > until + NEAR || one > folded + PAGE_EVENTS as u64 {
                    break;
                }
                until = one;
            }
            let count = usize::try_from(until - folded).unwrap_or(usize::MAX).min(PAGE_EVENTS);
            let page = self.run_events(id, folded, count).await?;
            if page.is_empty() {
                return Err(refusal::damaged(id, &"some of its events aren't there"));
            }
            for (recorded, event) in self.decoded(&page).await? {
                let moment = Moment { sequence: recorded.sequence, at: recorded.recorded_at };
                let is_wanted = left.next_if_eq(&recorded.sequence).is_some();
                if is_wanted {
                    visitor.before(moment, &event, &run);
                }
                run.evolve(&event, recorded.recorded_at);
                if is_wanted {
                    visitor.after(moment, &run);
                }
                folded = recorded.sequence;
            }
        }
        Ok(())
    }

    /// Looks through a run's events up to a sequence as they are stored; one that doesn't read as it
    /// stands there is decoded.
    pub(crate) async fn each_stored(
        &self,
        id: &str,
        until: u64,
        mut take: impl FnMut(&RecordedEvent, Option<&Event>) -> Result<(), Rejection> + Send,
    ) -> Result<(), Rejection> {
        let mut after = 0;
        while after < until {
            let page = self.run_events(id, after, PAGE_EVENTS).await?;
            let Some(last) = page.last() else { break };
            after = last.sequence;
            self.have_content(&page).await?;
            for recorded in page.iter().take_while(|one| one.sequence <= until) {
                let event = match codec::is_plain(&recorded.payload) {
                    true => None,
                    false => Some(self.decoded_one(recorded).await?),
                };
                take(recorded, event.as_ref())?;
            }
        }
        Ok(())
    }
}
