//! The runs that an ended one is kept for, wherever they are.
//!
//! A family has one home, so what goes on of it is on its shard's list of open aggregates. Forks may
//! live elsewhere (beside the other runs of their key): they are found by what they lean on, which
//! the journal keeps for as long as they are open.

use chassis::journal::{leaning_ids, open_ids};
use domain::ids::RunId;
use domain::retention::Kin;
use futures::TryStreamExt;
use protocol::{Rejection, RejectionKind, shard_of};

use super::{Archivist, RUN, away};

impl Archivist {
    /// What a run is kept for, once any of that goes on or is held.
    pub(super) async fn kin(&self, run_id: RunId) -> Result<Kin, Rejection> {
        let run = self.beginning(run_id).await?;
        let mut kin = Kin::of(run_id, &run);
        let mut above = run.parent;
        while let Some(parent) = above.filter(|parent| parent.run_id != parent.root_run_id) {
            kin.add(parent.run_id);
            above = self.beginning(parent.run_id).await?.parent;
        }
        Ok(kin)
    }

    /// The refusal of dropping anything of a run that others need which go on.
    pub(super) async fn unneeded(&self, kin: &Kin) -> Result<(), Rejection> {
        let Some(other) = self.first_of(kin, RUN).await? else { return Ok(()) };
        let message = format!("{other} goes on and needs it: archive it once that has ended");
        Err(Rejection::new(RejectionKind::Conflict, "run_needed", message))
    }

    /// One of them that an open aggregate of a type is about.
    pub(super) async fn first_of(
        &self,
        kin: &Kin,
        aggregate_type: &str,
    ) -> Result<Option<RunId>, Rejection> {
        for home in kin.homes() {
            let mut open = open_ids(&*self.journal, aggregate_type, shard_of(home.first_run()));
            while let Some(id) = open.try_next().await.map_err(away)? {
                let Ok(open) = id.parse::<RunId>() else { continue };
                if open.home() != home {
                    continue;
                }
                if open == kin.run_id || kin.has(open, &self.beginning(open).await?) {
                    return Ok(Some(open));
                }
            }
        }
        for id in kin.ids() {
            let on = id.to_string();
            let mut leaning = leaning_ids(&*self.journal, aggregate_type, &on);
            while let Some(id) = leaning.try_next().await.map_err(away)? {
                if let Ok(open) = id.parse::<RunId>() {
                    return Ok(Some(open));
                }
            }
        }
        Ok(None)
    }
}
