//! What is too old, and what is too much, leaves the log store: in small portions, oldest first.

use std::io;
use std::sync::Arc;

use chrono::{TimeDelta, Utc};
use protocol::LogRecord;
use serde_json::json;
use sqlx::FromRow;
use tokio_util::sync::CancellationToken;
use tracing::Instrument as _;

use super::archive::Archive;
use super::{Row, SELECT};
use crate::Projections;
use crate::projector::Ended;
use crate::store::sql::sql;

/// Records that are removed at a time.
pub(crate) const PORTION: usize = 500;

/// Why records stay for now.
#[derive(Debug, thiserror::Error)]
pub(crate) enum TrimError {
    #[error(transparent)]
    Storage(#[from] sqlx::Error),
    #[error("the archive can't be written to: {0}")]
    Archive(#[from] io::Error),
    #[error("a record can't be read: {0}")]
    Record(String),
}

#[derive(FromRow)]
struct Count {
    count: i64,
}

/// Looks now and then, until the token is cancelled.
pub(crate) async fn run(this: Arc<Projections>, shutdown: CancellationToken) -> Ended {
    let mut archive = this.config.logs.archive.clone().map(Archive::new);
    let mut ticks = tokio::time::interval(this.config.logs.trim_every);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            () = shutdown.cancelled() => return Ended::Asked,
            _ = ticks.tick() => {}
        }
        // Not dropped halfway: what is archived is to be removed.
        let trimmed = this.trim_logs(&mut archive, &shutdown);
        if let Err(error) = trimmed.instrument(chassis::telemetry::unrecorded()).await {
            tracing::warn!(%error, "old log records stay for now");
        }
    }
}

impl Projections {
    /// Removes what is beyond the limits.
    pub(crate) async fn trim_logs(
        &self,
        archive: &mut Option<Archive>,
        shutdown: &CancellationToken,
    ) -> Result<(), TrimError> {
        while !shutdown.is_cancelled() {
            let records = self.beyond().await?;
            if records.is_empty() {
                break;
            }
            if let Some(mut writing) = archive.take() {
                let appended = {
                    let records = records.clone();
                    tokio::task::spawn_blocking(move || (writing.append(&records), writing))
                };
                let (appended, written) = appended.await.map_err(io::Error::other)?;
                *archive = Some(written);
                appended?;
            }
            self.remove(&records).await?;
            if let Some(archive) = archive {
                archive.settle();
            }
        }
        Ok(())
    }

    /// The oldest records, where they are too old or too many.
    async fn beyond(&self) -> Result<Vec<LogRecord>, TrimError> {
        let limits = &self.config.logs;
        let age = TimeDelta::from_std(limits.max_age).unwrap_or(TimeDelta::MAX);
        let oldest =
            Utc::now().checked_sub_signed(age).map_or(i64::MIN, |at| at.timestamp_micros());
        let count = self.store.readers().row(sql("select count(*) as count from logs")).await?;
        let most = i64::try_from(limits.max_records).unwrap_or(i64::MAX);
        let surplus = count.map_or(0, |Count { count }| count).saturating_sub(most).max(0);
        let portion = PORTION as i64;
        let select = |condition: &str, limit: i64| {
            let text = format!("{SELECT} where {condition} order by l.at_micros, l.id limit $2");
            sql(text).bind(oldest).bind(limit)
        };
        let query = match surplus {
            0 => select("l.at_micros < $1", portion),
            surplus => select("l.at_micros < $1 or true", surplus.min(portion)),
        };
        let rows: Vec<Row> = self.store.readers().rows(query).await?;
        let views = rows.into_iter().map(Row::view);
        views.collect::<Result<_, _>>().map_err(|refused| TrimError::Record(refused.message))
    }

    async fn remove(&self, records: &[LogRecord]) -> Result<(), sqlx::Error> {
        let ids: Vec<_> = records.iter().map(|record| json!({"id": record.id})).collect();
        let each = self.store.readers().dialect().each("$1");
        let text = format!(
            "delete from logs where id in (select gone.value ->> 'id' from {each} as gone)"
        );
        let ids = serde_json::to_string(&ids).unwrap_or_default();
        self.store.execute(sql(text).bind(ids)).await?;
        Ok(())
    }
}
