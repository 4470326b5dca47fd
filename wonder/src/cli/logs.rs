//! `wonder logs`: what the processes of the platform warned of.

use std::str::FromStr;

use chrono::{DateTime, SecondsFormat, TimeDelta, Utc};
use domain::span::Span;
use protocol::LogLevel;

use super::{Global, PageArgs};
use crate::client::Client;
use crate::exit::{Exit, Failure};
use crate::output::Column;

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
    /// Only what is about this trace, or a run that it started
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
    fn text(self) -> String {
        let at = match self {
            Self::At(at) => at,
            Self::Ago(span) => {
                let ago = TimeDelta::from_std(span.as_duration()).unwrap_or(TimeDelta::MAX);
                Utc::now().checked_sub_signed(ago).unwrap_or(DateTime::UNIX_EPOCH)
            }
        };
        at.to_rfc3339_opts(SecondsFormat::AutoSi, true)
    }
}

impl LogsArgs {
    fn query(self) -> Vec<(&'static str, String)> {
        let mut query = self.page.query();
        let mut push = |key, value: Option<String>| query.extend(value.map(|value| (key, value)));
        push("level", self.level.map(|level| level.to_string()));
        push("role", self.role);
        push("run_id", self.run);
        push("trace_id", self.trace);
        push("from", self.since.map(Moment::text));
        push("to", self.until.map(Moment::text));
        push("q", self.query);
        query
    }
}

pub(crate) async fn execute(global: &Global, args: LogsArgs) -> Result<Exit, Failure> {
    let client = Client::new(&global.client)?;
    let answer = client.get("/logs", &args.query()).await?;
    global.output.page(&answer, COLUMNS)?;
    Ok(Exit::Completed)
}
