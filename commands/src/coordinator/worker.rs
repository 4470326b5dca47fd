//! A worker: the loop that owns a share of the runs.

use std::collections::{HashMap, VecDeque};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::{Duration, Instant};

use chassis::bus;
use chassis::clock::Clock;
use chassis::journal::{Append, AppendError, Appended, Journal};
use domain::ids::{RunId, WorkspaceId};
use domain::run::Run;
use futures::StreamExt;
use futures::future::BoxFuture;
use futures::stream::FuturesUnordered;
use protocol::{Outcome, Rejection, RejectionKind, RunOutcome, Task};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use super::actor::{Actor, Queued, Taken, Turn, count_refused, refuse_all};
use super::dispatch::Dispatch;
use super::load::{self, LoadError, Loaded};
use super::plans::Plans;
use super::recent::Recent;
use super::refusal::{ended, not_found, quarantined, refused};
use super::timers::Timers;
use super::{Message, Reply, Start, TASKS_IN_FLIGHT_PER_RUN};
use crate::resolve::Resolver;

/// What a worker works with.
pub(super) struct Context {
    pub journal: Arc<dyn Journal>,
    pub resolver: Arc<Resolver>,
    pub plans: Arc<Plans>,
    pub clock: Arc<dyn Clock>,
    pub tasks: bus::Sender<Task>,
    /// The worker's own mailbox, for what it loads in the background.
    pub mailbox: mpsc::WeakSender<Message>,
    pub tasks_in_flight: usize,
    /// Where the run's project says nothing.
    pub tasks_in_flight_per_run: usize,
    pub idle: Duration,
}

impl Context {
    /// How many attempts of a run may be on workers at the same time.
    fn limit_of(&self, actor: &Actor) -> usize {
        let limit = actor.tasks_in_flight.unwrap_or(self.tasks_in_flight_per_run);
        limit.clamp(1, TASKS_IN_FLIGHT_PER_RUN)
    }
}

/// Messages taken at a time.
const BATCH: usize = 1_024;
/// How long a failed load waits before it is tried again.
const LOAD_AGAIN: Duration = Duration::from_millis(500);
/// How often idle runs are looked for, at most and at least.
const SWEEP_AT_MOST: Duration = Duration::from_millis(10);
const SWEEP_AT_LEAST: Duration = Duration::from_secs(5);

type Commit = BoxFuture<'static, (RunId, Result<Appended, AppendError>)>;

/// A run of this worker.
enum Slot {
    /// Being loaded; what arrives waits.
    Loading {
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
    runs: HashMap<RunId, Slot>,
    commits: FuturesUnordered<Commit>,
    timers: Timers,
    dispatch: Dispatch,
    recent: Recent,
    gauges: Gauges,
    /// Runs that have something to decide, each once.
    turns: Vec<RunId>,
}

impl Worker {
    pub(super) fn new(worker: usize, context: Context) -> Self {
        let dispatch = Dispatch::new(context.tasks_in_flight);
        Self {
            context,
            runs: HashMap::new(),
            commits: FuturesUnordered::new(),
            timers: Timers::default(),
            dispatch,
            recent: Recent::default(),
            gauges: Gauges::of(worker),
            turns: Vec::new(),
        }
    }

    /// Works until it is told to stop; appends under way are brought to their end.
    pub(super) async fn run(
        mut self,
        mut mailbox: mpsc::Receiver<Message>,
        shutdown: CancellationToken,
    ) {
        let mut messages = Vec::with_capacity(BATCH);
        let every = self.context.idle.clamp(SWEEP_AT_MOST, SWEEP_AT_LEAST);
        let mut swept = Instant::now();
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
            self.take_turns();
            self.hand_out();
            if swept.elapsed() >= every {
                self.sweep();
                swept = Instant::now();
            }
        }
        while let Some((run_id, result)) = self.commits.next().await {
            if let (Ok(appended), Some(Slot::Loaded(actor))) = (result, self.runs.get_mut(&run_id))
            {
                actor.committed(&appended);
            }
        }
        self.context.tasks.close();
    }

