//! Single events of a long run, and what is stored of it without decoding all of it.

use std::collections::BTreeSet;

use chassis::journal::{RecordedEvent, Sieve};
use domain::codec;
use domain::run::Event;
use protocol::Rejection;

use crate::histories::Histories;
use crate::refusal;
use crate::runs::AGGREGATE;
use crate::time_travel::PAGE_EVENTS;
use crate::timeline::Moment;

/// Events that are read with those beside them rather than looked for.
const NEAR: u64 = 16;

impl Histories<'_> {
    /// Takes events by their sequences, in order.
    pub(crate) async fn visit(
        &self,
        id: &str,
        sequences: &BTreeSet<u64>,
        mut take: impl FnMut(Moment, &Event) + Send,
    ) -> Result<(), Rejection> {
        let mut next = sequences.first().copied();
        while let Some(first) = next {
            let (mut last, most) = (first, first + PAGE_EVENTS as u64);
            for one in sequences.range(first..most).copied() {
                if one > last + NEAR {
                    break;
                }
                last = one;
            }
            let count = usize::try_from(last - first + 1).unwrap_or(PAGE_EVENTS);
            let mut page = self.run_events(id, first - 1, count).await?;
            if page.len() < count {
                return Err(refusal::damaged(id, &"some of its events aren't there"));
            }
            page.retain(|recorded| sequences.contains(&recorded.sequence));
            for (recorded, event) in self.decoded(&page).await? {
                take(Moment { sequence: recorded.sequence, at: recorded.recorded_at }, &event);
            }
            next = sequences.range(last + 1..).next().copied();
        }
        Ok(())
    }

    /// Looks through a run's events up to a sequence as they are stored, at least through those that
    /// a sieve takes; one that doesn't read as it stands there is decoded.
    pub(crate) async fn each_stored(
        &self,
        id: &str,
        until: u64,
        sieve: Sieve<'_>,
        mut take: impl FnMut(&RecordedEvent, Option<&Event>) -> Result<(), Rejection> + Send,
    ) -> Result<(), Rejection> {
        let mut after = 0;
        while after < until {
            let page = self.past.load_some(AGGREGATE, id, after, PAGE_EVENTS, sieve).await;
            let page = page.map_err(refusal::journal)?;
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
