//! `wonder audit`: who did what, the heads that are signed of history, and its check offline.

use std::path::{Path, PathBuf};

use ::projections::AuditTrail;
use chassis::journal::Journal;
use domain::audit::{AuditPublicKey, SignedHead};
use serde_json::Value;

use super::Global;
use crate::audit::chain::Evidence;
use crate::audit::claims::Claims;
use crate::audit::{self, Report};
use crate::client::{Answer, Client};
use crate::config::{self, AuthMode, Config, ServerArgs};
use crate::exit::{Exit, Failure};
use crate::offline::Offline;
use crate::output::{self, Format, say};

mod bundle;
mod log;

/// What to do.
#[derive(Debug, clap::Subcommand)]
pub(crate) enum AuditCommand {
    /// List who did what, newest first
    List(Box<log::ListArgs>),
    /// Write a part of history with all that proves it to a file, which `verify --bundle` checks
    Export(bundle::ExportArgs),
    /// Read all events and check that they can be what happened; nothing may write to it meanwhile.
    /// Or check a bundle, without server or store
    #[command(after_help = "Exit codes: 0 where nothing was found, else 1")]
    Verify(Box<VerifyArgs>),
    /// List signed heads of the audit chain, for keeping them elsewhere
    Heads(HeadsArgs),
}

/// Which ones.
#[derive(Debug, clap::Args)]
pub(crate) struct HeadsArgs {
    /// Only those after this position
    #[arg(long, value_name = "POSITION", default_value_t = 0)]
    after: u64,
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
    /// Heads that were kept elsewhere: the answer of `GET /api/v1/audit/heads`, or its items as JSON
    /// lines
    #[arg(long, value_name = "FILE")]
    heads: Option<PathBuf>,
    /// The public key that heads are checked with, in PEM [default: that of the configured audit key]
    #[arg(long, value_name = "FILE")]
    public_key: Option<PathBuf>,
    /// Check this bundle (`wonder audit export`) instead of a journal
    #[arg(long, value_name = "FILE", conflicts_with = "against")]
    bundle: Option<PathBuf>,
    #[command(flatten)]
    server: ServerArgs,
}

pub(crate) async fn execute(global: &Global, command: AuditCommand) -> Result<Exit, Failure> {
    match command {
        AuditCommand::List(args) => log::list(global, *args).await,
        AuditCommand::Export(args) => bundle::export(global, args).await,
        AuditCommand::Verify(args) => match &args.bundle {
            Some(path) => {
                let kept = args.heads.as_deref().map(kept).transpose()?.unwrap_or_default();
                let key = args.public_key.as_deref().map(public_key).transpose()?;
                bundle::verify(global, path, key, kept)
            }
            None => check(global, *args).await,
        },
        AuditCommand::Heads(args) => heads(global, args).await,
    }
}

async fn heads(global: &Global, args: HeadsArgs) -> Result<Exit, Failure> {
    let client = Client::new(&global.client)?;
    let (mut all, mut after) = (Value::Null, Some(args.after));
    while let Some(position) = after {
        let asked = [("after", position.to_string()), ("limit", "1000".to_owned())];
        let mut page: Value = client.get("/audit/heads", &asked).await?.read()?;
        after = page["next_after"].as_u64();
        if let (Some(items), Some(more)) =
            (all["items"].as_array_mut(), page["items"].as_array_mut())
        {
            items.append(more);
        } else {
            all = page;
        }
    }
    if let Some(answer) = all.as_object_mut() {
        answer.shift_remove("next_after");
    }
    global.output.list(&Answer { text: all.to_string() }, HEADS)?;
    Ok(Exit::Completed)
}

const HEADS: &[output::Column] =
    &[("position", "/position"), ("signed", "/signed_at"), ("hash", "/hash"), ("key", "/key_id")];

async fn check(global: &Global, args: VerifyArgs) -> Result<Exit, Failure> {
    let config = config::load(&args.server, AuthMode::Keys)
        .map_err(|error| Failure::Refused(format!("{error:#}")))?
        .value;
    let claims = match &args.against {
        None => Claims::default(),
        Some(path) => {
            Claims::parse(&text(path)?).map_err(|error| Failure::Refused(error.to_string()))?
        }
    };
    let mut evidence = Evidence::default();
    if let Some(path) = &args.heads {
        evidence.kept = kept(path)?;
    }
    evidence.key = match &args.public_key {
        Some(path) => Some(public_key(path)?),
        None => config.audit_key()?.map(|key| key.public()),
    };
    let report = verify(&config, &claims, evidence).await?;
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
    ("dropped", "/dropped"),
    ("sealed", "/sealed/position"),
    ("signed", "/sealed/signed_position"),
    ("findings", "/finding_count"),
];

fn text(path: &Path) -> Result<String, Failure> {
    std::fs::read_to_string(path)
        .map_err(|error| Failure::Refused(format!("{} can't be read: {error}", path.display())))
}

fn kept(path: &Path) -> Result<Vec<SignedHead>, Failure> {
    let heads = kept_heads(&text(path)?);
    heads.map_err(|error| Failure::Refused(format!("{}: {error}", path.display())))
}

fn public_key(path: &Path) -> Result<AuditPublicKey, Failure> {
    let key = AuditPublicKey::from_pem(&text(path)?);
    key.map_err(|error| Failure::Refused(format!("{}: {error}", path.display())))
}

/// Heads, as the API answers them or line by line.
fn kept_heads(text: &str) -> serde_json::Result<Vec<SignedHead>> {
    #[derive(serde::Deserialize)]
    struct Answer {
        items: Vec<SignedHead>,
    }
    if let Ok(Answer { items }) = serde_json::from_str(text) {
        return Ok(items);
    }
    text.lines().filter(|line| !line.trim().is_empty()).map(serde_json::from_str).collect()
}

async fn verify(
    config: &Config,
    claims: &Claims,
    mut evidence: Evidence,
) -> Result<Report, Failure> {
    let offline = Offline::open(config).await?;
    let journal = offline.journal();
    let trail = AuditTrail::open(offline.views(), journal.epoch()).await;
    let report = match trail {
        Ok(trail) => {
            evidence.trail = trail;
            read(&*journal, claims, &evidence).await
        }
        Err(error) => Err(Failure::from(anyhow::Error::from(error))),
    };
    offline.close().await;
    report
}

async fn read(
    journal: &dyn Journal,
    claims: &Claims,
    evidence: &Evidence,
) -> Result<Report, Failure> {
    let bar = output::bar(None);
    let report = audit::verify(journal, claims, evidence, |position, head| {
        bar.set_length(head);
        bar.set_position(position);
    })
    .await;
    bar.finish_and_clear();
    Ok(report.map_err(anyhow::Error::from)?)
}
