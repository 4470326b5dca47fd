//! Watching a run to its end, with progress on stderr.

use std::time::{Duration, Instant};

use protocol::Speed;

use crate::client::{Client, Told};
use crate::exit::{Exit, Failure};
use crate::output;
use crate::progress::{Deltas, Display, Progress};

/// Nothing new on screen more often than this.
const REFRESH: Duration = Duration::from_millis(80);

/// How a run is watched.
#[derive(Debug, Default)]
pub(crate) struct Watch {
    pub(crate) timeout: Option<Duration>,
    /// What has happened at a pace.
    pub(crate) speed: Option<Speed>,
    /// What models are answering is said as it comes. On a terminal it always is.
    pub(crate) deltas: bool,
}

/// Follows a run until it ends. `None` where the time-out came first: the run goes on.
pub(crate) async fn watch(
    client: &Client,
    run_id: &str,
    watch: Watch,
) -> Result<Option<(Exit, Progress)>, Failure> {
    let Watch { timeout, speed, deltas } = watch;
    let query = match speed {
        Some(speed) => vec![("speed".to_owned(), speed.to_string())],
        None if deltas || output::is_interactive() => {
            vec![("ephemeral".to_owned(), "true".to_owned())]
        }
        None => Vec::new(),
    };
    let mut events = client.follow(&format!("/runs/{run_id}/events"), query, None);
    let mut deltas = Deltas::default();
    let mut progress = Progress::default();
    let mut display = Display::for_stderr();
    let watched = Instant::now();
    let mut shown: Option<Instant> = None;
    let mut bounds = None;
    let deadline = timeout.map(|timeout| tokio::time::Instant::now() + timeout);
    loop {
        let next = events.next();
        let told = match deadline {
            Some(deadline) => match tokio::time::timeout_at(deadline, next).await {
                Ok(told) => told,
                Err(_) => {
                    display.finish(&progress, run_id, watched.elapsed());
                    return Ok(None);
                }
            },
            None => next.await,
        };
        let Some((told, _)) = told? else {
            return Err(anyhow::anyhow!("the stream of {run_id} ended before the run did").into());
        };
        let event = match told {
            Told::Event(event) => event,
            Told::Ephemeral(message) => {
                deltas.take(&message.payload).iter().for_each(|line| display.say(line));
                continue;
            }
        };
        // Whatever an event tells of a token, its attempt is over, or hasn't said anything yet.
        let rest = event.payload["token"].as_u64().and_then(|token| deltas.end(token));
        rest.iter().for_each(|line| display.say(line));
        if event.event_type == "run_forked" {
            // What was before took the other run's time.
            bounds = None;
        }
        let (first, _) = *bounds.get_or_insert((event.recorded_at, event.recorded_at));
        bounds = Some((first, event.recorded_at));
        progress.take(&event);
        if let Some(exit) = progress.status.and_then(Exit::of_status) {
            let took = (event.recorded_at - first).to_std().unwrap_or_default();
            display.finish(&progress, run_id, took);
            return Ok(Some((exit, progress)));
        }
        if shown.is_none_or(|at| at.elapsed() >= REFRESH) {
            display.update(&progress);
            shown = Some(Instant::now());
        }
    }
}
