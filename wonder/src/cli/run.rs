//! `wonder run`: starts a run, and with `--wait` follows it to its end.

use std::io::Read;
use std::path::{Path, PathBuf};

use domain::span::Span;
use serde_json::{Map, Value, json};

use super::watch::Watch;
use super::{Global, mock_model, watch};
use crate::client::{ApiProblem, Client};
use crate::config::{self, AuthMode, ServerArgs};
use crate::definition_file;
use crate::exit::{EXIT_CODES, Exit, Failure};
use crate::output::{self, Column, Format, say};
use crate::server::{self, PortBusy};
use crate::wiring;

const COLUMNS: &[Column] =
    &[("run", "/run_id"), ("status", "/status"), ("output", "/output"), ("error", "/error")];

/// What to run, and how to wait for it.
#[derive(Debug, clap::Args)]
#[command(after_help = EXIT_CODES)]
pub(crate) struct RunArgs {
    /// A definition file, a folder with a workflow.yaml, or the name of a published definition (NAME or NAME@VERSION)
    #[arg(value_name = "FILE|DIR|NAME")]
    target: String,
    /// The run's input: JSON, @FILE, or - for stdin
    #[arg(short, long, value_name = "JSON|@FILE|-", default_value = "{}")]
    input: String,
    /// A label to find the run by (repeatable)
    #[arg(short, long = "label", value_name = "KEY=VALUE", value_parser = label)]
    labels: Vec<(String, String)>,
    /// Follow the run to its end, with progress on stderr; its status is the exit code
    #[arg(short, long)]
    wait: bool,
    /// Run it in this process on a throwaway store, without a server; waits
    #[arg(long)]
    pub(crate) local: bool,
    /// With --local: a host with a private address that http actions may call (repeatable)
    #[arg(
        long = "allow-private-host",
        alias = "allow-private-hosts",
        value_name = "HOST",
        requires = "local"
    )]
    allow_private_hosts: Vec<String>,
    /// With --local: configuration file [default: ./wonder.toml, then ~/.config/wonder/wonder.toml]
    #[arg(long, value_name = "FILE", env = "WONDER_CONFIG")]
    config: Option<PathBuf>,
    /// How long to wait, as in 90s or 10m; the run itself goes on
    #[arg(long, value_name = "DURATION")]
    timeout: Option<Span>,
    /// With --wait: say what models are answering as it comes, also where stderr isn't a terminal
    #[arg(long)]
    deltas: bool,
}

pub(crate) async fn execute(global: &Global, args: RunArgs) -> Result<Exit, Failure> {
    // Files are read and checked first: what is wrong with them needs no server.
    let definition = target(&args.target)?;
    let input = input(&args.input)?;
    if !args.local {
        return start(
            global.output,
            &Client::new(&global.client)?,
            global,
            args,
            definition,
            input,
        )
        .await;
    }
    let folder = tempfile::tempdir()?;
    let flags = ServerArgs {
        config: args.config.clone(),
        allow_private_hosts: args.allow_private_hosts.clone(),
        ..ServerArgs::default()
    };
    let config = config::load(&flags, AuthMode::Dev)
        .map_err(|error| Failure::Refused(format!("{error:#}")))?
        .value
        .throwaway(folder.path());
    let listener = server::bind(config.listen, PortBusy::Fail)?;
    let shutdown = server::signals()?;
    let platform = wiring::start(&config, listener).await?;
    let client = Client::to(&platform.url)?;
    let run = async {
        mock_model::ensure(&client).await?;
        start(global.output, &client, global, args, definition, input).await
    };
    let ended = tokio::select! {
        ended = run => ended,
        // The store goes away, and the run with it.
        () = shutdown.requested() => Ok(Exit::Cancelled),
    };
    server::stop_at_once(platform, &shutdown).await?;
    ended
}

async fn start(
    format: Format,
    client: &Client,
    global: &Global,
    args: RunArgs,
    definition: Value,
    input: Value,
) -> Result<Exit, Failure> {
    let labels: Map<String, Value> =
        args.labels.iter().map(|(key, value)| (key.clone(), value.as_str().into())).collect();
    let project = client.project(&global.project).await?;
    let body = json!({
        "project_id": project, "definition": definition, "input": input, "labels": labels,
    });
    let started: Value = client.post("/runs", &[], &body).await?.read()?;
    let run_id = started["id"].as_str().unwrap_or_default().to_owned();
    say!("started {run_id} · {}/api/v1/runs/{run_id}", client.base());
    if !(args.wait || args.local) {
        let result = json!({
            "run_id": run_id, "status": started["status"], "output": null, "error": null,
        });
        format.value(&result, COLUMNS)?;
        return Ok(Exit::Completed);
    }
    let timeout = args.timeout.map(Span::as_duration);
    let watch = Watch { timeout, deltas: args.deltas, ..Watch::default() };
    let Some((exit, progress)) = watch::watch(client, &run_id, watch).await? else {
        let result = json!({"run_id": run_id, "status": "running", "output": null, "error": null});
        show(format, &result)?;
        return Ok(Exit::TimedOut);
    };
    let result = json!({
        "run_id": run_id,
        "status": progress.status,
        "output": progress.output,
        "error": progress.error,
    });
    show(format, &result)?;
    Ok(exit)
}

