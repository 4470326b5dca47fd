//! `wonder bundle`: a run as one file, and what can be done with it where no server is.

use std::path::{Path, PathBuf};

use ::projections::{Bundle, Histories};
use domain::ids::{RunId, WorkspaceId};
use protocol::{DiffTo, Explain, Rejection, StateAt};
use serde_json::{Value, json};

use super::explain::AskedArgs;
use super::{Global, diff, events, explain, state};
use crate::bundle_file::opened;
use crate::client::Answer;
use crate::exit::{Exit, Failure};
use crate::output::{Column, Format, line, say};

pub(super) mod export;
mod fork;
mod regression;

/// What to do.
#[derive(Debug, clap::Subcommand)]
pub(crate) enum BundleCommand {
    /// Write a run with its children, definitions and values into a file
    Export(Box<export::ExportArgs>),
    /// Say what is in a bundle
    Open(OpenArgs),
    /// List the events of a run
    Events(EventsArgs),
    /// Show a run's state after an event or at a time, or after each event
    State(StateArgs),
    /// Show what each token of a run did
    Timeline(RunArgs),
    /// Explain why a run or a token is where it is
    Explain(ExplainArgs),
    /// Compare two runs, or two moments of one
    Diff(DiffArgs),
    /// Say how a run would go on with something different: what would be called, and where it parts
    Fork(Box<fork::ForkArgs>),
    /// Decide recorded runs again, by their own or by a changed definition, and compare
    #[command(after_help = regression::EXIT_CODES)]
    Test(regression::TestArgs),
}

/// Which bundle.
#[derive(Debug, clap::Args)]
pub(crate) struct OpenArgs {
    /// The bundle
    file: PathBuf,
}

/// Which run of a bundle.
#[derive(Debug, clap::Args)]
pub(crate) struct RunArgs {
    /// The bundle
    file: PathBuf,
    /// Not the run that was exported, but this one of its children
    #[arg(long, value_name = "ID")]
    run: Option<RunId>,
}

/// Which events.
#[derive(Debug, clap::Args)]
pub(crate) struct EventsArgs {
    #[command(flatten)]
    run: RunArgs,
    /// Only events after this one (its sequence)
    #[arg(long, value_name = "N", default_value_t = 0)]
    after: u64,
}

/// Which moment.
#[derive(Debug, clap::Args)]
pub(crate) struct StateArgs {
    #[command(flatten)]
    run: RunArgs,
    /// After this event (its sequence), or at this time (RFC 3339) [default: the last one]
    #[arg(long, value_name = "N|TIME", conflicts_with = "step")]
    at: Option<StateAt>,
    /// After each event, one after the other
    #[arg(long)]
    step: bool,
}

/// What of a run.
#[derive(Debug, clap::Args)]
pub(crate) struct ExplainArgs {
    #[command(flatten)]
    run: RunArgs,
    #[command(flatten)]
    asked: AskedArgs,
}

/// What is compared.
#[derive(Debug, clap::Args)]
pub(crate) struct DiffArgs {
    #[command(flatten)]
    run: RunArgs,
    /// The bundle of another run
    #[arg(conflicts_with_all = ["from", "to"], required_unless_present = "from")]
    other: Option<PathBuf>,
    /// The first moment: after this event (its sequence), or at this time (RFC 3339)
    #[arg(long, value_name = "N|TIME")]
    from: Option<StateAt>,
    /// The second moment [default: the last one]
    #[arg(long, value_name = "N|TIME", requires = "from")]
    to: Option<StateAt>,
}