    fn accept(&mut self, message: Message) {
        match message {
            Message::Start(start) => self.start(start),
            Message::Cancel { run_id, reason, cause, reply } => {
                let workspace_id = cause.workspace_id;
                let cause = Box::new(cause);
                self.queue(run_id, Some(workspace_id), Queued::Cancel { reason, cause, reply });
            }
            Message::Outcome(outcome) => self.outcome(outcome),
            Message::Wait { run_id, workspace_id, reply } => self.wait(run_id, workspace_id, reply),
            Message::Loaded { run_id, loaded } => self.loaded(run_id, loaded),
            Message::Recover(run_id) => {
                if !self.runs.contains_key(&run_id) {
                    self.load(run_id);
                }
            }
        }
    }

    fn start(&mut self, start: Box<Start>) {
        let run_id = start.run_id;
        if self.runs.contains_key(&run_id) {
            let message = "a run with this id exists already";
            let rejection = Rejection::new(RejectionKind::Conflict, "run_already_started", message);
            return drop(start.reply.send(Err(rejection)));
        }
        let mut actor = Actor::new(Taken {
            run_id,
            workspace_id: start.cause.workspace_id,
            run: Run::default(),
            plan: Arc::clone(&start.plan),
            tasks_in_flight: start.tasks_in_flight,
            sequence: 0,
            snapshot_at: 0,
            position: 0,
            recorded_at: self.context.clock.now(),
        });
        actor.queue.push_back(Queued::Start(start));
        self.runs.insert(run_id, Slot::Loaded(Box::new(actor)));
        self.turns.push(run_id);
    }

    fn outcome(&mut self, outcome: Outcome) {
        self.dispatch.back(outcome.run_id, outcome.token, outcome.attempt);
        if self.recent.get(outcome.run_id).is_some() {
            count_refused();
            return;
        }
        self.queue(outcome.run_id, None, Queued::Outcome(Box::new(outcome)));
    }

    /// Queues something for a run, which is loaded first where it isn't in memory. A client's
    /// command to a run of another workspace is refused as if there were no such run.
    fn queue(&mut self, run_id: RunId, workspace_id: Option<WorkspaceId>, queued: Queued) {
        match self.runs.get_mut(&run_id) {
            Some(Slot::Loaded(actor)) => {
                if workspace_id.is_some_and(|workspace_id| workspace_id != actor.workspace_id()) {
                    return refuse_all(std::iter::once(queued), &not_found(run_id));
                }
                actor.queue.push_back(queued);
                self.turns.push(run_id);
            }
            Some(Slot::Loading { queue, .. }) => queue.push_back(queued),
            Some(Slot::Quarantined) => refuse_all(std::iter::once(queued), &quarantined()),
            None => {
                self.load(run_id);
                self.queue(run_id, workspace_id, queued);
            }
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
            None => {
                self.load(run_id);
                self.wait(run_id, workspace_id, reply);
            }
        }
    }

    fn load(&mut self, run_id: RunId) {
        self.runs.insert(run_id, Slot::Loading { queue: VecDeque::new(), waiters: Vec::new() });
        self.load_after(run_id, Duration::ZERO);
    }

    fn load_after(&self, run_id: RunId, delay: Duration) {
        let journal = Arc::clone(&self.context.journal);
        let resolver = Arc::clone(&self.context.resolver);
        let plans = Arc::clone(&self.context.plans);
        let mailbox = self.context.mailbox.clone();
        tokio::spawn(async move {
            tokio::time::sleep(delay).await;
            let loaded = load::load(&*journal, &resolver, &plans, run_id).await;
            if let Some(mailbox) = mailbox.upgrade() {
                drop(mailbox.send(Message::Loaded { run_id, loaded }).await);
            }
        });
    }

