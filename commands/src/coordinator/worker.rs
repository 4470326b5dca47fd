//! A worker: the loop that owns a share of the runs.

use std::collections::{HashMap, HashSet, VecDeque};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::Duration;

use chassis::bus;
use chassis::clock::Clock;
use chassis::journal::Journal;
use domain::ids::{RunId, WorkspaceId};
use domain::run::Run;
use domain::run::fork::Forking;
use futures::StreamExt;
use futures::stream::FuturesUnordered;
use protocol::{Abandoned, Outcome, Rejection, RejectionKind, RunOutcome, Task};
use tokio::sync::mpsc;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::actor::{Actor, Holds, Queued, Settled, Taken, Turn, count_refused, refuse_all, settle};
use super::admissions::Admissions;
use super::children::Children;
use super::dispatch::Dispatch;
use super::plans::Plans;
use super::recent::Recent;
use super::refusal::{not_found, not_owner, quarantined, unavailable};
use super::timers::Timers;
use super::workflows::Workflows;
use super::{Fenced, Message, Reply, Start, TASKS_IN_FLIGHT_PER_RUN, TaskQueue};
use crate::prepared::Preparations;
use crate::resolve::Resolver;

mod admission;
mod checks;
mod children;
mod commits;
mod gauges;
mod handing_out;
mod loading;
mod loads;
mod ownership;
mod resting;
mod workflows;

use commits::{Commit, commit};
use gauges::Gauges;
pub(super) use resting::Others;
use resting::Rests;

/// What a worker works with.
pub(super) struct Context {
    pub journal: Arc<dyn Journal>,
    pub resolver: Arc<Resolver>,
    pub plans: Arc<Plans>,
    /// What starting a child takes.
    pub preparations: Arc<Preparations>,
    pub clock: Arc<dyn Clock>,
    pub tasks: bus::Sender<Task>,
    /// Tasks that may wait in there before no more are added, a turn of each worker aside.
    pub tasks_waiting: usize,
    pub abandoned: bus::Sender<Abandoned>,
    /// The worker's own mailbox, for what it loads in the background.
    pub mailbox: mpsc::WeakSender<Message>,
    pub tasks_in_flight: usize,
    /// Where the run's project says nothing.
    pub tasks_in_flight_per_run: usize,
    pub idle: Duration,
    /// Where tasks are once they have left this process; `None` where they never do.
    pub queue: Option<Arc<dyn TaskQueue>>,
    /// Loads of runs that may be under way at the same time.
    pub loads: usize,
    /// Told of shards that turn out to be another coordinator's.
    pub fenced: Fenced,
    /// The runs of all workers of the process.
    pub others: Arc<Others>,
}

impl Context {
    /// How many attempts of a run may be on workers at the same time.
    fn limit_of(&self, actor: &Actor) -> usize {
        let limit = actor.tasks_in_flight.unwrap_or(self.tasks_in_flight_per_run);
        limit.clamp(1, TASKS_IN_FLIGHT_PER_RUN)
    }

    /// Tells workers of work that nobody waits for. Where too much is to be told some isn't: that
    /// work ends by itself.
    fn abandon(&self, work: Abandoned) {
        if self.abandoned.try_send(work).is_err() {
            metrics::counter!("wonder_abandoned_untold_total").increment(1);
        }
    }
}

/// Events in an append of a run beyond which what else is queued waits for the next one, and the
/// same of a run that has its worker for itself: so what others wait for meanwhile stays short.
const EVENTS_PER_TURN: usize = 64;
const EVENTS_PER_TURN_ALONE: usize = 256;
/// Messages taken at a time.
const BATCH: usize = 1_024;
/// How often idle runs are looked for, at most and at least.
const SWEEP_AT_MOST: Duration = Duration::from_millis(10);
const SWEEP_AT_LEAST: Duration = Duration::from_secs(5);

/// A run of this worker.
enum Slot {
    /// Being loaded under an epoch of its shard; what arrives waits.
    Loading {
        epoch: u64,
        queue: VecDeque<Queued>,
        waiters: Vec<(WorkspaceId, Reply<RunOutcome>)>,
    },
    Loaded(Box<Actor>),
    /// Deciding on it panicked: a defect of ours. It is left alone until the process starts again,
    /// so that it neither takes others down nor repeats its work for ever.
    Quarantined,
}

