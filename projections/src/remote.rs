//! The read side for other processes: calls and streams over the bus.
//!
//! A call that can't be read is refused, never left without an answer. An answer above the 16 MiB
//! that the bus carries (a timeline of very many tokens) fails at its caller.

use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use chassis::bus::{Handler, Nats, NatsError, Served, StreamHandler};
use futures::StreamExt;
use futures::stream::{self, BoxStream};
use protocol::remote::{Answer, EXPORT, FOLLOW, FollowCall, QUERIES, QueryCall};
use protocol::{
    AuditQueries, EventEnvelope, Events, ExportAudit, GateQueries, LogQueries, MetricQueries,
    Rejection, RejectionKind, ResourceQueries, RunQueries,
};
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::Projections;
use crate::events::Portion;

/// Who shares the calls.
const GROUP: &str = "queries";
/// Streams that a process serves at a time.
const STREAMS: usize = 5_000;
/// Exports that a process writes at a time.
const EXPORTS: usize = 16;
/// What a message of a stream holds, where it is there. An event that is larger alone is sent as it
/// is: the bus carries it in parts.
const MESSAGE: Portion = Portion { events: 64, bytes: 256 * 1024 };

/// Serves queries, at most `concurrency` at a time, and streams of events, until what it answers is
/// stopped or dropped. All processes with the same tables share the calls.
pub async fn serve(
    nats: &Nats,
    projections: Arc<Projections>,
    concurrency: usize,
) -> Result<Vec<Served>, NatsError> {
    let queries = Arc::new(Queries(Arc::clone(&projections)));
    let exports = Arc::new(Exports(Arc::clone(&projections)));
    let streams = Arc::new(Streams(projections));
    Ok(vec![
        nats.serve(QUERIES, GROUP, queries, concurrency).await?,
        nats.serve_streams(FOLLOW, GROUP, streams, STREAMS).await?,
        nats.serve_streams(EXPORT, GROUP, exports, EXPORTS).await?,
    ])
}

struct Queries(Arc<Projections>);

#[async_trait]
impl Handler for Queries {
    async fn handle(&self, body: Bytes) -> Bytes {
        match read::<QueryCall>(&body) {
            Ok(call) => self.answer(call).await,
            Err(rejection) => write::<()>(&Err(rejection)),
        }
    }
}

