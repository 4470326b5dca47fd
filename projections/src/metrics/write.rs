//! Writing a batch: its values are added to those of minutes, hours and days, within bounds.
//!
//! What bounds the rows: the series that a day may have ([`super::days`]), and that minutes, hours and
//! days are kept for a time ([`kept_seconds`]). Which series come first goes by position, and what is
//! too old by the newest day that has a value: both are the same however often the journal is folded.

use std::collections::{HashMap, HashSet};

use protocol::MetricStep;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use sqlx::FromRow;

use super::catalog::DROPPED;
use super::days::{Days, Taken};
use super::fold::{Points, Series};
use super::value::{Stored, Values};
use crate::projection::FoldError;
use crate::store::dialect::Dialect;
use crate::store::sql::{Session, sql};

/// Points that are read or written by one statement.
const CHUNK: usize = 2_000;

/// How long points are kept, in seconds: minutes for a week, hours for 90 days, days for 800.
pub(super) const fn kept_seconds(step: MetricStep) -> i64 {
    let days = match step {
        MetricStep::Minute => 7,
        MetricStep::Hour => 90,
        MetricStep::Day => 800,
    };
    days * DAY
}

const DAY: i64 = MetricStep::Day.seconds();

/// A bucket of a series.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Place {
    /// Its number among the series of the batch.
    series: usize,
    step: MetricStep,
    bucket: i64,
}

#[derive(FromRow)]
struct Newest {
    day: Option<i64>,
}

#[derive(FromRow)]
struct Row {
    number: i64,
    step: i64,
    bucket: i64,
    #[sqlx(flatten)]
    stored: Stored,
}

/// The points of a batch that are stored, as far as they were read.
#[derive(Default)]
struct Kept {
    points: HashMap<Place, Values>,
    read: HashSet<Place>,
}

/// The series of a batch, by number.
#[derive(Default)]
pub(super) struct Numbered {
    all: Vec<Series>,
    ids: Vec<String>,
    numbers: HashMap<Series, usize>,
}

impl Numbered {
    fn number(&mut self, series: &Series) -> usize {
        if let Some(number) = self.numbers.get(series) {
            return *number;
        }
        let number = self.all.len();
        self.ids.push(id_of(series));
        self.all.push(series.clone());
        self.numbers.insert(series.clone(), number);
        number
    }

    pub(super) fn workspace_of(&self, number: usize) -> &str {
        &self.all[number].workspace_id
    }

    /// How a row of one of its buckets is named.
    fn key(&self, place: &Place) -> Value {
        let series = &self.all[place.series];
        let (step, id) = (place.step.seconds(), &self.ids[place.series]);
        json!([series.workspace_id, series.metric, step, place.bucket, id, place.series])
    }
}

/// A hash of a series' dimensions.
fn id_of(series: &Series) -> String {
    let Series { project_id, workflow_id, definition, node, kind, model, status, .. } = series;
    let values = json!([
        project_id,
        workflow_id,
        definition,
        series.version(),
        node,
        kind,
        model,
        status,
        series.dimensions
    ]);
    let hash = Sha256::digest(values.to_string());
    data_encoding::HEXLOWER.encode(&hash[..16])
}

