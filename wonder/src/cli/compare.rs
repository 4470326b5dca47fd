//! `wonder compare`: two versions of a definition, and recorded runs of one by the other.

use std::path::PathBuf;

use domain::ids::DefinitionId;
use serde_json::{Value, json};

use super::Global;
use crate::client::{Answer, Client};
use crate::definition_file;
use crate::exit::{Exit, Failure};
use crate::output::{Column, Format, say};

const CHANGES: &[Column] = &[
    ("change", "/kind"),
    ("place", "/pointer"),
    ("transition", "/transition"),
    ("before", "/before"),
    ("after", "/after"),
];

const PARTED: &[Column] = &[
    ("run", "/run_id"),
    ("parts by", "/kind"),
    ("at event", "/sequence"),
    ("node", "/node"),
    ("recorded", "/recorded/type"),
    ("decided", "/decided/type"),
    ("problem", "/problems/0/message"),
];

const NOT_REHEARSED: &[Column] = &[("run", "/run_id"), ("not rehearsed", "/why")];

/// Which versions.
#[derive(Debug, clap::Args)]
pub(crate) struct CompareArgs {
    /// The definition: its name in the project, or its id (`wfd_…`)
    definition: String,
    /// The version that runs were recorded of [default: the one before `--to`; the newest where
    /// that is a file]
    #[arg(long, value_name = "VERSION", value_parser = clap::value_parser!(u64).range(1..))]
    from: Option<u64>,
    /// The version that it is compared to, or a file that isn't published [default: the newest]
    #[arg(long, value_name = "VERSION|FILE")]
    to: Option<String>,
    /// How many of the newest runs of `--from` that have ended are rehearsed by `--to`
    #[arg(long, value_name = "N", default_value_t = 50,
        value_parser = clap::value_parser!(u32).range(0..=500))]
    runs: u32,
    /// Exit code 1 where a run goes another way, or its input is refused
    #[arg(long)]
    check: bool,
}

pub(crate) async fn execute(global: &Global, args: CompareArgs) -> Result<Exit, Failure> {
    let CompareArgs { definition, from, to, runs, check } = args;
    let client = Client::new(&global.client)?;
    let to = to.map(|to| to.parse().map_err(|_| PathBuf::from(to)));
    let (file, to): (_, Option<u64>) = match to {
        Some(Err(file)) => (Some(json!(definition_file::read_at(&file)?)), None),
        Some(Ok(version)) => (None, Some(version)),
        None => (None, None),
    };
    let (id, newest) = found(global, &client, &definition).await?;
    let path = format!("/workflow-definitions/{id}/compare");
    let query = |from: u64| vec![("from", from.to_string()), ("runs", runs.to_string())];
    let answer = match file {
        Some(definition) => client.post(&path, &query(from.unwrap_or(newest)), &definition).await?,
        None => {
            let to = to.unwrap_or(newest);
            let mut query = query(from.unwrap_or(to.saturating_sub(1).max(1)));
            query.push(("to", to.to_string()));
            client.get(&path, &query).await?
        }
    };
    let body: Value = answer.read()?;
    match global.output {
        Format::Table => show(&body)?,
        other => other.one(&answer, &[])?,
    }
    let told = |key: &str| body["rehearsal"][key].as_u64().unwrap_or(0);
    let (all, same, values) = (told("runs"), told("same"), told("values"));
    let parted = all.saturating_sub(same + values);
    say!("{all} runs rehearsed: {same} the same, {values} with other values, {parted} part");
    Ok(if check && parted > 0 { Exit::Failed } else { Exit::Completed })
}

/// The id of a definition that is given by its name or by its id, and its newest version.
async fn found(global: &Global, client: &Client, text: &str) -> Result<(String, u64), Failure> {
    let view: Option<Value> = if text.parse::<DefinitionId>().is_ok() {
        Some(client.get(&format!("/workflow-definitions/{text}"), &[]).await?.read()?)
    } else {
        client.named("/workflow-definitions", &global.project, text).await?
    };
    let missing = || Failure::Refused(format!("there is no definition {text:?} in the project"));
    let view = view.ok_or_else(missing)?;
    let id = view["id"].as_str().map(str::to_owned);
    Ok((id.ok_or_else(missing)?, view["version"].as_u64().unwrap_or(1)))
}

fn show(body: &Value) -> Result<(), Failure> {
    let rehearsal = &body["rehearsal"];
    let tables = [
        (&body["changes"], CHANGES),
        (&rehearsal["parted"], PARTED),
        (&rehearsal["not_rehearsed"], NOT_REHEARSED),
    ];
    for (items, columns) in tables {
        if items.as_array().is_some_and(|items| !items.is_empty()) {
            Format::Table.list(&Answer { text: json!({"items": items}).to_string() }, columns)?;
        }
    }
    Ok(())
}
