//! What a run that begins with the history of another one takes over of it, once it goes on.

use std::sync::Arc;

use domain::ids::RunId;
use domain::run::adoption::Adoption;
use domain::run::event::Adopt;
use domain::run::{Event, Run};
use protocol::StateAt;

use super::LivePlan;
use super::history::{self, History, HistoryError, Moment, Sources};
use super::load;

const PAGE: usize = 500;

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
    let header = run.header().filter(|header| header.experiment.is_some());
    let Some(header) = header else { return Ok(adoption) };
    let mut adoption = adoption.unwrap_or_default();
    // What it has been given whatever it asked for isn't given again.
    let (id, mut sequence) = (header.run_id.to_string(), fork.sequence);
    loop {
        let page = sources.journal.load("run", &id, sequence, PAGE).await?;
        let Some(last) = page.last().map(|last| last.sequence) else { break };
        for recorded in &page {
            let adopted = match load::decode(sources.journal, recorded).await? {
                Event::TaskSucceeded { adopted, .. } | Event::TaskFailed { adopted, .. } => adopted,
                Event::ChildEnded(ended) => ended.adopted,
                _ => None,
            };
            adoption.took(adopted);
        }
        sequence = last;
    }
    Ok(Some(adoption))
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
