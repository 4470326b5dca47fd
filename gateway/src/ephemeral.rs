//! Ephemeral messages of a stream, beside its events. They hold no event up: of those that came, no
//! more than a few are told before the next event, and only those of its run, so that pieces of an
//! answer stand before the event that has all of it.

use std::collections::VecDeque;

use domain::ids::{ProjectId, RunId, WorkspaceId};
use futures::FutureExt as _;
use futures::stream::{BoxStream, StreamExt as _};
use protocol::{Cursor, Ephemeral, EphemeralFilter};

use crate::call::Call;
use crate::problem::Problem;

/// Messages that wait for their turn; beyond them the oldest are lost.
const WAITING: usize = 64;
/// Messages that are looked at before an event.
const LOOKED_AT: usize = 256;

/// What a reader listens to.
pub(crate) struct Ephemerals {
    messages: BoxStream<'static, Ephemeral>,
    waiting: VecDeque<Ephemeral>,
    /// The last event that the reader was told, or where its stream began.
    pub(crate) after: Cursor,
}

impl Ephemerals {
    pub(crate) async fn open(
        call: &Call,
        workspace_id: WorkspaceId,
        project_id: Option<ProjectId>,
        run_id: Option<RunId>,
        after: Option<Cursor>,
    ) -> Result<Self, Problem> {
        let gateway = &call.edge.gateway;
        let after = match after {
            Some(after) => after,
            None => Cursor { position: 0, ..gateway.events.head().await? },
        };
        let filter = EphemeralFilter { workspace_id, project_id, run_id };
        let messages = gateway.ephemerals.listen(filter).await?;
        Ok(Self { messages: messages.fuse().boxed(), waiting: VecDeque::new(), after })
    }

    /// The next message. Cancel-safe; where there will be none, it never ends.
    pub(crate) async fn next(&mut self) -> Ephemeral {
        if let Some(message) = self.waiting.pop_front() {
            return message;
        }
        match self.messages.next().await {
            Some(message) => message,
            None => std::future::pending().await,
        }
    }

    /// The messages of a run that have come.
    pub(crate) fn of_run(&mut self, run_id: &str) -> VecDeque<Ephemeral> {
        for _ in 0..LOOKED_AT {
            // What is there is taken, however much was done in this turn.
            let next = tokio::task::unconstrained(self.messages.next()).now_or_never();
            let Some(Some(message)) = next else { break };
            if self.waiting.len() == WAITING {
                self.waiting.pop_front();
            }
            self.waiting.push_back(message);
        }
        if self.waiting.is_empty() {
            return VecDeque::new();
        }
        let is_of_it = |message: &Ephemeral| message.run_id.to_string() == run_id;
        let (of_it, others) = std::mem::take(&mut self.waiting).into_iter().partition(is_of_it);
        self.waiting = others;
        of_it
    }
}