/// For people the output alone, as JSON that can be read; the rest was told as it happened.
fn show(format: Format, result: &Value) -> Result<(), Failure> {
    if format != Format::Table {
        return format.value(result, COLUMNS);
    }
    match &result["output"] {
        Value::Null => Ok(()),
        output => output::line(&serde_json::to_string_pretty(output)?),
    }
}

/// The definition of a file as JSON, or a name as it stands.
fn target(target: &str) -> Result<Value, Failure> {
    let path = Path::new(target);
    let is_path = target.contains(std::path::MAIN_SEPARATOR) || target.starts_with('.');
    if path.is_dir() {
        match definition_file::of_folder(path) {
            Ok(file) => {
                say!("using {}", file.display());
                return Ok(serde_json::to_value(definition_file::read(&file)?)?);
            }
            Err(failure) if is_path => return Err(failure),
            // A published definition may be called like some folder.
            Err(_) => {
                say!("the folder {target} has no workflow.yaml: taken as a published name");
                return Ok(target.into());
            }
        }
    }
    let named_like_a_file = path
        .extension()
        .is_some_and(|extension| ["yaml", "yml", "json"].iter().any(|known| extension == *known));
    if path.is_file() || named_like_a_file || is_path {
        return Ok(serde_json::to_value(definition_file::read(path)?)?);
    }
    Ok(target.into())
}

/// JSON as it stands, from a file after `@`, or from stdin.
pub(crate) fn input(text: &str) -> Result<Value, Failure> {
    json(text, "input")
}

/// JSON that was given as itself, in a file or on stdin; `what` it is stands in the refusal.
pub(crate) fn json(text: &str, what: &str) -> Result<Value, Failure> {
    let text = match (text, text.strip_prefix('@')) {
        (_, Some(file)) => definition_file::read_text(Path::new(file))?,
        ("-", _) => {
            let mut text = String::new();
            let limit = domain::limits::INPUT_BYTES as u64;
            std::io::stdin().take(limit + 1).read_to_string(&mut text)?;
            text
        }
        _ => text.to_owned(),
    };
    serde_json::from_str(&text).map_err(|error| {
        let problem = ApiProblem {
            status: 400,
            detail: format!("the {what} is not JSON: {error}"),
            code: "invalid_json".to_owned(),
            pointer: Some(format!("/{what}")),
            ..ApiProblem::default()
        };
        Failure::Api(Box::new(problem))
    })
}

/// `key=value`.
pub(crate) fn label(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((key, value)) if !key.is_empty() => Ok((key.to_owned(), value.to_owned())),
        _ => Err("write KEY=VALUE".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn input_is_json_or_a_file() {
        assert_eq!(input("{\"a\": 1}").expect("JSON"), json!({"a": 1}));
        let file = tempfile::NamedTempFile::new().expect("a file");
        std::fs::write(file.path(), "[1]").expect("it is written");
        assert_eq!(input(&format!("@{}", file.path().display())).expect("JSON"), json!([1]));
    }

    #[test]
    fn wrong_input_is_a_refusal_with_a_place() {
        let failure = input("{a: 1}").expect_err("that is no JSON");
        assert_eq!(failure.exit(), Exit::Refused);
        let Failure::Api(problem) = failure else { panic!("another failure") };
        assert_eq!(problem.pointer.as_deref(), Some("/input"));
        assert_eq!(input("@/does/not/exist").expect_err("no file").exit(), Exit::Refused);
    }

    #[test]
    fn a_target_may_be_a_folder() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().to_str().expect("text");
        assert_eq!(target(path).expect_err("it is empty").exit(), Exit::Refused);
        let text = "name: x\nstart: a\nnodes: {a: {compute: {state.x: 1}}}\n";
        std::fs::write(folder.path().join("workflow.yaml"), text).expect("it is written");
        assert_eq!(target(path).expect("it is read")["name"], "x");
    }

    #[test]
    fn a_target_is_a_file_or_a_name() {
        assert_eq!(target("judge-panel@2").expect("a name"), json!("judge-panel@2"));
        assert_eq!(target("missing.yaml").expect_err("no such file").exit(), Exit::Refused);
    }
}
