//! Accesses that are recorded, each as an aggregate of its own.

use std::sync::Arc;

use chassis::clock::Clock;
use chassis::journal::{Append, AppendError, Journal};
use domain::access::{AGGREGATE, Event};
use domain::codec;
use domain::ids::WorkspaceId;
use domain::resource::Kind;
use protocol::{CommandEnvelope, Receipt, Rejection, RejectionKind};

use crate::resources::refusal;
use crate::store::{Fault, metadata, payload};

/// Records an access to a workspace, or answers for what records it already.
pub(crate) async fn record(
    journal: &dyn Journal,
    clock: &dyn Clock,
    workspace: WorkspaceId,
    envelope: &CommandEnvelope,
    event: Event,
) -> Result<Receipt, Rejection> {
    let at = clock.now();
    let event = event.bounded();
    let id = event.id(workspace, &envelope.actor.0, envelope.id, at).to_string();
    let encoded = codec::encode(&event, workspace)
        .map_err(|error| Rejection::new(RejectionKind::Internal, "internal", error.to_string()))?;
    let (name, version) = (event.event_type(), event.event_version());
    let (event, payloads) = payload::new_event(clock, name, version, encoded);
    let append = Append {
        aggregate_type: AGGREGATE.into(),
        aggregate_id: Arc::from(&*id),
        expected_sequence: 0,
        workspace_id: workspace.to_string().into(),
        metadata: metadata::of(envelope),
        recorded_at: at,
        events: vec![event],
        payloads,
        ..Append::default()
    };
    let fault = |fault| refusal::of(fault, Kind::Workspace, "the record of an access");
    let (position, at, created) = match journal.append(append).await {
        Ok(appended) => (appended.last_position, at, true),
        Err(AppendError::Conflict { .. }) => {
            let first = journal.load(AGGREGATE, &id, 0, 1).await;
            let first = first.map_err(|error| fault(Fault::Read(error)))?;
            first.first().map_or((0, at, false), |event| (event.position, event.recorded_at, false))
        }
        Err(error) => return Err(fault(Fault::Append(error))),
    };
    Ok(Receipt { id, version: 1, position, created, at, ..Receipt::default() })
}
