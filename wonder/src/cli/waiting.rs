//! `wonder waiting`, `signal`, `pause` and `resume`: what a run waits for, and what people do
//! about it.

use serde_json::{Value, json};

use super::Global;
use super::runs::segment;
use crate::client::Client;
use crate::exit::{Exit, Failure};
use crate::output::{Column, say};

const COLUMNS: &[Column] = &[
    ("token", "/token"),
    ("node", "/node"),
    ("group", "/group"),
    ("index", "/index"),
    ("waits for", "/for"),
    ("since", "/since"),
    ("until", "/until"),
    ("child", "/child_run_id"),
    ("by", "/by"),
];
const RECEIPT: &[Column] = &[("run", "/id"), ("position", "/position")];
const WORKFLOW_RECEIPT: &[Column] = &[("workflow", "/id"), ("position", "/position")];

/// Which run.
#[derive(Debug, clap::Args)]
pub(crate) struct RunId {
    /// The run (`run_…`)
    run: String,
}

/// Which run, or workflow.
#[derive(Debug, clap::Args)]
pub(crate) struct ResumeArgs {
    /// The run (`run_…`), or the workflow (`wf_…`) with all its runs
    run: String,
}

/// Which run, and why.
#[derive(Debug, clap::Args)]
pub(crate) struct PauseArgs {
    /// The run (`run_…`), or the workflow (`wf_…`) with all its runs
    run: String,
    /// Why, for the record
    #[arg(long)]
    reason: Option<String>,
}

/// Which run, and which signal.
#[derive(Debug, clap::Args)]
pub(crate) struct SignalArgs {
    /// The run (`run_…`)
    run: String,
    /// The signal's name
    name: String,
    /// What it says: JSON, @FILE, or - for stdin
    #[arg(long, value_name = "JSON|@FILE|-", default_value = "null")]
    payload: String,
    /// Don't keep it where nothing waits for it now
    #[arg(long)]
    transient: bool,
}

pub(crate) async fn waiting(global: &Global, args: RunId) -> Result<Exit, Failure> {
    let client = Client::new(&global.client)?;
    let answer = client.get(&format!("/runs/{}/waiting", segment(&args.run)?), &[]).await?;
    global.output.list(&answer, COLUMNS)?;
    let body: Value = answer.read()?;
    if let Some(since) = body["pause"]["since"].as_str() {
        let reason = body["pause"]["reason"].as_str();
        let reason = reason.map_or_else(String::new, |reason| format!(": {reason}"));
        say!("paused since {since}{reason}");
    }
    if let Some(left_out) = body["left_out"].as_u64().filter(|left_out| *left_out > 0) {
        say!("and {left_out} more");
    }
    Ok(Exit::Completed)
}

pub(crate) async fn signal(global: &Global, args: SignalArgs) -> Result<Exit, Failure> {
    let client = Client::new(&global.client)?;
    let payload = super::run::json(&args.payload, "payload")?;
    let path = format!("/runs/{}/signals/{}", segment(&args.run)?, named(&args.name)?);
    let body = json!({"payload": payload, "transient": args.transient});
    global.output.one(&client.post(&path, &[], &body).await?, RECEIPT)?;
    Ok(Exit::Completed)
}

pub(crate) async fn pause(global: &Global, args: PauseArgs) -> Result<Exit, Failure> {
    let client = Client::new(&global.client)?;
    let (body, receipt) = match (is_workflow(&args.run), &args.reason) {
        (true, Some(_)) => {
            return Err(Failure::Refused("a workflow is paused without a reason".to_owned()));
        }
        (true, None) => (json!({}), WORKFLOW_RECEIPT),
        (false, reason) => (json!({"reason": reason}), RECEIPT),
    };
    let path = format!("{}/pause", paused(&args.run)?);
    global.output.one(&client.post(&path, &[], &body).await?, receipt)?;
    Ok(Exit::Completed)
}

pub(crate) async fn resume(global: &Global, args: ResumeArgs) -> Result<Exit, Failure> {
    let client = Client::new(&global.client)?;
    let path = format!("{}/resume", paused(&args.run)?);
    let receipt = if is_workflow(&args.run) { WORKFLOW_RECEIPT } else { RECEIPT };
    global.output.one(&client.post(&path, &[], &json!({})).await?, receipt)?;
    Ok(Exit::Completed)
}

fn is_workflow(id: &str) -> bool {
    id.starts_with("wf_")
}

/// The place of what is paused: a run, or a workflow.
fn paused(id: &str) -> Result<String, Failure> {
    let list = if is_workflow(id) { "workflows" } else { "runs" };
    Ok(format!("/{list}/{}", segment(id)?))
}

fn named(name: &str) -> Result<&str, Failure> {
    match name.parse::<domain::ids::Name>() {
        Ok(_) => Ok(name),
        Err(error) => Err(Failure::Refused(error.to_string())),
    }
}