/// The worker.
pub(super) struct Worker {
    context: Context,
    /// The epochs of the shards that are owned.
    owned: HashMap<u16, u64>,
    runs: HashMap<RunId, Slot>,
    commits: FuturesUnordered<Commit>,
    timers: Timers<RunId>,
    dispatch: Dispatch,
    recent: Recent,
    gauges: Gauges,
    /// Runs that have something to decide, each once.
    turns: Vec<RunId>,
    checks: checks::Checks,
    /// The child runs that are waited for.
    children: Children,
    admissions: Admissions,
    workflows: Workflows,
    /// Runs that were told of their workflow and haven't followed yet.
    told: HashSet<RunId>,
    /// Starts that can't be judged yet.
    put_off: Vec<Start>,
    /// Attempts are ready, and the queue to the workers was full.
    waits_for_room: bool,
    loads: loads::Loads,
    rests: Rests,
}

impl Worker {
    pub(super) fn new(worker: usize, context: Context) -> Self {
        Self {
            loads: loads::Loads::new(context.loads),
            dispatch: Dispatch::new(context.tasks_in_flight),
            context,
            owned: HashMap::new(),
            runs: HashMap::new(),
            commits: FuturesUnordered::new(),
            timers: Timers::default(),
            recent: Recent::default(),
            gauges: Gauges::of(worker),
            turns: Vec::new(),
            checks: checks::Checks::default(),
            children: Children::default(),
            admissions: Admissions::default(),
            workflows: Workflows::default(),
            told: HashSet::new(),
            put_off: Vec::new(),
            waits_for_room: false,
            rests: Rests::default(),
        }
    }

    /// Works until it is told to stop; appends under way are brought to their end.
    pub(super) async fn run(
        mut self,
        mut mailbox: mpsc::Receiver<Message>,
        shutdown: CancellationToken,
    ) {
        let mut messages = Vec::with_capacity(BATCH);
        let (idle, mut swept) = (self.context.idle, Instant::now());
        let every = idle.clamp(SWEEP_AT_MOST, SWEEP_AT_LEAST);
        loop {
            let due = self.until_due().min(every);
            tokio::select! {
                biased;
                () = shutdown.cancelled() => break,
                Some(committed) = self.commits.next() => self.commits_done(committed).await,
                count = mailbox.recv_many(&mut messages, BATCH) => {
                    if count == 0 {
                        break;
                    }
                }
                () = tokio::time::sleep(due) => {}
            }
            while messages.len() < BATCH {
                let Ok(message) = mailbox.try_recv() else { break };
                messages.push(message);
            }
            for message in messages.drain(..) {
                self.accept(message);
            }
            self.wake_due();
            self.start_put_off();
            self.admit();
            self.tell_of_workflows();
            self.start_children();
            self.turns.extend(self.rests.over());
            self.take_turns();
            self.hand_out();
            self.check_unheard();
            self.start_loads();
            if swept.elapsed() >= every {
                self.sweep();
                swept = Instant::now();
            }
        }
        while let Some(done) = self.commits.next().await {
            let slot = self.runs.get_mut(&done.run_id);
            if let (Ok(appended), Some(Slot::Loaded(actor))) = (done.result, slot) {
                actor.committed(&appended);
            }
        }
        self.context.tasks.close();
    }

    fn accept(&mut self, message: Message) {
        match message {
            Message::Start(start) => self.start(start),
            Message::Command { run_id, command, cause, reply } => {
                let workspace_id = cause.workspace_id;
                let cause = Box::new(cause);
                self.queue(run_id, Some(workspace_id), Queued::Command { command, cause, reply });
            }
            Message::Outcome(outcome, settled) => self.outcome(outcome, settled),
            Message::Task { run_id, token, attempt, reply } => {
                // Who asked may have given up.
                reply.send(self.task(run_id, token, attempt)).ok();
            }
            Message::Wait { run_id, workspace_id, reply } => self.wait(run_id, workspace_id, reply),
            Message::Loaded { run_id, epoch, loaded } => self.loaded(run_id, epoch, loaded),
            Message::Recover(run_id) => {
                if let Some(epoch) = self.epoch_of(run_id) {
                    self.recover(run_id, epoch);
                }
            }
            Message::Own { shard, epoch } => self.own(shard, epoch),
            Message::Lose { shard } => self.lose(shard),
            Message::Named { shard, epoch } => {
                if self.owned.get(&shard) == Some(&epoch) {
                    self.admissions.named(shard);
                }
            }
            Message::Counted { home, until } => {
                if self.epoch_of(home.first_run()).is_some() {
                    self.admissions.count(home, until);
                }
            }
            Message::ResourcesWritten => self.look_up_workflows(),
            Message::Workflow { workflow_id, standing } => {
                self.workflow_stands(workflow_id, standing);
            }
            Message::ChildPrepared { child, prepared } => self.child_prepared(child, prepared),
            Message::Checked(looked) => self.checked(looked),
        }
    }

