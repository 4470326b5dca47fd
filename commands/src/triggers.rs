//! Triggers: starts runs of workflows on webhooks, at scheduled times, on events of runs and on
//! messages of streams.
//!
//! The run of what has happened has an id that follows from it, so that a start which is repeated
//! (after a crash, by another owner, by a sender that got no answer) meets the first one's run.
//! That alone makes it one run. What a trigger is done with stands in its own events (`log`), so
//! that a start is not tried again for ever, and is known after a restart.
//!
//! Times, events and messages are looked after by the owner of the shard that the workflow's id
//! belongs to, and their runs live on the same shard. A webhook is taken by the owner of its run's
//! shard.

use std::sync::Arc;

use chassis::bus::Nats;
use chassis::clock::Clock;
use chassis::journal::Journal;
use chassis::shards::Ownership;
use domain::ids::{RunId, WorkflowId, WorkspaceId};
use futures::FutureExt;
use futures::future::BoxFuture;
use protocol::{Commands, shard_of};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::coordinator::Coordinator;
use crate::prepared::Preparations;
use crate::resolve::Resolver;
use crate::resources::heads::Heads;

mod armed;
mod events;
mod log;
mod messages;
mod schedules;
mod secrets;
mod start;
mod webhook;

/// Who starts the runs.
const ACTOR: &str = "trigger";
/// How often it is looked whether workflows have changed, or shards, where nothing else is due.
const LOOK: std::time::Duration = std::time::Duration::from_secs(1);

/// What triggers work with. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Triggers {
    pub(crate) journal: Arc<dyn Journal>,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) heads: Arc<Heads>,
    pub(crate) resolver: Arc<Resolver>,
    pub(crate) preparations: Arc<Preparations>,
    pub(crate) coordinator: Coordinator,
    /// The write side of all processes, where others own shards.
    pub(crate) everywhere: Option<Arc<dyn Commands>>,
    pub(crate) ownership: Ownership,
    /// Where messages come from, if from anywhere.
    pub(crate) nats: Option<Nats>,
    /// The workspace of what is about none.
    pub(crate) workspace_id: WorkspaceId,
    /// Secrets that were read, and aren't told of yet.
    pub(crate) secrets: Arc<secrets::Secrets>,
}

impl Triggers {
    /// Looks after times, events and messages until `shutdown`; the tracker knows when that has
    /// ended.
    pub(crate) fn run(&self, shutdown: &CancellationToken, tracker: &TaskTracker) {
        let run = |work: BoxFuture<'static, ()>| {
            tracker.spawn(shutdown.clone().run_until_cancelled_owned(work));
        };
        run(self.clone().follow_schedules().boxed());
        run(self.clone().follow_events().boxed());
        run(self.clone().follow_messages().boxed());
        tracker.spawn(self.clone().tell_of_secrets(shutdown.clone()));
    }
}

/// The shard whose owner looks after a workflow's triggers: that of the runs beside it.
fn shard_of_workflow(workflow_id: WorkflowId) -> u16 {
    shard_of(RunId::new(workflow_id.bits()))
}
