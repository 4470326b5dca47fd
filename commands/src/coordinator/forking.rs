//! A run that begins with the history of another one.

use std::sync::Arc;

use chrono::{DateTime, Utc};
use domain::definition::Plan;
use domain::run::adoption::Adoption;
use domain::run::event::{Adopt, RunForked};
use domain::run::{Command, Decision, Event, Refusal, Run};
use protocol::StateAt;

use super::LivePlan;
use super::history::{self, HistoryError, Sources};

/// What a fork begins with.
#[derive(Debug, Clone)]
pub(crate) struct Forking {
    /// The events that it shares with the other run, and when they happened.
    pub shared: Vec<(Event, DateTime<Utc>)>,
    pub forked: RunForked,
    /// What it is told first.
    pub first: Vec<Command>,
    pub adoption: Adoption,
}

impl Forking {
    /// Makes a run that hasn't begun into the fork, up to where others have to do something. A
    /// refusal leaves it half made.
    pub(crate) fn begin(
        &mut self,
        run: &mut Run,
        plan: &Plan,
        now: DateTime<Utc>,
    ) -> Result<Decision, Refusal> {
        for (event, at) in &self.shared {
            run.evolve(event, *at);
        }
        let mut whole = run.execute(plan, &Command::Fork(Box::new(self.forked.clone())), now)?;
        for command in &self.first {
            whole.append(run.execute(plan, command, now)?);
        }
        Ok(self.adoption.follow(run, plan, now, whole))
    }
}

/// What a fork that goes on may still take over of the other run.
pub(super) async fn adoption(
    sources: Sources<'_>,
    run: &Run,
    own: &LivePlan,
) -> Result<Option<Adoption>, HistoryError> {
    let fork = run.live().and_then(|live| live.header.fork);
    let Some(fork) = fork.filter(|fork| fork.adopt != Adopt::None) else { return Ok(None) };
    let at = StateAt::Sequence(fork.sequence);
    let read = history::read(sources, fork.run_id, at, fork.until, fork.adopt).await?;
    Ok(read.place.map(|place| {
        let mut adoption = place.adoption;
        adoption.leave_out(changed(&read.plan, own));
        adoption
    }))
}

/// The nodes whose work isn't the same in both plans.
pub(crate) fn changed<'a>(
    before: &'a LivePlan,
    after: &'a LivePlan,
) -> impl Iterator<Item = Arc<str>> + 'a {
    let nodes = before.plan.nodes().map(|node| &node.name);
    nodes.filter(|name| !before.does_the_same(after, name)).map(Arc::clone)
}