    fn start(&mut self, start: Box<Start>) {
        let run_id = start.run_id;
        let Some(epoch) = self.epoch_of(run_id) else {
            return drop(start.reply.send(Err(not_owner())));
        };
        if self.runs.contains_key(&run_id) || self.admissions.knows(run_id) {
            let message = "a run with this id exists already";
            let rejection =
                Rejection::new(RejectionKind::Conflict, super::RUN_ALREADY_STARTED, message);
            return drop(start.reply.send(Err(rejection)));
        }
        let Some(start) = self.judged(start) else { return };
        let mut actor = Actor::new(Taken {
            run_id,
            epoch,
            workspace_id: start.cause.workspace_id,
            run: Run::default(),
            plan: Arc::clone(&start.plan),
            adoption: None,
            tasks_in_flight: start.tasks_in_flight,
            standing: None,
            sequence: start.fork.as_deref().map_or(0, Forking::written),
            snapshot_at: 0,
            position: 0,
            recorded_at: start.started.started_at,
        });
        actor.queue.push_back(Queued::Start(start));
        self.runs.insert(run_id, Slot::Loaded(Box::new(actor)));
        self.turns.push(run_id);
    }

    fn outcome(&mut self, outcome: Outcome, settled: Settled) {
        let took = Duration::from_millis(outcome.duration_ms);
        self.dispatch.outcome(outcome.run_id, outcome.token, outcome.attempt, took);
        if self.recent.get(outcome.run_id).is_some() {
            count_refused();
            return settle(settled);
        }
        self.queue(outcome.run_id, None, Queued::Outcome(Box::new(outcome), settled));
    }

    /// The task of an attempt, for a worker that fetches it. Where the run isn't in memory it is
    /// loaded, and the worker asks again.
    fn task(&mut self, run_id: RunId, token: u64, attempt: u32) -> Result<Option<Task>, Rejection> {
        let loading = || unavailable("the run is being loaded, try again");
        if self.recent.get(run_id).is_some() {
            return Ok(None);
        }
        let epoch = self.epoch_of(run_id);
        match (self.runs.get_mut(&run_id), epoch) {
            (Some(Slot::Loaded(actor)), _) => Ok(actor.fetched(token, attempt)),
            (Some(Slot::Loading { .. }), _) => Err(loading()),
            (Some(Slot::Quarantined), _) => Ok(None),
            (None, Some(epoch)) => {
                self.load(run_id, epoch);
                Err(loading())
            }
            (None, None) => Err(not_owner()),
        }
    }

    /// Queues something for a run, which is loaded first where it isn't in memory. A client's
    /// command to a run of another workspace is refused as if there were no such run.
    fn queue(&mut self, run_id: RunId, workspace_id: Option<WorkspaceId>, queued: Queued) {
        match self.runs.get_mut(&run_id) {
            Some(Slot::Loaded(actor)) => {
                if workspace_id.is_some_and(|workspace_id| workspace_id != actor.workspace_id()) {
                    return refuse_one(queued, &not_found(run_id), Holds::ForGood);
                }
                actor.queue.push_back(queued);
                self.turns.push(run_id);
            }
            Some(Slot::Loading { queue, .. }) => queue.push_back(queued),
            Some(Slot::Quarantined) => refuse_one(queued, &quarantined(), Holds::ForNow),
            None => match self.epoch_of(run_id) {
                Some(epoch) => {
                    self.load(run_id, epoch);
                    self.queue(run_id, workspace_id, queued);
                }
                None => refuse_one(queued, &not_owner(), Holds::ForNow),
            },
        }
    }