const RUN: &[Column] = &[
    ("run", "/run_id"),
    ("status", "/status"),
    ("definition", "/definition"),
    ("started", "/started_at"),
    ("ended", "/ended_at"),
    ("input", "/input"),
    ("output", "/output"),
    ("error", "/error"),
    ("events", "/events"),
    ("values", "/values"),
    ("children left out", "/children_left_out"),
    ("exported", "/exported_at"),
    ("by", "/engine_version"),
    ("masked", "/masked"),
];
const RUNS: &[Column] = &[
    ("child", "/run_id"),
    ("status", "/status"),
    ("definition", "/definition"),
    ("parent", "/parent_run_id"),
    ("events", "/sequence"),
    ("error", "/error/code"),
];
const TIMELINE: &[Column] = &[
    ("token", "/token"),
    ("node", "/node"),
    ("group", "/group"),
    ("index", "/index"),
    ("status", "/status"),
    ("attempts", "/attempts"),
    ("from event", "/first_sequence"),
    ("to", "/last_sequence"),
    ("started", "/started_at"),
    ("ended", "/ended_at"),
];
/// Events that are shown at once.
const PAGE: usize = 500;

pub(crate) async fn execute(global: &Global, command: BundleCommand) -> Result<Exit, Failure> {
    match command {
        BundleCommand::Export(args) => return export::execute(global, *args).await,
        BundleCommand::Open(args) => open(global, &args.file).await?,
        BundleCommand::Events(args) => list(global, &args).await?,
        BundleCommand::State(args) => states(global, &args).await?,
        BundleCommand::Timeline(args) => timeline(global, &args).await?,
        BundleCommand::Explain(args) => why(global, args).await?,
        BundleCommand::Diff(args) => compare(global, args).await?,
        BundleCommand::Fork(args) => return fork::execute(global, *args).await,
        BundleCommand::Test(args) => return regression::execute(global, args).await,
    }
    Ok(Exit::Completed)
}

async fn open(global: &Global, file: &Path) -> Result<(), Failure> {
    let view = opened(file)?.view().await.map_err(refused)?;
    if global.output != Format::Table {
        return global.output.value(&json!(view), &[]);
    }
    let (root, children) = view.runs.split_first().ok_or_else(|| no_run(file))?;
    let mut sheet = json!(root);
    for (key, value) in [
        ("events", json!(view.events)),
        ("values", json!(view.values)),
        ("children_left_out", json!(Some(view.children_left_out).filter(|count| *count > 0))),
        ("exported_at", json!(view.manifest.exported_at)),
        ("engine_version", json!(view.manifest.engine_version)),
        ("masked", json!(Some(true).filter(|_| view.manifest.is_masked))),
    ] {
        sheet[key] = value;
    }
    global.output.value(&sheet, RUN)?;
    if children.is_empty() { Ok(()) } else { rows(Format::Table, &json!(children), RUNS) }
}

async fn list(global: &Global, args: &EventsArgs) -> Result<(), Failure> {
    let bundle = opened(&args.run.file)?;
    let (run_id, _) = args.run.of(&bundle)?;
    let (mut all, mut after) = (Vec::new(), args.after);
    loop {
        let page = bundle.envelopes(run_id, after, PAGE).await.map_err(refused)?;
        let Some(last) = page.last() else { break };
        after = last.sequence;
        match global.output {
            Format::Jsonl => page.iter().try_for_each(|event| line(&json!(event).to_string()))?,
            _ => all.extend(page),
        }
    }
    match global.output {
        Format::Jsonl => Ok(()),
        other => rows(other, &json!(all), events::COLUMNS),
    }
}

async fn states(global: &Global, args: &StateArgs) -> Result<(), Failure> {
    let bundle = opened(&args.run.file)?;
    let (run_id, workspace_id) = args.run.of(&bundle)?;
    let histories = Histories::of(&bundle);
    if !args.step {
        let at = args.at.unwrap_or(StateAt::Latest);
        let found = histories.run_at(workspace_id, run_id, at).await.map_err(refused)?;
        return state::show(global, &Answer { text: json!(found).to_string() });
    }
    // One document each, however many there are.
    let format = if global.output == Format::Json { Format::Jsonl } else { global.output };
    let mut shown = Ok(());
    let steps = histories.steps(workspace_id, run_id, |event, state| {
        shown = match format {
            Format::Table => line(&step(event, state)),
            Format::Jsonl | Format::Json => line(&json!(state).to_string()),
            Format::Yaml => line("---").and_then(|()| Format::Yaml.value(&json!(state), &[])),
        };
        shown.is_ok()
    });
    steps.await.map_err(refused)?;
    shown
}

