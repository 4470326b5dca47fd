//! Experiments over a real journal, with runs that tests make and end.

use std::path::Path;

use async_trait::async_trait;
use chassis::clock::SystemClock;
use chassis::journal::{SqliteJournal, SqliteOptions};
use chassis::shards::sole_owner;
use chrono::Utc;
use domain::definition::Variant;
use domain::experiment::{Asked as Request, Event, Terms, Tried, fork_of};
use domain::ids::CommandId;
use protocol::{RunOutcome, RunStatus, SHARDS, Usage};
use tokio::sync::watch::Sender;

use super::*;
use crate::store::payload;

const COST: u64 = 5;

/// What makes forks. They end once they may, or are cancelled.
struct Runs {
    forks: Mutex<BTreeMap<RunId, CommandId>>,
    cancelled: Sender<BTreeSet<RunId>>,
    may_end: Sender<bool>,
    /// So often nothing can be made.
    away: Mutex<u32>,
    refused: Option<RunId>,
}

impl Runs {
    fn new(away: u32, refused: Option<RunId>) -> Arc<Self> {
        let (forks, away) = (Mutex::default(), Mutex::new(away));
        let (cancelled, may_end) = (Sender::default(), Sender::new(false));
        Arc::new(Self { forks, cancelled, may_end, away, refused })
    }

    fn made(&self) -> BTreeMap<RunId, CommandId> {
        self.forks.lock().expect("lock").clone()
    }
}

#[async_trait]
impl Commands for Runs {
    async fn execute(&self, envelope: CommandEnvelope) -> Result<Receipt, Rejection> {
        let fork = match envelope.command {
            protocol::Command::ForkRun(fork) => fork,
            protocol::Command::CancelRun { run_id, .. } => {
                self.cancelled.send_modify(|cancelled| {
                    cancelled.insert(run_id);
                });
                return Ok(Receipt::default());
            }
            other => panic!("nobody asks for {other:?}"),
        };
        let mut away = self.away.lock().expect("lock");
        if *away > 0 {
            *away -= 1;
            return Err(unavailable("it is away"));
        }
        if self.refused == Some(fork.run_id) {
            let text = "it has no such node";
            return Err(Rejection::new(RejectionKind::Invalid, "experiment_change", text));
        }
        let id = fork.run_id.forked(envelope.id, fork.run_id.home());
        self.forks.lock().expect("lock").insert(id, envelope.id);
        Ok(Receipt { id: id.to_string(), ..Receipt::default() })
    }

    async fn wait(
        &self,
        _: WorkspaceId,
        run_id: RunId,
        timeout: Duration,
    ) -> Result<Option<RunOutcome>, Rejection> {
        if !self.made().contains_key(&run_id) {
            return Err(Rejection::new(RejectionKind::NotFound, "run_not_found", "no run"));
        }
        let (mut may_end, mut cancelled) = (self.may_end.subscribe(), self.cancelled.subscribe());
        let end = async {
            tokio::select! {
                _ = may_end.wait_for(|may| *may) => RunStatus::Completed,
                _ = cancelled.wait_for(|runs| runs.contains(&run_id)) => RunStatus::Cancelled,
            }
        };
        let Ok(status) = tokio::time::timeout(timeout, end).await else { return Ok(None) };
        Ok(Some(RunOutcome {
            status,
            output: None,
            error: None,
            usage: Usage { cost_micros: COST, ..Usage::default() },
            sequence: 9,
            position: 9,
            ended_at: Utc::now(),
        }))
    }
}

fn workspace() -> WorkspaceId {
    WorkspaceId::derived("test", "one")
}

fn id() -> ExperimentId {
    ExperimentId::of(workspace(), "cheaper")
}

fn run(number: u64) -> RunId {
    RunId::derived("test", &number.to_string())
}

async fn journal(folder: &Path) -> Arc<dyn Journal> {
    let path = folder.join("journal.db");
    SqliteJournal::open(&path, SqliteOptions::default()).await.expect("a journal")
}

fn experiments(journal: &Arc<dyn Journal>, runs: &Arc<Runs>) -> Arc<Experiments> {
    let runs = Arc::clone(runs) as Arc<dyn Commands>;
    Arc::new(Experiments {
        journal: Arc::clone(journal),
        clock: Arc::new(SystemClock::new()),
        ownership: sole_owner(SHARDS),
        here: Arc::downgrade(&runs),
        everywhere: Some(runs),
        shutdown: CancellationToken::new(),
        tracker: TaskTracker::new(),
        known: Known::default(),
    })
}

fn command(command: protocol::Command) -> CommandEnvelope {
    CommandEnvelope::new(CommandId::derived("test", "any"), workspace(), "ada", command)
}

fn start(count: u64, at_once: usize, cap: Option<u64>) -> CommandEnvelope {
    let tried = |number| Tried { run_id: run(number), cost_micros: COST };
    command(protocol::Command::StartExperiment(Box::new(Request {
        workspace_id: workspace(),
        name: "cheaper".parse().expect("a name"),
        mark: "m".to_owned(),
        definition: None,
        variant: Variant::default(),
        allow: BTreeSet::new(),
        terms: Terms {
            by: String::new(),
            runs: (1..=count).map(tried).collect(),
            filter: None,
            at_once,
            max_cost_micros: cap,
        },
    })))
}

fn stop() -> CommandEnvelope {
    command(protocol::Command::StopExperiment { name: "cheaper".parse().expect("a name") })
}

async fn events(journal: &Arc<dyn Journal>) -> Vec<Event> {
    let rows = journal.load(AGGREGATE, &id().to_string(), 0, 1_000).await.expect("events");
    let mut events = Vec::new();
    for row in &rows {
        events.push(payload::decode(&**journal, row).await.expect("an event"));
    }
    events
}

