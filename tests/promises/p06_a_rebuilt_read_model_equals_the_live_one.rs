//! Promise 06: a rebuilt read model equals the live one, byte for byte.
//!
//! It fails where a fold reads anything but events (a clock, a random id, the order of a map, what
//! the rows happen to hold), and where the rebuilt rows take over at another position than the
//! live ones. That a difference is found at all is tried with a row that was tampered with.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use chassis::journal::Journal;
use domain::resource::{ProjectSpec, Spec};
use projections::{Config, Projections, Views};
use protocol::Command;
use serde_json::{Value, json};
use system_tests::{Writer, within, workflows};
use tokio_util::sync::CancellationToken;

/// Rebuilds of each read model while others write.
const REBUILDS: usize = 5;

/// Starts runs and creates projects until it is told to stop.
async fn write(writer: Arc<Writer>, stop: Arc<AtomicBool>) {
    let definition = workflows::fan_out("p06", "1ms");
    for number in 0_u64.. {
        if stop.load(Ordering::Acquire) {
            return;
        }
        let run_id = writer.start_run(&definition, json!({"items": [1, number]})).await;
        let spec = json!({"name": format!("p06-{number}")});
        let spec: ProjectSpec = serde_json::from_value(spec).expect("a project's spec");
        writer.execute(Command::Create(Box::new(Spec::Project(spec)))).await.expect("it is new");
        if number % 2 == 0 {
            writer.end_of(run_id).await;
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn rebuilt_while_others_write_it_is_the_same_at_the_same_position() {
    let folder = tempfile::tempdir().expect("a temporary folder can be made");
    let writer = Arc::new(Writer::start(folder.path()).await);
    let worker = writer.answer_everything();
    let journal = Arc::clone(&writer.journal) as Arc<dyn Journal>;
    let views = Views::File(folder.path().join("views.db"));
    let projections = Projections::open(Arc::clone(&journal), views, Config::default()).await;
    let projections = projections.expect("the read tables can be made");
    let shutdown = CancellationToken::new();
    let folding = projections.start(None, &shutdown);
    let stop = Arc::new(AtomicBool::new(false));
    let writing = tokio::spawn(write(Arc::clone(&writer), Arc::clone(&stop)));

    let mut positions = Vec::new();
    for _ in 0..REBUILDS {
        let head = journal.head().await.expect("the journal is there");
        within("the read models", projections.caught_up(head + 20)).await;
        for name in projections.names() {
            let rebuilt = within("a rebuild", projections.rebuild(name, |_| {})).await;
            let rebuilt = rebuilt.expect("it can be rebuilt");
            assert_eq!(rebuilt.difference, None, "{name} at position {}", rebuilt.position);
            positions.push(rebuilt.position);
        }
    }
    stop.store(true, Ordering::Release);
    within("the writer", writing).await.expect("the writer must not panic");
    // Each was further at its next rebuild; one may be behind another.
    let mut rounds = positions.iter().zip(&positions[positions.len() / REBUILDS..]);
    assert!(rounds.all(|(before, after)| before < after), "nobody was writing: {positions:?}");

    // What took over goes on folding, and ends where a fold from the first event ends.
    let head = journal.head().await.expect("the journal is there");
    within("the read models", projections.caught_up(head)).await;
    for name in projections.names() {
        let compared = within("a comparison", projections.compare(name, |_| {})).await;
        let compared = compared.expect("it can be compared");
        assert_eq!((compared.position, compared.difference), (head, None), "{name}");
    }
    shutdown.cancel();
    for task in folding {
        within("a projection to stop", task).await.expect("a projection must not panic");
    }
    let writer = Arc::into_inner(writer).expect("nobody else writes");
    writer.stop().await;
    within("the worker", worker).await.expect("the worker must not panic");
}

#[tokio::test(flavor = "multi_thread")]
async fn after_a_kill_it_is_the_same_and_a_tampered_row_is_found_and_mended() {
    let mut platform = crate::platform().await;
    let client = platform.client();
    client.post("/workflow-definitions", &workflows::sequence("p06", 3)).await.ok();
    for number in 0..20 {
        client.run_to_end(&json!("p06"), json!({"n": number})).await;
        client.start(&json!("p06"), json!({"n": number})).await;
    }
    platform.kill_9().await;
    platform.restart().await;
    client.all_ended().await;
    let runs = client.runs(client.head().await).await;
    platform.stop().await;

    let data_dir = platform.data_dir();
    let folder = data_dir.to_str().expect("a path in UTF-8");
    let rebuild = async |name: &str, compare: bool| -> (Option<i32>, Value) {
        let mut arguments = vec!["-o", "json", "projections", "rebuild", name];
        arguments.extend(["--data-dir", folder]);
        arguments.extend(compare.then_some("--compare"));
        let (status, stdout, stderr) = platform.wonder(&arguments).await;
        let answer: Option<Value> = serde_json::from_str(&stdout).ok();
        (status.code(), answer.unwrap_or_else(|| panic!("{status}: {stderr}")))
    };
    for name in ["runs", "resources"] {
        let (code, compared) = rebuild(name, true).await;
        assert_eq!((code, &compared["difference"]), (Some(0), &Value::Null), "{name}");
    }
    let row = runs[7]["id"].as_str().expect("a run has an id");
    let views = rusqlite::Connection::open(data_dir.join("views.db")).expect("it is a database");
    let sql = "update runs set sequence = sequence + 1 where id = ?1";
    assert_eq!(views.execute(sql, [row]), Ok(1));
    drop(views);
    let (code, compared) = rebuild("runs", true).await;
    let found = &compared["difference"];
    assert_eq!(
        (code, found["table"].as_str(), found["row"].as_str()),
        (Some(1), Some("runs"), Some(row))
    );
    assert_eq!(rebuild("runs", false).await.0, Some(0));
    assert_eq!(rebuild("runs", true).await.0, Some(0));
    platform.restart().await;
    assert_eq!(client.runs(client.head().await).await, runs);
}
