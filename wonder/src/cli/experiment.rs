//! `wonder experiment`: many runs again with one change, and what they come to.

use std::path::Path;
use std::time::Duration;

use anyhow::Context;
use serde_json::{Map, Value, json};

use super::runs::segment;
use super::{Global, run};
use crate::client::{Answer, Client};
use crate::definition_file;
use crate::exit::{Exit, Failure};
use crate::output::{Column, Format, bar, say};

/// The pauses between two looks at an experiment that goes on.
const FIRST_PAUSE: Duration = Duration::from_millis(100);
const LONGEST_PAUSE: Duration = Duration::from_secs(2);

const RUNS: &[Column] = &[
    ("run", "/run_id"),
    ("fork", "/fork_id"),
    ("result", "/result"),
    ("before", "/before/status"),
    ("after", "/after/status"),
    ("parts at", "/where/node"),
    ("made", "/calls/made"),
    ("adopted", "/calls/adopted"),
    ("stubbed", "/calls/stubbed"),
    ("cost before", "/usage/before/cost_micros"),
    ("cost after", "/usage/after/cost_micros"),
    ("spent", "/usage/spent/cost_micros"),
];
const PROGRESS: &[Column] = &[
    ("name", "/name"),
    ("status", "/status"),
    ("runs", "/runs"),
    ("running", "/running"),
    ("left", "/left"),
    ("spent micros", "/spent_micros"),
];
const REFUSED: &[Column] = &[("run", "/run_id"), ("refused", "/code"), ("why", "/detail")];
const PLANNED: &[Column] = &[
    ("run", "/run_id"),
    ("stands at", "/status"),
    ("adopted", "/adopted"),
    ("calls", "/calls"),
    ("cost micros", "/usage/cost_micros"),
];

#[derive(Debug, clap::Subcommand)]
pub(crate) enum ExperimentCommand {
    /// Fork many runs with one change, and compare. The server goes on with it by itself: Ctrl-C
    /// only ends looking on, and the same again looks on, or goes on with what was stopped
    Run(Box<RunArgs>),
    /// Show what an experiment has come to
    Report {
        /// Its name
        name: String,
    },
    /// Start no more forks, and cancel those that go on; `run` goes on again
    Stop {
        /// Its name
        name: String,
    },
}

/// Which runs, and what is different.
#[derive(Debug, clap::Args)]
pub(crate) struct RunArgs {
    /// Its name: what it has forked is found by it
    name: String,
    /// The runs (`run_…`), separated by commas
    #[arg(
        long,
        value_delimiter = ',',
        required_unless_present = "filters",
        conflicts_with = "filters"
    )]
    runs: Vec<String>,
    /// The newest runs of which this holds: definition, workflow_id, status, label.NAME,
    /// started_after or started_before (repeatable)
    #[arg(long = "where", id = "filters", value_name = "KEY=VALUE", value_parser = pair)]
    filters: Vec<(String, String)>,
    /// How many runs `--where` takes
    #[arg(long, default_value_t = 50, value_parser = clap::value_parser!(u32).range(1..=200))]
    limit: u32,
    /// Another definition: a file, a folder with a workflow.yaml, or the name of a published one
    /// (NAME or NAME@VERSION)
    #[arg(long, value_name = "FILE|NAME", conflicts_with_all = ["set", "when"])]
    definition: Option<String>,
    /// Another value in `with` of every `llm` action, or of the action of a node: JSON, a text, or
    /// @FILE with a text (repeatable)
    #[arg(long, value_name = "[NODE.]KEY=VALUE", value_parser = pair)]
    set: Vec<(String, String)>,
    /// Another condition of the transitions between two nodes (repeatable)
    #[arg(long, value_name = "FROM->TO=EXPRESSION", value_parser = condition)]
    when: Vec<Value>,
    /// Effects that are had all the same
    #[arg(long, value_delimiter = ',',
        value_parser = ["http", "workflow", "emit", "gate", "signal"])]
    allow: Vec<String>,
    /// What all forks together may cost, in millionths
    #[arg(long, value_name = "MICROS")]
    max_cost: Option<u64>,
    /// How many forks go on at the same time
    #[arg(long, value_name = "N", default_value_t = 4,
        value_parser = clap::value_parser!(u32).range(1..=32))]
    at_once: u32,
    /// Only say what would be called again, with its last cost
    #[arg(long)]
    dry_run: bool,
    /// Don't look on: the server goes on by itself
    #[arg(long, conflicts_with_all = ["check", "dry_run"])]
    detach: bool,
    /// Exit code 1 where a fork went another way, or wasn't made
    #[arg(long)]
    check: bool,
}

