//! Promise 08: an outcome is applied exactly once.
//!
//! The test is the worker, and the worst one: it delivers each outcome one to five times,
//! shuffled, contradicts what it has delivered, speaks of attempts and tokens that never were, and
//! is still talking when the run has ended and the write side was restarted. It fails where
//! `decide` doesn't check token and attempt against the folded state.

use std::collections::HashMap;
use std::time::Duration;

use chassis::telemetry::{self, LogFormat, Telemetry, TelemetryConfig};
use domain::ids::RunId;
use domain::run::Event;
use protocol::{Command, Failure, FailureKind, Outcome, OutcomeResult, RunStatus, Success, Task};
use serde_json::{Value, json};
use system_tests::{Pace, Writer};
use tokio::sync::Mutex;

/// Runs at the same time.
const RUNS: u64 = 6;
/// Branches of each.
const BRANCHES: u64 = 12;

fn definition() -> Value {
    json!({
        "name": "p08",
        "start": "split",
        "nodes": {
            "split": {"compute": {"state.x": 0}},
            "work": {
                "action": {"kind": "mock"},
                "output": {"state.own": "${result}"},
                "retry": {
                    "max_attempts": 4, "backoff": "constant", "initial": "2ms", "jitter": false
                }
            },
            "more": {"action": {"kind": "mock"}, "input": {"own": "${state.own}"}},
            "gather": {"compute": {"state.y": "${size(state.all)}"}}
        },
        "transitions": [
            {"from": "split", "to": "work", "spawn": BRANCHES, "group": "g"},
            {"from": "work", "to": "more"},
            {"from": "more", "to": "gather", "join": {
                "group": "g", "wait": "all", "merge": {"strategy": "collect", "into": "state.all"}
            }}
        ],
        "output": {"all": "${state.all}"}
    })
}

/// The metrics are the process's: where both tests run in one, they run one after the other.
static ALONE: Mutex<()> = Mutex::const_new(());

/// What an attempt is known by.
type Attempt = (RunId, u64, u32);

/// A worker's bag of letters, in any order.
struct Bag {
    pace: Pace,
    letters: Vec<Outcome>,
    /// What was delivered first for each attempt: only that may be applied.
    first: HashMap<Attempt, OutcomeResult>,
    delivered: u64,
}

fn failure(kind: FailureKind, code: &str) -> OutcomeResult {
    OutcomeResult::Failure(Failure {
        kind,
        code: code.to_owned(),
        message: "as the test wants it".to_owned(),
        detail: Value::Null,
        retry_after: None,
        usage: Default::default(),
    })
}

impl Bag {
    /// Does a task: puts its outcome into the bag, several times.
    fn take(&mut self, task: &Task) {
        let fails = &*task.node == "work" && task.attempt < 3 && self.pace.below(3) == 0;
        let result = match fails {
            true => failure(FailureKind::Transient, "flaky"),
            false => OutcomeResult::Success(Success {
                result: json!([task.token, task.attempt]),
                usage: Default::default(),
            }),
        };
        let outcome = Outcome {
            run_id: task.run_id,
            token: task.token,
            attempt: task.attempt,
            result,
            duration_ms: 1,
            secrets: Vec::new(),
        };
        for _ in 0..=self.pace.below(5) {
            self.letters.push(outcome.clone());
        }
        let unheard = Outcome { token: task.token + 10_000, ..outcome.clone() };
        let early = Outcome { attempt: task.attempt + 7, ..outcome };
        self.letters.extend([unheard, early]);
    }

    /// Delivers some letters, contradictions of earlier ones among them.
    async fn deliver(&mut self, writer: &Writer, most: u64) {
        let mut letters = Vec::new();
        for _ in 0..most.min(self.letters.len() as u64) {
            let place = self.pace.below(self.letters.len() as u64);
            let letter = self.letters.swap_remove(usize::try_from(place).expect("in the bag"));
            let attempt = (letter.run_id, letter.token, letter.attempt);
            let mut contradiction = letter.clone();
            contradiction.result = failure(FailureKind::Permanent, "zombie");
            self.first.entry(attempt).or_insert_with(|| letter.result.clone());
            // What is delivered for an attempt that never was isn't applied, so nothing of it
            // may come first either.
            letters.push(letter);
            if self.pace.below(2) == 0 {
                letters.push(contradiction);
            }
        }
        self.delivered += letters.len() as u64;
        writer.tasks.report(letters).await;
    }
}

fn refused(telemetry: &Telemetry) -> u64 {
    let text = telemetry.render();
    let line = text.lines().find_map(|line| line.strip_prefix("wonder_outcomes_refused_total "));
    line.and_then(|number| number.parse().ok()).unwrap_or(0)
}

