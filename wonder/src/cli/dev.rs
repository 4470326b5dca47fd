//! `wonder dev`: a platform on loopback with demo workflows; runs one to its end.

use serde_json::{Value, json};

use super::watch::Watch;
use super::{Global, apply, mock_model, program, watch};
use crate::client::{Client, ClientArgs};
use crate::config::{self, AuthMode, Config, ServerArgs};
use crate::definition_file;
use crate::examples::{EXAMPLES, Example};
use crate::exit::{EXIT_CODES, Exit, Failure};
use crate::output::{self, say};
use crate::server::{self, PortBusy};
use crate::wiring::{self, Platform};

/// How to start.
#[derive(Debug, clap::Args)]
#[command(after_help = EXIT_CODES)]
pub(crate) struct DevArgs {
    #[command(flatten)]
    server: ServerArgs,
    /// Keep the data in a throwaway folder
    #[arg(long, conflicts_with = "data_dir")]
    ephemeral: bool,
    /// Load no demo workflows and run none
    #[arg(long, conflicts_with = "exit")]
    no_demo: bool,
    /// End when the demo run has ended, with its exit code
    #[arg(long)]
    exit: bool,
}

pub(crate) async fn execute(global: &Global, args: DevArgs) -> Result<Exit, Failure> {
    let mut config = config::load(&args.server, AuthMode::Dev)
        .map_err(|error| Failure::Refused(format!("{error:#}")))?
        .value
        .alone();
    if !config.listen.ip().is_loopback() {
        return Err(Failure::Refused(format!(
            "`wonder dev` signs everybody in, so it listens on loopback only, and {} is not: \
             use `wonder serve`",
            config.listen
        )));
    }
    // The folder is removed when this value is dropped, after the platform has stopped.
    let folder = if args.ephemeral { Some(tempfile::tempdir()?) } else { None };
    if let Some(folder) = &folder {
        config.data_dir = folder.path().to_owned();
    }
    let listener = server::bind(config.listen, PortBusy::TakeNext)?;
    let shutdown = server::signals()?;
    let platform = wiring::start(&config, listener).await?;
    let session = session(global, &args, &config, &platform);
    let ended = tokio::select! {
        ended = session => ended,
        () = shutdown.requested() => Ok(Exit::Completed),
    };
    // A demo that has ended, and data that goes away, leave nothing to wait for.
    if args.exit || args.ephemeral {
        server::stop_at_once(platform, &shutdown).await?;
    } else {
        say!("stopping");
        platform.stop(&shutdown).await?;
    }
    ended
}

/// Loads and runs the demo, says what is next, and serves on (or ends, with `--exit`).
async fn session(
    global: &Global,
    args: &DevArgs,
    config: &Config,
    platform: &Platform,
) -> Result<Exit, Failure> {
    let client = client(config, platform)?;
    // Without a key nobody is let in, this program included.
    let is_let_in = config.auth == AuthMode::Dev || config.admin_key.is_some();
    let default_model = if is_let_in { mock_model::ensure_default(&client).await? } else { None };
    banner(platform, config, args.ephemeral, default_model.as_deref());
    let mut last_run = None;
    if !args.no_demo {
        let (exit, run_id) = demo(&client, &global.project).await?;
        if args.exit {
            return Ok(exit);
        }
        last_run = Some(run_id);
    }
    next_commands(&platform.url, &global.client.server, last_run.as_deref());
    std::future::pending().await
}

/// Signed in as the administrator, where the server lets nobody else in.
fn client(config: &Config, platform: &Platform) -> Result<Client, Failure> {
    let api_key = config.admin_key.as_ref().map(|key| key.reveal().to_owned());
    Client::new(&ClientArgs { server: platform.url.clone(), api_key })
}

/// Publishes all examples and runs the first one to its end.
async fn demo(client: &Client, project: &str) -> Result<(Exit, String), Failure> {
    let project = client.project(project).await?;
    for example in EXAMPLES {
        apply::publish(client, project.as_deref(), &definition(example)?).await?;
    }
    let names: Vec<_> = EXAMPLES.iter().map(|example| example.name).collect();
    say!("loaded {}", names.join(", "));
    let example = &EXAMPLES[0];
    let input: Value = serde_json::from_str(example.input)?;
    let body = json!({
        "project_id": project,
        "definition": example.name,
        "input": input,
        "labels": {"demo": "true"},
    });
    let started: Value = client.post("/runs", &[], &body).await?.read()?;
    let run_id = started["id"].as_str().unwrap_or_default().to_owned();
    say!("running {} as {run_id}", example.name);
    match watch::watch(client, &run_id, Watch::default()).await? {
        Some((exit, progress)) => {
            // An error was told with the end.
            if progress.error.is_null() {
                say!("{}", serde_json::to_string_pretty(&progress.output)?);
            }
            Ok((exit, run_id))
        }
        None => Ok((Exit::TimedOut, run_id)),
    }
}

fn definition(example: &Example) -> Result<Value, Failure> {
    let definition = definition_file::check(example.definition).map_err(|problems| {
        anyhow::anyhow!("the embedded definition {} is invalid: {problems:?}", example.name)
    })?;
    Ok(serde_json::to_value(definition)?)
}

fn banner(platform: &Platform, config: &Config, ephemeral: bool, default_model: Option<&str>) {
    let (bold, plain) = if output::has_colour(output::is_interactive()) {
        ("\u{1b}[1m", "\u{1b}[0m")
    } else {
        ("", "")
    };
    let kept = if ephemeral { "removed at the end" } else { "kept" };
    let who = match config.auth {
        AuthMode::Dev => "every caller on it is signed in as dev",
        AuthMode::Keys => "callers need an API key",
    };
    let url = &platform.url;
    say!("{bold}wonder {} · development server{plain}", env!("CARGO_PKG_VERSION"));
    say!("  on this machine only: {who}");
    say!("  data    {} ({kept})", platform.place);
    say!("  API     {url}/api/v1      OpenAPI  {url}/openapi.json");
    say!("  docs    {url}/docs        metrics  {url}/metrics");
    match default_model {
        Some(model) => say!("  models  {model} is the default; add others as model profiles"),
        None => say!("  models  none is the default; add some as model profiles"),
    }
}

fn next_commands(url: &str, default_server: &str, run_id: Option<&str>) {
    let server = if url == default_server { String::new() } else { format!(" --server {url}") };
    let wonder = program::typed();
    say!("next:");
    if let Some(run_id) = run_id {
        say!("  {wonder} runs show {run_id}{server}");
        say!("  {wonder} state {run_id} --at 5{server}");
        say!("  {wonder} events list --run {run_id}{server}");
    }
    say!("  {wonder} run FILE --input @input.json --wait{server}");
    say!("Ctrl-C stops it");
}