impl Queries {
    async fn answer(&self, call: QueryCall) -> Bytes {
        let (resources, runs): (&dyn ResourceQueries, &dyn RunQueries) = (&*self.0, &*self.0);
        match call {
            QueryCall::ListResources { workspace_id, filter, page } => {
                write(&resources.list(workspace_id, filter, page).await)
            }
            QueryCall::GetResource { workspace_id, kind, id, min_position } => {
                write(&resources.get(workspace_id, kind, &id, min_position).await)
            }
            QueryCall::Triggers { workspace_id, workflow_id, now, min_position } => {
                write(&resources.triggers(workspace_id, workflow_id, now, min_position).await)
            }
            QueryCall::ListRuns { workspace_id, filter, page } => {
                write(&runs.list(workspace_id, filter, page).await)
            }
            QueryCall::GetRun { workspace_id, run_id, min_position } => {
                write(&runs.get(workspace_id, run_id, min_position).await)
            }
            QueryCall::RunState { workspace_id, run_id, at } => {
                write(&runs.state(workspace_id, run_id, at).await)
            }
            QueryCall::RunTimeline { workspace_id, run_id } => {
                write(&runs.timeline(workspace_id, run_id).await)
            }
            QueryCall::RunWaiting { workspace_id, run_id } => {
                write(&runs.waiting(workspace_id, run_id).await)
            }
            QueryCall::ExplainRun { workspace_id, run_id, asked } => {
                write(&runs.explain(workspace_id, run_id, asked).await)
            }
            QueryCall::DiffRun { workspace_id, run_id, to } => {
                write(&runs.diff(workspace_id, run_id, to).await)
            }
            QueryCall::Experiment { workspace_id, name, min_position } => {
                write(&runs.experiment(workspace_id, &name, min_position).await)
            }
            QueryCall::ExperimentProgress { workspace_id, name } => {
                write(&runs.experiment_progress(workspace_id, &name).await)
            }
            QueryCall::VerifyRun { workspace_id, run_id } => {
                write(&runs.verify(workspace_id, run_id).await)
            }
            QueryCall::Compare { workspace_id, asked } => {
                write(&runs.compare(workspace_id, *asked).await)
            }
            QueryCall::BundleRun { workspace_id, run_id, from } => {
                write(&runs.bundle(workspace_id, run_id, from).await)
            }
            QueryCall::ListGates { workspace_id, filter, page } => {
                write(&GateQueries::list(&*self.0, workspace_id, filter, page).await)
            }
            QueryCall::GetGate { workspace_id, gate, min_position } => {
                write(&GateQueries::get(&*self.0, workspace_id, gate, min_position).await)
            }
            QueryCall::QueryMetric { workspace_id, asked } => {
                write(&MetricQueries::query(&*self.0, workspace_id, *asked).await)
            }
            QueryCall::ListMetrics { workspace_id, min_position } => {
                write(&MetricQueries::list(&*self.0, workspace_id, min_position).await)
            }
            QueryCall::EventPage { filter, after, limit } => {
                write(&self.0.page(filter, after, limit).await)
            }
            QueryCall::EventHead => write(&self.0.head().await),
            QueryCall::ListAudit { workspace_id, filter, page } => {
                write(&AuditQueries::list(&*self.0, workspace_id, filter, page).await)
            }
            QueryCall::ListLogs { workspace_id, filter, page } => {
                write(&LogQueries::list(&*self.0, workspace_id, filter, page).await)
            }
            QueryCall::AuditHeads { after, limit } => write(&self.0.heads(after, limit).await),
        }
    }
}

struct Streams(Arc<Projections>);

#[async_trait]
impl StreamHandler for Streams {
    async fn open(&self, body: Bytes) -> BoxStream<'static, Bytes> {
        let opened = match read::<FollowCall>(&body) {
            Ok(FollowCall { filter, after }) => self.0.portions(filter, after, MESSAGE).await,
            Err(rejection) => Err(rejection),
        };
        match opened {
            Ok(portions) => {
                // An empty message first: the reader learns at once that it isn't refused.
                let opened = write(&Answer::<Vec<EventEnvelope>>::Ok(Vec::new()));
                stream::iter([opened]).chain(portions.map(|portion| write(&portion))).boxed()
            }
            Err(rejection) => stream::iter([write::<()>(&Err(rejection))]).boxed(),
        }
    }
}

struct Exports(Arc<Projections>);

#[async_trait]
impl StreamHandler for Exports {
    async fn open(&self, body: Bytes) -> BoxStream<'static, Bytes> {
        let opened = match read::<ExportAudit>(&body) {
            Ok(asked) => self.0.export(asked).await,
            Err(rejection) => Err(rejection),
        };
        match opened {
            Ok(pieces) => pieces.map(|piece| write(&piece)).boxed(),
            Err(rejection) => stream::iter([write::<()>(&Err(rejection))]).boxed(),
        }
    }
}

fn read<T: DeserializeOwned>(body: &[u8]) -> Result<T, Rejection> {
    serde_json::from_slice(body).map_err(|error| {
        let message =
            format!("the call can't be read ({error}): use the same release on both sides");
        Rejection::new(RejectionKind::Malformed, "invalid_body", message)
    })
}

fn write<T: Serialize>(answer: &Answer<T>) -> Bytes {
    let written = serde_json::to_vec(answer).or_else(|error| {
        tracing::error!(%error, "an answer can't be written");
        let rejection =
            Rejection::new(RejectionKind::Internal, "internal", "the answer can't be written");
        serde_json::to_vec(&Answer::<()>::Err(rejection))
    });
    written.unwrap_or_default().into()
}
