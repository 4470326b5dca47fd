//! Appends that become durable, and what follows from them.

use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use chassis::journal::{Append, AppendError, Appended};
use domain::ids::RunId;
use domain::queue::Hold;
use futures::StreamExt;
use futures::future::BoxFuture;
use protocol::Abandoned;
use tokio::time::Instant;

use super::{Context, Slot, Worker};
use crate::coordinator::actor::{Holds, refuse_all};
use crate::coordinator::refusal::{ended, refused};

pub(super) type Commit = BoxFuture<'static, Committed>;

/// An append that has ended.
pub(super) struct Committed {
    pub run_id: RunId,
    pub result: Result<Appended, AppendError>,
    took: Duration,
}

impl Worker {
    pub(super) async fn commits_done(&mut self, first: Committed) {
        self.commit_done(first);
        // Others that are ready are taken along, so that their runs share the next commit.
        while let Poll::Ready(Some(next)) = futures::poll!(self.commits.next()) {
            self.commit_done(next);
        }
    }

    fn commit_done(&mut self, Committed { run_id, result, took }: Committed) {
        match result {
            Ok(appended) => {
                self.rest(run_id, took);
                self.committed(run_id, &appended);
            }
            Err(AppendError::Fenced { shard }) => self.fenced(run_id, shard),
            Err(error) => {
                tracing::warn!(%run_id, %error, "an append failed, loading the run again");
                self.drop_run(run_id, &refused(&error));
            }
        }
    }

    fn committed(&mut self, run_id: RunId, appended: &Appended) {
        let epoch = self.epoch_of(run_id);
        let Some(Slot::Loaded(actor)) = self.runs.get_mut(&run_id) else { return };
        let mut durable = actor.committed(appended);
        if epoch != Some(actor.epoch) {
            // It had to leave while this append was under way.
            return self.left_behind(run_id);
        }
        if let Some(is_paused) = durable.paused {
            self.admissions.hold(run_id, Hold::Run, is_paused);
        }
        self.children_follow(run_id, &mut durable);
        let Some(Slot::Loaded(actor)) = self.runs.get_mut(&run_id) else { return };
        if let Some(outcome) = actor.outcome() {
            for waiter in actor.waiters.drain(..) {
                drop(waiter.send(Ok(outcome.clone())));
            }
            refuse_all(actor.queue.drain(..), &ended(&outcome), Holds::ForGood);
            let workspace_id = actor.workspace_id();
            if let Some(Slot::Loaded(actor)) = self.runs.remove(&run_id) {
                self.tell_parent(run_id, &actor.run);
            }
            self.forget(run_id);
            self.timers.set(run_id, None);
            self.dispatch.forget_ready(run_id);
            self.recent.keep(run_id, workspace_id, outcome);
            if !self.dispatch.give_up(run_id, |_, _| false).is_empty() {
                self.context.abandon(Abandoned { run_id, tokens: Vec::new() });
            }
            return;
        }
        if durable.dropped {
            let tokens = self.dispatch.give_up(run_id, |token, attempt| {
                actor.run.working_attempt(token).is_some_and(|(_, current)| current == attempt)
            });
            if !tokens.is_empty() {
                self.context.abandon(Abandoned { run_id, tokens });
            }
        }
        self.timers.set(run_id, actor.run.next_due());
        let limit = self.context.limit_of(actor);
        for (token, attempt) in durable.dispatch {
            self.dispatch.ready(run_id, limit, token, attempt);
        }
        if !actor.queue.is_empty() {
            self.turns.push(run_id);
        }
        self.let_wait(run_id);
    }
}

/// An append under way.
pub(super) fn commit(context: &Context, run_id: RunId, append: Box<Append>) -> Commit {
    let journal = Arc::clone(&context.journal);
    Box::pin(async move {
        let begun = Instant::now();
        let result = journal.append(*append).await;
        Committed { run_id, result, took: begun.elapsed() }
    })
}