/// Waits until nothing more is done, and answers how far it is.
async fn at_rest(journal: &Arc<dyn Journal>) -> Begun {
    loop {
        let log = Log::load(&**journal, id()).await.expect("its events");
        if log.sequence > 0 && !log.state.is_open() {
            return log.state.begun().expect("it was asked for").clone();
        }
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn what_fails_for_a_moment_is_tried_again_and_what_is_refused_holds_up_nobody() {
    let folder = tempfile::tempdir().expect("a folder");
    let journal = journal(folder.path()).await;
    let runs = Runs::new(3, Some(run(2)));
    runs.may_end.send_replace(true);
    let experiments = experiments(&journal, &runs);
    let begun = experiments.execute(&start(4, 2, Some(100))).await.expect("it begins");
    let progress = begun.experiment.expect("its progress");
    assert_eq!((progress.running, progress.left, begun.created), (2, 2, true));
    let end = at_rest(&journal).await;
    assert_eq!((end.status, end.spent_micros()), (Status::Ended, 3 * COST));
    assert_eq!((end.refused.len(), &*end.refused[0].code), (1, "experiment_change"));
    assert_eq!(end.asked.terms.by, "ada");
    let named: Vec<_> =
        [1, 3, 4].map(|number| fork_of(id(), run(number))).map(|(by, id)| (id, by)).into();
    assert_eq!(runs.made(), named.into_iter().collect());
    // Nothing of it stays in memory.
    while !experiments.known.all().is_empty() {
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn who_takes_it_up_makes_again_what_was_begun_and_only_one_of_two_writes_it_down() {
    let folder = tempfile::tempdir().expect("a folder");
    let journal = journal(folder.path()).await;
    // The first one can't make anything, and dies with that.
    let gone = Runs::new(u32::MAX, None);
    let first = experiments(&journal, &gone);
    first.execute(&start(6, 2, Some(1_000))).await.expect("it begins");
    first.shutdown.cancel();
    let runs = Runs::new(0, None);
    let drivers = [experiments(&journal, &runs), experiments(&journal, &runs)];
    for driver in &drivers {
        driver.take_up(shard_of_experiment(id())).await.expect("it is taken up");
    }
    runs.may_end.send_replace(true);
    let end = at_rest(&journal).await;
    assert_eq!((end.status, end.forks.len(), runs.made().len()), (Status::Ended, 6, 6));
    let begun: Vec<_> = events(&journal).await;
    let begun = begun.iter().filter(|event| matches!(event, Event::ExperimentForkBegun { .. }));
    assert_eq!(begun.count(), 6, "no run is forked twice");
    assert!(gone.made().is_empty());
}

#[tokio::test]
async fn a_stop_cancels_what_goes_on_and_also_what_was_begun_by_somebody_else() {
    let folder = tempfile::tempdir().expect("a folder");
    let journal = journal(folder.path()).await;
    let runs = Runs::new(0, None);
    let first = experiments(&journal, &runs);
    let unknown = first.execute(&stop()).await.expect_err("nothing is there");
    assert_eq!(unknown.kind, RejectionKind::NotFound);
    first.execute(&start(5, 2, None)).await.expect("it begins");
    first.shutdown.cancel();
    let second = experiments(&journal, &runs);
    let stopped = second.execute(&stop()).await.expect("it is stopped").experiment;
    assert_eq!(stopped.map(|one| one.status).as_deref(), Some("stopped"));
    let end = at_rest(&journal).await;
    let status = |one: &domain::experiment::Fork| one.end.map(|end| end.status);
    let ends: Vec<_> = end.forks.iter().map(status).collect();
    assert_eq!(ends, [Some(RunStatus::Cancelled); 2]);
    // Asked for again, it goes on with the others.
    runs.may_end.send_replace(true);
    second.execute(&start(5, 2, None)).await.expect("it goes on");
    let end = at_rest(&journal).await;
    assert_eq!((end.status, end.forks.len(), runs.made().len()), (Status::Ended, 5, 5));
}

#[tokio::test]
async fn what_belongs_to_others_is_left_to_them() {
    let folder = tempfile::tempdir().expect("a folder");
    let journal = journal(folder.path()).await;
    let runs = Runs::new(0, None);
    let owned = watch::Sender::new(Arc::new(Owned::default()));
    let elsewhere = experiments(&journal, &runs);
    let mut elsewhere = Arc::into_inner(elsewhere).expect("nobody else has it");
    elsewhere.ownership = owned.subscribe();
    let elsewhere = Arc::new(elsewhere);
    let refused = elsewhere.execute(&start(1, 1, None)).await.expect_err("it isn't the owner");
    assert_eq!(refused.code, protocol::remote::NOT_OWNER);
    assert!(events(&journal).await.is_empty());
    // It comes here, and goes on; it goes elsewhere, and is forgotten.
    Arc::clone(&elsewhere).run();
    let epochs = [(shard_of_experiment(id()), 0)].into();
    owned.send_replace(Arc::new(Owned { epochs }));
    elsewhere.execute(&start(1, 1, None)).await.expect("it begins");
    assert!(elsewhere.known.all().contains_key(&id()));
    owned.send_replace(Arc::default());
    while elsewhere.known.all().contains_key(&id()) {
        tokio::task::yield_now().await;
    }
    owned.send_replace(Arc::new(Owned { epochs: [(shard_of_experiment(id()), 0)].into() }));
    runs.may_end.send_replace(true);
    assert_eq!(at_rest(&journal).await.status, Status::Ended);
    elsewhere.shutdown.cancel();
}
