//! `wonder runs diff`: what two moments of a run differ in, or two runs.

use protocol::{DiffSide, Divergence, RunDiff};
use serde_json::{Value, json};

use super::Global;
use super::runs::segment;
use super::state::moment;
use crate::client::{Answer, Client};
use crate::exit::{Exit, Failure};
use crate::output::{Column, Format, line};

const NODES: &[Column] = &[
    ("node", "/node"),
    ("tokens", "/left/tokens"),
    ("", "/right/tokens"),
    ("succeeded", "/left/succeeded"),
    ("", "/right/succeeded"),
    ("failed", "/left/failed"),
    ("", "/right/failed"),
    ("attempts", "/left/attempts"),
    ("", "/right/attempts"),
];

const CHANGES: &[Column] =
    &[("change", "/kind"), ("place", "/pointer"), ("left", "/before"), ("right", "/after")];

/// Which run, and what it is compared to.
#[derive(Debug, clap::Args)]
pub(crate) struct DiffArgs {
    /// The run (`run_…`)
    id: String,
    /// Another run to compare with
    #[arg(conflicts_with_all = ["from", "to"], required_unless_present = "from")]
    other: Option<String>,
    /// The first moment: after this event (its sequence), or at this time (RFC 3339)
    #[arg(long, value_name = "N|TIME", value_parser = moment)]
    from: Option<String>,
    /// The second moment [default: now]
    #[arg(long, value_name = "N|TIME", value_parser = moment, requires = "from")]
    to: Option<String>,
}

pub(super) async fn execute(
    global: &Global,
    client: &Client,
    args: DiffArgs,
) -> Result<Exit, Failure> {
    let mut query = Vec::new();
    let mut push = |key, value: Option<String>| query.extend(value.map(|value| (key, value)));
    push("other", args.other);
    push("from", args.from);
    push("to", args.to);
    let answer = client.get(&format!("/runs/{}/diff", segment(&args.id)?), &query).await?;
    match global.output {
        Format::Table => show(&answer.read()?)?,
        other => other.one(&answer, &[])?,
    }
    Ok(Exit::Completed)
}

pub(super) fn show(diff: &RunDiff) -> Result<(), Failure> {
    line(&format!("left:  {}", of_side(&diff.left)))?;
    line(&format!("right: {}", of_side(&diff.right)))?;
    for (what, divergence) in [("part", &diff.parts), ("first other value", &diff.values)] {
        if let Some(divergence) = divergence {
            line(&format!("{what} at {}", of_divergence(divergence)))?;
        }
    }
    if !diff.events.is_empty() {
        let events = diff.events.iter().map(|(kind, count)| format!("{count} {kind}"));
        line(&format!("between them: {}", events.collect::<Vec<_>>().join(", ")))?;
    }
    for (items, columns) in [(json!(diff.nodes), NODES), (json!(diff.changes), CHANGES)] {
        if items.as_array().is_some_and(|items| !items.is_empty()) {
            line("")?;
            Format::Table.list(&Answer { text: json!({"items": items}).to_string() }, columns)?;
        }
    }
    if diff.changes_left_out > 0 {
        line(&format!("and {} more", diff.changes_left_out))?;
    }
    Ok(())
}

fn of_side(side: &DiffSide) -> String {
    let DiffSide { run_id, definition, sequence, status, usage, .. } = side;
    let error = side.error.as_ref().map(|error| format!(" ({})", error.code)).unwrap_or_default();
    format!(
        "{run_id} of {definition} after event {sequence}: {}{error}, {} + {} tokens of models, cost \
         {} micros",
        status.as_str(),
        usage.input_tokens,
        usage.output_tokens,
        usage.cost_micros
    )
}

/// The members of both events that differ.
pub(super) fn of_divergence(divergence: &Divergence) -> String {
    let node = divergence.node.as_ref().map(|node| format!(" at {node}")).unwrap_or_default();
    let shown = |own: &Option<Value>, other: &Option<Value>| {
        let Some(Value::Object(own)) = own else { return "nothing".to_owned() };
        let differs = |(key, value): &(&String, &Value)| {
            *key != "type" && other.as_ref().is_none_or(|other| other.get(*key) != Some(value))
        };
        let members = own.iter().filter(differs).map(|(key, value)| format!(" {key}={value}"));
        let kind = own.get("type").and_then(Value::as_str).unwrap_or_default();
        format!("{kind}{}", members.collect::<String>())
    };
    let Divergence { sequence, left, right, .. } = divergence;
    let (ours, theirs) = (shown(left, right), shown(right, left));
    format!("event {sequence}{node}\n  left:  {ours}\n  right: {theirs}")
}
