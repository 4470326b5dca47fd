//! `wonder runs fork`, `retry` and `rerun`: runs that begin with what another one has.

use domain::span::Span;
use serde_json::{Map, Value, json};

use super::runs::segment;
use super::watch::Watch;
use super::{Global, run, state, watch};
use crate::client::{Answer, Client};
use crate::exit::{Exit, Failure};
use crate::output::{Column, say};

const STARTED: &[Column] = &[("run", "/id"), ("status", "/status")];
const CALLS: &[Column] = &[
    ("what", "/what"),
    ("node", "/node"),
    ("token", "/token"),
    ("event", "/sequence"),
    ("child", "/run_id"),
    ("input tokens", "/usage/input_tokens"),
    ("output tokens", "/usage/output_tokens"),
    ("cost micros", "/usage/cost_micros"),
];

/// What is to be different.
#[derive(Debug, clap::Args)]
pub(crate) struct Different {
    /// Another input: JSON, @FILE, or - for stdin
    #[arg(short, long, value_name = "JSON|@FILE|-")]
    pub(super) input: Option<String>,
    /// A JSON merge patch over `state` on the run's own level
    #[arg(short, long, value_name = "JSON|@FILE|-")]
    pub(super) state: Option<String>,
    /// The same over what a branch sees, by a token of it (repeatable)
    #[arg(long = "branch", value_name = "TOKEN=JSON", value_parser = of_token)]
    pub(super) branches: Vec<(String, Value)>,
    /// Another result of an attempt that is under way there, by its token (repeatable)
    #[arg(long = "result", value_name = "TOKEN=JSON", value_parser = of_token)]
    pub(super) results: Vec<(String, Value)>,
}

/// From where, and what is to be different.
#[derive(Debug, clap::Args)]
pub(crate) struct ForkArgs {
    /// The run (`run_…`)
    id: String,
    /// The last event that is shared (its sequence), or a time (RFC 3339)
    #[arg(long, value_name = "N|TIME", value_parser = state::moment)]
    at: String,
    #[command(flatten)]
    other: Different,
    /// Another definition of the project: NAME or NAME@VERSION
    #[arg(long, value_name = "NAME")]
    definition: Option<String>,
    /// Which later outcomes are adopted where the same is asked for: all, outside (all, and
    /// what people, signals and times came to), successes or none
    #[arg(long, default_value = "all", value_parser = ["all", "outside", "successes", "none"])]
    adopt: String,
    /// Only say what would be called again, with its last cost
    #[arg(long, conflicts_with = "wait")]
    dry_run: bool,
    #[command(flatten)]
    follow: Follow,
}

pub(crate) async fn execute(global: &Global, args: ForkArgs) -> Result<Exit, Failure> {
    let at = args.at.parse::<u64>().map_or_else(|_| json!(args.at), |sequence| json!(sequence));
    let mut body = json!({"at": at, "adopt": args.adopt, "dry_run": args.dry_run});
    let mut set = |name: &str, value: Option<Value>| {
        if let Some(value) = value {
            body[name] = value;
        }
    };
    set("input", args.other.input.as_deref().map(run::input).transpose()?);
    set("state", args.other.state.as_deref().map(|text| run::json(text, "state")).transpose()?);
    set("definition", args.definition.map(Value::String));
    let results =
        args.other.results.into_iter().map(|(token, result)| (token, json!({"result": result})));
    set("outcomes", some(results.collect()));
    set("branches", some(args.other.branches.into_iter().collect()));
    let client = Client::new(&global.client)?;
    let answer = client.post(&format!("/runs/{}/fork", segment(&args.id)?), &[], &body).await?;
    if args.dry_run {
        print_plan(global, &answer)?;
        return Ok(Exit::Completed);
    }
    args.follow.started(global, &client, &answer).await
}

/// Whether the new run is followed.
#[derive(Debug, clap::Args)]
pub(crate) struct Follow {
    /// Follow the new run to its end, with progress on stderr; its status is the exit code
    #[arg(short, long)]
    wait: bool,
    /// How long to wait, as in 90s or 10m; the run itself goes on
    #[arg(long, value_name = "DURATION")]
    timeout: Option<Span>,
    /// Say what models are answering as it comes, also where stderr isn't a terminal
    #[arg(long, requires = "wait")]
    deltas: bool,
}

