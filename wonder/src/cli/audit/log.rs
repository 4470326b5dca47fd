//! `wonder audit list`: who did what.

use chrono::{DateTime, SecondsFormat, Utc};

use crate::cli::{Global, PageArgs};
use crate::client::Client;
use crate::exit::{Exit, Failure};
use crate::output::Column;

const COLUMNS: &[Column] = &[
    ("at", "/at"),
    ("actor", "/actor"),
    ("action", "/action"),
    ("resource", "/resource_id"),
    ("result", "/result"),
    ("from", "/origin/address"),
    ("position", "/position"),
];

/// Which entries.
#[derive(Debug, clap::Args)]
pub(crate) struct ListArgs {
    /// Only what this one did (`key_…`, `administrator`, `dev`, `trigger`, `system`)
    #[arg(long, value_name = "WHO")]
    actor: Option<String>,
    /// Only this, as in workflow.revised, run.started, gate.answered
    #[arg(long, value_name = "WHAT")]
    action: Option<String>,
    /// Only what was done to this kind of thing, as in run
    #[arg(long, value_name = "KIND")]
    resource_type: Option<String>,
    /// Only what was done to this thing
    #[arg(long, value_name = "ID")]
    resource: Option<String>,
    /// Only what was done to this run (`run_…`) and its gates
    #[arg(long, value_name = "ID")]
    run: Option<String>,
    /// Only what is `done`, what has `failed`, or what was `refused`
    #[arg(long, value_parser = ["done", "failed", "refused"])]
    result: Option<String>,
    /// Only from this time on (RFC 3339)
    #[arg(long, value_name = "TIME")]
    after: Option<DateTime<Utc>>,
    /// Only before this time (RFC 3339)
    #[arg(long, value_name = "TIME")]
    before: Option<DateTime<Utc>>,
    #[command(flatten)]
    page: PageArgs,
}

impl ListArgs {
    fn query(self) -> Vec<(&'static str, String)> {
        let mut query = self.page.query();
        let mut push = |key, value: Option<String>| query.extend(value.map(|value| (key, value)));
        let text = |at: DateTime<Utc>| at.to_rfc3339_opts(SecondsFormat::AutoSi, true);
        push("actor", self.actor);
        push("action", self.action);
        push("resource_type", self.resource_type);
        push("resource_id", self.resource);
        push("run_id", self.run);
        push("result", self.result);
        push("after", self.after.map(text));
        push("before", self.before.map(text));
        query
    }
}

pub(super) async fn list(global: &Global, args: ListArgs) -> Result<Exit, Failure> {
    let client = Client::new(&global.client)?;
    let answer = client.get("/audit", &args.query()).await?;
    global.output.page(&answer, COLUMNS)?;
    Ok(Exit::Completed)
}
