//! `wonder triggers`: lists the triggers of a workflow.

use super::Global;
use crate::client::Client;
use crate::exit::{Exit, Failure};
use crate::output::Column;

const COLUMNS: &[Column] = &[
    ("name", "/name"),
    ("kind", "/kind"),
    ("enabled", "/enabled"),
    ("next", "/next_at"),
    ("last", "/last_at"),
    ("last run", "/last_run_id"),
    ("runs", "/runs"),
    ("failures", "/failures"),
    ("last error", "/last_error/message"),
];

/// Whose triggers.
#[derive(Debug, clap::Args)]
pub(crate) struct TriggersArgs {
    /// The workflow: its name in the project, or its id (`wf_…`)
    workflow: String,
}

pub(crate) async fn execute(global: &Global, args: TriggersArgs) -> Result<Exit, Failure> {
    let client = Client::new(&global.client)?;
    let id = workflow_id(global, &client, args.workflow).await?;
    let answer = client.get(&format!("/workflows/{id}/triggers"), &[]).await?;
    global.output.list(&answer, COLUMNS)?;
    Ok(Exit::Completed)
}

/// The id of a workflow that is given by its name or by its id.
async fn workflow_id(global: &Global, client: &Client, text: String) -> Result<String, Failure> {
    if text.parse::<domain::ids::WorkflowId>().is_ok() {
        return Ok(text);
    }
    let found = client.named("/workflows", &global.project, &text).await?;
    let id = found.and_then(|workflow| workflow["id"].as_str().map(str::to_owned));
    let missing = || Failure::Refused(format!("there is no workflow {text:?} in the project"));
    id.ok_or_else(missing)
}
