//! Rows of runs of which content was dropped: they are folded again from what is left.
//!
//! A rebuild meets the same events, so that it comes to the same rows, whenever it is made.

use chassis::journal::{Journal, RecordedEvent};
use domain::codec;
use domain::retention::{AGGREGATE, Event};
use protocol::RunArchived;

use super::{AGGREGATE as RUN, fold_runs};
use crate::projection::FoldError;
use crate::store::sql::{Session, sql};

/// Events that are read at once.
const PAGE: usize = 1_000;
/// What there is of a run, in the order in which it goes.
const FORGET: [&str; 5] = [
    "delete from gate_people where gate_id in (select id from gates where run_id = $1)",
    "delete from gates where run_id = $1",
    "delete from run_stretches where run_id = $1",
    "delete from run_labels where run_id = $1",
    "delete from runs where id = $1",
];

/// Folds the runs again that are done with by these events.
pub(super) async fn fold_again(
    session: &mut Session<'_>,
    journal: &dyn Journal,
    events: &[&RecordedEvent],
) -> Result<(), FoldError> {
    for event in events.iter().filter(|event| is_done(event)) {
        let id = &*event.aggregate_id;
        for statement in FORGET {
            session.execute(sql(statement).bind(id.to_owned())).await?;
        }
        let mut after = 0;
        loop {
            let page = journal.load(RUN, id, after, PAGE).await?;
            let of_run: Vec<_> = page.iter().collect();
            fold_runs(session, &of_run, event.position).await?;
            after = page.last().map_or(after, |last| last.sequence);
            if page.len() < PAGE {
                break;
            }
        }
        let unfit = |reason: String| FoldError::Event { position: event.position, reason };
        let archived = archived(journal, event).await?;
        let archived =
            serde_json::to_string(&archived).map_err(|error| unfit(error.to_string()))?;
        let update = sql("update runs set archived = $2 where id = $1");
        let changed = session.execute(update.bind(id.to_owned()).bind(archived)).await?;
        if changed != 1 {
            return Err(unfit("the run that is archived has no row".to_owned()));
        }
    }
    Ok(())
}

fn is_done(event: &RecordedEvent) -> bool {
    &*event.aggregate_type == AGGREGATE && &*event.event_type == "run_archived"
}

/// What was dropped up to an event.
async fn archived(
    journal: &dyn Journal,
    event: &RecordedEvent,
) -> Result<Option<RunArchived>, FoldError> {
    let (mut archived, mut after): (Option<RunArchived>, u64) = (None, 0);
    while after < event.sequence {
        let limit = usize::try_from(event.sequence - after).unwrap_or(PAGE).min(PAGE);
        let page = journal.load(AGGREGATE, &event.aggregate_id, after, limit).await?;
        for recorded in &page {
            let (name, version) = (&recorded.event_type, recorded.event_version);
            let event: Event =
                codec::decode(name, version, &recorded.payload, &|_| None).map_err(|error| {
                    FoldError::Event { position: recorded.position, reason: error.to_string() }
                })?;
            let Some((dropped, _)) = event.dropped() else { continue };
            let before = archived.take();
            let bytes = before.as_ref().map_or(0, |one| one.bytes) + dropped.bytes;
            let archive = dropped.archive.clone().map(Into::into);
            let archive = archive.or(before.and_then(|one| one.archive));
            let (keep, at) = (dropped.keep, recorded.recorded_at);
            archived = Some(RunArchived { keep, at, bytes, archive });
        }
        let Some(last) = page.last() else { break };
        after = last.sequence;
    }
    Ok(archived)
}
