//! `wonder replay --verify`: decides the histories of runs again, and compares.

use futures::StreamExt;
use futures::stream;
use serde_json::{Value, json};

use super::Global;
use super::runs::segment;
use crate::client::{Answer, Client};
use crate::exit::{Exit, Failure};
use crate::output::{self, Column, say};

const COLUMNS: &[Column] = &[
    ("run", "/run_id"),
    ("verified", "/verified"),
    ("events", "/events"),
    ("differs at", "/difference/sequence"),
    ("recorded", "/difference/recorded/type"),
    ("decided", "/difference/decided/type"),
];
/// Runs that are decided again at the same time.
const AT_ONCE: usize = 4;

/// Which runs.
#[derive(Debug, clap::Args)]
pub(crate) struct ReplayArgs {
    /// Decide each run's history again from the outcomes, answers and signals that it records, and
    /// compare every event; exit code 1 where one differs
    #[arg(long, required = true)]
    verify: bool,
    /// The runs (`run_…`) [default: all of the workspace]
    runs: Vec<String>,
    /// Of all runs, only those of the definition with this name
    #[arg(long, value_name = "NAME", conflicts_with = "runs")]
    definition: Option<String>,
}

pub(crate) async fn execute(global: &Global, args: ReplayArgs) -> Result<Exit, Failure> {
    let client = Client::new(&global.client)?;
    let (runs, archived) = match args.runs.is_empty() {
        true => all(&client, args.definition.as_deref()).await?,
        false => (args.runs, 0),
    };
    let bar = output::bar(Some(runs.len() as u64));
    let verified = stream::iter(&runs).map(|run| {
        let client = &client;
        async move {
            let path = format!("/runs/{}/verify", segment(run)?);
            client.post(&path, &[], &json!({})).await?.read::<Value>()
        }
    });
    let mut verified = verified.buffered(AT_ONCE);
    let (mut items, mut events) = (Vec::new(), 0);
    while let Some(one) = verified.next().await {
        let one = one?;
        bar.inc(1);
        events += one["events"].as_u64().unwrap_or(0);
        if runs.len() == 1 || one["verified"] != true {
            items.push(one);
        }
    }
    bar.finish_and_clear();
    let differing = items.iter().filter(|one| one["verified"] != true).count();
    let answer = Answer { text: json!({"items": items}).to_string() };
    global.output.list(&answer, COLUMNS)?;
    let passed_over = match archived {
        0 => String::new(),
        count => format!(", {count} more are archived"),
    };
    say!("{} runs, {events} events, {differing} differ{passed_over}", runs.len());
    Ok(if differing > 0 { Exit::Failed } else { Exit::Completed })
}

/// The ids of all runs, newest first, and how many there are of which content was dropped: those
/// can't be decided again.
async fn all(client: &Client, definition: Option<&str>) -> Result<(Vec<String>, u64), Failure> {
    let (mut ids, mut archived) = (Vec::new(), 0);
    let mut cursor: Option<String> = None;
    loop {
        let mut query = vec![("limit", "200".to_owned())];
        query.extend(definition.map(|name| ("definition", name.to_owned())));
        query.extend(cursor.take().map(|cursor| ("cursor", cursor)));
        let page: Value = client.get("/runs", &query).await?.read()?;
        for run in page["items"].as_array().into_iter().flatten() {
            match run["id"].as_str() {
                Some(id) if run["archived"].is_null() => ids.push(id.to_owned()),
                _ => archived += 1,
            }
        }
        match page["next_cursor"].as_str() {
            Some(next) => cursor = Some(next.to_owned()),
            None => return Ok((ids, archived)),
        }
    }
}