impl Follow {
    async fn started(
        self,
        global: &Global,
        client: &Client,
        answer: &Answer,
    ) -> Result<Exit, Failure> {
        global.output.one(answer, STARTED)?;
        if !self.wait {
            return Ok(Exit::Completed);
        }
        let started: Value = answer.read()?;
        let timeout = self.timeout.map(Span::as_duration);
        let id = started["id"].as_str().unwrap_or_default();
        let watch = Watch { timeout, deltas: self.deltas, ..Watch::default() };
        Ok(match watch::watch(client, segment(id)?, watch).await? {
            Some((exit, _)) => exit,
            None => Exit::TimedOut,
        })
    }
}

/// What is retried.
#[derive(Debug, clap::Args)]
pub(crate) struct RetryArgs {
    /// The failed run (`run_…`)
    id: String,
    /// Only say what would be called again, with its last cost
    #[arg(long, conflicts_with = "wait")]
    dry_run: bool,
    #[command(flatten)]
    follow: Follow,
}

/// `wonder runs retry`.
pub(crate) async fn retry(global: &Global, args: RetryArgs) -> Result<Exit, Failure> {
    let client = Client::new(&global.client)?;
    let (path, body) =
        (format!("/runs/{}/retry", segment(&args.id)?), json!({"dry_run": args.dry_run}));
    let answer = client.post(&path, &[], &body).await?;
    if args.dry_run {
        print_plan(global, &answer)?;
        return Ok(Exit::Completed);
    }
    args.follow.started(global, &client, &answer).await
}

/// What is done again.
#[derive(Debug, clap::Args)]
pub(crate) struct RerunArgs {
    /// The run (`run_…`)
    id: String,
    /// By the version that a start would follow now, not the one that the run followed
    #[arg(long)]
    latest: bool,
    #[command(flatten)]
    follow: Follow,
}

/// `wonder runs rerun`.
pub(crate) async fn rerun(global: &Global, args: RerunArgs) -> Result<Exit, Failure> {
    let client = Client::new(&global.client)?;
    let version = if args.latest { "latest" } else { "pinned" };
    let (path, body) = (format!("/runs/{}/rerun", segment(&args.id)?), json!({"version": version}));
    let answer = client.post(&path, &[], &body).await?;
    args.follow.started(global, &client, &answer).await
}

/// Prints what a fork would do.
pub(super) fn print_plan(global: &Global, answer: &Answer) -> Result<(), Failure> {
    let plan: Value = answer.read()?;
    let parts = [("calls", "called"), ("later", "called if reached"), ("adopted", "adopted")];
    let mut items = Vec::new();
    for (part, what) in parts {
        for call in plan[part]["items"].as_array().into_iter().flatten() {
            let mut call = call.clone();
            call["what"] = json!(what);
            items.push(call);
        }
    }
    match global.output {
        crate::output::Format::Table => {
            global.output.list(&Answer { text: json!({"items": items}).to_string() }, CALLS)?;
        }
        other => other.value(&plan, &[])?,
    }
    let count = |part: &str| plan[part]["count"].as_u64().unwrap_or(0);
    let cost = |part: &str| plan[part]["usage"]["cost_micros"].as_u64().unwrap_or(0);
    say!(
        "{} adopted (saves {} micros), {} called at once ({} micros the last time), {} if reached \
         ({} micros)",
        count("adopted"),
        cost("adopted"),
        count("calls"),
        cost("calls"),
        count("later"),
        cost("later"),
    );
    match plan["children"].as_u64().unwrap_or(0) {
        0 => {}
        1 => say!("a live child run forks with it"),
        children => say!("{children} live child runs fork with it"),
    }
    Ok(())
}

fn some(members: Map<String, Value>) -> Option<Value> {
    (!members.is_empty()).then_some(Value::Object(members))
}

fn of_token(text: &str) -> Result<(String, Value), String> {
    let wrong = || "write the token's number, = and JSON, as in 7={\"text\": \"no\"}".to_owned();
    let (token, value) = text.split_once('=').ok_or_else(wrong)?;
    token.parse::<u64>().map_err(|_| wrong())?;
    let value = serde_json::from_str(value).map_err(|error| format!("{}: {error}", wrong()))?;
    Ok((token.to_owned(), value))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::of_token;

    #[test]
    fn a_result_names_its_token() {
        assert_eq!(of_token(r#"7={"n":1}"#), Ok(("7".to_owned(), json!({"n": 1}))));
        for wrong in ["7", "x=1", "7=", "=1"] {
            assert!(of_token(wrong).is_err(), "{wrong}");
        }
    }
}
