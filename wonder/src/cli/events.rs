//! `wonder events`: pages of the journal, and the journal live.

use protocol::Speed;
use serde_json::Value;

use super::Global;
use super::runs::segment;
use crate::client::{Client, EventStream, Told};
use crate::exit::{Exit, Failure};
use crate::output::{self, Column, Format};

pub(super) const COLUMNS: &[Column] = &[
    ("position", "/position"),
    ("recorded", "/recorded_at"),
    ("aggregate", "/aggregate_id"),
    ("seq", "/sequence"),
    ("type", "/event_type"),
];

/// What to read.
#[derive(Debug, clap::Subcommand)]
pub(crate) enum EventsCommand {
    /// A page of events, oldest first
    List {
        #[command(flatten)]
        filter: FilterArgs,
        /// How many
        #[arg(long, default_value_t = 50, value_parser = clap::value_parser!(u32).range(1..=1000))]
        limit: u32,
    },
    /// History and then what happens, until interrupted
    Tail {
        #[command(flatten)]
        filter: FilterArgs,
        /// Replay a run's history, spaced as it was recorded and so many times as fast; no wait is
        /// longer than 10 s
        #[arg(long, value_name = "FACTOR", requires = "run")]
        speed: Option<Speed>,
        /// Tell also what goes on and isn't kept: pieces of what models answer
        #[arg(long, conflicts_with = "speed")]
        ephemeral: bool,
    },
}

/// Which events.
#[derive(Debug, clap::Args)]
pub(crate) struct FilterArgs {
    /// Only events of this run (`run_…`)
    #[arg(long, value_name = "ID")]
    run: Option<String>,
    /// Only events of this type, as in `run_completed`
    #[arg(long = "type", value_name = "TYPE")]
    event_type: Option<String>,
    /// Only events of runs and things of the project that --project names
    #[arg(long, conflicts_with = "run")]
    of_project: bool,
    /// Only events of this workflow (`wf_…`), its triggers and its runs
    #[arg(long, value_name = "ID", conflicts_with = "run")]
    workflow: Option<String>,
    /// Only events of runs with this label (repeatable; all must hold)
    #[arg(
        short, long = "label", value_name = "KEY=VALUE", value_parser = super::run::label,
        conflicts_with = "run"
    )]
    labels: Vec<(String, String)>,
    /// Only events after this cursor
    #[arg(long, value_name = "CURSOR")]
    after: Option<String>,
}

impl FilterArgs {
    fn path(&self) -> Result<String, Failure> {
        match &self.run {
            Some(run) => Ok(format!("/runs/{}/events", segment(run)?)),
            None => Ok("/events".to_owned()),
        }
    }

    fn labels(&self) -> impl Iterator<Item = String> + '_ {
        self.labels.iter().map(|(key, value)| format!("{key}={value}"))
    }

    /// The project that it is narrowed to.
    async fn project(&self, client: &Client, global: &Global) -> Result<Option<String>, Failure> {
        match self.of_project {
            true => client.project_id(&global.project).await.map(Some),
            false => Ok(None),
        }
    }
}

pub(crate) async fn execute(global: &Global, command: EventsCommand) -> Result<Exit, Failure> {
    let client = Client::new(&global.client)?;
    match command {
        EventsCommand::List { filter, limit } => {
            let path = filter.path()?;
            let mut query = vec![("limit", limit.to_string())];
            query.extend(filter.project(&client, global).await?.map(|id| ("project_id", id)));
            query.extend(filter.labels().map(|label| ("label", label)));
            query.extend(filter.workflow.map(|id| ("workflow_id", id)));
            query.extend(filter.event_type.map(|kind| ("type", kind)));
            query.extend(filter.after.map(|cursor| ("after", cursor)));
            let answer = client.get(&path, &query).await?;
            global.output.list(&answer, COLUMNS)?;
            Ok(Exit::Completed)
        }
        EventsCommand::Tail { filter, speed, ephemeral } => {
            let asked = [
                ("type", filter.event_type.clone()),
                ("project_id", filter.project(&client, global).await?),
                ("workflow_id", filter.workflow.clone()),
                ("speed", speed.map(|one| one.to_string())),
                ("ephemeral", ephemeral.then(|| "true".to_owned())),
            ];
            let asked = asked.into_iter().filter_map(|(key, value)| Some((key.to_owned(), value?)));
            let asked = asked.chain(filter.labels().map(|label| ("label".to_owned(), label)));
            let events = client.follow(&filter.path()?, asked.collect(), filter.after);
            tail(global.output, events).await
        }
    }
}

async fn tail(format: Format, mut events: EventStream) -> Result<Exit, Failure> {
    while let Some((told, text)) = events.next().await? {
        match format {
            Format::Table => output::line(&row(&told))?,
            Format::Json | Format::Jsonl => output::line(&text)?,
            Format::Yaml => {
                let document = match &told {
                    Told::Event(event) => serde_saphyr::to_string(event),
                    Told::Ephemeral(message) => serde_saphyr::to_string(message),
                };
                output::line(&format!("---\n{}", document.map_err(anyhow::Error::from)?))?;
            }
        }
    }
    Ok(Exit::Completed)
}

fn row(told: &Told) -> String {
    let (position, at, id, number, what) = match told {
        Told::Event(event) => (
            event.position,
            event.recorded_at,
            &event.aggregate_id,
            event.sequence.to_string(),
            event.event_type.clone(),
        ),
        Told::Ephemeral(message) => (
            message.position,
            message.recorded_at,
            &message.aggregate_id,
            "-".to_owned(),
            format!("{} {}", message.event_type, Value::from(message.payload.text.as_str())),
        ),
    };
    let at = at.to_rfc3339_opts(chrono::SecondsFormat::Millis, true);
    format!("{position:>8} {at} {id} {number:>5} {what}")
}
