//! Reruns: what another run was started with, and the version that it is done again with.

use domain::ids::{DefinitionId, RunId, WorkspaceId};
use domain::run::event::RunStarted;
use protocol::{Rejection, RerunVersion};

use super::CommandService;
use crate::coordinator::{not_found, read_beginning};

impl CommandService {
    /// How a run of the workspace began.
    pub(super) async fn beginning(
        &self,
        workspace_id: WorkspaceId,
        run_id: RunId,
    ) -> Result<RunStarted, Rejection> {
        let read = read_beginning(&*self.journal, run_id).await;
        let (of, started) = read.map_err(|error| error.refusal(run_id))?;
        if of != workspace_id {
            return Err(not_found(run_id));
        }
        self.resources.authorise_project(workspace_id, started.project_id).await?;
        Ok(started)
    }

    /// The version that a run is done again with; `None` for the newest.
    pub(super) async fn version_again(
        &self,
        workspace_id: WorkspaceId,
        started: &RunStarted,
        version: RerunVersion,
    ) -> Result<(DefinitionId, Option<u64>), Rejection> {
        let workflow = match started.workflow_id {
            Some(workflow_id) => Some(self.resolver.workflow(workspace_id, workflow_id).await?),
            None => None,
        };
        let before = &started.definition;
        Ok(match (version, workflow) {
            (RerunVersion::Pinned, _) => (before.id, Some(before.version)),
            (RerunVersion::Latest, Some(now)) => (now.definition_id, now.definition_version),
            (RerunVersion::Latest, None) => (before.id, None),
        })
    }
}
