//! Reading metrics: points of a time, summed by what they are grouped by.

use std::collections::{BTreeMap, BTreeSet};

use async_trait::async_trait;
use chrono::{DateTime, Utc};
use domain::ids::{Name, WorkspaceId};
use protocol::metric::{METRIC_ANSWER_POINTS, METRIC_POINTS, METRIC_SERIES};
use protocol::{
    MetricAnswer, MetricInfo, MetricList, MetricPoint, MetricQueries, MetricQuery, MetricSeries,
    MetricStep, MetricValues, Rejection, RejectionKind,
};
use sqlx::FromRow;

use super::catalog::{METRICS, Metric, OF_EMITTED, OWN, Told};
use super::fold::OTHER;
use super::value::{Stored, Values, number};
use super::write::kept_seconds;
use crate::seen::Seen;
use crate::store::sql::sql;
use crate::{Projections, refusal};

/// Stored points that one query reads.
const ROWS: i64 = 50_000;
/// Points of a series that a query gets where it names no step.
const USUAL_POINTS: i64 = 200;
/// Dimensions that a query is grouped by.
const GROUPS: usize = 4;
/// How long before the newest day metrics that definitions emitted are listed, in seconds.
const LISTED: i64 = 30 * 86_400;

/// The columns of dimensions that every metric may have.
const COLUMNS: [&str; 8] =
    ["project_id", "workflow_id", "definition", "version", "node", "kind", "model", "status"];

#[derive(FromRow)]
struct Row {
    bucket: i64,
    project_id: String,
    workflow_id: String,
    definition: String,
    version: String,
    node: String,
    kind: String,
    model: String,
    status: String,
    dimensions: String,
    #[sqlx(flatten)]
    stored: Stored,
}

#[derive(FromRow)]
struct Emitted {
    metric: String,
    dimensions: String,
}

impl Row {
    /// The value of a dimension; empty where there is none.
    fn value<'r>(&'r self, own: &'r BTreeMap<String, String>, dimension: &str) -> &'r str {
        match dimension {
            "project_id" => &self.project_id,
            "workflow_id" => &self.workflow_id,
            "definition" => &self.definition,
            "version" => &self.version,
            "node" => &self.node,
            "kind" => &self.kind,
            "model" => &self.model,
            "status" => &self.status,
            _ if self.definition == OTHER => OTHER,
            own_name => {
                own_name.strip_prefix(OWN).and_then(|name| own.get(name)).map_or("", String::as_str)
            }
        }
    }
}

/// What is read and told of a metric.
struct Wanted<'q> {
    stored: &'q str,
    told: Told,
    unit: Option<&'static str>,
    status: Option<&'static str>,
    step: MetricStep,
    /// The begin of the first bucket and the end of the last one, in seconds.
    from: i64,
    to: i64,
}

fn refused(code: &str, message: String) -> Rejection {
    Rejection::new(RejectionKind::Malformed, code, message)
}

fn short(text: &str) -> String {
    text.chars().take(80).collect()
}