pub(crate) async fn execute(global: &Global, command: ExperimentCommand) -> Result<Exit, Failure> {
    let client = Client::new(&global.client)?;
    match command {
        ExperimentCommand::Run(args) => start(global, &client, *args).await,
        ExperimentCommand::Report { name } => {
            report(global, &client, &name, 0).await?;
            Ok(Exit::Completed)
        }
        ExperimentCommand::Stop { name } => {
            let path = format!("/experiments/{}/stop", segment(&name)?);
            let answer = client.post(&path, &[], &json!({})).await?;
            global.output.one(&answer, PROGRESS)?;
            Ok(Exit::Completed)
        }
    }
}

async fn start(global: &Global, client: &Client, args: RunArgs) -> Result<Exit, Failure> {
    let body = body(&args)?;
    if args.dry_run {
        let answer = client.post("/experiments", &[], &body).await?;
        return planned(global, &answer);
    }
    let begun = client.post("/experiments", &[], &body).await?;
    let name = &args.name;
    if args.detach {
        global.output.one(&begun, PROGRESS)?;
        goes_on(name);
        return Ok(Exit::Completed);
    }
    let progress = tokio::select! {
        progress = followed(client, name, begun.read()?) => progress?,
        interrupted = tokio::signal::ctrl_c() => {
            interrupted.context("Ctrl-C can't be listened to")?;
            goes_on(name);
            return Ok(Exit::Completed);
        }
    };
    let position = number(&progress["position"]);
    let parted = if progress["items"].as_array().is_some_and(|items| !items.is_empty()) {
        report(global, client, &args.name, position).await?
    } else {
        0
    };
    let refused = shown(&progress["refused"], REFUSED)?;
    if progress["status"] == "stopped" {
        say!("the experiment was stopped, and {} runs are left", number(&progress["left"]));
    }
    if progress["status"] == "capped" {
        say!(
            "the cap is reached: {} micros are spent, and {} runs are left",
            number(&progress["spent_micros"]),
            number(&progress["left"])
        );
    }
    let is_whole = refused == 0 && progress["status"] == "ended";
    Ok(if args.check && (parted > 0 || !is_whole) { Exit::Failed } else { Exit::Completed })
}

/// Looks on until an experiment comes to rest, and answers how far it is then.
async fn followed(client: &Client, name: &str, begun: Value) -> Result<Value, Failure> {
    let (mut progress, mut pause) = (begun, FIRST_PAUSE);
    let path = format!("/experiments/{}/progress", segment(name)?);
    let progress_bar = bar(None);
    while progress["status"] == "running" {
        let (left, running) = (number(&progress["left"]), number(&progress["running"]));
        progress_bar.set_length(number(&progress["runs"]));
        progress_bar.set_position(number(&progress["runs"]).saturating_sub(left + running));
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(LONGEST_PAUSE);
        progress = client.get(&path, &[]).await?.read()?;
    }
    progress_bar.finish_and_clear();
    Ok(progress)
}

fn goes_on(name: &str) {
    say!(
        "the experiment goes on: see wonder experiment report {name}, or end it with wonder \
         experiment stop {name}"
    );
}

/// Prints a report, and answers how many forks went another way.
async fn report(
    global: &Global,
    client: &Client,
    name: &str,
    position: u64,
) -> Result<u64, Failure> {
    let query = [("min_position", position.to_string())];
    let answer = client.get(&format!("/experiments/{}", segment(name)?), &query).await?;
    let mut report: Value = answer.read()?;
    match global.output {
        Format::Table => {
            for one in report["items"].as_array_mut().into_iter().flatten() {
                let place = if one["parts"].is_null() { &one["values"] } else { &one["parts"] };
                one["where"] = place.clone();
            }
            Format::Table.list(&Answer { text: report.to_string() }, RUNS)?;
        }
        other => other.value(&report, &[])?,
    }
    let told = |pointer: &str| report.pointer(pointer).and_then(Value::as_u64).unwrap_or(0);
    let total = |key: &str| told(&format!("/totals/{key}"));
    let (status, left) = (report["status"].as_str().unwrap_or_default(), number(&report["left"]));
    if status != "ended" {
        say!("the experiment is {status}, and {left} runs aren't forked");
    }
    say!(
        "{} runs: {} the same, {} with other values, {} another way, {} going on; {} end otherwise",
        total("runs"),
        total("same"),
        total("values"),
        total("path"),
        total("running"),
        total("ended_otherwise"),
    );
    say!(
        "{} calls made, {} adopted, {} stubbed, {} capped; {} micros before, {} after, {} spent",
        total("calls/made"),
        total("calls/adopted"),
        total("calls/stubbed"),
        total("calls/capped"),
        total("usage/before/cost_micros"),
        total("usage/after/cost_micros"),
        total("usage/spent/cost_micros"),
    );
    Ok(total("path"))
}

fn planned(global: &Global, answer: &Answer) -> Result<Exit, Failure> {
    let plan: Value = answer.read()?;
    match global.output {
        Format::Table => {
            shown(&plan["items"], PLANNED)?;
            shown(&plan["refused"], REFUSED)?;
        }
        other => other.value(&plan, &[])?,
    }
    say!(
        "{} adopted, {} calls may be made again ({} micros the last time)",
        number(&plan["adopted"]),
        number(&plan["calls"]),
        number(&plan["usage"]["cost_micros"]),
    );
    Ok(Exit::Completed)
}

