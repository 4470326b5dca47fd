//! Parents and children over appends that fail and processes that die: nothing hangs, and nothing
//! is left behind.

use std::path::Path;
use std::time::Duration;

use chassis::journal::Journal;
use domain::ids::RunId;
use domain::run::RunStatus;
use protocol::{Command, Commands, FailureKind, RejectionKind, RunOutcome, Task};
use serde_json::{Value, json};

use crate::children::{callers, helper, publish};
use crate::platform::{Platform, folder, node};
use crate::watched::Fault;

/// How long a wait is asked for at a time.
const A_WHILE: Duration = Duration::from_millis(50);

/// What becomes of the tasks of a run.
trait Worker {
    async fn perform(&mut self, platform: &Platform, task: &Task);
}

/// Does all that is asked.
struct Willing;

impl Worker for Willing {
    async fn perform(&mut self, platform: &Platform, task: &Task) {
        platform.succeed(task, json!(1)).await;
    }
}

/// Does the tasks that are there, or waits for a run's end for a while.
async fn step(platform: &Platform, run_id: RunId, worker: &mut impl Worker) -> Option<RunOutcome> {
    let workspace_id = platform.service.defaults().workspace_id;
    tokio::select! {
        // Whoever waits is sent away when an append fails, and asks again.
        end = platform.service.wait(workspace_id, run_id, A_WHILE) => {
            tokio::task::yield_now().await;
            end.ok().flatten()
        }
        tasks = platform.pull() => {
            for task in &tasks {
                worker.perform(platform, task).await;
            }
            None
        }
    }
}

/// How a run ends while its tasks are done; `None` where the journal has died before.
async fn driven(
    platform: &Platform,
    run_id: RunId,
    worker: &mut impl Worker,
) -> Option<RunOutcome> {
    while !platform.journal.is_dead() {
        if let Some(end) = step(platform, run_id, worker).await {
            return Some(end);
        }
    }
    None
}

/// Resumes a run; what wasn't written is asked for again, since nothing else lets it go on.
async fn resume(platform: &Platform, run_id: RunId) {
    while let Err(rejection) = platform.execute(Command::ResumeRun { run_id }).await {
        if rejection.kind != RejectionKind::Unavailable || platform.journal.is_dead() {
            return;
        }
    }
}

/// Resumes what is left of a family, and says what it is.
async fn resume_all(platform: &Platform, run_id: RunId) -> Vec<RunId> {
    let shard = protocol::shard_of(run_id);
    let open = platform.journal.inner.open_aggregates("run", shard, "", 1_000).await;
    let open = open.expect("the journal is there");
    let open: Vec<RunId> = open.iter().map(|id| id.parse().expect("a run's id")).collect();
    for run_id in &open {
        resume(platform, *run_id).await;
    }
    open
}

/// Waits until no run of a family owes anything, while the tasks that are left are done.
async fn all_ended(platform: &Platform, run_id: RunId, worker: &mut impl Worker) {
    while let Some(last) = resume_all(platform, run_id).await.last() {
        step(platform, *last, worker).await;
    }
}

/// A step on a worker, then a child, whose own child does another step.
fn family() -> [Value; 2] {
    let middle = json!({"name": "middle", "start": "ask",
        "nodes": {"ask": {"workflow": {"definition": "helper", "input": {"n": 1}}}}});
    let top = json!({"name": "top", "start": "before",
        "nodes": {"before": node(), "ask": {"workflow": {"definition": "middle"}}},
        "transitions": [{"from": "before", "to": "ask"}]});
    [middle, top]
}

async fn with_family(folder: &Path) -> (Platform, RunId) {
    let [middle, top] = family();
    let platform = Platform::start(folder).await;
    publish(&platform, helper("helper")).await;
    publish(&platform, middle).await;
    let run_id = platform.run(&top).await;
    (platform, run_id)
}

/// Appends after the start of the family: that of each child, and the end of each run.
const APPENDS: usize = 6;

#[tokio::test]
async fn no_append_that_fails_separates_a_parent_from_its_child() {
    for fault in [Fault::NotWritten, Fault::AnswerLost] {
        for at in 0..APPENDS {
            let folder = folder();
            let (platform, run_id) = with_family(folder.path()).await;
            platform.journal.fail_after(at, fault);
            let end = driven(&platform, run_id, &mut Willing).await.expect("it ends");
            assert_eq!(end.status, RunStatus::Completed, "{fault:?} at {at}: {:?}", end.error);
            all_ended(&platform, run_id, &mut Willing).await;
            platform.stop().await;
        }
    }
}

#[tokio::test]
async fn no_death_between_two_appends_separates_a_parent_from_its_child() {
    for at in 0..APPENDS {
        let folder = folder();
        let (platform, run_id) = with_family(folder.path()).await;
        platform.journal.die_after(at);
        assert!(driven(&platform, run_id, &mut Willing).await.is_none(), "at {at}");
        platform.stop().await;

        let platform = Platform::start(folder.path()).await;
        let end = driven(&platform, run_id, &mut Willing).await.expect("it ends");
        assert_eq!(end.status, RunStatus::Completed, "at {at}: {:?}", end.error);
        all_ended(&platform, run_id, &mut Willing).await;
        platform.stop().await;
    }
}

