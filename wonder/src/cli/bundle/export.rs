//! `wonder bundle export`: from a server, or from a journal that no server writes to.

use std::path::{Path, PathBuf};

use domain::bundle::places;
use domain::ids::RunId;
use serde_json::json;

use super::super::Global;
use super::refused;
use crate::bundle_file::{self, Findings, Secrets, opened, pack};
use crate::client::Client;
use crate::config::{self, AuthMode, ServerArgs};
use crate::exit::{Exit, Failure};
use crate::offline::Offline;
use crate::output::{Column, say};
use crate::part_file::PartFile;

const WRITTEN: &[Column] = &[
    ("file", "/file"),
    ("run", "/run_id"),
    ("runs", "/runs"),
    ("events", "/events"),
    ("bytes", "/bytes"),
    ("children left out", "/children_left_out"),
    ("secrets", "/secrets/count"),
    ("masked", "/masked"),
];
/// What no look through a bundle finds.
const UNFOUND: &str = "Only what looks like a known key is found: no password, no key of another \
                       form, nothing that is encoded, and nothing that tells of people";

/// Which run, and where to.
#[derive(Debug, clap::Args)]
pub(crate) struct ExportArgs {
    /// The run (`run_…`)
    id: RunId,
    /// The file to write; one that is there is replaced
    #[arg(short, long, value_name = "FILE")]
    file: PathBuf,
    /// Read the data folder or the database instead of asking a server; on a data folder no server
    /// may run meanwhile
    #[arg(long)]
    offline: bool,
    /// Write the lines as they are, not compressed
    #[arg(long)]
    plain: bool,
    /// Write it although keys stand in inputs, results or definitions
    #[arg(long, conflicts_with = "mask")]
    allow_findings: bool,
    /// Put masks in the place of keys. What was made of them may be decided otherwise then
    #[arg(long)]
    mask: bool,
    #[command(flatten)]
    server: ServerArgs,
}

pub(super) async fn execute(global: &Global, args: ExportArgs) -> Result<Exit, Failure> {
    let mut plain = bundle_file::plain(&args.file)?;
    write(global, &args, &mut plain).await?;
    // A server looks for itself; what was allowed is counted.
    let secrets = match (args.offline, args.mask, args.allow_findings) {
        (true, true, _) => Secrets::Masked,
        (true, false, _) | (false, false, true) => Secrets::Found,
        (false, true, _) | (false, false, false) => Secrets::Unseen,
    };
    let (mut file, findings) = pack(plain.whole()?, &args.file, secrets, !args.plain)?;
    if findings.count > 0 && secrets == Secrets::Found && !args.allow_findings {
        return Err(unfit(&findings));
    }
    let mut told = checked(file.whole()?, &args.file).await?;
    if findings.count > 0 {
        told["secrets"] = json!({"count": findings.count, "items": findings.first});
    }
    file.keep()?;
    global.output.value(&told, WRITTEN)?;
    say!("{UNFOUND}.");
    Ok(Exit::Completed)
}

/// The refusal of a bundle that has keys in it.
fn unfit(findings: &Findings) -> Failure {
    let text = format!(
        "{}\nGive the keys up where they are in use, and use --mask, which puts masks there, or \
         --allow-findings",
        places(&findings.first, findings.count)
    );
    Failure::Refused(text)
}

/// Says what a server asks for in the words of the command line.
fn with_options(failure: Failure) -> Failure {
    match failure {
        Failure::Api(mut problem) if problem.code == "bundle_has_keys" => {
            let detail = problem.detail.replace("ask with secrets=mask", "use --mask");
            problem.detail = detail.replace("secrets=allow", "--allow-findings");
            Failure::Api(problem)
        }
        failure => failure,
    }
}

/// Writes a run of a server into a file, once it has been read as any reader does.
pub(in crate::cli) async fn from_server(
    client: &Client,
    id: RunId,
    path: &Path,
) -> Result<(), Failure> {
    let mut plain = bundle_file::plain(path)?;
    // All of it stays: nothing else has it once it is dropped.
    download(client, id, "allow", &mut plain).await?;
    let (file, _) = pack(plain.whole()?, path, Secrets::Unseen, true)?;
    file.keep()
}

async fn download(
    client: &Client,
    id: RunId,
    secrets: &str,
    file: &mut PartFile,
) -> Result<(), Failure> {
    let query = [("secrets", secrets.to_owned())];
    client.download(&format!("/runs/{id}/bundle"), &query, file).await
}

async fn write(global: &Global, args: &ExportArgs, file: &mut PartFile) -> Result<(), Failure> {
    if !args.offline {
        let client = Client::new(&global.client)?;
        let secrets = match (args.mask, args.allow_findings) {
            (true, _) => "mask",
            (false, true) => "allow",
            (false, false) => "refuse",
        };
        return download(&client, args.id, secrets, file).await.map_err(with_options);
    }
    let config = config::load(&args.server, AuthMode::Keys)
        .map_err(|error| Failure::Refused(format!("{error:#}")))?
        .value;
    let offline = Offline::open(&config).await?;
    let read = bundle_file::lines(&offline.journal(), args.id, file).await;
    offline.close().await;
    read
}

/// Reads what was written as any reader does; what is told of it.
async fn checked(part: &Path, file: &Path) -> Result<serde_json::Value, Failure> {
    let view = opened(part)?.view().await.map_err(refused)?;
    let bytes = std::fs::metadata(part)?.len();
    Ok(json!({
        "file": file.display().to_string(),
        "run_id": view.manifest.run_id,
        "runs": view.runs.len(),
        "events": view.events,
        "bytes": bytes,
        "children_left_out": Some(view.children_left_out).filter(|count| *count > 0),
        "masked": Some(true).filter(|_| view.manifest.is_masked),
    }))
}
