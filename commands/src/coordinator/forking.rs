//! What a run that begins with the history of another one takes over of it, once it goes on.

use std::sync::Arc;

use domain::ids::RunId;
use domain::run::Run;
use domain::run::adoption::Adoption;
use domain::run::event::Adopt;
use protocol::StateAt;

use super::LivePlan;
use super::history::{self, History, HistoryError, Moment, Sources};

/// What a fork that goes on may still take over of the other run.
pub(super) async fn adoption(
    sources: Sources<'_>,
    run: &Run,
    own: &LivePlan,
) -> Result<Option<Adoption>, HistoryError> {
    let fork = run.live().and_then(|live| live.header.fork);
    let Some(fork) = fork.filter(|fork| fork.adopt != Adopt::None) else { return Ok(None) };
    let at = Moment::Of(StateAt::Sequence(fork.sequence));
    let read = history::read(sources, fork.run_id, at, fork.until, fork.adopt).await?;
    let mut adoption = read.place.map(|place| place.adoption);
    if let Some(adoption) = &mut adoption {
        adoption.leave_out(changed(&read.plan, own));
    }
    let is_experiment = run.header().is_some_and(|header| header.experiment.is_some());
    Ok(adoption.or_else(|| is_experiment.then(Adoption::default)))
}

/// The nodes whose work isn't the same in both plans.
pub(crate) fn changed<'a>(
    before: &'a LivePlan,
    after: &'a LivePlan,
) -> impl Iterator<Item = Arc<str>> + 'a {
    let nodes = before.plan.nodes().map(|node| &node.name);
    nodes.filter(|name| !before.does_the_same(after, name)).map(Arc::clone)
}

/// Reads a child at the moment at which its parent is forked. Where it had ended by then, and its
/// parent didn't know it yet, the place is the one before its end. Absent where it hadn't begun.
pub(crate) async fn child_at(
    sources: Sources<'_>,
    child: RunId,
    moment: Moment,
    adopt: Adopt,
) -> Result<Option<History>, HistoryError> {
    let read = |at| history::read(sources, child, at, u64::MAX, adopt);
    let history = match read(moment).await {
        Ok(history) if history.place.is_none() => {
            read(Moment::Of(StateAt::Sequence(history.events - 1))).await
        }
        other => other,
    };
    match history {
        Ok(history) => Ok(Some(history)),
        Err(HistoryError::Early | HistoryError::Missing) => Ok(None),
        Err(error) => Err(error),
    }
}
