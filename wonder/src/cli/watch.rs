//! Watching a run to its end, with progress on stderr.

use std::time::{Duration, Instant};

use protocol::Speed;

use crate::client::Client;
use crate::exit::{Exit, Failure};
use crate::progress::{Display, Progress};

/// Nothing new on screen more often than this.
const REFRESH: Duration = Duration::from_millis(80);

/// Follows a run until it ends, what has happened at a pace where there is a `speed`. `None` where
/// the time-out came first: the run goes on.
pub(crate) async fn watch(
    client: &Client,
    run_id: &str,
    timeout: Option<Duration>,
    speed: Option<Speed>,
) -> Result<Option<(Exit, Progress)>, Failure> {
    let query = speed.into_iter().map(|speed| ("speed".to_owned(), speed.to_string()));
    let mut events = client.follow(&format!("/runs/{run_id}/events"), query.collect(), None);
    let mut progress = Progress::default();
    let mut display = Display::for_stderr();
    let watched = Instant::now();
    let mut shown: Option<Instant> = None;
    let mut bounds = None;
    let deadline = timeout.map(|timeout| tokio::time::Instant::now() + timeout);
    loop {
        let next = events.next();
        let event = match deadline {
            Some(deadline) => match tokio::time::timeout_at(deadline, next).await {
                Ok(event) => event,
                Err(_) => {
                    display.finish(&progress, run_id, watched.elapsed());
                    return Ok(None);
                }
            },
            None => next.await,
        };
        let Some((event, _)) = event? else {
            return Err(anyhow::anyhow!("the stream of {run_id} ended before the run did").into());
        };
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
