//! The log store: what is found by what, for whom, and how it leaves.

use std::collections::BTreeMap;
use std::path::Path;

use protocol::{LogFilter, LogLevel, LogQueries, LogRecord, PageRequest};

use super::*;
use crate::LogsConfig;
use crate::logs::archive::Archive;

const TRACE: &str = "0af7651916cd43dd8448eb211c80319c";

fn record(number: u64, at: DateTime<Utc>) -> LogRecord {
    LogRecord {
        id: format!("{number:032x}"),
        at,
        level: LogLevel::Warn,
        role: "executor".to_owned(),
        instance: "wonder executor 7".to_owned(),
        target: "executor::executor".to_owned(),
        message: format!("attempt {number} FAILED"),
        workspace_id: None,
        run_id: None,
        trace_id: None,
        fields: serde_json::Map::new(),
    }
}

/// The numbers of the records that a filter finds, in their order.
async fn found(world: &World, workspace: Option<WorkspaceId>, filter: LogFilter) -> Vec<u64> {
    let (mut numbers, mut cursor) = (Vec::new(), None);
    loop {
        let page = PageRequest { limit: 2, cursor, ..PageRequest::default() };
        let page = LogQueries::list(&*world.views, workspace, filter.clone(), page).await;
        let page = page.expect("a page");
        let number = |record: &LogRecord| u64::from_str_radix(&record.id, 16).expect("a number");
        numbers.extend(page.items.iter().map(number));
        cursor = page.next_cursor;
        if cursor.is_none() {
            return numbers;
        }
    }
}

async fn records_are_found_by_what_they_are_about(storage: Storage) {
    let world = World::new(storage).await;
    let run = run_id(7);
    let start = codec::encode(&started(run, json!({}), &[]), ours()).expect("it encodes");
    let metadata =
        json!({"actor": "key_ann", "traceparent": format!("00-{TRACE}-b7ad6b7169203331-01")});
    let stream = ("run", &*run.to_string());
    let asked = metadata.to_string();
    let payload = String::from_utf8(start.payload).expect("text");
    world.append_beside(stream, "run_started", &payload, &asked).await;
    let (middle, low) = (run_id(20), run_id(21));
    world.run(middle, 0, &[super::children::begun(middle, run, run)]).await;
    world.run(low, 0, &[super::children::begun(low, middle, run)]).await;
    world.caught_up().await;
    let of_run = LogRecord { run_id: Some(run.to_string()), ..record(1, moment(1)) };
    let fields = json!({"code": "Timed%out", "status": 503, "ok": null});
    let mut told = record(2, moment(2));
    told.fields = fields.as_object().expect("members").clone();
    let of_request = LogRecord {
        level: LogLevel::Error,
        role: "gateway".to_owned(),
        trace_id: Some(TRACE.to_owned()),
        ..record(3, moment(3))
    };
    let of_others = LogRecord {
        level: LogLevel::Info,
        workspace_id: Some(theirs().to_string()),
        run_id: Some(run_id(8).to_string()),
        trace_id: Some("ff".repeat(16)),
        ..record(4, moment(4))
    };
    let all = [of_run, told.clone(), of_request, of_others];
    world.views.keep_logs(&all).await.expect("they are kept");
    let again = LogRecord { message: "another".to_owned(), ..all[0].clone() };
    world.views.keep_logs(&[again]).await.expect("it is there already");

    let none = LogFilter::default;
    let text = |text: &str| Some(text.to_owned());
    assert_eq!(found(&world, None, none()).await, [4, 3, 2, 1]);
    assert_eq!(found(&world, Some(ours()), none()).await, [1], "by its run");
    assert_eq!(found(&world, Some(theirs()), none()).await, [4], "by itself");
    for (filter, wanted) in [
        (LogFilter { run_id: text(&run.to_string()), ..none() }, vec![1]),
        (LogFilter { trace_id: text(TRACE), ..none() }, vec![3, 1]),
        (LogFilter { level: Some(LogLevel::Warn), ..none() }, vec![3, 2, 1]),
        (LogFilter { level: Some(LogLevel::Error), ..none() }, vec![3]),
        (LogFilter { role: text("gateway"), ..none() }, vec![3]),
        (LogFilter { from: Some(moment(2)), to: Some(moment(4)), ..none() }, vec![3, 2]),
        (LogFilter { q: text("2 failed"), ..none() }, vec![2]),
        (LogFilter { q: text("timed%OUT"), ..none() }, vec![2]),
        (LogFilter { q: text("timed_out"), ..none() }, vec![]),
        (LogFilter { q: text("a\0"), ..none() }, vec![]),
    ] {
        assert_eq!(found(&world, None, filter.clone()).await, wanted, "{filter:?}");
    }
    // What is about runs below it is found by its trace, and from each of them.
    let of_low = LogRecord { run_id: Some(low.to_string()), ..record(5, moment(5)) };
    world.views.keep_logs(&[of_low]).await.expect("it is kept");
    assert_eq!(found(&world, Some(ours()), none()).await, [5, 1]);
    for (filter, wanted) in [
        (LogFilter { trace_id: text(TRACE), ..none() }, vec![5, 3, 1]),
        (LogFilter { run_id: text(&run.to_string()), ..none() }, vec![1]),
        (LogFilter { run_id: text(&run.to_string()), tree: true, ..none() }, vec![5, 1]),
        (LogFilter { run_id: text(&low.to_string()), tree: true, ..none() }, vec![5, 1]),
        (LogFilter { run_id: text(&middle.to_string()), tree: true, ..none() }, vec![5, 1]),
        (LogFilter { run_id: text(&run_id(9).to_string()), tree: true, ..none() }, vec![]),
    ] {
        assert_eq!(found(&world, None, filter.clone()).await, wanted, "{filter:?}");
    }
    let page = PageRequest::default();
    let listed = LogQueries::list(&*world.views, None, none(), page).await.expect("a page");
    assert_eq!(listed.items[0].trace_id.as_deref(), Some(TRACE), "of the run at the top");
    assert_eq!(listed.items[3], told, "as it was told");
    let of_run = &listed.items[4];
    assert_eq!((of_run.trace_id.as_deref(), &*of_run.message), (Some(TRACE), "attempt 1 FAILED"));
    assert_eq!(of_run.workspace_id, Some(ours().to_string()));
}

