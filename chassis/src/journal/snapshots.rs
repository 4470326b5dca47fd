//! How a snapshot of a moment is found, in either database.

use chrono::{DateTime, Utc};

use super::Until;

impl Until {
    /// The latest sequence, and the latest time or none.
    pub(super) const fn bounds(self) -> (u64, Option<DateTime<Utc>>) {
        match self {
            Self::Sequence(sequence) => (sequence, None),
            Self::Time(time) => (i64::MAX as u64, Some(time)),
        }
    }
}

/// Takes type, id, version, the latest sequence, and the latest time or null. Sequences come first:
/// only one of the states is read.
pub(super) const SNAPSHOT_UNTIL: &str = "select sequence, state from \
     (select * from snapshots union all select * from older_snapshots) as kept \
     where aggregate_type = $1 and aggregate_id = $2 and sequence = ( \
        select max(one.sequence) from ( \
            select sequence, version from snapshots \
                where aggregate_type = $1 and aggregate_id = $2 \
            union all select sequence, version from older_snapshots \
                where aggregate_type = $1 and aggregate_id = $2) as one \
        where one.version = $3 and one.sequence <= $4 \
            and ($5 is null or exists (select 1 from events \
                where events.aggregate_type = $1 and events.aggregate_id = $2 \
                    and events.sequence = one.sequence and events.recorded_at <= $5))) \
     limit 1";