    fn loaded(&mut self, run_id: RunId, loaded: Result<Loaded, LoadError>) {
        let Some(Slot::Loading { queue, waiters }) = self.runs.get_mut(&run_id) else { return };
        let (queue, waiters) = (std::mem::take(queue), std::mem::take(waiters));
        let rejection = match loaded {
            Ok(Some(taken)) => return self.take_over(*taken, queue, waiters),
            Ok(None) => {
                self.runs.remove(&run_id);
                not_found(run_id)
            }
            // The run stays as it is and is tried again for ever: what it owes isn't forgotten.
            Err(error) => {
                tracing::error!(%run_id, %error, "can't load a run, trying again");
                metrics::counter!("wonder_run_load_failures_total").increment(1);
                self.load_after(run_id, LOAD_AGAIN);
                error.refusal()
            }
        };
        refuse_all(queue.into_iter(), &rejection);
        for (_, waiter) in waiters {
            drop(waiter.send(Err(rejection.clone())));
        }
    }

    fn take_over(
        &mut self,
        taken: Taken,
        queue: VecDeque<Queued>,
        waiters: Vec<(WorkspaceId, Reply<RunOutcome>)>,
    ) {
        let run_id = taken.run_id;
        let mut actor = Box::new(Actor::new(taken));
        let owed = actor.run.owed(&actor.plan.plan);
        for queued in queue {
            let foreign = match &queued {
                Queued::Cancel { cause, .. } => cause.workspace_id != actor.workspace_id(),
                Queued::Start(_) | Queued::Outcome(_) | Queued::Wake | Queued::Advance => false,
            };
            if foreign {
                refuse_all(std::iter::once(queued), &not_found(run_id));
            } else {
                actor.queue.push_back(queued);
            }
        }
        if owed.advance {
            actor.queue.push_back(Queued::Advance);
        }
        for (workspace_id, waiter) in waiters {
            wait_for(&mut actor, workspace_id, waiter);
        }
        self.timers.set(run_id, owed.next_due);
        let limit = self.context.limit_of(&actor);
        self.runs.insert(run_id, Slot::Loaded(actor));
        for (token, attempt) in owed.attempts {
            self.dispatch.ready(run_id, limit, token, attempt);
        }
        self.turns.push(run_id);
    }

    async fn commits_done(&mut self, first: (RunId, Result<Appended, AppendError>)) {
        self.commit_done(first);
        // Others that are ready are taken along, so that their runs share the next commit.
        while let std::task::Poll::Ready(Some(next)) = futures::poll!(self.commits.next()) {
            self.commit_done(next);
        }
    }

    fn commit_done(&mut self, (run_id, result): (RunId, Result<Appended, AppendError>)) {
        match result {
            Ok(appended) => self.committed(run_id, &appended),
            Err(error) => {
                tracing::warn!(%run_id, %error, "an append failed, loading the run again");
                self.drop_run(run_id, &refused(&error));
            }
        }
    }

    fn committed(&mut self, run_id: RunId, appended: &Appended) {
        let Some(Slot::Loaded(actor)) = self.runs.get_mut(&run_id) else { return };
        let dispatch = actor.committed(appended);
        if let Some(outcome) = actor.outcome() {
            for waiter in actor.waiters.drain(..) {
                drop(waiter.send(Ok(outcome.clone())));
            }
            refuse_all(actor.queue.drain(..), &ended(&outcome));
            let workspace_id = actor.workspace_id();
            self.runs.remove(&run_id);
            self.timers.set(run_id, None);
            self.dispatch.forget_ready(run_id);
            self.recent.keep(run_id, workspace_id, outcome);
            return;
        }
        self.timers.set(run_id, actor.run.next_due());
        let limit = self.context.limit_of(actor);
        for (token, attempt) in dispatch {
            self.dispatch.ready(run_id, limit, token, attempt);
        }
        if !actor.queue.is_empty() {
            self.turns.push(run_id);
        }
    }

    /// A run whose memory can't be trusted is loaded again, and what it owes is done again. A
    /// start that was never written leaves nothing to load.
    fn drop_run(&mut self, run_id: RunId, rejection: &Rejection) {
        let Some(Slot::Loaded(actor)) = self.runs.remove(&run_id) else { return };
        self.dispatch.forget_ready(run_id);
        actor.failed(rejection);
        self.runs.insert(run_id, Slot::Loading { queue: VecDeque::new(), waiters: Vec::new() });
        self.load_after(run_id, LOAD_AGAIN);
    }