async fn a_rebuild_leaves_them_alone(storage: Storage) {
    let world = World::new(storage).await;
    world.whole_run(1, 1, true).await;
    world.caught_up().await;
    world.views.keep_logs(&[record(1, moment(1))]).await.expect("it is kept");
    for name in world.views.names() {
        world.views.rebuild(name, |_| {}).await.expect("it is rebuilt");
    }
    assert_eq!(found(&world, None, LogFilter::default()).await, [1]);
}

/// The ids of an archive's lines, by file.
fn archived(folder: &Path) -> BTreeMap<String, Vec<u64>> {
    let number = |line: &str| {
        let record: LogRecord = serde_json::from_str(line).expect("a record");
        u64::from_str_radix(&record.id, 16).expect("a number")
    };
    let files = std::fs::read_dir(folder).expect("a folder").map(|file| file.expect("a file"));
    files
        .map(|file| {
            let text = std::fs::read_to_string(file.path()).expect("text");
            let name = file.file_name().into_string().expect("a name");
            (name, text.lines().map(number).collect())
        })
        .collect()
}

async fn what_leaves_is_archived_once(storage: Storage) {
    let logs =
        LogsConfig { max_age: Duration::from_hours(24), max_records: 40, ..LogsConfig::default() };
    let world = World::idle(storage, Config { logs, ..config() }).await;
    let now = Utc::now();
    let yesterday = now - TimeDelta::days(2);
    let old: Vec<_> =
        (0..700).map(|n| record(n, yesterday + TimeDelta::microseconds(n as i64))).collect();
    let new: Vec<_> =
        (700..760).map(|n| record(n, now + TimeDelta::microseconds(n as i64))).collect();
    for batch in [old, new].concat().chunks(crate::LOG_BATCH) {
        world.views.keep_logs(batch).await.expect("they are kept");
    }
    let folder = world.folder.path().join("archive");
    let path = folder.join(format!("logs-{}.ndjson", yesterday.date_naive()));
    // A process wrote some of them, and vanished before it removed them, within a line.
    let some: Vec<_> = (0..10).map(|n| record(n, yesterday)).collect();
    Archive::new(folder.clone()).append(&some).expect("it is written");
    let torn = std::fs::read_to_string(&path).expect("text");
    std::fs::write(&path, &torn[..torn.len() - 20]).expect("it is torn");
    let (mut archive, stop) = (Some(Archive::new(folder.clone())), CancellationToken::new());
    world.views.trim_logs(&mut archive, &stop).await.expect("they leave");
    let left = found(&world, None, LogFilter::default()).await;
    assert_eq!(left, (720..760).rev().collect::<Vec<_>>(), "the newest stay");
    let files = archived(&folder);
    let numbers: Vec<_> = files.values().flatten().copied().collect();
    assert_eq!(numbers, (0..720).collect::<Vec<_>>(), "each once, in order");
    assert_eq!(files.len(), 2, "a file a day");
    // Where they can't be archived, they stay.
    world.views.keep_logs(&[record(9_000, yesterday)]).await.expect("it is kept");
    let blocked = world.folder.path().join("blocked");
    std::fs::write(&blocked, "").expect("a file in the way");
    let refused = world.views.trim_logs(&mut Some(Archive::new(blocked)), &stop).await;
    assert!(refused.is_err() && found(&world, None, LogFilter::default()).await.contains(&9_000));
    // And without an archive they just leave.
    world.views.trim_logs(&mut None, &stop).await.expect("they leave");
    assert_eq!(found(&world, None, LogFilter::default()).await.len(), 40);
}

on_both_storages!(
    records_are_found_by_what_they_are_about,
    a_rebuild_leaves_them_alone,
    what_leaves_is_archived_once,
);
