//! Runs follow their workflow: they are paused with it, and go on with it.

use std::sync::Arc;
use std::time::Duration;

use domain::ids::{RunId, WorkflowId};
use domain::queue::Hold;
use domain::run::{Command, Run};

use super::{Slot, Worker};
use crate::coordinator::Message;
use crate::coordinator::actor::{Actor, Queued};
use crate::coordinator::workflows::Standing;

/// Runs that are told of their workflow at the same time: a workflow with many runs delays no
/// other.
const TOLD: usize = 64;
/// Pauses before a workflow that couldn't be looked up is looked up again.
const FIRST_PAUSE: Duration = Duration::from_millis(100);
const LONGEST_PAUSE: Duration = Duration::from_secs(5);

impl Worker {
    /// A run of a workflow is started or was loaded.
    pub(super) fn follow_workflow(
        &mut self,
        run_id: RunId,
        workflow_id: WorkflowId,
        standing: Standing,
    ) {
        let is_first = !self.workflows.knows(workflow_id);
        let changed = self.workflows.enter(run_id, workflow_id, standing);
        self.hold(&changed);
        if is_first {
            // Since it was looked up, a write may have been looked at that nobody was told of.
            self.look_up(vec![workflow_id]);
        }
    }

    /// A workflow was looked up.
    pub(super) fn workflow_stands(&mut self, workflow_id: WorkflowId, standing: Standing) {
        let changed = self.workflows.stands(workflow_id, standing);
        self.hold(&changed);
    }

    fn hold(&mut self, runs: &[RunId]) {
        for run_id in runs {
            let is_paused = self.workflows.paused(*run_id).is_some();
            self.admissions.hold(*run_id, Hold::Workflow, is_paused);
        }
    }

    /// A run that was loaded may not have heard of its workflow.
    pub(super) fn catch_up_with_workflow(&mut self, actor: &Actor) {
        let Run::Live(live) = &actor.run else { return };
        let is_paused = self.workflows.paused(actor.run_id).is_some();
        if live.may_follow_workflow(is_paused) {
            self.workflows.tell(actor.run_id);
        }
    }

    /// Tells runs how their workflow stands, some at a time.
    pub(super) fn tell_of_workflows(&mut self) {
        let runs = &self.runs;
        self.told.retain(|run_id| match runs.get(run_id) {
            Some(Slot::Loaded(actor)) => !actor.is_settled(),
            Some(Slot::Loading { .. }) => true,
            Some(Slot::Quarantined) | None => false,
        });
        while self.told.len() < TOLD {
            let Some((run_id, workflow_id)) = self.workflows.next() else { break };
            let is_paused = self.workflows.paused(run_id).is_some();
            let ahead = self.admissions.ahead(run_id);
            let command = Command::FollowWorkflow { workflow_id, is_paused, ahead };
            self.queue(run_id, None, Queued::Own(Box::new(command)));
            self.told.insert(run_id);
        }
    }

    /// Resources were written: looks the workflows up that have runs here.
    pub(super) fn look_up_workflows(&self) {
        self.look_up(self.workflows.ids());
    }

    fn look_up(&self, ids: Vec<WorkflowId>) {
        if ids.is_empty() {
            return;
        }
        let (resolver, mailbox) =
            (Arc::clone(&self.context.resolver), self.context.mailbox.clone());
        tokio::spawn(async move {
            for workflow_id in ids {
                let mut pause = FIRST_PAUSE;
                let found = loop {
                    match resolver.standing(workflow_id).await {
                        Ok(found) => break found,
                        Err(error) => {
                            tracing::warn!(%workflow_id, %error, "can't look a workflow up yet");
                        }
                    }
                    tokio::time::sleep(pause).await;
                    pause = (pause * 2).min(LONGEST_PAUSE);
                    if mailbox.strong_count() == 0 {
                        return;
                    }
                };
                let Some(mailbox) = mailbox.upgrade() else { return };
                if let Some(standing) = found {
                    drop(mailbox.send(Message::Workflow { workflow_id, standing }).await);
                }
            }
        });
    }
}
