//! Server-sent events: history and then live, ended in a way that the reader can tell.
//!
//! Ids are cursors, the event's name is its type, the data its envelope. A run's stream closes
//! with `end`; a reader that lags, or lost its right, gets `error` with a problem and is cut off.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use axum::http::{HeaderMap, StatusCode};
use axum::response::sse::{Event, KeepAlive, Sse};
use axum::response::{IntoResponse as _, Response};
use domain::ids::RunId;
use futures::stream::{self, BoxStream, StreamExt as _};
use protocol::{Cursor, EventEnvelope, EventFilter, Rejection, Speed};
use serde_json::json;
use tokio::sync::OwnedSemaphorePermit;
use tokio::time::{Interval, MissedTickBehavior};

use crate::auth;
use crate::call::Call;
use crate::edge::Edge;
use crate::pace;
use crate::problem::Problem;

const KEEP_ALIVE: Duration = Duration::from_secs(15);
/// How long a browser waits before it connects again.
const RETRY: Duration = Duration::from_secs(2);

/// An open stream.
struct Feed {
    edge: Arc<Edge>,
    events: BoxStream<'static, Result<EventEnvelope, Rejection>>,
    headers: HeaderMap,
    trace_id: String,
    recheck: Interval,
    /// Whether a terminal event ends the stream.
    of_run: bool,
    last: Last,
    _place: Option<OwnedSemaphorePermit>,
}

/// What goes out before the stream closes.
enum Last {
    Open,
    End(Cursor),
    Closed,
}

/// Follows events from a cursor, history at a pace where there is a `speed`. `run` where it is one
/// run's stream, which ends with the run.
pub(crate) async fn open(
    mut call: Call,
    filter: EventFilter,
    after: Option<Cursor>,
    run: Option<RunId>,
    speed: Option<Speed>,
) -> Result<Response, Problem> {
    let mut filter = filter;
    // With a filter by type the run's end would go unseen; it is looked for here instead.
    let only = if run.is_some() { filter.event_type.take() } else { None };
    let history = Arc::clone(&call.edge.gateway.events);
    let events = match speed {
        None => history.follow(filter, after).await?,
        Some(speed) => {
            // A cursor that is no good is refused before the stream begins.
            history.page(filter.clone(), after, 1).await?;
            pace::replayed(history, filter, after, speed, only.clone())
        }
    };
    let every = call.edge.gateway.config.recheck_streams;
    let mut recheck = tokio::time::interval_at(tokio::time::Instant::now() + every, every);
    recheck.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let feed = Feed {
        edge: Arc::clone(&call.edge),
        events,
        headers: call.parts.headers,
        trace_id: call.trace.trace_id,
        recheck,
        of_run: run.is_some(),
        last: Last::Open,
        _place: call.place.take(),
    };
    let items = stream::unfold((feed, only), |(mut feed, only)| async move {
        let event = feed.next(only.as_deref()).await?;
        Some((event, (feed, only)))
    });
    Ok(respond(items.boxed()))
}

/// The whole stream of a reader that has seen a run's last event.
pub(crate) fn ended(call: &mut Call, at: Cursor) -> Response {
    call.place = None;
    respond(stream::iter([end(at)]).boxed())
}

fn respond(items: BoxStream<'static, Event>) -> Response {
    let hello = Event::default().retry(RETRY);
    let items = stream::iter([hello]).chain(items).map(Ok::<_, Infallible>);
    Sse::new(items).keep_alive(KeepAlive::new().interval(KEEP_ALIVE)).into_response()
}

fn end(at: Cursor) -> Event {
    let data = json!({ "cursor": at }).to_string();
    Event::default().event("end").id(at.to_string()).data(data)
}

fn is_terminal(event_type: &str) -> bool {
    matches!(event_type, "run_completed" | "run_failed" | "run_cancelled" | "run_timed_out")
}

impl Feed {
    async fn next(&mut self, only: Option<&str>) -> Option<Event> {
        match std::mem::replace(&mut self.last, Last::Closed) {
            Last::Closed => return None,
            Last::End(at) => return Some(end(at)),
            Last::Open => self.last = Last::Open,
        }
        loop {
            tokio::select! {
                biased;
                () = self.edge.gateway.shutdown.cancelled() => return None,
                _ = self.recheck.tick() => {
                    if let Err(problem) = auth::identify(&self.edge, &self.headers).await {
                        return Some(self.fail(&problem));
                    }
                }
                item = self.events.next() => match item? {
                    Ok(event) => {
                        let terminal = self.of_run && is_terminal(&event.event_type);
                        if terminal {
                            self.last = Last::End(event.cursor);
                        }
                        if only.is_none_or(|only| only == event.event_type) {
                            return Some(self.envelope(&event));
                        }
                        if terminal {
                            self.last = Last::Closed;
                            return Some(end(event.cursor));
                        }
                    }
                    Err(rejection) => return Some(self.fail(&rejection.into())),
                },
            }
        }
    }

    fn envelope(&mut self, event: &EventEnvelope) -> Event {
        match serde_json::to_string(event) {
            Ok(data) => {
                let sent = Event::default().id(event.cursor.to_string());
                sent.event(event.event_type.replace(['\n', '\r'], " ")).data(data)
            }
            Err(error) => {
                tracing::error!(%error, position = event.position, "event could not be written");
                self.fail(&Problem::internal())
            }
        }
    }

    fn fail(&mut self, problem: &Problem) -> Event {
        self.last = Last::Closed;
        if problem.status == StatusCode::INTERNAL_SERVER_ERROR {
            tracing::error!(trace_id = %self.trace_id, "stream failed");
        }
        Event::default().event("error").data(problem.document(&self.trace_id).to_string())
    }
}
