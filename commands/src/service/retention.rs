//! Archiving a run because somebody asks for it, and holds, which keep all of one.

use domain::hold;
use domain::ids::RunId;
use domain::retention::Retained;
use domain::run::Run;
use protocol::{ArchiveRun, Command, CommandEnvelope, Receipt, Rejection, RejectionKind};

use super::CommandService;
use super::of_run::checked;
use crate::coordinator::{Folded, fold, not_found};
use crate::retention::{Asked, Ended};
use crate::store::inbox::Remembered;
use crate::store::metadata;

impl CommandService {
    /// Does a command about what is kept of a run.
    pub(super) async fn retain(
        &self,
        envelope: &CommandEnvelope,
    ) -> Option<Result<Receipt, Rejection>> {
        Some(match &envelope.command {
            Command::ArchiveRun(asked) => self.archive_run(envelope, asked).await,
            Command::HoldRun { run_id, reason } => {
                let held = hold::Event::RunHeld { reason: reason.clone() };
                self.hold_run(envelope, *run_id, held).await
            }
            Command::ReleaseRun { run_id, reason } => {
                let released = hold::Event::RunReleased { reason: reason.clone() };
                self.hold_run(envelope, *run_id, released).await
            }
            _ => return None,
        })
    }

    async fn archive_run(
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

    /// Holds a run, or releases it.
    async fn hold_run(
        &self,
        envelope: &CommandEnvelope,
        run_id: RunId,
        event: hold::Event,
    ) -> Result<Receipt, Rejection> {
        let event = match event {
            hold::Event::RunHeld { reason } => {
                let Some(reason) = checked(&mut Some(reason))?.filter(|reason| !reason.is_empty())
                else {
                    let message = "say why it is held: whoever asks later has to know";
                    let refused = Rejection::new(RejectionKind::Invalid, "invalid_body", message);
                    return Err(refused.at("/reason"));
                };
                hold::Event::RunHeld { reason }
            }
            hold::Event::RunReleased { mut reason } => {
                hold::Event::RunReleased { reason: checked(&mut reason)? }
            }
        };
        let remembered = Remembered::of(envelope);
        if let Some(receipt) = self.recalled(&remembered).await? {
            return Ok(receipt);
        }
        let done = self.archivist.hold(envelope.workspace_id, run_id, envelope, event).await;
        self.settled(done, Some(&remembered)).await
    }

    /// Says where all of an archived run is, in the refusal of what takes it.
    pub(super) async fn with_place<T>(
        &self,
        run_id: RunId,
        answer: Result<T, Rejection>,
    ) -> Result<T, Rejection> {
        match answer {
            Err(mut refused) if refused.code == "run_archived" => {
                let retained = self.archivist.retained(&run_id.to_string()).await;
                if let Ok((Retained { archive: Some(archive), .. }, _)) = retained {
                    let place = archive.location;
                    refused.message += &format!(": all of it was written to {place:?} before");
                }
                Err(refused)
            }
            other => other,
        }
    }
}