/// A table of items, if there are any; answers how many.
fn shown(items: &Value, columns: &[Column]) -> Result<usize, Failure> {
    let count = items.as_array().map_or(0, Vec::len);
    if count > 0 {
        Format::Table.list(&Answer { text: json!({"items": items}).to_string() }, columns)?;
    }
    Ok(count)
}

fn number(value: &Value) -> u64 {
    value.as_u64().unwrap_or(0)
}

fn body(args: &RunArgs) -> Result<Value, Failure> {
    let mut change = json!({});
    if let Some(definition) = &args.definition {
        change["definition"] = run::target(definition)?;
    }
    for (key, text) in &args.set {
        // A text that isn't JSON stands for itself.
        let value = match text.strip_prefix('@') {
            Some(file) => json!(definition_file::read_text(Path::new(file))?),
            None => serde_json::from_str(text).unwrap_or_else(|_| json!(text)),
        };
        match key.split_once('.') {
            Some((node, key)) => change["nodes"][node][key] = value,
            None => change["with"][key] = value,
        }
    }
    if !args.when.is_empty() {
        change["conditions"] = json!(args.when);
    }
    let mut body = json!({
        "name": args.name, "change": change, "allow": args.allow, "at_once": args.at_once,
        "dry_run": args.dry_run,
    });
    if let Some(most) = args.max_cost {
        body["max_cost_micros"] = json!(most);
    }
    if args.filters.is_empty() {
        body["runs"] = json!(args.runs);
    } else {
        body["where"] = filter(&args.filters, args.limit)?;
    }
    Ok(body)
}

fn filter(filters: &[(String, String)], limit: u32) -> Result<Value, Failure> {
    let (mut of, mut labels) = (json!({"limit": limit}), Map::new());
    for (key, value) in filters {
        match (key.as_str(), key.strip_prefix("label.")) {
            (_, Some(label)) => drop(labels.insert(label.to_owned(), json!(value))),
            ("status", None) => of["status"] = json!(value.split(',').collect::<Vec<_>>()),
            (
                "definition" | "project_id" | "workflow_id" | "started_after" | "started_before",
                None,
            ) => {
                of[key] = json!(value);
            }
            (other, None) => {
                return Err(Failure::Refused(format!(
                    "--where doesn't know {other:?}: use definition, workflow_id, project_id, \
                     status, label.NAME, started_after or started_before"
                )));
            }
        }
    }
    if !labels.is_empty() {
        of["labels"] = Value::Object(labels);
    }
    Ok(of)
}

fn pair(text: &str) -> Result<(String, String), String> {
    let pair = text.split_once('=').filter(|(key, _)| !key.is_empty());
    let (key, value) = pair.ok_or("write KEY=VALUE")?;
    Ok((key.to_owned(), value.to_owned()))
}

/// `FROM->TO=EXPRESSION`; without an expression the condition is taken away.
fn condition(text: &str) -> Result<Value, String> {
    let parts = text.split_once('=').and_then(|(way, when)| {
        let (from, to) = way.split_once("->")?;
        Some((from.trim(), to.trim(), when.trim()))
    });
    let (from, to, when) = parts.ok_or("write FROM->TO=EXPRESSION")?;
    let when = if when.is_empty() { Value::Null } else { json!(when) };
    Ok(json!({"from": from, "to": to, "when": when}))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_set_is_of_all_models_or_of_a_node() {
        let args = RunArgs {
            name: "cheaper".to_owned(),
            runs: Vec::new(),
            filters: vec![pair("definition=review").expect("a pair"), pair("label.a=b").expect("")],
            limit: 3,
            definition: None,
            set: ["model=small", "temperature=0", "rate.prompt=Be brief: {{ text }}"]
                .map(|text| pair(text).expect("a pair"))
                .to_vec(),
            when: vec![condition("rate -> end=state.n == 2").expect("a condition")],
            allow: Vec::new(),
            max_cost: Some(5),
            at_once: 1,
            dry_run: false,
            detach: false,
            check: false,
        };
        let body = body(&args).expect("it can be said");
        let change = json!({
            "with": {"model": "small", "temperature": 0},
            "nodes": {"rate": {"prompt": "Be brief: {{ text }}"}},
            "conditions": [{"from": "rate", "to": "end", "when": "state.n == 2"}],
        });
        assert_eq!(body["change"], change);
        let of = json!({"definition": "review", "labels": {"a": "b"}, "limit": 3});
        assert_eq!((&body["where"], &body["max_cost_micros"]), (&of, &json!(5)));
        assert!(filter(&[("x".to_owned(), "y".to_owned())], 1).is_err());
        assert!(condition("a=b").is_err() && pair("=b").is_err());
    }
}
