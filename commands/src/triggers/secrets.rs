//! Reads of webhooks' secrets, for the record: counted, and told beside the deliveries.

use chassis::coalesce::{Coalescer, Counted, Told};
use domain::access::{Crowd, Event, Times, WebhookSecrets};
use domain::ids::{CommandId, Name, WorkflowId, WorkspaceId};
use protocol::{Command, CommandEnvelope, RejectionKind};
use tokio_util::sync::CancellationToken;

use super::Triggers;
use crate::access;

/// Triggers that are told apart in a minute.
const MOST: usize = 256;
/// Who reads secrets for webhooks.
const ACTOR: &str = "webhook";

/// What reads have in common that are counted as one.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Alike {
    pub(super) workspace_id: WorkspaceId,
    pub(super) workflow_id: WorkflowId,
    pub(super) trigger: Name,
    pub(super) names: Vec<String>,
}

/// The reads that aren't told yet.
pub(crate) struct Secrets(Coalescer<Alike, ()>);

impl Default for Secrets {
    fn default() -> Self {
        Self(Coalescer::new(MOST))
    }
}

impl Triggers {
    /// Notes that secrets of a trigger were read.
    pub(super) fn note_secrets(&self, alike: Alike) {
        self.secrets.0.note(alike, self.clock.now(), || ());
    }

    /// Records reads until `stop`, and the rest then.
    pub(super) async fn tell_of_secrets(self, stop: CancellationToken) {
        self.secrets.0.tell(stop, |counted| self.told(counted)).await;
    }

    async fn told(&self, counted: Counted<Alike, ()>) -> Told {
        let Counted { what, count, first_at, last_at } = counted;
        let times = Times { count, first_at, last_at };
        let (workspace_id, event) = match what {
            None => {
                let of = Crowd::WebhookSecrets;
                (self.workspace_id, Event::AccessesLeftOut { of, times })
            }
            Some((Alike { workspace_id, workflow_id, trigger, names }, ())) => {
                let used = WebhookSecrets { workflow_id, trigger, names, times };
                (workspace_id, Event::WebhookSecretsUsed(Box::new(used)))
            }
        };
        let envelope = CommandEnvelope::new(
            CommandId::new(self.clock.uuid_v7()),
            workspace_id,
            ACTOR,
            Command::RecordAccess(event.clone()),
        );
        let (journal, clock) = (&*self.journal, &*self.clock);
        match access::record(journal, clock, workspace_id, &envelope, event).await {
            Ok(_) => Told::Done,
            Err(refused) => {
                tracing::warn!(%refused, "a read of a webhook's secret isn't recorded");
                match refused.kind {
                    RejectionKind::Unavailable => Told::Again,
                    _ => Told::Done,
                }
            }
        }
    }
}
