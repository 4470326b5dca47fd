//! `wonder runs archive`: drops content of runs that have ended, where all of it was written
//! before.

use std::path::{Path, PathBuf};

use domain::ids::RunId;
use domain::retention::Keep;
use serde_json::{Value, json};

use super::Global;
use super::bundle::export;
use crate::bundle_file;
use crate::client::{Answer, Client};
use crate::exit::{Exit, Failure};
use crate::output::Column;

const DROPPED: &[Column] = &[
    ("run", "/run_id"),
    ("keeps", "/keep"),
    ("events", "/events"),
    ("dropped", "/dropped"),
    ("bytes", "/bytes"),
    ("archive", "/archive"),
];

/// Which runs, and what of them stays.
#[derive(Debug, clap::Args)]
pub(crate) struct ArchiveArgs {
    /// The runs (`run_…`)
    #[arg(required = true)]
    ids: Vec<RunId>,
    /// What stays beside what happened and when: input and output (results), or neither (header)
    #[arg(long, value_name = "WHAT", value_parser = keep)]
    keep: Keep,
    /// Write each run as a bundle into this folder first, and check it
    #[arg(long, value_name = "FOLDER", conflicts_with = "dry_run")]
    to: Option<PathBuf>,
    /// Only say what would be dropped
    #[arg(long)]
    dry_run: bool,
}

fn keep(text: &str) -> Result<Keep, String> {
    match text {
        "results" => Ok(Keep::Results),
        "header" => Ok(Keep::Header),
        _ => Err("use results or header".to_owned()),
    }
}

pub(super) async fn execute(
    global: &Global,
    client: &Client,
    args: ArchiveArgs,
) -> Result<Exit, Failure> {
    let mut rows = Vec::with_capacity(args.ids.len());
    for id in &args.ids {
        let archive = match &args.to {
            Some(folder) => Some(written(client, folder, *id).await?),
            None => None,
        };
        let mut body = json!({"keep": args.keep, "dry_run": args.dry_run});
        if let Some(archive) = &archive {
            body["archive"] = archive.clone();
        }
        let answer = client.post(&format!("/runs/{id}/archive"), &[], &body).await?;
        let mut row: Value = answer.read()?;
        if let Some(archive) = archive {
            row["archive"] = archive["location"].clone();
        }
        rows.push(row);
    }
    global.output.list(&Answer { text: json!({"items": rows}).to_string() }, DROPPED)?;
    Ok(Exit::Completed)
}

/// Writes a run into a folder, and says where and what it is.
async fn written(client: &Client, folder: &Path, id: RunId) -> Result<Value, Failure> {
    std::fs::create_dir_all(folder)?;
    let path = folder.join(format!("{id}.wonder"));
    export::from_server(client, id, &path).await?;
    let sha256 = bundle_file::sha256(&path)?;
    Ok(json!({"location": path.display().to_string(), "sha256": sha256}))
}
