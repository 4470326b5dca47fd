//! Accesses that are recorded because the edge says so.

use domain::access::Event;
use domain::ids::{WorkflowId, WorkspaceId};
use domain::resource::Kind;
use protocol::{CommandEnvelope, Receipt, Rejection};

use super::CommandService;
use crate::access;

impl CommandService {
    pub(super) async fn record_access(
        &self,
        envelope: &CommandEnvelope,
        event: Event,
    ) -> Result<Receipt, Rejection> {
        let workspace_id = match envelope.workspace_id {
            nobody if nobody.bits().is_nil() => self.workspace_of(&event).await?,
            known => known,
        };
        access::record(&*self.journal, &*self.clock, workspace_id, envelope, event).await
    }

    /// Whose concern it is where nobody was signed in: that of the workflow whose webhook was
    /// called, or else of whoever runs the platform.
    async fn workspace_of(&self, event: &Event) -> Result<WorkspaceId, Rejection> {
        let target = match event {
            Event::AccessRefused(refusal) => refusal.target.as_deref(),
            _ => None,
        };
        if let Some(workflow_id) = target.and_then(|id| id.parse::<WorkflowId>().ok()) {
            self.resources.catch_up().await?;
            let heads = self.resources.heads();
            let head = heads.head(Kind::Workflow, &workflow_id.to_string()).await?;
            let workspace_id = head.and_then(|head| head.workspace_id.parse().ok());
            return Ok(workspace_id.unwrap_or(self.defaults.workspace_id));
        }
        Ok(self.defaults.workspace_id)
    }
}
