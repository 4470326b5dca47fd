//! `wonder bundle fork`: how a recorded run would go on with something different. Nothing is
//! called.

use std::collections::BTreeMap;
use std::path::PathBuf;

use ::projections::Histories;
use chrono::Utc;
use domain::run::event::Adopt;
use protocol::StateAt;
use protocol::bundle::{BundleFork, ForkTrial};
use serde_json::{Value, json};

use super::super::fork::{Different, print_plan};
use super::super::{Global, diff, run};
use super::{RunArgs, opened, refused};
use crate::client::Answer;
use crate::definition_file;
use crate::exit::{Exit, Failure};
use crate::output::{Format, line};

/// From where, and what is to be different.
#[derive(Debug, clap::Args)]
pub(crate) struct ForkArgs {
    #[command(flatten)]
    run: RunArgs,
    /// The last event that is shared (its sequence), or a time (RFC 3339)
    #[arg(long, value_name = "N|TIME")]
    at: StateAt,
    #[command(flatten)]
    other: Different,
    /// Another definition: a file, or a folder with a workflow.yaml
    #[arg(short, long, value_name = "FILE")]
    definition: Option<PathBuf>,
    /// Which later outcomes are adopted where the same is asked for
    #[arg(long, default_value = "all", value_parser = ["all", "successes", "none"])]
    adopt: String,
}

pub(super) async fn execute(global: &Global, args: ForkArgs) -> Result<Exit, Failure> {
    let bundle = opened(&args.run.file)?;
    let (run_id, workspace_id) = args.run.of(&bundle)?;
    let definition = args.definition.as_deref().map(definition_file::read_at).transpose()?;
    let asked = BundleFork {
        at: args.at,
        adopt: match &*args.adopt {
            "successes" => Adopt::Successes,
            "none" => Adopt::None,
            _ => Adopt::All,
        },
        input: args.other.input.as_deref().map(run::input).transpose()?,
        state: args.other.state.as_deref().map(|text| run::json(text, "state")).transpose()?,
        branches: by_token(args.other.branches),
        results: by_token(args.other.results),
        definition: definition.map(Box::new),
    };
    let trial = Histories::of(&bundle).fork_tried(workspace_id, run_id, asked, Utc::now()).await;
    let trial = trial.map_err(refused)?;
    match global.output {
        Format::Table => show(global, &trial)?,
        other => other.value(&json!(trial), &[])?,
    }
    Ok(Exit::Completed)
}

fn by_token(given: Vec<(String, Value)>) -> BTreeMap<u64, Value> {
    given.into_iter().filter_map(|(token, value)| Some((token.parse().ok()?, value))).collect()
}

fn show(global: &Global, trial: &ForkTrial) -> Result<(), Failure> {
    let from = &trial.plan.forked_from;
    let status = trial.plan.status.as_str();
    line(&format!("a fork of {} after event {}: {status}", from.run_id, from.sequence))?;
    if let Some(output) = &trial.output {
        line(&format!("output: {output}"))?;
    }
    if let Some(error) = &trial.error {
        line(&format!("error: {} ({})", error.code, error.message))?;
    }
    for item in &trial.waiting {
        let at = item.node.as_ref().map_or_else(String::new, |node| format!(" at {node}"));
        line(&format!("waits{at} for {}: {}", item.what, item.by))?;
    }
    match (&trial.parts, &trial.values) {
        (None, None) => line("it goes as the run did")?,
        (None, Some(_)) => line("it goes the same way, with other values")?,
        (Some(_), _) => {}
    }
    for (what, divergence) in [("parts", &trial.parts), ("first other value", &trial.values)] {
        if let Some(divergence) = divergence {
            line(&format!("{what} at {}", diff::of_divergence(divergence)))?;
        }
    }
    print_plan(global, &Answer { text: json!(trial).to_string() })
}
