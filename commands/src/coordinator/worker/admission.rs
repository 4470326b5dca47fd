//! Runs that wait for their turn: who is let in, and who has to make room.

use domain::ids::RunId;
use domain::queue::{Found, Hold};
use domain::run::event::QueueReason;
use domain::run::{Command, Run};

use super::{Slot, Worker};
use crate::coordinator::actor::{Actor, Queued};
use crate::coordinator::admissions::Move;
use crate::coordinator::refusal::{dropped, unavailable};
use crate::coordinator::{Start, Verdict};

/// Runs of which something is asked at a time.
const MOVES: usize = 256;
/// Starts that are put off at a time.
const PUT_OFF: usize = 1_024;

impl Worker {
    /// A start that may be recorded now: one that can't be judged yet is put off, and a fork that
    /// is dropped is refused.
    pub(super) fn judged(&mut self, mut start: Box<Start>) -> Option<Box<Start>> {
        if !self.judge(&mut start) {
            self.put_off(start);
            return None;
        }
        match (&start.verdict, &start.fork) {
            (Verdict::IsDropped(over), Some(_)) => {
                self.forget(start.run_id);
                drop(start.reply.send(Err(dropped(*over))));
                None
            }
            _ => Some(start),
        }
    }

    /// Says whether a run that is started begins; false where that isn't known yet.
    fn judge(&mut self, start: &mut Start) -> bool {
        let run_id = start.run_id;
        if let (Some(id), Some(standing)) = (start.started.workflow_id, start.standing) {
            self.follow_workflow(run_id, id, standing);
        }
        let paused = self.workflows.paused(run_id);
        let (definition, now) = (start.started.definition.id, self.context.clock.now());
        // It is decided as of this moment, so that what it is judged by holds then.
        start.started.started_at = now;
        let verdict = match (&mut start.started.admission, paused) {
            (Some(admission), paused) => {
                self.admissions.enter(run_id, definition, admission, paused, now)
            }
            (None, Some(workflow_id)) => {
                Some(Verdict::Waits(QueueReason::WorkflowPaused { workflow_id }))
            }
            (None, None) => Some(Verdict::Begins),
        };
        let is_judged = verdict.is_some();
        start.verdict = verdict.unwrap_or(Verdict::Begins);
        is_judged
    }

    /// Keeps a start until all runs of its key are known.
    fn put_off(&mut self, start: Box<Start>) {
        if self.put_off.len() < PUT_OFF {
            self.put_off.push(*start);
        } else {
            self.forget(start.run_id);
            let message = "the runs with this concurrency key are being looked up, try again";
            drop(start.reply.send(Err(unavailable(message))));
        }
    }

    /// Starts what was put off and can be judged now; sends on what belongs elsewhere by now.
    pub(super) fn start_put_off(&mut self) {
        if !self.admissions.take_opened() {
            return;
        }
        for start in std::mem::take(&mut self.put_off) {
            self.start(Box::new(start));
        }
    }

    /// A run has ended, or was never written.
    pub(super) fn forget(&mut self, run_id: RunId) {
        self.admissions.leave(run_id);
        self.workflows.leave(run_id);
    }

    /// A run was loaded: takes its place in its queue.
    pub(super) fn place(&mut self, actor: &Actor) {
        let run_id = actor.run_id;
        match &actor.run {
            Run::Live(live) => {
                let is_admit = |queued: &Queued| matches!(queued, Queued::Admit(_));
                // One that is about to be admitted has its place already.
                let found = match live.in_queue.is_some() {
                    false => Found::Admitted,
                    true if actor.queue.iter().any(is_admit) => Found::Admitted,
                    true => Found::Waiting,
                };
                self.admissions.restore(&live.header, found);
                self.admissions.hold(run_id, Hold::Run, live.pause.is_some());
                let is_paused = self.workflows.paused(run_id).is_some();
                self.admissions.hold(run_id, Hold::Workflow, is_paused);
                self.catch_up_with_workflow(actor);
            }
            Run::NotStarted | Run::Closed(_) => self.forget(run_id),
        }
        self.admissions.know(run_id);
    }

    /// Lets runs in whose turn it is, and ends those that have to make room.
    pub(super) fn admit(&mut self) {
        for next in self.admissions.moves(MOVES, self.context.clock.now()) {
            let (run_id, queued) = match next {
                Move::Admit { run_id, slot } => (run_id, Queued::Admit(slot)),
                Move::Displace { run_id, by } => {
                    (run_id, Queued::Own(Box::new(Command::Displace { by })))
                }
            };
            self.queue(run_id, None, queued);
        }
    }

    /// Something else of a run was recorded after the moment at which it was to begin: it gets
    /// another slot, with its old place in the queue.
    pub(super) fn wait_again(&mut self, run_id: RunId) {
        if let Some(Slot::Loaded(actor)) = self.runs.remove(&run_id) {
            self.place(&actor);
            self.runs.insert(run_id, Slot::Loaded(actor));
            self.turns.push(run_id);
        }
    }

    /// A run that waits and is asked nothing leaves memory at once: there may be many.
    pub(super) fn let_wait(&mut self, run_id: RunId) {
        if let Some(Slot::Loaded(actor)) = self.runs.get(&run_id)
            && actor.run.is_in_queue()
            && actor.is_idle()
        {
            self.runs.remove(&run_id);
        }
    }
}