/// Adds what a batch came to. The caller owns the transaction.
pub(super) async fn write(
    session: &mut Session<'_>,
    points: Points,
    position: u64,
) -> Result<(), FoldError> {
    let points = points.into_order();
    let Some(newest) = points.iter().map(|(_, minute, _)| begin(DAY, *minute)).max() else {
        return Ok(());
    };
    let query = "select max(bucket) as day from metric_points where step = 86400";
    let stored: Option<Newest> = session.row(sql(query)).await?;
    let stored = stored.and_then(|row| row.day);
    let newest = stored.map_or(newest, |day| day.max(newest));
    let is_kept = |step: MetricStep, bucket: i64| bucket >= newest - kept_seconds(step);

    let mut numbered = Numbered::default();
    let mut added: Vec<(Place, Values)> = Vec::new();
    for (series, bucket, values) in points {
        if is_kept(MetricStep::Day, begin(DAY, bucket)) {
            let series = numbered.number(&series);
            added.push((Place { series, step: MetricStep::Minute, bucket }, values));
        }
    }
    let steps_of = |series: usize, bucket: i64| {
        let place = move |step: MetricStep| {
            let bucket = begin(step.seconds(), bucket);
            is_kept(step, bucket).then_some(Place { series, step, bucket })
        };
        MetricStep::ALL.into_iter().filter_map(place)
    };
    let mut kept = Kept::default();
    let places = added.iter().flat_map(|(place, _)| steps_of(place.series, place.bucket));
    kept.read(session, &numbered, places, position).await?;
    let others = admit(session, &mut numbered, &kept, &added, position).await?;
    let mut sums: HashMap<Place, Values> = HashMap::new();
    for (place, values) in added {
        let day = begin(DAY, place.bucket);
        let series = others.get(&(place.series, day)).copied().unwrap_or(place.series);
        let is_dropped = &*numbered.all[series].metric == DROPPED;
        let values = if is_dropped { values.counted() } else { values };
        for place in steps_of(series, place.bucket) {
            sums.entry(place).or_default().merge(&values);
        }
    }
    kept.read(session, &numbered, sums.keys().cloned(), position).await?;
    store(session, &numbered, &kept, sums).await?;
    if stored.is_some_and(|day| day < newest) {
        forget(session, newest).await?;
    }
    Ok(())
}

/// The begin of the bucket of so many seconds that a second is in.
const fn begin(seconds: i64, second: i64) -> i64 {
    second.div_euclid(seconds) * seconds
}

impl Kept {
    /// Reads the points of places that weren't read before.
    async fn read(
        &mut self,
        session: &mut Session<'_>,
        numbered: &Numbered,
        places: impl Iterator<Item = Place>,
        position: u64,
    ) -> Result<(), FoldError> {
        let damaged = |reason: String| FoldError::Event {
            position,
            reason: format!("a stored point is damaged: {reason}"),
        };
        let unread = places.filter(|place| self.read.insert(place.clone()));
        let keys: Vec<Value> = unread.map(|place| numbered.key(&place)).collect();
        for keys in keys.chunks(CHUNK) {
            let read = sql(stored_points(session.dialect())).bind(json!(keys).to_string());
            let rows: Vec<Row> = session.rows(read).await?;
            for Row { number, step, bucket, stored } in rows {
                let step = MetricStep::ALL.into_iter().find(|one| one.seconds() == step);
                let step = step.ok_or_else(|| damaged("it has an unknown step".to_owned()))?;
                let series = usize::try_from(number).map_err(|error| damaged(error.to_string()))?;
                let values = Values::try_from(stored).map_err(damaged)?;
                self.points.insert(Place { series, step, bucket }, values);
            }
        }
        Ok(())
    }
}

/// Adds values to those that are stored.
async fn store(
    session: &mut Session<'_>,
    numbered: &Numbered,
    kept: &Kept,
    sums: HashMap<Place, Values>,
) -> Result<(), FoldError> {
    let rows = sums.into_iter().map(|(place, mut values)| {
        kept.points.get(&place).into_iter().for_each(|stored| values.merge(stored));
        row(numbered, &place, &values)
    });
    let rows: Vec<Value> = rows.collect();
    for rows in rows.chunks(CHUNK) {
        let write = sql(upsert_points(session.dialect())).bind(json!(rows).to_string());
        session.execute(write).await?;
    }
    Ok(())
}

/// Drops what is too old where the newest day is another one than before.
async fn forget(session: &mut Session<'_>, newest: i64) -> Result<(), sqlx::Error> {
    for step in MetricStep::ALL {
        let delete = sql("delete from metric_points where step = $1 and bucket < $2");
        let delete = delete.bind(step.seconds()).bind(newest - kept_seconds(step));
        session.execute(delete).await?;
    }
    let delete = sql("delete from metric_days where day < $1");
    session.execute(delete.bind(newest - kept_seconds(MetricStep::Day))).await?;
    Ok(())
}

