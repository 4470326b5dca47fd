//! `wonder projections`: read models, without their server.

use std::sync::Arc;

use ::projections::{Comparison, Progress, Projections, RebuildError, Views};
use chassis::journal::Journal;
use serde_json::json;
use tokio_util::sync::CancellationToken;

use super::Global;
use crate::config::{self, AuthMode, ServerArgs};
use crate::exit::{Exit, Failure};
use crate::offline::Offline;
use crate::output;

/// What to do with read models.
#[derive(Debug, clap::Subcommand)]
pub(crate) enum ProjectionsCommand {
    /// Fold a read model anew from the journal; a server on a data folder must be stopped, those on
    /// a database go on
    Rebuild(RebuildArgs),
}

/// Which one, and where.
#[derive(Debug, clap::Args)]
pub(crate) struct RebuildArgs {
    /// The read model: `runs`, `resources`, `audit` or `metrics`
    name: String,
    /// Change nothing, only compare; exit code 1 where they differ
    #[arg(long)]
    compare: bool,
    #[command(flatten)]
    server: ServerArgs,
}

pub(crate) async fn execute(global: &Global, command: ProjectionsCommand) -> Result<Exit, Failure> {
    let ProjectionsCommand::Rebuild(args) = command;
    let config = config::load(&args.server, AuthMode::Keys)
        .map_err(|error| Failure::Refused(format!("{error:#}")))?
        .value;
    let offline = Offline::open(&config).await?;
    let rebuilt = rebuild(offline.journal(), offline.views(), &args).await;
    offline.close().await;
    let comparison = rebuilt?;
    let difference = comparison.difference.as_ref();
    let result = json!({
        "projection": args.name,
        "position": comparison.position,
        "difference": difference.map(|found| json!({"table": found.table, "row": found.row})),
    });
    global.output.value(&result, &[])?;
    let differs = args.compare && difference.is_some();
    Ok(if differs { Exit::Failed } else { Exit::Completed })
}

async fn rebuild(
    journal: Arc<dyn Journal>,
    views: Views,
    args: &RebuildArgs,
) -> Result<Comparison, Failure> {
    let head = journal.head().await.map_err(anyhow::Error::from)?;
    let settings = ::projections::Config::default();
    let projections =
        Projections::open(journal, views, settings).await.map_err(anyhow::Error::from)?;
    let shutdown = CancellationToken::new();
    let folding = projections.start(None, &shutdown);
    projections.caught_up(head).await;
    let bar = output::bar(Some(head));
    let shown = bar.clone();
    let progress = move |at: Progress| {
        shown.set_length(at.target);
        shown.set_position(at.position);
    };
    let done = if args.compare {
        projections.compare(&args.name, progress).await
    } else {
        projections.rebuild(&args.name, progress).await
    };
    bar.finish_and_clear();
    shutdown.cancel();
    for task in folding {
        task.await.map_err(anyhow::Error::from)?;
    }
    done.map_err(|error| match error {
        RebuildError::NoSuchProjection(name) => Failure::Refused(format!(
            "there is no read model {name:?}: choose one of {}",
            projections.names().join(", ")
        )),
        other => Failure::Other(other.into()),
    })
}
