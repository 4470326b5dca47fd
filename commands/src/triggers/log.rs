//! A trigger's own events: what it is done with, loaded and written.

use std::sync::Arc;

use bytes::Bytes;
use chassis::journal::{Append, AppendError, Journal, Snapshot};
use domain::codec;
use domain::ids::{CommandId, TriggerId, WorkspaceId};
use domain::trigger::state::STATE_VERSION;
use domain::trigger::{AGGREGATE, Event, Trigger, TriggerRef};
use protocol::{Rejection, RejectionKind};

use super::{ACTOR, Triggers, shard_of_workflow};
use crate::coordinator::unavailable;
use crate::resources::refusal;
use crate::store::metadata::Along;
use crate::store::{Fault, metadata, payload};

/// Events after which the state is kept as a snapshot.
const SNAPSHOT_EVERY: u64 = 100;
/// Events that are loaded at a time.
const PAGE: usize = 500;
/// How often an append meets a faster one before it is given up.
const ATTEMPTS: u32 = 5;

/// A trigger's folded events, and where they end.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Log {
    pub(super) state: Trigger,
    sequence: u64,
    snapshot_at: u64,
}

impl Log {
    /// Loads a trigger's events.
    pub(super) async fn load(
        journal: &dyn Journal,
        trigger: &TriggerRef,
    ) -> Result<Self, Rejection> {
        let id = TriggerId::of(trigger.workflow_id, &trigger.name).to_string();
        let failed = |error| fault(Fault::Read(error));
        let snapshot = journal.snapshot(AGGREGATE, &id, STATE_VERSION).await.map_err(failed)?;
        let kept = snapshot.and_then(|one| {
            serde_json::from_slice(&one.state).ok().map(|state| (one.sequence, state))
        });
        let (sequence, state) = kept.unwrap_or_default();
        let mut log = Self { state, sequence, snapshot_at: sequence };
        loop {
            let rows = journal.load(AGGREGATE, &id, log.sequence, PAGE).await.map_err(failed)?;
            let is_last = rows.len() < PAGE;
            for row in rows {
                let event: Event = payload::decode(journal, &row).await.map_err(fault)?;
                log.state.evolve(&event);
                log.sequence = row.sequence;
            }
            if is_last {
                return Ok(log);
            }
        }
    }
}

impl Triggers {
    /// Writes a trigger's events. With an epoch only as the owner of its shard, and only where the
    /// log is as it was loaded; without one after whatever others have written.
    pub(super) async fn record(
        &self,
        log: &mut Log,
        trigger: &TriggerRef,
        workspace_id: WorkspaceId,
        epoch: Option<u64>,
        events: &[Event],
    ) -> Result<(), Rejection> {
        for _ in 0..ATTEMPTS {
            let append = self.append_of(log, trigger, workspace_id, epoch, events)?;
            let (sequence, snapshot) = (append.expected_sequence, append.snapshot.is_some());
            match self.journal.append(append).await {
                Ok(appended) => {
                    events.iter().for_each(|event| log.state.evolve(event));
                    log.sequence = sequence + events.len() as u64;
                    debug_assert_eq!(log.sequence, appended.last_sequence);
                    if snapshot {
                        log.snapshot_at = log.sequence;
                    }
                    return Ok(());
                }
                Err(AppendError::Conflict { .. }) => {
                    *log = Log::load(&*self.journal, trigger).await?;
                    // Nobody but the owner writes to its log: what is there may be these events, in
                    // an append whose answer was lost.
                    if epoch.is_some() {
                        return Err(unavailable("the log was written to meanwhile, looking again"));
                    }
                }
                Err(error) => return Err(fault(Fault::Append(error))),
            }
        }
        Err(unavailable("many writers record events of this trigger at once, try again"))
    }

    /// Writes what came of something that a trigger was told, whoever owns its shard.
    pub(super) async fn record_told(
        &self,
        workspace_id: WorkspaceId,
        event: Event,
    ) -> Result<(), Rejection> {
        let trigger = event.trigger().clone();
        let mut log = Log::load(&*self.journal, &trigger).await?;
        self.record(&mut log, &trigger, workspace_id, None, &[event]).await
    }

    fn append_of(
        &self,
        log: &Log,
        trigger: &TriggerRef,
        workspace_id: WorkspaceId,
        epoch: Option<u64>,
        events: &[Event],
    ) -> Result<Append, Rejection> {
        let mut state = log.state;
        let mut new_events = Vec::with_capacity(events.len());
        let mut payloads = Vec::new();
        for event in events {
            state.evolve(event);
            let encoded = codec::encode(event, workspace_id).map_err(|error| {
                Rejection::new(RejectionKind::Internal, "internal", error.to_string())
            })?;
            let (name, version) = (event.event_type(), event.event_version());
            let (new, values) = payload::new_event(&*self.clock, name, version, encoded);
            payloads.extend(values);
            new_events.push(new);
        }
        let last = log.sequence + events.len() as u64;
        let is_due = last - log.snapshot_at >= SNAPSHOT_EVERY;
        let snapshot = is_due.then(|| Snapshot {
            sequence: last,
            version: STATE_VERSION,
            // Times and numbers always have a JSON form.
            state: Bytes::from(serde_json::to_vec(&state).unwrap_or_default()),
        });
        let command_id = CommandId::new(self.clock.uuid_v7());
        Ok(Append {
            aggregate_type: AGGREGATE.into(),
            aggregate_id: TriggerId::of(trigger.workflow_id, &trigger.name).to_string().into(),
            expected_sequence: log.sequence,
            workspace_id: Arc::from(workspace_id.to_string()),
            metadata: metadata::by(ACTOR, command_id, Along::default()),
            recorded_at: self.clock.now(),
            events: new_events,
            payloads,
            snapshot,
            shard: shard_of_workflow(trigger.workflow_id),
            epoch: epoch.filter(|epoch| *epoch > 0),
            ..Append::default()
        })
    }
}

fn fault(fault: Fault) -> Rejection {
    refusal::of(fault, domain::resource::Kind::Workflow, "the trigger")
}
