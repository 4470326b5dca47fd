//! Holds, as they stand in the rows of runs.

use chassis::journal::RecordedEvent;
use domain::codec;
use domain::hold::{AGGREGATE, Event};
use protocol::RunHeld;
use serde::Deserialize;

use crate::projection::FoldError;
use crate::store::sql::{Session, sql};

/// Who did it stands beside the event.
#[derive(Deserialize)]
struct By {
    actor: String,
}

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
        let (name, version) = (&recorded.event_type, recorded.event_version);
        let event: Event = codec::decode(name, version, &recorded.payload, &|_| None)
            .map_err(|error| unfit(&error))?;
        let by: By = serde_json::from_slice(&recorded.metadata).map_err(|error| unfit(&error))?;
        let hold = event.hold(&by.actor, recorded.recorded_at).map(RunHeld::from);
        let hold = hold.map(|hold| serde_json::to_string(&hold)).transpose();
        let hold = hold.map_err(|error| unfit(&error))?;
        let update = sql("update runs set held = $2 where id = $1");
        let changed = session.execute(update.bind(recorded.aggregate_id.to_string()).bind(hold));
        if changed.await? != 1 {
            return Err(unfit(&"the run that is held has no row"));
        }
    }
    Ok(())
}
