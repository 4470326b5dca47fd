//! Promise 05: a projection neither skips nor repeats an event.
//!
//! Killed again and again while it folds, the list of runs ends equal to a fold of the journal.
//! And cut off after every single one of its commits, its rows are those of its checkpoint. It
//! fails where rows and checkpoint are two transactions, where a fold ignores that it has seen an
//! event (token counts double), and where a batch may skip a position.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::Arc;

use chassis::journal::{Journal, SqliteJournal, SqliteOptions};
use domain::ids::WorkspaceId;
use domain::run::state::{WaitKind, WaitKinds};
use domain::run::{Run, RunStatus};
use projections::{Config, Projections, Views};
use protocol::{PageRequest, RunFilter, RunQueries};
use serde_json::{Value, json};
use system_tests::{Client, Pace, Platform, Records, Setting, Shape, Step, wait_for, workflows};

/// How often the process is killed while it folds.
const KILLS: usize = 8;
/// Bytes of a write-ahead log before its first page moves into the database (SQLite's default of
/// 1,000 pages); up to there, a log that was cut off is what a crash leaves.
const WHOLE_LOG_BYTES: u64 = 4_000_000;
/// Cuts that are looked at.
const CUTS: usize = 50;

/// The steps of all runs, and what they are said to wait for after each.
fn folded(records: &Records) -> Vec<(String, Vec<(Step, WaitKinds)>)> {
    let steps = |id: &str| records.fold(id).into_iter().zip(records.said_waits(id)).collect();
    records.run_ids().into_iter().map(|id| (id.clone(), steps(&id))).collect()
}

/// In the middle of an append the list says already what the run waits for after it.
fn status(run: &Run, waits: WaitKinds) -> Option<RunStatus> {
    run.status().map(|status| match (status.is_terminal(), waits.has(WaitKind::Task)) {
        (true, _) => status,
        (false, true) => RunStatus::Running,
        (false, false) => RunStatus::Waiting,
    })
}

/// What the list of runs must say at a position, by run.
fn expected(folded: &[(String, Vec<(Step, WaitKinds)>)], up_to: u64) -> BTreeMap<String, Value> {
    let view = |(step, waits): &(Step, WaitKinds)| {
        let header = step.run.header().expect("a run's first event starts it");
        let (output, error) = match &step.run {
            Run::Closed(closed) => (closed.output.clone(), closed.error.clone()),
            _ => (None, None),
        };
        json!({
            "status": status(&step.run, *waits), "sequence": step.sequence, "position": step.position,
            "input": header.input, "labels": header.labels, "output": output,
            "error": error.map(|error| error.code), "definition": header.definition,
            "usage": step.run.usage(),
        })
    };
    let last = |steps: &[(Step, WaitKinds)]| {
        steps.iter().rfind(|(step, _)| step.position <= up_to).map(view)
    };
    folded.iter().filter_map(|(id, steps)| Some((id.clone(), last(steps)?))).collect()
}

/// The same of a list's items.
fn listed(items: &[Value]) -> BTreeMap<String, Value> {
    let view = |item: &Value| {
        json!({
            "status": item["status"], "sequence": item["sequence"],
            "position": item["position"], "input": item["input"], "labels": item["labels"],
            "output": item["output"], "error": item["error"]["code"],
            "definition": item["definition"], "usage": item["usage"],
        })
    };
    let id = |item: &Value| item["id"].as_str().expect("a run has an id").to_owned();
    let views: BTreeMap<_, _> = items.iter().map(|item| (id(item), view(item))).collect();
    assert_eq!(views.len(), items.len(), "a run stands twice in the list");
    views
}

/// A run that retries, and counts tokens of a model, so that a repeated event would show.
fn counting() -> Value {
    let mut definition = workflows::flaky("p05", 1, 3);
    definition["nodes"]["ask"] = json!({
        "action": {"kind": "llm", "with": {
            "model": {"provider": "mock", "model": "m"}, "prompt": "Say something about histories."
        }},
        "output": {"state.text": "${result.text}"}
    });
    definition["transitions"] = json!([{"from": "try", "to": "ask"}]);
    definition["output"] = json!({"text": "${state.text}"});
    definition
}

async fn publish(client: &Client) {
    client.post("/workflow-definitions", &counting()).await.ok();
    client.post("/workflow-definitions", &workflows::flaky("p05-fails", 9, 2)).await.ok();
}