impl<'q> Wanted<'q> {
    fn read(asked: &'q MetricQuery) -> Result<Self, Rejection> {
        let known = Metric::named(&asked.metric);
        if known.is_none() && asked.metric.parse::<Name>().is_err() {
            let message = format!(
                "there is no metric {:?}: GET /api/v1/metrics names those that exist",
                short(&asked.metric)
            );
            return Err(refused("unknown_metric", message));
        }
        let dimensions = known.map_or(OF_EMITTED, |metric| metric.dimensions());
        let of_filters = asked.filters.iter().map(|(name, _)| name);
        for name in asked.group_by.iter().chain(of_filters) {
            let is_name = |own: &str| own.parse::<Name>().is_ok();
            let is_own = known.is_none() && name.strip_prefix(OWN).is_some_and(is_name);
            if !is_own && !dimensions.contains(&name.as_str()) {
                let mut there = dimensions.join(", ");
                if known.is_none() {
                    there.push_str(", and dimensions.NAME for each of its own");
                }
                let message =
                    format!("{} has no dimension {:?}: it has {there}", asked.metric, short(name));
                return Err(refused("unknown_dimension", message));
            }
        }
        let groups: BTreeSet<&String> = asked.group_by.iter().collect();
        if asked.group_by.len() > GROUPS || groups.len() < asked.group_by.len() {
            let message = format!("group by at most {GROUPS} dimensions, each of them once");
            return Err(refused("unknown_dimension", message));
        }
        let to = asked.to.unwrap_or(asked.now).timestamp();
        let from = asked.from.map_or(to.saturating_sub(3_600), |from| from.timestamp());
        if from >= to {
            let message = "`from` must be before `to`; `to` is now where it is left out";
            return Err(refused("invalid_range", message.to_owned()));
        }
        let step = asked.step.unwrap_or_else(|| {
            let fits = |step: &MetricStep| {
                (to - from) / step.seconds() <= USUAL_POINTS
                    && from >= asked.now.timestamp() - kept_seconds(*step)
            };
            MetricStep::ALL.into_iter().find(fits).unwrap_or(MetricStep::Day)
        });
        let seconds = step.seconds();
        let (from, to) = (from.div_euclid(seconds) * seconds, -(-to).div_euclid(seconds) * seconds);
        let points = (to - from) / seconds;
        if points.unsigned_abs() > METRIC_POINTS {
            let message = format!(
                "{points} points of {} are more than {METRIC_POINTS}: ask for less time, or for a \
                 longer step",
                step.as_str()
            );
            return Err(refused("metric_query_too_large", message));
        }
        Ok(Self {
            stored: known.map_or(&asked.metric, |metric| metric.stored),
            told: known.map_or(Told::Distribution, |metric| metric.told),
            unit: known.map(|metric| metric.unit),
            status: known.and_then(|metric| metric.status),
            step,
            from,
            to,
        })
    }

    fn tell(&self, values: &Values) -> MetricValues {
        let mut told = MetricValues { count: values.count, ..MetricValues::default() };
        if self.told == Told::Count || values.count == 0 {
            return told;
        }
        told.sum = Some(number(values.sum));
        if self.told == Told::Distribution {
            let (least, most) = (values.least, values.most);
            let percentile = |percent| {
                let value = values.sketch.percentile(percent)?;
                Some(number(i128::from(value.clamp(least, most))))
            };
            told.min = Some(number(i128::from(least)));
            told.max = Some(number(i128::from(most)));
            told.mean = Some(number(values.sum) / values.count as f64);
            told.p50 = percentile(50);
            told.p90 = percentile(90);
            told.p99 = percentile(99);
        }
        told
    }
}

#[async_trait]
impl MetricQueries for Projections {
    async fn query(
        &self,
        workspace_id: WorkspaceId,
        asked: MetricQuery,
    ) -> Result<MetricAnswer, Rejection> {
        let wanted = Wanted::read(&asked)?;
        let seen = self.wait_for(&self.metrics, asked.min_position).await?;
        let position = self.metrics.position();
        let rows = self.metric_rows(&seen, workspace_id, &wanted, &asked.filters).await?;
        let own_filters: Vec<_> =
            asked.filters.iter().filter(|(name, _)| name.starts_with(OWN)).collect();
        let mut series: BTreeMap<Vec<String>, BTreeMap<i64, Values>> = BTreeMap::new();
        for row in rows {
            let own: BTreeMap<String, String> = serde_json::from_str(&row.dimensions)
                .map_err(|error| refusal::damaged("a point", &error))?;
            if !own_filters.iter().all(|(name, value)| row.value(&own, name) == value) {
                continue;
            }
            let group = asked.group_by.iter().map(|name| row.value(&own, name).to_owned());
            let of_group = series.entry(group.collect()).or_default();
            let values = Values::try_from(row.stored);
            let values = values.map_err(|error| refusal::damaged("a point", &error))?;
            of_group.entry(row.bucket).or_default().merge(&values);
        }
        let mut series: Vec<_> = series
            .into_iter()
            .map(|(group, points)| {
                let mut total = Values::default();
                points.values().for_each(|values| total.merge(values));
                (group, total, points)
            })
            .collect();
        // Equal ones stay in the order of their groups.
        series.sort_by_key(|(_, total, _)| {
            let size = if wanted.told == Told::Sum { total.sum } else { total.count.into() };
            std::cmp::Reverse(size)
        });
        let mut points = 0;
        let fits = series.iter().take(METRIC_SERIES).take_while(|(_, _, of_one)| {
            points += of_one.len();
            points <= METRIC_ANSWER_POINTS
        });
        let fits = fits.count();
        let series_left_out = (series.len() - fits) as u64;
        let series = series.into_iter().take(fits).map(|(group, total, points)| {
            let point = |(bucket, values): (i64, Values)| MetricPoint {
                at: second(bucket),
                values: wanted.tell(&values),
            };
            MetricSeries {
                group: asked.group_by.iter().cloned().zip(group).collect(),
                total: wanted.tell(&total),
                points: points.into_iter().map(point).collect(),
            }
        });
        Ok(MetricAnswer {
            series: series.collect(),
            series_left_out,
            r#type: wanted.told.as_str().to_owned(),
            unit: wanted.unit.map(str::to_owned),
            from: second(wanted.from),
            to: second(wanted.to),
            step: wanted.step,
            position,
            metric: asked.metric,
            group_by: asked.group_by,
        })
    }

