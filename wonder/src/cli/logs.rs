//! `wonder logs`: what the processes of the platform warned of.

use std::collections::BTreeMap;
use std::str::FromStr;
use std::time::Duration;

use chrono::{DateTime, SecondsFormat, TimeDelta, Utc};
use domain::span::Span;
use protocol::{LogLevel, LogRecord, Page};

use super::{Global, PageArgs};
use crate::client::Client;
use crate::exit::{Exit, Failure};
use crate::output::{self, Column, Format};

const COLUMNS: &[Column] = &[
    ("at", "/at"),
    ("level", "/level"),
    ("role", "/role"),
    ("message", "/message"),
    ("code", "/fields/code"),
    ("error", "/fields/error"),
    ("run", "/run_id"),
];

/// Which records.
#[derive(Debug, clap::Args)]
pub(crate) struct LogsArgs {
    /// Only this level and above
    #[arg(long, value_name = "LEVEL")]
    level: Option<LogLevel>,
    /// Only what this role told (gateway, commands, projections, executor)
    #[arg(long, value_name = "ROLE")]
    role: Option<String>,
    /// Only what is about this run (`run_…`)
    #[arg(long, value_name = "ID")]
    run: Option<String>,
    /// With --run: what is about any run of its tree, from the one at its top down
    #[arg(long, requires = "run")]
    tree: bool,
    /// Only what is about this trace, a run that it started, or one below that
    #[arg(long, value_name = "ID")]
    trace: Option<String>,
    /// Only from this time on: RFC 3339, or how long ago (`15m`, `2h`)
    #[arg(long, value_name = "TIME")]
    since: Option<Moment>,
    /// Only before this time, written like --since
    #[arg(long, value_name = "TIME")]
    until: Option<Moment>,
    /// Part of the message or the fields
    #[arg(short, long, value_name = "TEXT")]
    query: Option<String>,
    /// Go on with what comes, oldest first, until interrupted
    #[arg(long, conflicts_with_all = ["until", "limit", "cursor"])]
    follow: bool,
    #[command(flatten)]
    page: PageArgs,
}

/// A time, or how long ago.
#[derive(Debug, Clone, Copy)]
enum Moment {
    At(DateTime<Utc>),
    Ago(Span),
}

impl FromStr for Moment {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        if let Ok(at) = DateTime::parse_from_rfc3339(text) {
            return Ok(Self::At(at.to_utc()));
        }
        let span = text.parse().map(Self::Ago);
        span.map_err(|_| {
            "write a time like 2026-01-31T12:00:00Z, or a duration like 15m".to_owned()
        })
    }
}

impl Moment {
    fn at(self) -> DateTime<Utc> {
        match self {
            Self::At(at) => at,
            Self::Ago(span) => {
                let ago = TimeDelta::from_std(span.as_duration()).unwrap_or(TimeDelta::MAX);
                Utc::now().checked_sub_signed(ago).unwrap_or(DateTime::UNIX_EPOCH)
            }
        }
    }
}

fn text(at: DateTime<Utc>) -> String {
    at.to_rfc3339_opts(SecondsFormat::AutoSi, true)
}

impl LogsArgs {
    fn query(self) -> Vec<(&'static str, String)> {
        let mut query = self.page.query();
        let mut push = |key, value: Option<String>| query.extend(value.map(|value| (key, value)));
        push("level", self.level.map(|level| level.to_string()));
        push("role", self.role);
        push("run_id", self.run);
        push("tree", self.tree.then(|| "true".to_owned()));
        push("trace_id", self.trace);
        push("from", self.since.map(|since| text(since.at())));
        push("to", self.until.map(|until| text(until.at())));
        push("q", self.query);
        query
    }
}

pub(crate) async fn execute(global: &Global, args: LogsArgs) -> Result<Exit, Failure> {
    let client = Client::new(&global.client)?;
    if args.follow {
        return follow(&client, global.output, args).await;
    }
    let answer = client.get("/logs", &args.query()).await?;
    global.output.page(&answer, COLUMNS)?;
    Ok(Exit::Completed)
}

/// How often it is looked for what has come.
const EVERY: Duration = Duration::from_secs(1);
/// Records come from several processes: one may come so much later than others of its time.
const LATE: TimeDelta = TimeDelta::seconds(10);

/// Tells what there is, and then what comes. Ends with an error only.
async fn follow(client: &Client, format: Format, args: LogsArgs) -> Result<Exit, Failure> {
    let since = args.since.map_or_else(Utc::now, Moment::at);
    let narrowed: Vec<_> = args.query().into_iter().filter(|(key, _)| *key != "from").collect();
    let mut told = BTreeMap::<String, DateTime<Utc>>::new();
    loop {
        let newest = told.values().max().copied();
        let from = newest.map_or(since, |newest| since.max(newest - LATE));
        told.retain(|_, at| *at >= from);
        let mut records = all_from(client, &narrowed, from).await?;
        records.retain(|record| !told.contains_key(&record.id));
        for record in records.iter().rev() {
            tell(format, record)?;
            told.insert(record.id.clone(), record.at);
        }
        tokio::time::sleep(EVERY).await;
    }
}

/// All records from a time on, newest first.
async fn all_from(
    client: &Client,
    narrowed: &[(&'static str, String)],
    from: DateTime<Utc>,
) -> Result<Vec<LogRecord>, Failure> {
    let (mut records, mut cursor) = (Vec::new(), None);
    loop {
        let mut query = narrowed.to_vec();
        query.retain(|(key, _)| *key != "limit");
        query.push(("from", text(from)));
        query.push(("limit", "200".to_owned()));
        query.extend(cursor.map(|cursor| ("cursor", cursor)));
        let page: Page<LogRecord> = client.get("/logs", &query).await?.read()?;
        records.extend(page.items);
        cursor = page.next_cursor;
        if cursor.is_none() {
            return Ok(records);
        }
    }
}

fn tell(format: Format, record: &LogRecord) -> Result<(), Failure> {
    let written = match format {
        Format::Table => {
            let about = record.run_id.as_deref().unwrap_or_default();
            let fields = record.fields.iter().map(|(name, value)| format!(" {name}={value}"));
            let (at, level, role) = (text(record.at), record.level, &record.role);
            format!(
                "{at} {level:5} {role} {} {about}{}",
                record.message,
                fields.collect::<String>()
            )
        }
        Format::Json | Format::Jsonl => serde_json::to_string(record)?,
        Format::Yaml => {
            let document = serde_saphyr::to_string(record).map_err(anyhow::Error::from)?;
            format!("---\n{document}")
        }
    };
    output::line(&written)
}
