//! A run as a bundle: one file, streamed as it is read.

use std::sync::Arc;

use axum::response::Response;
use bytes::Bytes;
use domain::bundle::{Line, Seal};
use domain::ids::{RunId, WorkspaceId};
use futures::stream;
use protocol::bundle::{BundleFrom, BundlePart};
use protocol::{Rejection, RejectionKind};

use crate::call::Call;
use crate::download;
use crate::edge::Edge;
use crate::problem::Problem;

/// What is being sent.
struct Sending {
    edge: Arc<Edge>,
    workspace_id: WorkspaceId,
    run_id: RunId,
    seal: Seal,
    next: Next,
}

/// What is sent next.
enum Next {
    Part(BundlePart),
    Ask(BundleFrom),
    Nothing,
}

/// `GET /runs/{id}/bundle`.
pub(crate) async fn of_run(call: Call) -> Result<Response, Problem> {
    let (workspace_id, run_id) = (call.caller()?.workspace_id, call.id()?);
    let edge = Arc::clone(&call.edge);
    let from = BundleFrom::Start { at: edge.gateway.environment.now() };
    // Refusals come before the first byte.
    let next = Next::Part(edge.gateway.runs.bundle(workspace_id, run_id, from).await?);
    let sending = Sending { edge, workspace_id, run_id, seal: Seal::default(), next };
    let pieces = stream::try_unfold(sending, Sending::next);
    Ok(download::respond(call, &format!("{run_id}.wonder"), pieces))
}

impl Sending {
    /// The next lines. Without its end a bundle isn't whole.
    async fn next(mut self) -> Result<Option<(Bytes, Self)>, Rejection> {
        let BundlePart { lines, next } = match std::mem::replace(&mut self.next, Next::Nothing) {
            Next::Nothing => return Ok(None),
            Next::Part(part) => part,
            Next::Ask(from) => {
                self.edge.gateway.runs.bundle(self.workspace_id, self.run_id, from).await?
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
                let end = Line::End(std::mem::take(&mut self.seal).end()).to_raw();
                let end = end.map_err(|error| {
                    Rejection::new(RejectionKind::Internal, "internal", error.to_string())
                })?;
                text.extend_from_slice(end.get().as_bytes());
                text.push(b'\n');
            }
        }
        Ok(Some((text.into(), self)))
    }
}
