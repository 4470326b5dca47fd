//! Runs that wait for their turn: who is let in, and who has to make room.

use domain::ids::RunId;
use domain::queue::Found;
use domain::run::{Command, Run};

use super::{Slot, Worker};
use crate::coordinator::Start;
use crate::coordinator::actor::{Actor, Queued};
use crate::coordinator::admissions::Move;
use crate::coordinator::refusal::unavailable;

/// Runs of which something is asked at a time.
const MOVES: usize = 256;
/// Starts that are put off at a time.
const PUT_OFF: usize = 1_024;

impl Worker {
    /// Says whether a run that is started begins; false where that isn't known yet.
    pub(super) fn judge(&mut self, start: &mut Start) -> bool {
        let Some(admission) = &mut start.started.admission else { return true };
        let (definition, now) = (start.started.definition.id, self.context.clock.now());
        match self.admissions.enter(start.run_id, definition, admission, now) {
            Some(verdict) => {
                start.verdict = verdict;
                true
            }
            None => false,
        }
    }

    /// Keeps a start until all runs of its key are known.
    pub(super) fn put_off(&mut self, start: Box<Start>) {
        if self.put_off.len() < PUT_OFF {
            self.put_off.push(start);
        } else {
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
            self.start(start);
        }
    }

    /// A run was loaded: takes its place in its queue.
    pub(super) fn place(&mut self, actor: &Actor) {
        let run_id = actor.run_id;
        match &actor.run {
            Run::Live(live) => {
                let is_admit = |queued: &Queued| match queued {
                    Queued::Own(command) => matches!(**command, Command::Admit),
                    _ => false,
                };
                // One that is about to be admitted has its place already.
                let found = match live.in_queue.is_some() {
                    false => Found::Admitted,
                    true if actor.queue.iter().any(is_admit) => Found::Admitted,
                    true if live.pause.is_some() => Found::Aside,
                    true => Found::Waiting,
                };
                self.admissions.restore(&live.header, found);
            }
            Run::NotStarted | Run::Closed(_) => self.admissions.leave(run_id),
        }
        self.admissions.know(run_id);
    }

    /// Lets runs in whose turn it is, and ends those that have to make room.
    pub(super) fn admit(&mut self) {
        for next in self.admissions.moves(MOVES) {
            let (run_id, command) = match next {
                Move::Admit(run_id) => (run_id, Command::Admit),
                Move::Displace { run_id, by } => (run_id, Command::Displace { by }),
            };
            self.queue(run_id, None, Queued::Own(Box::new(command)));
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
