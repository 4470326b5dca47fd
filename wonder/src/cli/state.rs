//! `wonder state`: a run's whole state at a moment, by the engine's own fold.

use chrono::{DateTime, Utc};

use super::Global;
use super::runs::segment;
use crate::client::{Answer, Client};
use crate::exit::{Exit, Failure};
use crate::output::Format;

/// Which run, and when.
#[derive(Debug, clap::Args)]
pub(crate) struct StateArgs {
    /// The run (`run_…`)
    id: String,
    /// After this event (its sequence), or at this time (RFC 3339) [default: now]
    #[arg(long, value_name = "N|TIME", value_parser = moment)]
    at: Option<String>,
}

pub(crate) async fn execute(global: &Global, args: StateArgs) -> Result<Exit, Failure> {
    let client = Client::new(&global.client)?;
    let query: Vec<_> = args.at.into_iter().map(|at| ("at", at)).collect();
    let answer = client.get(&format!("/runs/{}/state", segment(&args.id)?), &query).await?;
    show(global, &answer)?;
    Ok(Exit::Completed)
}

/// Prints a state.
pub(super) fn show(global: &Global, answer: &Answer) -> Result<(), Failure> {
    // A state is a tree, of which columns show nothing.
    let format = match global.output {
        Format::Table => Format::Yaml,
        chosen => chosen,
    };
    format.one(answer, &[])
}

/// A moment of a run, checked before anything is sent.
pub(crate) fn moment(text: &str) -> Result<String, String> {
    let is_sequence = text.parse::<u64>().is_ok();
    if is_sequence || text.parse::<DateTime<Utc>>().is_ok() {
        return Ok(text.to_owned());
    }
    Err("write an event's sequence, or a time as 2026-01-31T12:00:00Z".to_owned())
}
