//! `wonder config`: what is in force, and where it came from; secrets hidden.

use serde_json::json;

use super::Global;
use crate::client::Answer;
use crate::config::{self, AuthMode, ServerArgs};
use crate::exit::{Exit, Failure};

/// The same flags as `wonder serve`, so that their effect can be seen.
#[derive(Debug, clap::Args)]
pub(crate) struct ConfigArgs {
    #[command(flatten)]
    server: ServerArgs,
}

pub(crate) fn execute(global: &Global, args: &ConfigArgs) -> Result<Exit, Failure> {
    let loaded = config::load(&args.server, AuthMode::Keys)
        .map_err(|error| Failure::Refused(format!("{error:#}")))?;
    let answer = Answer { text: json!({"items": loaded.settings}).to_string() };
    let columns = [("key", "/key"), ("value", "/value"), ("source", "/source")];
    global.output.list(&answer, &columns)?;
    Ok(Exit::Completed)
}
