//! `wonder audit`: checks a journal offline.

use std::path::PathBuf;

use chassis::journal::Journal;

use super::Global;
use crate::audit::claims::Claims;
use crate::audit::{self, Report};
use crate::config::{self, AuthMode, Config, ServerArgs};
use crate::exit::{Exit, Failure};
use crate::offline::Offline;
use crate::output::{self, Format, say};

/// What to check.
#[derive(Debug, clap::Subcommand)]
pub(crate) enum AuditCommand {
    /// Read all events and check that they can be what happened; nothing may write to it meanwhile
    #[command(after_help = "Exit codes: 0 where nothing was found, else 1")]
    Verify(VerifyArgs),
}

/// Which journal, and against what.
#[derive(Debug, clap::Args)]
pub(crate) struct VerifyArgs {
    /// What clients were told, as JSON lines
    #[arg(
        long,
        value_name = "LOG",
        long_help = "What clients were told, as JSON lines:
  {\"op\":\"start\",\"key\":…,\"run_id\":…,\"position\":N,\"status\":201,\"labels\":{…}}
  {\"op\":\"cancel\",\"key\":…,\"run_id\":…,\"position\":N,\"status\":200}
  {\"op\":\"refused\",\"key\":…,\"status\":4xx}
  {\"op\":\"ended\",\"run_id\":…,\"status\":\"completed\",\"output\":…}
`key` is the Idempotency-Key; `labels` are given where no other run has the same. `key`, `labels`
and `output` may be left out."
    )]
    against: Option<PathBuf>,
    #[command(flatten)]
    server: ServerArgs,
}

pub(crate) async fn execute(global: &Global, command: AuditCommand) -> Result<Exit, Failure> {
    let AuditCommand::Verify(args) = command;
    let config = config::load(&args.server, AuthMode::Keys)
        .map_err(|error| Failure::Refused(format!("{error:#}")))?
        .value;
    let claims = match &args.against {
        None => Claims::default(),
        Some(path) => {
            let text = std::fs::read_to_string(path).map_err(|error| {
                Failure::Refused(format!("{} can't be read: {error}", path.display()))
            })?;
            Claims::parse(&text).map_err(|error| Failure::Refused(error.to_string()))?
        }
    };
    let report = verify(&config, &claims).await?;
    let value = serde_json::to_value(&report)?;
    global.output.value(&value, COLUMNS)?;
    if global.output == Format::Table {
        report.findings.iter().for_each(|finding| say!("{}", finding.text()));
        let more = report.finding_count - report.findings.len() as u64;
        if more > 0 {
            say!("and {more} more");
        }
    }
    Ok(if report.ok { Exit::Completed } else { Exit::Failed })
}

const COLUMNS: &[output::Column] = &[
    ("ok", "/ok"),
    ("head", "/head"),
    ("events", "/events"),
    ("aggregates", "/aggregates"),
    ("runs", "/runs"),
    ("claims", "/claims"),
    ("findings", "/finding_count"),
];

async fn verify(config: &Config, claims: &Claims) -> Result<Report, Failure> {
    let offline = Offline::open(config).await?;
    let report = read(&*offline.journal(), claims).await;
    offline.close().await;
    report
}

async fn read(journal: &dyn Journal, claims: &Claims) -> Result<Report, Failure> {
    let bar = output::bar(None);
    let report = audit::verify(journal, claims, |position, head| {
        bar.set_length(head);
        bar.set_position(position);
    })
    .await;
    bar.finish_and_clear();
    Ok(report.map_err(anyhow::Error::from)?)
}