/// Counts the outcomes in the journal; each must be the first that was delivered.
async fn check_applied(writer: &Writer, runs: &[RunId], bag: &Bag) -> u64 {
    let records = writer.records().await;
    records.check();
    let mut applied: HashMap<Attempt, u64> = HashMap::new();
    for run_id in runs {
        for step in records.fold(&run_id.to_string()) {
            let (token, attempt, success) = match &step.event {
                Event::TaskSucceeded { token, attempt, result, .. } => {
                    (*token, *attempt, Some(result))
                }
                Event::TaskFailed { token, attempt, .. } => (*token, *attempt, None),
                _ => continue,
            };
            let attempt = (*run_id, token, attempt);
            *applied.entry(attempt).or_default() += 1;
            match (&bag.first[&attempt], success) {
                (OutcomeResult::Success(first), Some(result)) => assert_eq!(first.result, *result),
                (OutcomeResult::Failure(_), None) => {}
                (first, _) => panic!("{attempt:?} was applied as something else than {first:?}"),
            }
        }
    }
    for (attempt, times) in &applied {
        assert_eq!(*times, 1, "{attempt:?} was applied {times} times");
    }
    applied.len() as u64
}

/// What became of all that was delivered.
struct Tally {
    delivered: u64,
    applied: u64,
}

/// Plays the worst worker until all runs have ended, and after that.
async fn talk_too_much(writer: &Writer) -> (Bag, Vec<RunId>, Tally) {
    let mut runs = Vec::new();
    for _ in 0..RUNS {
        runs.push(writer.start_run(&definition(), json!({})).await);
    }
    let mut bag =
        Bag { pace: Pace::new(8), letters: Vec::new(), first: HashMap::new(), delivered: 0 };
    let mut ends = Box::pin(async {
        for run_id in &runs {
            let outcome = writer.end_of(*run_id).await;
            assert_eq!(outcome.status, RunStatus::Completed, "{:?}", outcome.error);
        }
    });
    let mut ticks = tokio::time::interval(Duration::from_millis(1));
    loop {
        tokio::select! {
            () = &mut ends => break,
            tasks = writer.tasks.pull(16) => tasks.iter().for_each(|task| bag.take(task)),
            _ = ticks.tick() => bag.deliver(writer, 24).await,
        }
    }
    drop(ends);
    // The late ones, to runs that have ended.
    while !bag.letters.is_empty() {
        bag.deliver(writer, 100).await;
    }
    let applied = check_applied(writer, &runs, &bag).await;
    assert!(applied >= RUNS * BRANCHES * 2, "only {applied} outcomes were applied");
    let tally = Tally { delivered: bag.delivered, applied };
    (bag, runs, tally)
}

#[tokio::test(flavor = "multi_thread")]
async fn repeated_shuffled_late_and_contradicting_outcomes_change_nothing() {
    let _alone = ALONE.lock().await;
    let folder = tempfile::tempdir().expect("a temporary folder can be made");
    let mut writer = Writer::start(folder.path()).await;
    let (bag, runs, tally) = talk_too_much(&writer).await;
    // And to runs that the write side has to load again before it can refuse them.
    writer.stop().await;
    writer = Writer::start(folder.path()).await;
    let again = bag.first.iter().map(|((run_id, token, attempt), result)| Outcome {
        run_id: *run_id,
        token: *token,
        attempt: *attempt,
        result: result.clone(),
        duration_ms: 2,
        secrets: Vec::new(),
    });
    writer.tasks.report(again.collect()).await;
    for run_id in &runs {
        // Commands to a run are taken in order: its refusal comes after all the outcomes.
        let cancel = Command::CancelRun { run_id: *run_id, reason: None, compensate: true };
        writer.execute(cancel).await.expect_err("the run has ended");
    }
    let applied = check_applied(&writer, &runs, &bag).await;
    assert_eq!(applied, tally.applied, "late outcomes were applied");
    writer.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn every_refused_outcome_is_counted() {
    let _alone = ALONE.lock().await;
    let config = TelemetryConfig {
        version: "test",
        commit: "test",
        filter: "error".to_owned(),
        format: LogFormat::Auto,
        records: None,
    };
    let telemetry = telemetry::init(&config).expect("metrics can be recorded");
    let folder = tempfile::tempdir().expect("a temporary folder can be made");
    let writer = Writer::start(folder.path()).await;
    let before = refused(&telemetry);
    let (_, runs, tally) = talk_too_much(&writer).await;
    for run_id in &runs {
        let cancel = Command::CancelRun { run_id: *run_id, reason: None, compensate: true };
        writer.execute(cancel).await.expect_err("the run has ended");
    }
    assert_eq!(refused(&telemetry) - before, tally.delivered - tally.applied);
    writer.stop().await;
}
