//! Whether at no position more runs with a concurrency key go on than may.

use std::collections::{HashMap, HashSet};

use domain::ids::{DefinitionId, RunId};
use domain::run::Event;
use domain::run::state::Header;

/// The runs that go on, by what they are counted under.
#[derive(Debug, Default)]
pub(super) struct Queues(HashMap<(DefinitionId, Option<String>), HashSet<RunId>>);

impl Queues {
    /// Checks an event of a run.
    pub(super) fn check(&mut self, header: Option<&Header>, event: &Event) -> Result<(), String> {
        let Some(header) = header else { return Ok(()) };
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
        let before = going.len();
        going.insert(header.run_id);
        let Some(limit) = admission.limit.filter(|limit| before >= *limit as usize) else {
            return Ok(());
        };
        Err(format!("the run is admitted while {before} of its key go on, and {limit} may"))
    }
}
