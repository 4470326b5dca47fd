//! Whether at no position more runs with a concurrency key go on than may.

use std::collections::HashMap;

use domain::ids::{DefinitionId, RunId};
use domain::run::Event;
use domain::run::state::Live;

/// The runs that go on and the limit of each, by what they are counted under.
#[derive(Debug, Default)]
pub(super) struct Queues(HashMap<(DefinitionId, Option<String>), HashMap<RunId, Option<u32>>>);

impl Queues {
    /// Checks an event of a run. What it shares with another one is that one's.
    pub(super) fn check(&mut self, live: Option<&Live>, event: &Event) -> Result<(), String> {
        let Some(Live { header, .. }) = live.filter(|live| live.is_its_own()) else {
            return Ok(());
        };
        let Some(admission) = &header.admission else { return Ok(()) };
        let (definition, key) = (header.definition.id, admission.key.clone());
        if event.ends_run() {
            if let Some(going) = self.0.get_mut(&(definition, key)) {
                going.remove(&header.run_id);
            }
            return Ok(());
        }
        if !matches!(event, Event::RunAdmitted { .. }) {
            return Ok(());
        }
        let going = self.0.entry((definition, key)).or_default();
        going.insert(header.run_id, admission.limit);
        // Versions may have other limits, or none. Runs that were let in one after the other are
        // recorded side by side, so of those that go on the last one may be any: the most counts.
        let limits: Option<Vec<u32>> = going.values().copied().collect();
        let Some(limit) = limits.and_then(|limits| limits.into_iter().max()) else { return Ok(()) };
        if going.len() <= limit as usize {
            return Ok(());
        }
        let count = going.len();
        Err(format!("with the run {count} of its key go on, and {limit} may"))
    }
}
