//! `wonder runs`: lists, shows, watches, forks, retries, reruns and cancels runs.

use chrono::{DateTime, SecondsFormat, Utc};
use domain::ids::RunId;
use domain::span::Span;
use protocol::Speed;
use serde_json::{Value, json};

use super::watch::Watch;
use super::{Global, PageArgs, archive, diff, explain, fork, watch};
use crate::client::{Answer, Client};
use crate::exit::{EXIT_CODES, Exit, Failure};
use crate::output::Column;

const COLUMNS: &[Column] = &[
    ("id", "/id"),
    ("status", "/status"),
    ("waits for", "/waiting_on"),
    ("definition", "/definition/name"),
    ("version", "/definition/version"),
    ("started", "/started_at"),
    ("ended", "/ended_at"),
    ("error", "/error/code"),
];

const ONE: &[Column] = &[
    ("id", "/id"),
    ("status", "/status"),
    ("waits for", "/waiting_on"),
    ("definition", "/definition/name"),
    ("version", "/definition/version"),
    ("workflow", "/workflow_id"),
    ("parent", "/parent_run_id"),
    ("root", "/root_run_id"),
    ("forked from", "/forked_from/run_id"),
    ("forked at", "/forked_from/sequence"),
    ("rerun of", "/rerun_of"),
    ("keeps", "/archived/keep"),
    ("archive", "/archived/archive/location"),
    ("held by", "/held/by"),
    ("held for", "/held/reason"),
    ("started", "/started_at"),
    ("ended", "/ended_at"),
    ("labels", "/labels"),
    ("events", "/sequence"),
    ("input", "/input"),
    ("output", "/output"),
    ("error", "/error/message"),
    ("error code", "/error/code"),
    ("error node", "/error/node"),
    ("to undo", "/compensation/total"),
    ("undone", "/compensation/undone"),
    ("not undone", "/compensation/failed"),
    ("input tokens", "/usage/input_tokens"),
    ("output tokens", "/usage/output_tokens"),
    ("cost micros", "/usage/cost_micros"),
];

/// What to do with runs.
#[derive(Debug, clap::Subcommand)]
pub(crate) enum RunsCommand {
    /// List runs, newest first
    List(ListArgs),
    /// Show one run
    Show {
        /// The run (`run_…`)
        id: String,
    },
    /// Tell why a run is where it is, or ended as it did; of a token or a node, how it came to that
    Explain(explain::ExplainArgs),
    /// Compare two moments of a run, or two runs
    Diff(diff::DiffArgs),
    /// Follow a run to its end; its status is the exit code
    #[command(after_help = EXIT_CODES)]
    Watch {
        /// The run (`run_…`)
        id: String,
        /// How long to watch, as in 90s or 10m
        #[arg(long, value_name = "DURATION")]
        timeout: Option<Span>,
        /// Replay what has happened, so many times as fast as it did; no wait is longer than 10 s
        #[arg(long, value_name = "FACTOR")]
        speed: Option<Speed>,
        /// Say what models are answering as it comes, also where stderr isn't a terminal
        #[arg(long, conflicts_with = "speed")]
        deltas: bool,
    },
    /// Start a run that goes on from any event of another one
    #[command(after_help = EXIT_CODES)]
    Fork(Box<fork::ForkArgs>),
    /// Start a run that goes on where a failed one failed, and makes the failed attempts again
    #[command(after_help = EXIT_CODES)]
    Retry(fork::RetryArgs),
    /// Start a run with the input and the labels of another one
    #[command(after_help = EXIT_CODES)]
    Rerun(fork::RerunArgs),
    /// Drop what the events of runs that have ended tell of their work
    Archive(archive::ArchiveArgs),
    /// Hold runs: nothing of them is dropped until they are released
    Hold {
        /// The runs (`run_…`)
        #[arg(required = true)]
        ids: Vec<RunId>,
        /// Why, for the record and for whoever is refused
        #[arg(long)]
        reason: String,
    },
    /// Release runs that are held
    Release {
        /// The runs (`run_…`)
        #[arg(required = true)]
        ids: Vec<RunId>,
        /// Why, for the record
        #[arg(long)]
        reason: Option<String>,
    },
    /// Cancel a run
    Cancel {
        /// The run (`run_…`)
        id: String,
        /// Why, for the record
        #[arg(long)]
        reason: Option<String>,
        /// End it at once: don't undo its work, or leave out the rest
        #[arg(long)]
        no_compensation: bool,
    },
}

