//! Archiving a run because somebody asks for it.

use domain::run::Run;
use protocol::{ArchiveRun, CommandEnvelope, Receipt, Rejection, RejectionKind};

use super::CommandService;
use crate::coordinator::{Folded, fold, not_found};
use crate::retention::{Asked, Ended};
use crate::store::inbox::Remembered;
use crate::store::metadata;

impl CommandService {
    pub(super) async fn archive_run(
        &self,
        envelope: &CommandEnvelope,
        asked: &ArchiveRun,
    ) -> Result<Receipt, Rejection> {
        let (remembered, run_id) = (Remembered::of(envelope), asked.run_id);
        if let Some(receipt) = self.recalled(&remembered).await? {
            return Ok(receipt);
        }
        let folded = fold(&*self.journal, run_id).await.map_err(|error| error.refusal())?;
        let Folded { workspace_id, run, sequence, .. } = folded.ok_or_else(|| not_found(run_id))?;
        if workspace_id != envelope.workspace_id {
            return Err(not_found(run_id));
        }
        if !matches!(run, Run::Closed(_)) {
            let message = "the run goes on: it can be archived once it has ended";
            return Err(Rejection::new(RejectionKind::Conflict, "run_not_ended", message));
        }
        let ended = Ended { run_id, workspace_id, sequence };
        let wanted = Asked {
            keep: asked.keep,
            archive: asked.archive.clone(),
            dry_run: asked.dry_run,
            metadata: metadata::of(envelope),
            remembered: Some(remembered.clone()),
        };
        let done = self.archivist.archive(&ended, wanted).await;
        self.settled(done, Some(&remembered)).await
    }
}
