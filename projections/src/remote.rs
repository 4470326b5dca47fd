//! The read side for other processes: answers queries and opens streams of events over the bus.

use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use chassis::bus::{Handler, Nats, NatsError, Served, StreamHandler};
use futures::StreamExt;
use futures::stream::{self, BoxStream};
use protocol::remote::{Answer, FOLLOW, FollowCall, QUERIES, QueryCall};
use protocol::{EventEnvelope, Events, Rejection, RejectionKind, ResourceQueries, RunQueries};
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::Projections;

/// The queue group of both subjects.
const GROUP: &str = "queries";
/// Streams that may be open at the same time.
const STREAMS: usize = 5_000;
/// Events that one message of a stream holds at most.
const EVENTS: usize = 64;

/// Answers queries, so many at a time, and opens streams.
///
/// # Errors
/// Where NATS is away.
pub async fn serve(
    nats: &Nats,
    projections: Arc<Projections>,
    concurrency: usize,
) -> Result<Vec<Served>, NatsError> {
    let queries = Arc::new(Queries(Arc::clone(&projections)));
    let streams = Arc::new(Streams(projections));
    Ok(vec![
        nats.serve(QUERIES, GROUP, queries, concurrency).await?,
        nats.serve_streams(FOLLOW, GROUP, streams, STREAMS).await?,
    ])
}

struct Queries(Arc<Projections>);

#[async_trait]
impl Handler for Queries {
    async fn handle(&self, body: Bytes) -> Bytes {
        let views = &*self.0;
        let call = match read::<QueryCall>(&body) {
            Ok(call) => call,
            Err(rejection) => return answer::<()>(Err(rejection)),
        };
        match call {
            QueryCall::ListResources { workspace_id, filter, page } => {
                answer(ResourceQueries::list(views, workspace_id, filter, page).await)
            }
            QueryCall::GetResource { workspace_id, kind, id, min_position } => {
                answer(ResourceQueries::get(views, workspace_id, kind, &id, min_position).await)
            }
            QueryCall::ListRuns { workspace_id, filter, page } => {
                answer(RunQueries::list(views, workspace_id, filter, page).await)
            }
            QueryCall::GetRun { workspace_id, run_id, min_position } => {
                answer(RunQueries::get(views, workspace_id, run_id, min_position).await)
            }
            QueryCall::RunState { workspace_id, run_id, at } => {
                answer(views.state(workspace_id, run_id, at).await)
            }
            QueryCall::RunTimeline { workspace_id, run_id } => {
                answer(views.timeline(workspace_id, run_id).await)
            }
            QueryCall::EventPage { filter, after, limit } => {
                answer(views.page(filter, after, limit).await)
            }
            QueryCall::EventHead => answer(views.head().await),
        }
    }
}

struct Streams(Arc<Projections>);

#[async_trait]
impl StreamHandler for Streams {
    async fn open(&self, body: Bytes) -> BoxStream<'static, Bytes> {
        let opened = match read::<FollowCall>(&body) {
            Ok(call) => self.0.follow(call.filter, call.after).await,
            Err(rejection) => Err(rejection),
        };
        let events = match opened {
            Ok(events) => events,
            Err(rejection) => return stream::iter([refused(rejection)]).boxed(),
        };
        // The reader is told at once that the stream stands.
        let first = stream::iter([answer(Ok(Vec::<EventEnvelope>::new()))]);
        let rest = events.ready_chunks(EVENTS).flat_map(|ready| {
            let mut messages = Vec::with_capacity(2);
            let mut envelopes = Vec::with_capacity(ready.len());
            let mut refusal = None;
            for one in ready {
                match one {
                    Ok(envelope) => envelopes.push(envelope),
                    Err(rejection) => refusal = Some(rejection),
                }
            }
            if !envelopes.is_empty() {
                messages.push(answer(Ok(envelopes)));
            }
            messages.extend(refusal.map(refused));
            stream::iter(messages)
        });
        first.chain(rest).boxed()
    }
}

fn refused(rejection: Rejection) -> Bytes {
    answer::<Vec<EventEnvelope>>(Err(rejection))
}

fn read<T: DeserializeOwned>(body: &[u8]) -> Result<T, Rejection> {
    serde_json::from_slice(body).map_err(|error| {
        let message = format!("the call can't be read: {error}");
        Rejection::new(RejectionKind::Malformed, "invalid_call", message)
    })
}

fn answer<T: Serialize>(answer: Answer<T>) -> Bytes {
    serde_json::to_vec(&answer).map(Bytes::from).unwrap_or_else(|error| {
        tracing::error!(%error, "an answer has no json form");
        Bytes::new()
    })
}