/// A step for people: the event, and where the run then is.
fn step(event: &str, state: &protocol::RunState) -> String {
    let tokens = state.state.pointer("/live/tokens").and_then(Value::as_object);
    let tokens = tokens.into_iter().flatten().map(|(id, token)| {
        let node = token["node"].as_str().unwrap_or_default();
        format!("{id}@{node}")
    });
    let tokens = tokens.collect::<Vec<_>>().join(" ");
    let at = state.at.to_rfc3339_opts(chrono::SecondsFormat::Millis, true);
    let (sequence, status) = (state.sequence, state.status.as_str());
    let text = format!("{sequence:>6} {at} {event:<20} {status:<10} {tokens}");
    text.trim_end().to_owned()
}

async fn timeline(global: &Global, args: &RunArgs) -> Result<(), Failure> {
    let bundle = opened(&args.file)?;
    let (run_id, workspace_id) = args.of(&bundle)?;
    let entries = Histories::of(&bundle).run_timeline(workspace_id, run_id).await;
    rows(global.output, &json!(entries.map_err(refused)?), TIMELINE)
}

async fn why(global: &Global, args: ExplainArgs) -> Result<(), Failure> {
    let bundle = opened(&args.run.file)?;
    let (run_id, workspace_id) = args.run.of(&bundle)?;
    let AskedArgs { token, node, at } = args.asked;
    let at = at.as_deref().and_then(|at| at.parse().ok()).unwrap_or(StateAt::Latest);
    let asked = Explain { token, node, at };
    let explanation = Histories::of(&bundle).explained(workspace_id, run_id, asked).await;
    let explanation = explanation.map_err(refused)?;
    match global.output {
        Format::Table => line(&explain::text(&explanation)),
        other => other.value(&json!(explanation), &[]),
    }
}

async fn compare(global: &Global, args: DiffArgs) -> Result<(), Failure> {
    let bundle = opened(&args.run.file)?;
    let (run_id, workspace_id) = args.run.of(&bundle)?;
    let histories = Histories::of(&bundle);
    let diff = match &args.other {
        Some(other) => {
            let other = opened(other)?;
            let theirs = (other.manifest().workspace_id, other.manifest().run_id);
            histories.differing_from((workspace_id, run_id), Histories::of(&other), theirs).await
        }
        None => {
            let from = args.from.unwrap_or(StateAt::Latest);
            let to = args.to.unwrap_or(StateAt::Latest);
            histories.differing(workspace_id, run_id, DiffTo::Moments { from, to }).await
        }
    };
    let diff = diff.map_err(refused)?;
    match global.output {
        Format::Table => diff::show(&diff),
        other => other.value(&json!(diff), &[]),
    }
}

impl RunArgs {
    /// The run, and its workspace.
    fn of(&self, bundle: &Bundle) -> Result<(RunId, WorkspaceId), Failure> {
        let run_id = self.run.unwrap_or(bundle.manifest().run_id);
        if !bundle.runs().contains(&run_id) {
            let text =
                format!("{run_id} isn't in {}: see `wonder bundle open`", self.file.display());
            return Err(Failure::Refused(text));
        }
        Ok((run_id, bundle.manifest().workspace_id))
    }
}

fn no_run(file: &Path) -> Failure {
    Failure::Refused(format!("{} has no run", file.display()))
}

/// What a server would have answered with a problem.
fn refused(rejection: Rejection) -> Failure {
    for problem in &rejection.problems {
        say!("  {}: {}", problem.pointer, problem.message);
    }
    Failure::Refused(format!("{} ({})", rejection.message, rejection.code))
}

fn rows(format: Format, items: &Value, columns: &[Column]) -> Result<(), Failure> {
    format.list(&Answer { text: json!({"items": items}).to_string() }, columns)
}
