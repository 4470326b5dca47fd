//! Metrics over runs: how many, how long, how much, by minute, hour and day.
//!
//! Its rows are sums over events ([`fold`]), so the same events in whatever batches give the same
//! rows, and those of another fold can be compared with them.

use async_trait::async_trait;
use chassis::journal::{Journal, RecordedEvent};

use crate::projection::{FoldError, Projection};
use crate::runs::AGGREGATE;
use crate::store::sql::Session;

mod catalog;
mod days;
mod fold;
mod kinds;
mod open;
mod query;
mod sketch;
mod told;
mod value;
mod write;

pub(crate) const NAME: &str = "metrics";

#[derive(Default)]
pub(crate) struct Metrics {
    known: kinds::KnownKinds,
}

#[async_trait]
impl Projection for Metrics {
    fn name(&self) -> &'static str {
        NAME
    }

    fn version(&self) -> i64 {
        2
    }

    fn tables(&self) -> &'static [(&'static str, &'static str)] {
        &[
            ("metric_points", "series"),
            ("metric_days", "metric"),
            ("metric_runs", "run_id"),
            ("metric_tokens", "run_id"),
            ("metric_spawns", "run_id"),
            ("metric_groups", "run_id"),
        ]
    }

    fn waits_for_forks(&self) -> bool {
        true
    }

    fn concerns(&self, event: &RecordedEvent) -> bool {
        &*event.aggregate_type == AGGREGATE
    }

    fn may_lag(&self) -> bool {
        true
    }

    async fn apply(
        &self,
        session: &mut Session<'_>,
        journal: &dyn Journal,
        events: &[&RecordedEvent],
    ) -> Result<(), FoldError> {
        let position = events.last().map_or(0, |event| event.position);
        let told = told::read(journal, events).await?;
        let mut open = open::OpenRuns::read(session, &told).await?;
        let points = fold::Fold::new(&self.known, journal).take(told, &mut open).await?;
        write::write(session, points, position).await?;
        open.write(session).await
    }
}