    fn wait(&mut self, run_id: RunId, workspace_id: WorkspaceId, reply: Reply<RunOutcome>) {
        if let Some((workspace, outcome)) = self.recent.get(run_id) {
            let known = *workspace == workspace_id;
            let answer = if known { Ok(outcome.clone()) } else { Err(not_found(run_id)) };
            return drop(reply.send(answer));
        }
        match self.runs.get_mut(&run_id) {
            Some(Slot::Loaded(actor)) => wait_for(actor, workspace_id, reply),
            Some(Slot::Loading { waiters, .. }) => waiters.push((workspace_id, reply)),
            Some(Slot::Quarantined) => drop(reply.send(Err(quarantined()))),
            None => match self.epoch_of(run_id) {
                Some(epoch) => {
                    self.load(run_id, epoch);
                    self.wait(run_id, workspace_id, reply);
                }
                None => drop(reply.send(Err(not_owner()))),
            },
        }
    }

    fn until_due(&self) -> Duration {
        if self.admissions.is_due() {
            return Duration::ZERO;
        }
        let due = self.timers.next().into_iter().chain(self.admissions.next_at()).min();
        let due = due.map(|due| (due - self.context.clock.now()).to_std().unwrap_or_default());
        due.unwrap_or(Duration::MAX)
            .min(self.loads.until_due())
            .min(self.checks.until_due())
            .min(self.rests.until_due())
            .min(self.until_room())
    }

    fn wake_due(&mut self) {
        let now = self.context.clock.now();
        while let Some(run_id) = self.timers.pop_due(now) {
            self.queue(run_id, None, Queued::Wake);
        }
    }

    fn take_turns(&mut self) {
        let most = if self.runs.len() > 1 { EVENTS_PER_TURN } else { EVENTS_PER_TURN_ALONE };
        for run_id in std::mem::take(&mut self.turns) {
            let Some(Slot::Loaded(actor)) = self.runs.get_mut(&run_id) else { continue };
            if self.rests.is_resting(run_id) {
                continue;
            }
            let clock = &*self.context.clock;
            let Ok(turn) = catch_unwind(AssertUnwindSafe(|| actor.turn(clock, most))) else {
                self.quarantine(run_id);
                continue;
            };
            self.dispatch.decided(run_id, actor.queue.len(), actor.last_append);
            match turn {
                Turn::Append(append) => self.commits.push(commit(&self.context, run_id, append)),
                Turn::SlotIsPast => self.wait_again(run_id),
                Turn::Failed(rejection) => self.drop_run(run_id, &rejection),
                Turn::Idle if matches!(actor.run, Run::NotStarted) && actor.is_idle() => {
                    self.runs.remove(&run_id);
                    self.forget(run_id);
                }
                Turn::Idle => {
                    if actor.under_way.is_none() {
                        let due = actor.run.next_due();
                        self.timers.set(run_id, due);
                    }
                }
            }
        }
    }

    /// Lets idle runs leave memory. Their timers stay.
    fn sweep(&mut self) {
        let idle = self.context.idle;
        let now = Instant::now();
        // Who gave up starting a run doesn't start it later.
        let workflows = &mut self.workflows;
        self.put_off.retain(|start| {
            let is_wanted = !start.reply.is_closed();
            if !is_wanted {
                workflows.leave(start.run_id);
            }
            is_wanted
        });
        let (dispatch, children) = (&self.dispatch, &self.children);
        self.runs.retain(|run_id, slot| match slot {
            Slot::Loading { .. } | Slot::Quarantined => true,
            Slot::Loaded(actor) => {
                // Who gave up waiting doesn't hold the run.
                actor.waiters.retain(|waiter| !waiter.is_closed());
                !actor.is_idle()
                    || dispatch.has_ready(*run_id)
                    || now.duration_since(actor.last_used) < idle
                    || children.starts_of(*run_id)
            }
        });
        self.gauges.runs.set(self.runs.len() as f64);
    }
}

fn refuse_one(queued: Queued, rejection: &Rejection, holds: Holds) {
    refuse_all(std::iter::once(queued), rejection, holds);
}

fn wait_for(actor: &mut Actor, workspace_id: WorkspaceId, reply: Reply<RunOutcome>) {
    if workspace_id != actor.workspace_id() {
        return drop(reply.send(Err(not_found(actor.run_id))));
    }
    match actor.outcome() {
        Some(outcome) => drop(reply.send(Ok(outcome))),
        None => {
            actor.waiters.retain(|waiter| !waiter.is_closed());
            actor.waiters.push(reply);
        }
    }
}
