//! Holds, as they stand in the rows of runs.

use chassis::journal::RecordedEvent;
use domain::hold::{AGGREGATE, Hold};
use protocol::RunHeld;

use crate::projection::FoldError;
use crate::store::sql::{Session, sql};

/// Folds holds and releases. Nothing of a run that is held is archived, so it has its row whatever
/// became of others.
pub(super) async fn fold(
    session: &mut Session<'_>,
    events: &[&RecordedEvent],
) -> Result<(), FoldError> {
    for recorded in events.iter().filter(|event| &*event.aggregate_type == AGGREGATE) {
        let unfit = |reason: &dyn std::fmt::Display| FoldError::Event {
            position: recorded.position,
            reason: reason.to_string(),
        };
        let of = (&*recorded.event_type, recorded.event_version);
        let RecordedEvent { payload, metadata, recorded_at, .. } = recorded;
        let hold = Hold::after(of, payload, metadata, *recorded_at).map_err(|e| unfit(&e))?;
        let hold = hold.map(|hold| serde_json::to_string(&RunHeld::from(hold))).transpose();
        let hold = hold.map_err(|error| unfit(&error))?;
        let update = sql("update runs set held = $2 where id = $1");
        let changed = session.execute(update.bind(recorded.aggregate_id.to_string()).bind(hold));
        if changed.await? != 1 {
            return Err(unfit(&"the run that is held has no row"));
        }
    }
    Ok(())
}
