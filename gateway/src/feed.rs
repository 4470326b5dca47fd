//! What a reader of a stream is told: history and then live events, ended in a way that it can
//! tell. How it is written down is up to `sse.rs` and `socket.rs`.
//!
//! Ids are cursors, an event's name is its type, the data its envelope. A run's stream closes
//! with `end`; a reader that lags, or lost its right, gets `error` with a problem and is cut off.
//! Who asks for it gets `ephemeral` messages between (`ephemeral.rs`), which have no id. The next
//! event is taken once the last one is on its way, so that nothing is kept for a reader.

use std::collections::VecDeque;
use std::sync::Arc;

use axum::http::{HeaderMap, StatusCode};
use domain::ids::RunId;
use futures::stream::{self, BoxStream, StreamExt as _};
use protocol::{Cursor, Ephemeral, EventEnvelope, EventFilter, Rejection, Speed};
use serde_json::json;
use tokio::sync::OwnedSemaphorePermit;
use tokio::time::{Interval, MissedTickBehavior};

use crate::auth;
use crate::call::Call;
use crate::edge::Edge;
use crate::ephemeral::Ephemerals;
use crate::pace;
use crate::problem::Problem;
use crate::refusals::Asked;

/// What a reader asked to follow.
pub(crate) struct Followed {
    pub(crate) filter: EventFilter,
    pub(crate) after: Option<Cursor>,
    /// Where it is one run's stream, which ends with the run.
    pub(crate) run: Option<RunId>,
    /// History at a pace.
    pub(crate) speed: Option<Speed>,
    /// What is told of work under way, beside events.
    pub(crate) ephemerals: Option<Ephemerals>,
}

/// One message of a stream.
pub(crate) struct Message {
    /// Where to go on after it; errors and ephemeral messages have none.
    pub(crate) id: Option<Cursor>,
    pub(crate) event: String,
    /// JSON on one line.
    pub(crate) data: String,
}

/// Why a stream gives no more.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum End {
    /// The run has ended, and its reader has been told.
    Over,
    /// The server ends, or what it reads from does; its reader goes on elsewhere.
    Away,
    /// A problem of this status was the last message.
    Failed(StatusCode),
}

/// An open stream.
pub(crate) struct Feed {
    edge: Arc<Edge>,
    events: BoxStream<'static, Result<EventEnvelope, Rejection>>,
    headers: HeaderMap,
    asked: Asked,
    trace_id: String,
    recheck: Interval,
    /// Whether a terminal event ends the stream.
    of_run: bool,
    /// Only events of this type are told, of a run.
    only: Option<String>,
    ephemerals: Option<Ephemerals>,
    /// An event whose turn is next, after what was told of its run.
    held: Option<EventEnvelope>,
    before: VecDeque<Ephemeral>,
    next: Next,
    _place: Option<OwnedSemaphorePermit>,
}

/// What comes next.
enum Next {
    Event,
    LastWord(Cursor),
    Nothing(End),
}

impl Feed {
    /// Follows events from a cursor. One that is no good is refused here.
    pub(crate) async fn open(call: &mut Call, followed: Followed) -> Result<Self, Problem> {
        let Followed { mut filter, after, run, speed, ephemerals } = followed;
        // With a filter by type the run's end would go unseen; it is looked for here instead.
        let only = if run.is_some() { filter.event_type.take() } else { None };
        let history = Arc::clone(&call.edge.gateway.events);
        let events = match speed {
            None => history.follow(filter, after).await?,
            Some(speed) => {
                history.page(filter.clone(), after, 1).await?;
                pace::replayed(history, filter, after, speed, only.clone())
            }
        };
        let of_run = run.is_some();
        Ok(Self { of_run, only, ephemerals, ..Self::of(call, events, Next::Event) })
    }

    /// The whole stream of a reader that has seen a run's last event.
    pub(crate) fn ended(call: &mut Call, at: Cursor) -> Self {
        Self::of(call, stream::empty().boxed(), Next::LastWord(at))
    }

    fn of(
        call: &mut Call,
        events: BoxStream<'static, Result<EventEnvelope, Rejection>>,
        next: Next,
    ) -> Self {
        let every = call.edge.gateway.config.recheck_streams;
        let mut recheck = tokio::time::interval_at(tokio::time::Instant::now() + every, every);
        recheck.set_missed_tick_behavior(MissedTickBehavior::Delay);
        Self {
            edge: Arc::clone(&call.edge),
            events,
            headers: call.parts.headers.clone(),
            asked: Asked::of(call.route, &call.parts, &call.trace),
            trace_id: call.trace.trace_id.clone(),
            recheck,
            of_run: false,
            only: None,
            ephemerals: None,
            held: None,
            before: VecDeque::new(),
            next,
            _place: call.place.take(),
        }
    }

