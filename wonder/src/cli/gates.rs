//! `wonder gates`: lists, shows and answers gates.

use serde_json::json;

use super::{Global, PageArgs};
use crate::client::Client;
use crate::exit::{Exit, Failure};
use crate::output::Column;

const COLUMNS: &[Column] = &[
    ("id", "/id"),
    ("status", "/status"),
    ("outcome", "/outcome"),
    ("definition", "/definition"),
    ("node", "/node"),
    ("title", "/title"),
    ("assignees", "/assignees"),
    ("roles", "/roles"),
    ("approvals", "/approvals"),
    ("opened", "/opened_at"),
    ("deadline", "/deadline"),
];

const ONE: &[Column] = &[
    ("id", "/id"),
    ("status", "/status"),
    ("outcome", "/outcome"),
    ("title", "/title"),
    ("run", "/run_id"),
    ("definition", "/definition"),
    ("node", "/node"),
    ("form", "/form"),
    ("assignees", "/assignees"),
    ("roles", "/roles"),
    ("not by", "/not_by"),
    ("approvals", "/approvals"),
    ("rejections", "/rejections"),
    ("answers", "/answers"),
    ("opened", "/opened_at"),
    ("deadline", "/deadline"),
    ("closed", "/closed_at"),
];

/// Which gates, or what to do with one.
#[derive(Debug, clap::Args)]
#[command(args_conflicts_with_subcommands = true)]
pub(crate) struct GatesArgs {
    #[command(subcommand)]
    command: Option<GatesCommand>,
    #[command(flatten)]
    list: ListArgs,
}

#[derive(Debug, clap::Subcommand)]
enum GatesCommand {
    /// Show one gate
    Show {
        /// The gate (`run_….N`)
        id: String,
    },
    /// Answer a gate, as whom the API key signs in
    Answer(AnswerArgs),
}

#[derive(Debug, clap::Args)]
struct ListArgs {
    /// Only `open` or only `closed` ones
    #[arg(long, value_parser = ["open", "closed"])]
    status: Option<String>,
    /// Only those that name this assignee
    #[arg(long, value_name = "NAME")]
    assignee: Option<String>,
    /// Only those that name this role
    #[arg(long, value_name = "NAME")]
    role: Option<String>,
    /// Only those of runs of this workflow (`wf_…`)
    #[arg(long, value_name = "ID")]
    workflow: Option<String>,
    /// Only those of this run (`run_…`)
    #[arg(long, value_name = "ID")]
    run: Option<String>,
    #[command(flatten)]
    page: PageArgs,
}

#[derive(Debug, clap::Args)]
#[command(group = clap::ArgGroup::new("decision").required(true))]
struct AnswerArgs {
    /// The gate (`run_….N`)
    id: String,
    /// Approve
    #[arg(long, group = "decision")]
    approve: bool,
    /// Reject
    #[arg(long, group = "decision")]
    reject: bool,
    /// The value that the gate's form asks for: JSON, @FILE, or - for stdin
    #[arg(long, value_name = "JSON|@FILE|-")]
    value: Option<String>,
    /// A few words, for the record
    #[arg(long, value_name = "TEXT")]
    comment: Option<String>,
}

impl ListArgs {
    fn query(self) -> Vec<(&'static str, String)> {
        let mut query = self.page.query();
        let mut push = |key, value: Option<String>| query.extend(value.map(|value| (key, value)));
        push("status", self.status);
        push("assignee", self.assignee);
        push("role", self.role);
        push("workflow_id", self.workflow);
        push("run_id", self.run);
        query
    }
}

pub(crate) async fn execute(global: &Global, args: GatesArgs) -> Result<Exit, Failure> {
    let client = Client::new(&global.client)?;
    match args.command {
        None => {
            let answer = client.get("/gates", &args.list.query()).await?;
            global.output.page(&answer, COLUMNS)?;
        }
        Some(GatesCommand::Show { id }) => {
            let answer = client.get(&format!("/gates/{}", segment(&id)?), &[]).await?;
            global.output.one(&answer, ONE)?;
        }
        Some(GatesCommand::Answer(args)) => {
            let mut body = json!({"decision": if args.approve { "approve" } else { "reject" }});
            if let Some(value) = &args.value {
                body["value"] = super::run::json(value, "value")?;
            }
            if let Some(comment) = args.comment {
                body["comment"] = comment.into();
            }
            let path = format!("/gates/{}/answers", segment(&args.id)?);
            let answer = client.post(&path, &[], &body).await?;
            global.output.one(&answer, &[("run", "/id"), ("position", "/position")])?;
        }
    }
    Ok(Exit::Completed)
}

/// A gate's id as a path segment; what can't be one is refused before anything is sent.
fn segment(id: &str) -> Result<&str, Failure> {
    let known = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-' | b'.');
    if id.contains('.') && id.bytes().all(known) {
        return Ok(id);
    }
    let text = format!("{id:?} is not a gate: write the run's id, a dot, and the token's number");
    Err(Failure::Refused(text))
}