    fn quarantine(&mut self, run_id: RunId) {
        tracing::error!(%run_id, "deciding on a run panicked, it is left alone until a restart");
        metrics::counter!("wonder_runs_quarantined_total").increment(1);
        let before = self.runs.insert(run_id, Slot::Quarantined);
        self.dispatch.forget_ready(run_id);
        self.timers.set(run_id, None);
        if let Some(Slot::Loaded(actor)) = before {
            actor.failed(&quarantined());
        }
    }

    fn until_due(&self) -> Duration {
        let Some(due) = self.timers.next() else { return Duration::MAX };
        (due - self.context.clock.now()).to_std().unwrap_or(Duration::ZERO)
    }

    fn wake_due(&mut self) {
        let now = self.context.clock.now();
        while let Some(run_id) = self.timers.pop_due(now) {
            self.queue(run_id, None, Queued::Wake);
        }
    }

    fn take_turns(&mut self) {
        for run_id in std::mem::take(&mut self.turns) {
            let Some(Slot::Loaded(actor)) = self.runs.get_mut(&run_id) else { continue };
            let clock = &*self.context.clock;
            let Ok(turn) = catch_unwind(AssertUnwindSafe(|| actor.turn(clock))) else {
                self.quarantine(run_id);
                continue;
            };
            match turn {
                Turn::Append(append) => self.commits.push(commit(&self.context, run_id, append)),
                Turn::Failed(rejection) => self.drop_run(run_id, &rejection),
                Turn::Idle if matches!(actor.run, Run::NotStarted) && actor.is_idle() => {
                    self.runs.remove(&run_id);
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

    /// Hands attempts to workers, run by run. The queue has room for all that may be in flight.
    fn hand_out(&mut self) {
        while let Some((run_id, turn)) = self.dispatch.next_turn() {
            for (token, attempt) in turn {
                let task = match self.runs.get(&run_id) {
                    Some(Slot::Loaded(actor)) => actor.task(token, attempt),
                    Some(Slot::Loading { .. } | Slot::Quarantined) | None => None,
                };
                match task {
                    Some(Ok(task)) => {
                        if self.context.tasks.try_send(task).is_err() {
                            self.dispatch.back(run_id, token, attempt);
                        }
                    }
                    Some(Err(outcome)) => self.outcome(*outcome),
                    None => self.dispatch.back(run_id, token, attempt),
                }
            }
        }
        if !self.turns.is_empty() {
            self.take_turns();
        }
        self.gauges.in_flight.set(self.dispatch.in_flight() as f64);
    }

    /// Lets idle runs leave memory. Their timers stay.
    fn sweep(&mut self) {
        let idle = self.context.idle;
        let now = Instant::now();
        let dispatch = &self.dispatch;
        self.runs.retain(|run_id, slot| match slot {
            Slot::Loading { .. } | Slot::Quarantined => true,
            Slot::Loaded(actor) => {
                // Who gave up waiting doesn't hold the run.
                actor.waiters.retain(|waiter| !waiter.is_closed());
                !actor.is_idle()
                    || dispatch.has_ready(*run_id)
                    || now.duration_since(actor.last_used) < idle
            }
        });
        self.gauges.runs.set(self.runs.len() as f64);
    }
}

/// What a worker shows of itself.
struct Gauges {
    in_flight: metrics::Gauge,
    runs: metrics::Gauge,
}

impl Gauges {
    fn of(worker: usize) -> Self {
        let worker = worker.to_string();
        Self {
            in_flight: metrics::gauge!("wonder_tasks_owed_in_flight", "worker" => worker.clone()),
            runs: metrics::gauge!("wonder_runs_in_memory", "worker" => worker),
        }
    }
}

fn commit(context: &Context, run_id: RunId, append: Box<Append>) -> Commit {
    let journal = Arc::clone(&context.journal);
    Box::pin(async move { (run_id, journal.append(*append).await) })
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
