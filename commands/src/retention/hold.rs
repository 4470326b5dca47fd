//! Holds: as long as one is on a run, nothing is dropped of it, of the runs above and below it, or
//! of what it was forked from and what was forked of it. The open aggregates of the journal are
//! the list of them; that of a fork leans on the run that the fork was made of.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use chassis::journal::{Append, InboxEntry, RecordedEvent};
use domain::codec;
use domain::hold::{AGGREGATE, Event, Hold};
use domain::ids::{RunId, WorkspaceId};
use domain::retention::Kin;
use protocol::{CommandEnvelope, Receipt, Rejection, RejectionKind, shard_of};

use super::{Archivist, PAGE, RUN, away, damaged};
use crate::coordinator::{not_found, not_owner, refused, unavailable};
use crate::store::inbox::{self, Remembered};
use crate::store::{metadata, payload};

/// The code of the refusal of what a hold keeps.
const HELD: &str = "run_held";

impl Archivist {
    /// Holds a run, or releases it.
    ///
    /// # Errors
    /// `already_held` and `not_held`, and what the journal says.
    pub(crate) async fn hold(
        &self,
        workspace_id: WorkspaceId,
        run_id: RunId,
        envelope: &CommandEnvelope,
        event: Event,
    ) -> Result<Receipt, Rejection> {
        let is_held = matches!(event, Event::RunHeld { .. });
        let shard = shard_of(run_id);
        let epoch = self.ownership.borrow().epochs.get(&shard).copied().ok_or_else(not_owner)?;
        let id: Arc<str> = run_id.to_string().into();
        let first = self.journal.load(RUN, &id, 0, 1).await.map_err(away)?;
        if first.first().is_none_or(|event| *event.workspace_id != *workspace_id.to_string()) {
            return Err(not_found(run_id));
        }
        let from = self.beginning(run_id).await?.forked_from.filter(|_| is_held);
        let _decided = self.decisions.lock().await;
        let (hold, version) = self.hold_on(&id).await?;
        let conflict = |code, text: String| Rejection::new(RejectionKind::Conflict, code, text);
        match (&hold, is_held) {
            (Some(hold), true) => return Err(conflict("already_held", told(run_id, hold))),
            (None, false) => {
                let text = format!("{run_id} isn't held: there is nothing to release");
                return Err(conflict("not_held", text));
            }
            _ => {}
        }
        let encoded = codec::encode(&event, workspace_id).map_err(|error| damaged(&error))?;
        let (name, of) = (event.event_type(), event.event_version());
        let (event, payloads) = payload::new_event(&*self.clock, name, of, encoded);
        let remembered = Remembered::of(envelope);
        let at = self.clock.now();
        let mut receipt =
            Receipt { id: id.to_string(), version: version + 1, at, ..Receipt::default() };
        let append = Append {
            aggregate_type: AGGREGATE.into(),
            aggregate_id: id,
            expected_sequence: version,
            workspace_id: workspace_id.to_string().into(),
            metadata: metadata::of(envelope),
            recorded_at: at,
            events: vec![event],
            payloads,
            inbox: vec![InboxEntry {
                key: remembered.key.clone(),
                fingerprint: remembered.fingerprint.clone(),
                answer: inbox::encode(&receipt),
            }],
            open: Some(is_held),
            leans_on: from.map(|from| from.run_id.to_string().into()),
            shard,
            epoch: (epoch > 0).then_some(epoch),
            ..Append::default()
        };
        let appended = self.journal.append(append).await.map_err(|error| refused(&error))?;
        receipt.position = appended.last_position;
        self.releases.fetch_add(u64::from(!is_held), Ordering::Relaxed);
        Ok(receipt)
    }

    /// The refusal of dropping anything of a run that a hold keeps.
    pub(super) async fn free(&self, kin: &Kin) -> Result<(), Rejection> {
        let Some(held) = self.first_of(kin, AGGREGATE).await? else { return Ok(()) };
        let run_id = kin.run_id;
        let text = match self.hold_on(&held.to_string()).await? {
            (Some(hold), _) if held == run_id => told(held, &hold),
            (Some(hold), _) => {
                format!("{run_id} belongs to a run that is held: {}", told(held, &hold))
            }
            // By another process, a moment ago.
            (None, _) => return Err(unavailable("a hold was just released, try again")),
        };
        Err(Rejection::new(RejectionKind::Conflict, HELD, text))
    }

    /// The hold on a run, and the last event of its holds.
    async fn hold_on(&self, id: &str) -> Result<(Option<Hold>, u64), Rejection> {
        let (mut hold, mut last) = (None, 0);
        loop {
            let page = self.journal.load(AGGREGATE, id, last, PAGE).await.map_err(away)?;
            for recorded in &page {
                let of = (&*recorded.event_type, recorded.event_version);
                let RecordedEvent { payload, metadata, recorded_at, .. } = recorded;
                hold = Hold::after(of, payload, metadata, *recorded_at)
                    .map_err(|error| damaged(&error))?;
                last = recorded.sequence;
            }
            if page.len() < PAGE {
                return Ok((hold, last));
            }
        }
    }
}

fn told(run_id: RunId, hold: &Hold) -> String {
    let Hold { reason, by, at } = hold;
    let since = at.format("%Y-%m-%dT%H:%M:%SZ");
    format!(
        "{run_id} is held by {by} since {since} ({reason}): nothing is dropped until it is \
         released"
    )
}
