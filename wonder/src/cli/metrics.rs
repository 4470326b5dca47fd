//! `wonder metrics`: lists metrics over runs, and shows how they went.

use chrono::{TimeDelta, Utc};
use domain::span::Span;
use serde_json::{Map, Value, json};

use super::Global;
use crate::client::{Answer, Client};
use crate::exit::{Exit, Failure};
use crate::output::{Column, Format, say};

const LISTED: &[Column] = &[
    ("name", "/name"),
    ("type", "/type"),
    ("unit", "/unit"),
    ("dimensions", "/dimensions"),
    ("description", "/description"),
];

/// Of a metric's points: only as many as its type has.
const POINTS: &[Column] = &[
    ("group", "/group"),
    ("at", "/at"),
    ("count", "/count"),
    ("sum", "/sum"),
    ("min", "/min"),
    ("mean", "/mean"),
    ("p50", "/p50"),
    ("p90", "/p90"),
    ("p99", "/p99"),
    ("max", "/max"),
];

/// What to do with metrics.
#[derive(Debug, clap::Subcommand)]
pub(crate) enum MetricsCommand {
    /// List the metrics that exist
    List,
    /// Show how a metric went
    Query(QueryArgs),
}

#[derive(Debug, clap::Args)]
pub(crate) struct QueryArgs {
    /// The metric, as `runs.completed`
    metric: String,
    /// From this time on (RFC 3339); default: an hour before the end
    #[arg(long, value_name = "TIME")]
    from: Option<String>,
    /// So long before now, as 24h
    #[arg(long, value_name = "SPAN", conflicts_with = "from")]
    last: Option<Span>,
    /// Up to this time (RFC 3339); default: now
    #[arg(long, value_name = "TIME", conflicts_with = "last")]
    to: Option<String>,
    /// How long a point's time is; default: the shortest that gives at most 200 points
    #[arg(long, value_parser = ["1m", "1h", "1d"])]
    step: Option<String>,
    /// One series for each value of these dimensions
    #[arg(long, value_name = "NAME", value_delimiter = ',')]
    group_by: Vec<String>,
    /// Only where a dimension has a value; may be repeated
    #[arg(long = "where", value_name = "NAME=VALUE")]
    narrowed: Vec<String>,
    /// One row for all of the time instead of its points
    #[arg(long)]
    total: bool,
}

impl QueryArgs {
    fn query(&self) -> Result<Vec<(&str, String)>, Failure> {
        let mut query = vec![("metric", self.metric.clone())];
        if let Some(span) = self.last {
            let span = TimeDelta::milliseconds(span.as_millis().cast_signed());
            let since = Utc::now().checked_sub_signed(span);
            let since =
                since.ok_or_else(|| Failure::Refused("--last reaches too far back".to_owned()))?;
            query.push(("from", since.to_rfc3339()));
        }
        for (name, value) in [("from", &self.from), ("to", &self.to), ("step", &self.step)] {
            query.extend(value.clone().map(|value| (name, value)));
        }
        query.extend(self.group_by.iter().map(|name| ("group_by", name.clone())));
        for text in &self.narrowed {
            let wrong = || Failure::Refused(format!("--where {text:?}: write NAME=VALUE"));
            let (name, value) = text.split_once('=').ok_or_else(wrong)?;
            query.push(match name.strip_prefix("dimensions.") {
                Some(own) => ("dimension", format!("{own}={value}")),
                None => (name, value.to_owned()),
            });
        }
        Ok(query)
    }
}

pub(crate) async fn execute(global: &Global, command: MetricsCommand) -> Result<Exit, Failure> {
    let client = Client::new(&global.client)?;
    match command {
        MetricsCommand::List => {
            let answer = client.get("/metrics", &[]).await?;
            global.output.list(&answer, LISTED)?;
        }
        MetricsCommand::Query(args) => {
            let answer = client.get("/metrics/query", &args.query()?).await?;
            show(global.output, &answer, args.total)?;
        }
    }
    Ok(Exit::Completed)
}

fn show(output: Format, answer: &Answer, total: bool) -> Result<(), Failure> {
    let body: Value = answer.read()?;
    let is_table = match output {
        Format::Json | Format::Yaml => return output.one(answer, &[]),
        Format::Jsonl => false,
        Format::Table => true,
    };
    let mut items = Vec::new();
    for series in body["series"].as_array().into_iter().flatten() {
        let group = if is_table { named(&series["group"]).into() } else { series["group"].clone() };
        let points = if total { vec![&series["total"]] } else { points(series) };
        for point in points {
            let mut item = Map::from_iter([("group".to_owned(), group.clone())]);
            item.extend(point.as_object().cloned().unwrap_or_default());
            items.push(Value::Object(item));
        }
    }
    let has = |pointer: &str| items.iter().any(|item| item.pointer(pointer).is_some());
    let is_grouped = body["group_by"].as_array().is_some_and(|names| !names.is_empty());
    let shown = POINTS.iter().filter(|(name, pointer)| match *name {
        "group" => is_grouped,
        "count" => true,
        _ => has(pointer),
    });
    let shown: Vec<Column> = shown.copied().collect();
    output.list(&Answer { text: json!({"items": items}).to_string() }, &shown)?;
    if let Some(unit) = body["unit"].as_str().filter(|_| is_table && body["type"] != "count") {
        say!("in {unit}");
    }
    match body["series_left_out"].as_u64() {
        None | Some(0) => {}
        Some(more) => say!("{more} series were left out: narrow with --where"),
    }
    Ok(())
}

fn points(series: &Value) -> Vec<&Value> {
    series["points"].as_array().map(|points| points.iter().collect()).unwrap_or_default()
}

/// The values of a group, for people.
fn named(group: &Value) -> String {
    let members = group.as_object().into_iter().flatten();
    let texts = members.map(|(name, value)| {
        let value = value.as_str().unwrap_or_default();
        format!("{name}={}", if value.is_empty() { "-" } else { value })
    });
    texts.collect::<Vec<_>>().join(" ")
}
