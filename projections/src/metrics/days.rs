//! How many series a day has: a metric has at most [`SERIES`] of them a day and workspace (further ones
//! become one), and a workspace at most [`NAMES`] metrics a day that definitions emit.

use std::collections::{BTreeMap, BTreeSet};

use domain::limits;
use serde_json::{Value, json};
use sqlx::FromRow;

use super::fold::Series;
use super::write::Numbered;
use crate::projection::FoldError;
use crate::store::dialect::Dialect;
use crate::store::sql::{Session, sql};

/// Series that a metric may have in a workspace, each day.
const SERIES: usize = 1_000;
/// Metrics of definitions that a workspace may have, each day.
const NAMES: usize = 500;

#[derive(FromRow)]
struct Row {
    workspace_id: String,
    day: i64,
    metric: String,
    series: i64,
    dimensions: String,
}

/// What a day has of a metric.
#[derive(Default)]
struct OfDay {
    series: usize,
    dimensions: BTreeSet<String>,
    is_changed: bool,
}

/// Days of workspaces, with what they have of each metric.
#[derive(Default)]
pub(super) struct Days(BTreeMap<(String, i64), BTreeMap<String, OfDay>>);

/// Whether a day has taken another series.
pub(super) enum Taken {
    Place,
    /// The metric has as many as it may.
    NoSeries,
    /// It would be one metric too many.
    NoName,
}

/// Whether a metric is one that definitions emit.
fn is_emitted(metric: &str) -> bool {
    !metric.contains('.')
}

impl Days {
    /// Reads those that series are on.
    pub(super) async fn read(
        session: &mut Session<'_>,
        numbered: &Numbered,
        series: &[(usize, i64)],
        position: u64,
    ) -> Result<Self, FoldError> {
        let wanted = series.iter().map(|&(number, day)| (numbered.workspace_of(number), day));
        let wanted: BTreeSet<_> = wanted.collect();
        let read = sql(stored(session.dialect())).bind(json!(wanted).to_string());
        let rows: Vec<Row> = session.rows(read).await?;
        let mut days = Self::default();
        for row in rows {
            let dimensions = serde_json::from_str(&row.dimensions).map_err(|error| {
                let reason = format!("a stored day of metrics is damaged: {error}");
                FoldError::Event { position, reason }
            })?;
            let series = usize::try_from(row.series).unwrap_or(usize::MAX);
            let of_day = OfDay { series, dimensions, is_changed: false };
            days.0.entry((row.workspace_id, row.day)).or_default().insert(row.metric, of_day);
        }
        Ok(days)
    }

    /// Gives a series a place on a day, where there is one.
    pub(super) fn take(&mut self, series: &Series, day: i64) -> Taken {
        let of_day = self.0.entry((series.workspace_id.to_string(), day)).or_default();
        if is_emitted(&series.metric) && !of_day.contains_key(&*series.metric) {
            let names = of_day.keys().filter(|name| is_emitted(name)).count();
            if names >= NAMES {
                return Taken::NoName;
            }
        }
        let of_metric = of_day.entry(series.metric.to_string()).or_default();
        if of_metric.series >= SERIES {
            return Taken::NoSeries;
        }
        of_metric.series += 1;
        of_metric.is_changed = true;
        let own: BTreeMap<String, Value> =
            serde_json::from_str(&series.dimensions).unwrap_or_default();
        let room = limits::METRIC_DIMENSION_NAMES.saturating_sub(of_metric.dimensions.len());
        let fresh = own.into_keys().filter(|name| !of_metric.dimensions.contains(name));
        let fresh: Vec<String> = fresh.take(room).collect();
        of_metric.dimensions.extend(fresh);
        Taken::Place
    }

    /// Writes those that have taken any.
    pub(super) async fn write(self, session: &mut Session<'_>) -> Result<(), sqlx::Error> {
        let changed = self.0.iter().flat_map(|((workspace_id, day), metrics)| {
            let changed = metrics.iter().filter(|(_, of_metric)| of_metric.is_changed);
            changed.map(move |(metric, of_metric)| {
                let dimensions = json!(of_metric.dimensions).to_string();
                json!([workspace_id, day, metric, of_metric.series, dimensions])
            })
        });
        let changed: Vec<Value> = changed.collect();
        if !changed.is_empty() {
            let write = sql(upsert(session.dialect())).bind(json!(changed).to_string());
            session.execute(write).await?;
        }
        Ok(())
    }
}

fn stored(dialect: Dialect) -> String {
    format!(
        "select days.workspace_id, days.day, days.metric, days.series, days.dimensions \
         from {} as wanted cross join metric_days as days \
         where days.workspace_id = wanted.value ->> 0 \
            and days.day = cast(wanted.value ->> 1 as bigint)",
        dialect.each("$1")
    )
}

fn upsert(dialect: Dialect) -> String {
    format!(
        "insert into metric_days (workspace_id, day, metric, series, dimensions) \
         select change.value ->> 0, cast(change.value ->> 1 as bigint), change.value ->> 2, \
            cast(change.value ->> 3 as bigint), change.value ->> 4 from {} as change where true \
         on conflict (workspace_id, day, metric) do update set \
            series = excluded.series, dimensions = excluded.dimensions",
        dialect.each("$1")
    )
}
