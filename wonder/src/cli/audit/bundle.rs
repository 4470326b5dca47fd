//! `wonder audit export`, and the check of what it wrote: without server, store or network.

use std::io::{BufRead, BufReader, Read as _};
use std::path::{Path, PathBuf};

use domain::audit::bundle::{Finding, LINE_BYTES, Verified, Verifier};
use domain::audit::{AuditPublicKey, SignedHead};

use crate::cli::Global;
use crate::client::Client;
use crate::exit::{Exit, Failure};
use crate::output::{self, Format, say};
use crate::part_file::PartFile;

/// What to export, and where to.
#[derive(Debug, clap::Args)]
pub(crate) struct ExportArgs {
    /// The file to write; it is there when the bundle is whole
    file: PathBuf,
    /// The first position; the bundle begins at the signed head before it [default: 1]
    #[arg(long, value_name = "POSITION")]
    from: Option<u64>,
    /// The last position; the bundle ends at the first signed head from there on [default: that of
    /// the newest one]
    #[arg(long, value_name = "POSITION")]
    to: Option<u64>,
    /// Tell also the events of all other workspaces (for the platform's administrator)
    #[arg(long)]
    all_workspaces: bool,
}

impl ExportArgs {
    fn query(&self) -> Vec<(&'static str, String)> {
        let mut query = Vec::new();
        query.extend(self.from.map(|from| ("from", from.to_string())));
        query.extend(self.to.map(|to| ("to", to.to_string())));
        query.extend(self.all_workspaces.then(|| ("all_workspaces", "true".to_owned())));
        query
    }
}

pub(super) async fn export(global: &Global, args: ExportArgs) -> Result<Exit, Failure> {
    let client = Client::new(&global.client)?;
    let mut file = PartFile::create(&args.file)?;
    client.download("/audit/export", &args.query(), &mut file).await?;
    file.keep()?;
    say!("wrote {}: check it with wonder audit verify --bundle", args.file.display());
    Ok(Exit::Completed)
}

/// Checks a bundle line by line.
pub(super) fn verify(
    global: &Global,
    path: &Path,
    key: Option<AuditPublicKey>,
    kept: Vec<SignedHead>,
) -> Result<Exit, Failure> {
    let unreadable = |error: std::io::Error| {
        Failure::Refused(format!("{} can't be read: {error}", path.display()))
    };
    let mut file = BufReader::new(std::fs::File::open(path).map_err(unreadable)?);
    let mut verifier = Verifier::new(key, kept);
    let mut line = Vec::new();
    // Of a line that is longer than any may be, the rest is the next one: both are findings.
    while (&mut file)
        .take(LINE_BYTES as u64 + 2)
        .read_until(b'\n', &mut line)
        .map_err(unreadable)?
        > 0
    {
        if line.last() == Some(&b'\n') {
            line.pop();
        }
        verifier.line(&line);
        line.clear();
    }
    let report = verifier.finish();
    tell(global, &report)?;
    Ok(if report.ok { Exit::Completed } else { Exit::Failed })
}

fn tell(global: &Global, report: &Verified) -> Result<(), Failure> {
    global.output.value(&serde_json::to_value(report)?, COLUMNS)?;
    if global.output != Format::Table {
        return Ok(());
    }
    for Finding { line, position, problem } in &report.findings {
        match position {
            Some(position) => say!("position {position} (line {line}): {problem}"),
            None => say!("line {line}: {problem}"),
        }
    }
    let more = report.finding_count - report.findings.len() as u64;
    if more > 0 {
        say!("and {more} more");
    }
    if report.own_key {
        say!(
            "signatures were checked with the key that the bundle names: give the one you know with --public-key"
        );
    }
    Ok(())
}

const COLUMNS: &[output::Column] = &[
    ("ok", "/ok"),
    ("first", "/first"),
    ("last", "/last"),
    ("events", "/events"),
    ("leaves", "/leaves"),
    ("heads", "/heads"),
    ("kept heads", "/kept_heads"),
    ("signed", "/signed"),
    ("key", "/key_id"),
    ("first bad", "/first_bad"),
    ("findings", "/finding_count"),
];