    /// The next message, or why there is none.
    pub(crate) async fn next(&mut self) -> Result<Message, End> {
        match self.next {
            Next::Nothing(end) => return Err(end),
            Next::LastWord(at) => return Ok(self.last_word(at)),
            Next::Event => {}
        }
        loop {
            if let Some(message) = self.before.pop_front() {
                return Ok(self.ephemeral(message));
            }
            if let Some(event) = self.held.take() {
                match self.take(&event) {
                    Some(message) => return Ok(message),
                    None => continue,
                }
            }
            tokio::select! {
                biased;
                () = self.edge.gateway.shutdown.cancelled() => return Err(self.end(End::Away)),
                _ = self.recheck.tick() => {
                    let caller = auth::identify(&self.edge, &self.headers).await;
                    if let Err(unknown) = &caller {
                        self.asked.is_by(&caller);
                        let Edge { gateway, refusals, .. } = &*self.edge;
                        refusals.note(gateway, &self.asked, &unknown.problem);
                        return Ok(self.fail(&unknown.problem));
                    }
                }
                item = self.events.next() => match item {
                    None => return Err(self.end(End::Away)),
                    Some(Err(rejection)) => return Ok(self.fail(&rejection.into())),
                    Some(Ok(event)) => {
                        if let Some(ephemerals) = &mut self.ephemerals {
                            self.before = ephemerals.of_run(&event.aggregate_id);
                        }
                        self.held = Some(event);
                    }
                },
                message = told(&mut self.ephemerals) => return Ok(self.ephemeral(message)),
            }
        }
    }

    /// The message of an event; none where its reader isn't shown it.
    fn take(&mut self, event: &EventEnvelope) -> Option<Message> {
        if let Some(ephemerals) = &mut self.ephemerals {
            ephemerals.seen(event.cursor);
        }
        let is_last = self.of_run && is_terminal(&event.event_type);
        if is_last {
            self.next = Next::LastWord(event.cursor);
        }
        if self.only.as_ref().is_none_or(|only| *only == event.event_type) {
            return Some(self.told(event));
        }
        is_last.then(|| self.last_word(event.cursor))
    }

    /// Cancelled where the server ends.
    pub(crate) fn shutdown(&self) -> tokio_util::sync::CancellationToken {
        self.edge.gateway.shutdown.clone()
    }

    fn told(&mut self, event: &EventEnvelope) -> Message {
        match serde_json::to_string(event) {
            Ok(data) => Message { id: Some(event.cursor), event: event.event_type.clone(), data },
            Err(error) => {
                tracing::error!(%error, position = event.position, "event could not be written");
                self.fail(&Problem::internal())
            }
        }
    }

    fn ephemeral(&mut self, message: Ephemeral) -> Message {
        let envelope = self.ephemerals.as_ref().map(|ephemerals| ephemerals.told(message));
        let data = serde_json::to_string(&envelope).unwrap_or_default();
        Message { id: None, event: "ephemeral".to_owned(), data }
    }

    fn last_word(&mut self, at: Cursor) -> Message {
        self.next = Next::Nothing(End::Over);
        let data = json!({ "cursor": at }).to_string();
        Message { id: Some(at), event: "end".to_owned(), data }
    }

    fn fail(&mut self, problem: &Problem) -> Message {
        self.next = Next::Nothing(End::Failed(problem.status));
        if problem.status == StatusCode::INTERNAL_SERVER_ERROR {
            tracing::error!(trace_id = %self.trace_id, "stream failed");
        }
        let data = problem.document(&self.trace_id).to_string();
        Message { id: None, event: "error".to_owned(), data }
    }

    fn end(&mut self, end: End) -> End {
        self.next = Next::Nothing(end);
        end
    }
}

/// The next ephemeral message of a reader that wants them.
async fn told(ephemerals: &mut Option<Ephemerals>) -> Ephemeral {
    match ephemerals {
        Some(ephemerals) => ephemerals.next().await,
        None => std::future::pending().await,
    }
}

fn is_terminal(event_type: &str) -> bool {
    matches!(event_type, "run_completed" | "run_failed" | "run_cancelled" | "run_timed_out")
}
