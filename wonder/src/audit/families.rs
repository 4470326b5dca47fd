//! Whether parents and their child runs say the same of each other.

use std::collections::HashSet;

use domain::ids::RunId;
use domain::run::state::Live;
use domain::run::{Event, RunStatus};

/// The children that were started so far.
#[derive(Debug, Default)]
pub(super) struct Families(HashSet<RunId>);

impl Families {
    /// A fork asks for the children that it has been waiting for as its own.
    pub(super) fn forked(&mut self, live: &Live) {
        self.0.extend(live.children.values());
    }

    /// Checks a run's event against what stands before it in other runs; `end_of` says how one has
    /// ended, and `None` where it has no end yet.
    pub(super) fn check(
        &mut self,
        event: &Event,
        end_of: impl Fn(RunId) -> Option<RunStatus>,
    ) -> Result<(), String> {
        match event {
            Event::ChildStarted(started) => {
                self.0.insert(started.run_id);
                Ok(())
            }
            Event::RunStarted(started) => {
                let Some(parent) = started.parent else { return Ok(()) };
                let is_started = self.0.contains(&started.run_id);
                if is_started && parent.run_id.child(parent.token) == started.run_id {
                    return Ok(());
                }
                let (above, token) = (parent.run_id, parent.token);
                Err(format!("the run says that token {token} of {above} started it, which didn't"))
            }
            // The node waited no longer, and the child may end in any way; or none ran here.
            Event::ChildEnded(ended) if ended.given_up || ended.adopted.is_some() => Ok(()),
            Event::ChildEnded(ended) => {
                let (child, told) = (ended.run_id, ended.status);
                match end_of(child) {
                    Some(status) if status == told => Ok(()),
                    Some(status) => Err(format!(
                        "the child {child} is said to have ended as {}, and ended as {}",
                        told.as_str(),
                        status.as_str()
                    )),
                    // It could not be started.
                    None if told == RunStatus::Failed => Ok(()),
                    None => Err(format!(
                        "the child {child} is said to have ended as {}, and has no end",
                        told.as_str()
                    )),
                }
            }
            _ => Ok(()),
        }
    }
}