/// Answers which series others have to become, on which day.
async fn admit(
    session: &mut Session<'_>,
    numbered: &mut Numbered,
    kept: &Kept,
    added: &[(Place, Values)],
    position: u64,
) -> Result<HashMap<(usize, i64), usize>, FoldError> {
    let mut others = HashMap::new();
    let fresh = fresh(kept, added);
    if fresh.is_empty() {
        return Ok(others);
    }
    let mut days = Days::read(session, numbered, &fresh, position).await?;
    for (number, day) in fresh {
        let series = numbered.all[number].clone();
        match days.take(&series, day) {
            Taken::Place => {}
            Taken::NoSeries => {
                others.insert((number, day), numbered.number(&series.other()));
            }
            Taken::NoName => {
                others.insert((number, day), numbered.number(&series.dropped().other()));
            }
        }
    }
    days.write(session).await?;
    Ok(others)
}

/// The series that a day doesn't have yet, in the order in which they came up.
fn fresh(kept: &Kept, added: &[(Place, Values)]) -> Vec<(usize, i64)> {
    let mut seen = HashSet::new();
    let each = added.iter().map(|(place, _)| (place.series, begin(DAY, place.bucket)));
    let is_fresh = |&(series, bucket): &(usize, i64)| {
        !kept.points.contains_key(&Place { series, step: MetricStep::Day, bucket })
    };
    each.filter(|one| seen.insert(*one)).filter(is_fresh).collect()
}

fn row(numbered: &Numbered, place: &Place, values: &Values) -> Value {
    let series = &numbered.all[place.series];
    json!({
        "workspace_id": series.workspace_id,
        "metric": series.metric,
        "step": place.step.seconds(),
        "bucket": place.bucket,
        "series": numbered.ids[place.series],
        "project_id": series.project_id,
        "workflow_id": series.workflow_id,
        "definition": series.definition,
        "version": series.version(),
        "node": series.node,
        "kind": series.kind,
        "model": series.model,
        "status": series.status,
        "dimensions": series.dimensions,
        "count": values.count,
        "sum": values.sum.to_string(),
        "least": values.least,
        "most": values.most,
        "sketch": values.sketch.to_text(),
    })
}

/// The points of some series and buckets.
fn stored_points(dialect: Dialect) -> String {
    format!(
        "select cast(wanted.value ->> 5 as bigint) as number, points.step, points.bucket, \
            points.count, points.sum, points.least, points.most, points.sketch \
         from {} as wanted cross join metric_points as points \
         where points.workspace_id = wanted.value ->> 0 and points.metric = wanted.value ->> 1 \
            and points.step = cast(wanted.value ->> 2 as bigint) \
            and points.bucket = cast(wanted.value ->> 3 as bigint) \
            and points.series = wanted.value ->> 4",
        dialect.each("$1")
    )
}

/// Texts and numbers of a point, in the order of its columns.
const COLUMNS: [(&str, bool); 19] = [
    ("workspace_id", false),
    ("metric", false),
    ("step", true),
    ("bucket", true),
    ("series", false),
    ("project_id", false),
    ("workflow_id", false),
    ("definition", false),
    ("version", false),
    ("node", false),
    ("kind", false),
    ("model", false),
    ("status", false),
    ("dimensions", false),
    ("count", true),
    ("sum", false),
    ("least", true),
    ("most", true),
    ("sketch", false),
];

fn upsert_points(dialect: Dialect) -> String {
    let names: Vec<&str> = COLUMNS.iter().map(|(name, _)| *name).collect();
    let values = COLUMNS.map(|(name, is_number)| match is_number {
        true => format!("cast(change.value ->> '{name}' as bigint)"),
        false => format!("change.value ->> '{name}'"),
    });
    format!(
        "insert into metric_points ({}) select {} from {} as change where true \
         on conflict (workspace_id, metric, step, bucket, series) do update set \
            count = excluded.count, sum = excluded.sum, least = excluded.least, \
            most = excluded.most, sketch = excluded.sketch",
        names.join(", "),
        values.join(", "),
        dialect.each("$1")
    )
}
