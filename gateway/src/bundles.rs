//! A run as a bundle: one file, streamed as it is read.

use std::sync::Arc;

use axum::body::Body;
use axum::http::{HeaderValue, header};
use axum::response::Response;
use bytes::Bytes;
use domain::bundle::{Line, Seal};
use domain::ids::{RunId, WorkspaceId};
use futures::stream;
use protocol::bundle::{BundleFrom, BundlePart};
use tokio::sync::OwnedSemaphorePermit;

use crate::call::Call;
use crate::edge::Edge;
use crate::problem::Problem;

/// What is being sent.
struct Sending {
    edge: Arc<Edge>,
    workspace_id: WorkspaceId,
    run_id: RunId,
    seal: Seal,
    next: Next,
    _place: Option<OwnedSemaphorePermit>,
}

/// What is sent next.
enum Next {
    Part(BundlePart),
    Ask(BundleFrom),
    Nothing,
}

/// `GET /runs/{id}/bundle`.
pub(crate) async fn of_run(mut call: Call) -> Result<Response, Problem> {
    let (workspace_id, run_id) = (call.caller()?.workspace_id, call.id()?);
    let edge = Arc::clone(&call.edge);
    let from = BundleFrom::Start { at: edge.gateway.environment.now() };
    // Refusals come before the first byte.
    let next = Next::Part(edge.gateway.runs.bundle(workspace_id, run_id, from).await?);
    let (seal, place) = (Seal::default(), call.place.take());
    let sending = Sending { edge, workspace_id, run_id, seal, next, _place: place };
    let body = stream::try_unfold(sending, Sending::next);
    let mut response = Response::new(Body::from_stream(body));
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/x-ndjson"));
    let name = format!("attachment; filename=\"{run_id}.wonder\"");
    if let Ok(name) = HeaderValue::from_str(&name) {
        headers.insert(header::CONTENT_DISPOSITION, name);
    }
    Ok(response)
}

impl Sending {
    /// The next lines. Where they can't be had the answer is broken off: without its end a bundle
    /// isn't whole.
    async fn next(mut self) -> Result<Option<(Bytes, Self)>, std::io::Error> {
        let BundlePart { lines, next } = match std::mem::replace(&mut self.next, Next::Nothing) {
            Next::Nothing => return Ok(None),
            Next::Part(part) => part,
            Next::Ask(from) => {
                let gateway = &self.edge.gateway;
                let part = tokio::select! {
                    () = gateway.shutdown.cancelled() => return Err(broken("the server ends")),
                    part = gateway.runs.bundle(self.workspace_id, self.run_id, from) => part,
                };
                part.map_err(|rejection| broken(&rejection.message))?
            }
        };
        let mut text = Vec::new();
        for line in lines {
            self.seal.take(line.get().as_bytes());
            text.extend_from_slice(line.get().as_bytes());
            text.push(b'\n');
        }
        match next {
            Some(cursor) => self.next = Next::Ask(BundleFrom::Next(cursor)),
            None => {
                let end = Line::End(std::mem::take(&mut self.seal).end()).to_raw()?;
                text.extend_from_slice(end.get().as_bytes());
                text.push(b'\n');
            }
        }
        Ok(Some((text.into(), self)))
    }
}

fn broken(why: &str) -> std::io::Error {
    tracing::warn!(why, "a bundle was broken off");
    std::io::Error::other(why.to_owned())
}