/// Which runs.
#[derive(Debug, clap::Args)]
pub(crate) struct ListArgs {
    /// Only these statuses, as in running,failed
    #[arg(long)]
    status: Option<String>,
    /// Only runs that wait for one of these, as in gate,timer
    #[arg(long, value_name = "KIND,…")]
    waiting_on: Option<String>,
    /// The runs as they were at this time (RFC 3339)
    #[arg(long, value_name = "TIME")]
    as_of: Option<DateTime<Utc>>,
    /// Only runs of this workflow (`wf_…`)
    #[arg(long, value_name = "ID")]
    workflow: Option<String>,
    /// Only children of this run (`run_…`)
    #[arg(long, value_name = "ID")]
    parent: Option<String>,
    /// Only runs of the definition with this name
    #[arg(long, value_name = "NAME")]
    definition: Option<String>,
    /// Only runs with this label (repeatable; all must hold)
    #[arg(short, long = "label", value_name = "KEY=VALUE", value_parser = super::run::label)]
    labels: Vec<(String, String)>,
    /// Runs that experiments made: among the others, alone, or left out
    #[arg(long, value_name = "WHICH", value_parser = ["any", "only", "exclude"])]
    experiment: Option<String>,
    /// Part of the id, the definition's name or the error message
    #[arg(short, long)]
    query: Option<String>,
    #[command(flatten)]
    page: PageArgs,
}

impl ListArgs {
    fn query(self) -> Vec<(&'static str, String)> {
        let mut query = self.page.query();
        let mut push = |key, value: Option<String>| query.extend(value.map(|value| (key, value)));
        push("status", self.status);
        push("waiting_on", self.waiting_on);
        push("as_of", self.as_of.map(|at| at.to_rfc3339_opts(SecondsFormat::AutoSi, true)));
        push("workflow_id", self.workflow);
        push("parent", self.parent);
        push("definition", self.definition);
        push("experiment", self.experiment);
        push("q", self.query);
        for (key, value) in self.labels {
            push("label", Some(format!("{key}={value}")));
        }
        query
    }
}

pub(crate) async fn execute(global: &Global, command: RunsCommand) -> Result<Exit, Failure> {
    let client = Client::new(&global.client)?;
    match command {
        RunsCommand::List(args) => {
            let answer = client.get("/runs", &args.query()).await?;
            global.output.page(&answer, COLUMNS)?;
        }
        RunsCommand::Show { id } => {
            let answer = client.get(&format!("/runs/{}", segment(&id)?), &[]).await?;
            global.output.one(&answer, ONE)?;
        }
        RunsCommand::Explain(args) => return explain::execute(global, &client, args).await,
        RunsCommand::Diff(args) => return diff::execute(global, &client, args).await,
        RunsCommand::Watch { id, timeout, speed, deltas } => {
            let watch = Watch { timeout: timeout.map(Span::as_duration), speed, deltas };
            return Ok(match watch::watch(&client, segment(&id)?, watch).await? {
                Some((exit, _)) => exit,
                None => Exit::TimedOut,
            });
        }
        RunsCommand::Fork(args) => return fork::execute(global, *args).await,
        RunsCommand::Retry(args) => return fork::retry(global, args).await,
        RunsCommand::Rerun(args) => return fork::rerun(global, args).await,
        RunsCommand::Archive(args) => return archive::execute(global, &client, args).await,
        RunsCommand::Hold { ids, reason } => {
            keep(global, &client, &ids, "hold", &json!({"reason": reason})).await?;
        }
        RunsCommand::Release { ids, reason } => {
            let body = reason.map_or_else(|| json!({}), |reason| json!({"reason": reason}));
            keep(global, &client, &ids, "release", &body).await?;
        }
        RunsCommand::Cancel { id, reason, no_compensation } => {
            let path = format!("/runs/{}/cancel", segment(&id)?);
            let body = json!({"reason": reason, "compensate": !no_compensation});
            let answer = client.post(&path, &[], &body).await?;
            global.output.one(&answer, &[("id", "/id"), ("status", "/status")])?;
        }
    }
    Ok(Exit::Completed)
}

/// Holds or releases runs, one after the other.
async fn keep(
    global: &Global,
    client: &Client,
    ids: &[RunId],
    verb: &str,
    body: &Value,
) -> Result<(), Failure> {
    let mut rows = Vec::with_capacity(ids.len());
    for id in ids {
        let answer = client.post(&format!("/runs/{id}/{verb}"), &[], body).await?;
        rows.push(answer.read::<Value>()?);
    }
    let answer = Answer { text: json!({"items": rows}).to_string() };
    global.output.list(&answer, &[("run", "/id"), ("at", "/at"), ("position", "/position")])
}

/// An id as a path segment; what can't be one is refused before anything is sent.
pub(crate) fn segment(id: &str) -> Result<&str, Failure> {
    let known = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-');
    if !id.is_empty() && id.bytes().all(known) {
        return Ok(id);
    }
    Err(Failure::Refused(format!("{id:?} is not a run: write run_ and 26 characters")))
}