    async fn list(
        &self,
        workspace_id: WorkspaceId,
        min_position: Option<u64>,
    ) -> Result<MetricList, Rejection> {
        let seen = self.wait_for(&self.metrics, min_position).await?;
        let query = sql("select metric, dimensions from metric_days \
             where workspace_id = $1 and metric not like '%.%' and day >= \
                (select max(day) from metric_days where workspace_id = $1) - $2")
        .bind(workspace_id.to_string())
        .bind(LISTED);
        let rows = seen.rows(query).await?;
        let mut emitted: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
        for Emitted { metric, dimensions } in rows {
            let names: Vec<String> = serde_json::from_str(&dimensions)
                .map_err(|error| refusal::damaged("the day of a metric", &error))?;
            let own = names.into_iter().map(|name| format!("{OWN}{name}"));
            emitted.entry(metric).or_default().extend(own);
        }
        let emitted = emitted.into_iter().map(|(name, own)| MetricInfo {
            name,
            r#type: Told::Distribution.as_str().to_owned(),
            unit: None,
            description: "Emitted by definitions.".to_owned(),
            dimensions: OF_EMITTED.iter().map(|&name| name.to_owned()).chain(own).collect(),
        });
        Ok(MetricList { items: METRICS.iter().map(Metric::info).chain(emitted).collect() })
    }
}

impl Projections {
    async fn metric_rows(
        &self,
        seen: &Seen<'_>,
        workspace_id: WorkspaceId,
        wanted: &Wanted<'_>,
        filters: &[(String, String)],
    ) -> Result<Vec<Row>, Rejection> {
        let sketch = if wanted.told == Told::Distribution { "sketch" } else { "'' as sketch" };
        let mut text = format!(
            "select bucket, {}, dimensions, count, sum, least, most, {sketch} from metric_points \
             where workspace_id = $1 and metric = $2 and step = $3 and bucket >= $4 \
                and bucket < $5",
            COLUMNS.join(", ")
        );
        let mut values = Vec::new();
        let of_status = wanted.status.map(|status| ("status", status));
        let given = filters.iter().map(|(name, value)| (name.as_str(), value.as_str()));
        for (name, value) in given.chain(of_status) {
            if let Some(column) = COLUMNS.iter().find(|column| **column == name) {
                values.push(value.to_owned());
                text.push_str(&format!(" and {column} = ${}", values.len() + 5));
            }
        }
        text.push_str(&format!(" limit {}", ROWS + 1));
        let mut query = sql(text)
            .bind(workspace_id.to_string())
            .bind(wanted.stored)
            .bind(wanted.step.seconds())
            .bind(wanted.from)
            .bind(wanted.to);
        for value in values {
            query = query.bind(value);
        }
        let rows: Vec<Row> = seen.rows(query).await?;
        if rows.len() as i64 > ROWS {
            let message = format!(
                "more than {ROWS} stored points answer this: narrow it by a dimension, or ask for \
                 less time or a longer step"
            );
            return Err(refused("metric_query_too_large", message));
        }
        Ok(rows)
    }
}

fn second(second: i64) -> DateTime<Utc> {
    DateTime::from_timestamp(second, 0).unwrap_or(DateTime::UNIX_EPOCH)
}
