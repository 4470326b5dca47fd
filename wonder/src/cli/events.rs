//! `wonder events`: pages of the journal, and the journal live.

use protocol::Speed;

use super::Global;
use super::runs::segment;
use crate::client::Client;
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
}

pub(crate) async fn execute(global: &Global, command: EventsCommand) -> Result<Exit, Failure> {
    let client = Client::new(&global.client)?;
    match command {
        EventsCommand::List { filter, limit } => {
            let path = filter.path()?;
            let mut query = vec![("limit", limit.to_string())];
            query.extend(filter.event_type.map(|kind| ("type", kind)));
            query.extend(filter.after.map(|cursor| ("after", cursor)));
            let answer = client.get(&path, &query).await?;
            global.output.list(&answer, COLUMNS)?;
            Ok(Exit::Completed)
        }
        EventsCommand::Tail { filter, speed } => tail(&client, global.output, filter, speed).await,
    }
}

async fn tail(
    client: &Client,
    format: Format,
    filter: FilterArgs,
    speed: Option<Speed>,
) -> Result<Exit, Failure> {
    let asked = [("type", filter.event_type.clone()), ("speed", speed.map(|one| one.to_string()))];
    let asked = asked.into_iter().filter_map(|(key, value)| Some((key.to_owned(), value?)));
    let query = asked.collect();
    let mut events = client.follow(&filter.path()?, query, filter.after.clone());
    while let Some((event, text)) = events.next().await? {
        match format {
            Format::Table => output::line(&format!(
                "{:>8} {} {} {:>5} {}",
                event.position,
                event.recorded_at.to_rfc3339_opts(chrono::SecondsFormat::Millis, true),
                event.aggregate_id,
                event.sequence,
                event.event_type
            ))?,
            Format::Json | Format::Jsonl => output::line(&text)?,
            Format::Yaml => {
                let document = serde_saphyr::to_string(&event).map_err(anyhow::Error::from)?;
                output::line(&format!("---\n{document}"))?;
            }
        }
    }
    Ok(Exit::Completed)
}