/// Starts runs until the platform goes away.
async fn load(client: Client) {
    for number in 0_u64.. {
        let definition = if number.is_multiple_of(4) { "p05-fails" } else { "p05" };
        let labels = json!({"number": number.to_string()});
        let body = json!({"definition": definition, "labels": labels});
        if client.try_post("/runs", &body).await.is_err() {
            return;
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn killed_while_it_folds_it_ends_equal_to_a_fold_of_the_journal() {
    let mut platform = crate::platform().await;
    let client = platform.client();
    publish(&client).await;
    let mut pace = Pace::new(5);
    for _ in 0..KILLS {
        let load = [load(client.clone()), load(client.clone())].map(tokio::spawn);
        pace.pause(350).await;
        platform.kill_9().await;
        for client in load {
            client.await.expect("a client must not panic");
        }
        platform.restart().await;
    }
    client.all_ended().await;
    let runs = client.runs(client.head().await).await;
    platform.stop().await;
    let records = Records::read(&platform.data_dir()).await;
    records.check();
    let expected = expected(&folded(&records), u64::MAX);
    assert!(expected.len() > KILLS, "only {} runs were started", expected.len());
    let used = |view: &Value| view["usage"]["output_tokens"].as_u64().unwrap_or_default();
    assert!(expected.values().any(|view| used(view) > 0), "no run has used a model");
    assert_eq!(listed(&runs), expected);
}

/// Where a write-ahead log may have ended: after each of its commits.
fn commits(log: &[u8]) -> Vec<usize> {
    const HEADER: usize = 32;
    const FRAME_HEADER: usize = 24;
    let number = |at: usize| u32::from_be_bytes(log[at..at + 4].try_into().expect("4 bytes"));
    let frame = FRAME_HEADER + number(8) as usize;
    let ends = (HEADER..).step_by(frame).take_while(|at| at + frame <= log.len());
    // A frame that ends a transaction has the database's size in its second word; frames of an
    // older round of the log have another salt.
    ends.filter(|at| number(at + 4) != 0 && number(at + 8) == number(16))
        .map(|at| at + frame)
        .collect()
}

/// Folds nothing: answers the position that the read tables stand at, and what they list.
async fn as_it_stands(
    journal: &Arc<SqliteJournal>,
    workspace_id: WorkspaceId,
    views: &Path,
) -> (u64, Vec<Value>) {
    let journal = Arc::clone(journal) as Arc<dyn Journal>;
    let projections =
        Projections::open(journal, Views::File(views.to_owned()), Config::default()).await;
    let projections = projections.expect("what a crash leaves can be opened");
    let standings = projections.standings().await.expect("the journal is there");
    let standing = standings.iter().find(|one| one.projection == "runs").expect("it exists");
    let mut items = Vec::new();
    let mut cursor = None;
    loop {
        let page = PageRequest { limit: 200, cursor, min_position: None };
        let queries: &dyn RunQueries = &*projections;
        let page = queries.list(workspace_id, RunFilter::default(), page).await;
        let page = page.expect("the rows can be read");
        let views = page.items.into_iter().map(serde_json::to_value);
        items.extend(views.map(|view| view.expect("a view is JSON")));
        cursor = page.next_cursor;
        if cursor.is_none() {
            return (standing.position, items);
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn cut_off_after_any_commit_its_rows_are_those_of_its_checkpoint() {
    // The log store stands in the same file, and would commit for every attempt that fails.
    let shape = Shape::from(Setting::Embedded).with(&["--logs-level", "off"]);
    let mut platform = Platform::start_as(env!("CARGO_BIN_EXE_wonder"), shape).await;
    let client = platform.client();
    publish(&client).await;
    let load = tokio::spawn(load(client.clone()));
    let views = platform.data_dir().join("views.db");
    let log_path = platform.data_dir().join("views.db-wal");
    wait_for("a log of some commits", || async {
        let bytes = std::fs::metadata(&log_path).ok()?.len();
        (bytes > WHOLE_LOG_BYTES / 2).then_some(())
    })
    .await;
    platform.kill_9().await;
    load.await.expect("a client must not panic");

    let log = std::fs::read(&log_path).expect("the log is there");
    assert!((log.len() as u64) < WHOLE_LOG_BYTES, "the log was moved into the database");
    let commits = commits(&log);
    assert!(commits.len() > CUTS, "only {} commits", commits.len());
    let path = platform.data_dir().join("journal.db");
    let journal = SqliteJournal::open(&path, SqliteOptions::default()).await;
    let journal = journal.expect("nobody has the journal open");
    let records = Records::of(&*journal).await;
    let folded = folded(&records);
    let workspace_id = records.events[0].workspace_id.parse().expect("a workspace's id");
    let mut seen = BTreeSet::new();
    // The last ones in a row: rows and checkpoint in two transactions would show in every second.
    for end in &commits[commits.len() - CUTS..] {
        let folder = tempfile::tempdir().expect("a temporary folder can be made");
        let image = folder.path().join("views.db");
        std::fs::copy(&views, &image).expect("the tables can be copied");
        std::fs::write(folder.path().join("views.db-wal"), &log[..*end]).expect("a log of them");
        let (position, items) = as_it_stands(&journal, workspace_id, &image).await;
        let expected = expected(&folded, position);
        assert_eq!(listed(&items), expected, "after {end} bytes, at position {position}");
        seen.insert(position);
    }
    // Every projection commits for itself, and one of five has the rows that are looked at.
    assert!(seen.len() > CUTS / 5, "the cuts stand at {} positions only", seen.len());
    journal.close().await;
}