#[tokio::test]
async fn a_child_that_outlived_its_parent_is_cancelled_by_the_next_process() {
    let folder = folder();
    let platform = Platform::start(folder.path()).await;
    publish(&platform, helper("helper")).await;
    let run_id = platform.run(&callers(3, json!({}))).await;
    let tasks = platform.pull_many(3).await;
    let children: Vec<RunId> = tasks.iter().map(|task| task.run_id).collect();
    platform.journal.die_after(1);
    platform
        .execute(Command::CancelRun { run_id, reason: None, compensate: true })
        .await
        .expect("it succeeds");
    platform.stop().await;

    let platform = Platform::start(folder.path()).await;
    for child in children {
        let end = platform.end_of(child).await;
        assert_eq!(end.status, RunStatus::Cancelled);
    }
    platform.stop().await;
}

/// SplitMix64 (Steele, Lea and Flood, 2014).
struct Dice(u64);

impl Dice {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        (z ^ (z >> 31)) % bound
    }
}

/// Does, fails, or keeps a task, or cancels or pauses a run around it.
struct Moody {
    dice: Dice,
    top: RunId,
    kept: Vec<Task>,
}

impl Worker for Moody {
    async fn perform(&mut self, platform: &Platform, task: &Task) {
        let run_id = if self.dice.below(2) == 0 { task.run_id } else { self.top };
        match self.dice.below(12) {
            0 => platform.fail(task, FailureKind::Permanent).await,
            1 => drop(
                platform
                    .execute(Command::CancelRun { run_id, reason: None, compensate: true })
                    .await,
            ),
            2 => {
                // Paused and resumed, the task goes on in any case.
                drop(platform.execute(Command::PauseRun { run_id, reason: None }).await);
                resume(platform, run_id).await;
                platform.succeed(task, json!(2)).await;
            }
            _ => platform.succeed(task, json!(3)).await,
        }
        self.kept.push(task.clone());
        if self.dice.below(4) == 0 {
            // An outcome that comes again changes nothing.
            let again = self.dice.below(self.kept.len() as u64);
            let again = &self.kept[usize::try_from(again).expect("an index")];
            platform.succeed(again, json!(4)).await;
        }
    }
}

fn pick<'a>(dice: &mut Dice, from: &[&'a str]) -> &'a str {
    from[usize::try_from(dice.below(from.len() as u64)).expect("an index")]
}

/// Branches that run the definition one level below, joined in some way.
fn level(dice: &mut Dice, name: &str, below: &str) -> Value {
    let mut join = json!({"group": "all", "wait": pick(dice, &["all", "any"]),
        "failed": pick(dice, &["fail", "ignore", "count"]),
        "rest": pick(dice, &["cancel", "continue"])});
    if dice.below(4) == 0 {
        join["timeout"] = json!("30ms");
        join["on_timeout"] = json!(pick(dice, &["fail", "proceed"]));
    }
    let workflow = json!({"definition": below, "input": {"n": "${index}"},
        "on_failure": pick(dice, &["propagate", "catch"])});
    let mut ask = json!({"workflow": workflow, "output": {"state.got": "${result}"}});
    if dice.below(4) == 0 {
        ask["timeout"] = json!("30ms");
    }
    json!({"name": name, "start": "begin",
    "nodes": {"begin": {"compute": {"state.begun": true}}, "ask": ask,
        "end": {"compute": {"state.ended": true}}},
    "transitions": [
        {"from": "begin", "to": "ask", "spawn": 1 + dice.below(4), "group": "all"},
        {"from": "ask", "to": "end", "join": join},
    ]})
}

/// Three levels of runs, at random: with failures, cancels, pauses, time-outs, appends that fail
/// and processes that die. In the end all have ended, and no child but below a parent that started
/// it.
#[tokio::test]
async fn families_end_under_every_schedule() {
    for seed in 0..40 {
        let folder = folder();
        let mut dice = Dice(seed);
        let platform = Platform::start(folder.path()).await;
        publish(&platform, helper("helper")).await;
        let middle = level(&mut dice, "middle", "helper");
        publish(&platform, middle).await;
        let run_id = platform.run(&level(&mut dice, "top", "middle")).await;
        let mut worker = Moody { dice, top: run_id, kept: Vec::new() };
        let mut platform = Some(platform);
        for _ in 0..worker.dice.below(4) {
            let living = platform.take().expect("it runs");
            // The process may have died between a pause and its end.
            resume_all(&living, run_id).await;
            let appends = usize::try_from(worker.dice.below(12)).expect("a number");
            if worker.dice.below(2) == 0 {
                living.journal.fail_after(appends, Fault::NotWritten);
            }
            living.journal.die_after(appends + 1);
            let end = driven(&living, run_id, &mut worker).await;
            living.stop().await;
            platform = Some(Platform::start(folder.path()).await);
            if end.is_some() {
                break;
            }
        }
        let platform = platform.expect("it runs");
        all_ended(&platform, run_id, &mut worker).await;
        assert!(platform.end_of(run_id).await.status.is_terminal());
        platform.stop().await;
    }
}
