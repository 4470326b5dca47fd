//! The journal on SQLite: what every journal has to do, and what only this one can get wrong.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use chassis::clock::{Clock, ManualClock, SystemClock};
use chassis::journal::conformance::Storage;
use chassis::journal::feed::FeedLimits;
use chassis::journal::{
    Append, AppendError, InboxEntry, Journal, NewEvent, OpenError, ReadError, SqliteJournal,
    SqliteOptions, TailError,
};
use chrono::{DateTime, TimeDelta, Utc};
use tempfile::TempDir;
use tokio::sync::Mutex;
use uuid::Uuid;

struct Sqlite {
    dir: TempDir,
    options: SqliteOptions,
    open: Mutex<Option<Arc<SqliteJournal>>>,
}

impl Sqlite {
    fn new(options: SqliteOptions) -> Self {
        let dir = tempfile::tempdir().expect("a folder for the test");
        Self { dir, options, open: Mutex::new(None) }
    }

    fn path(&self) -> PathBuf {
        self.dir.path().join("data").join("journal.db")
    }
}

#[async_trait]
impl Storage for Sqlite {
    async fn open(&self) -> Arc<dyn Journal> {
        self.close().await;
        let opened = SqliteJournal::open(&self.path(), self.options.clone()).await;
        let journal = opened.expect("the journal can be opened");
        *self.open.lock().await = Some(Arc::clone(&journal));
        journal
    }

    async fn close(&self) {
        if let Some(journal) = self.open.lock().await.take() {
            journal.close().await;
        }
    }
}

mod with_defaults {
    chassis::journal_conformance!(super::Sqlite::new(super::SqliteOptions::default()));
}

/// Everything is at its narrowest: one append a commit, one waiting, two events in memory.
mod with_tight_limits {
    chassis::journal_conformance!(super::Sqlite::new(super::tight()));
}

fn tight() -> SqliteOptions {
    SqliteOptions {
        queue: 1,
        queue_bytes: 1,
        commit_events: 1,
        commit_bytes: 1,
        max_bytes: u64::MAX,
        feed: FeedLimits { events: 2, bytes: 1_000_000 },
        clock: Arc::new(SystemClock::new()),
    }
}

fn append(id: &str, expected_sequence: u64) -> Append {
    Append {
        aggregate_type: "thing".into(),
        aggregate_id: id.into(),
        expected_sequence,
        workspace_id: "ws".into(),
        metadata: Bytes::from_static(b"{}"),
        recorded_at: Utc::now(),
        events: vec![NewEvent {
            id: Uuid::now_v7(),
            event_type: "thing.changed".into(),
            event_version: 1,
            payload: Bytes::from_static(b"{}"),
            recorded_at: None,
        }],
        ..Append::default()
    }
}

/// Runs SQL on the file from outside, as nobody should.
fn tamper(path: &Path, sql: &str) {
    let connection = rusqlite::Connection::open(path).expect("the file can be opened");
    connection.execute_batch(sql).expect("the statement runs");
}

#[tokio::test]
async fn a_second_process_is_refused() {
    let storage = Sqlite::new(SqliteOptions::default());
    let journal = storage.open().await;
    let second = SqliteJournal::open(&storage.path(), SqliteOptions::default()).await;
    assert!(matches!(second, Err(OpenError::InUse { path }) if path == storage.path()));
    assert!(journal.append(append("a", 0)).await.is_ok(), "the first one was disturbed");
    storage.close().await;
    storage.open().await;
}

#[tokio::test]
async fn what_is_queued_before_close_is_committed() {
    let storage = Sqlite::new(SqliteOptions::default());
    let journal = storage.open().await;
    let appends = (0..200).map(|n| {
        let journal = Arc::clone(&journal);
        tokio::spawn(async move { journal.append(append(&format!("a{n}"), 0)).await })
    });
    let appends: Vec<_> = appends.collect();
    storage.close().await;
    let mut written = 0;
    for append in appends {
        match append.await.expect("the writer ran") {
            Ok(_) => written += 1,
            Err(error) => assert!(matches!(error, AppendError::Unavailable(_)), "{error}"),
        }
    }
    assert_eq!(storage.open().await.head().await, Ok(written));
}

#[tokio::test]
async fn a_dropped_journal_lets_go_of_its_files() {
    let storage = Sqlite::new(SqliteOptions::default());
    let journal = SqliteJournal::open(&storage.path(), SqliteOptions::default()).await;
    let journal = journal.expect("the journal can be opened");
    journal.append(append("a", 0)).await.expect("the append is right");
    let mut tail = journal.tail(1);
    drop(journal);
    assert_eq!(tail.next(1).await, Err(TailError::Closed));
    // The thread closes the files right after it has told the tails.
    let journal = loop {
        match SqliteJournal::open(&storage.path(), SqliteOptions::default()).await {
            Ok(journal) => break journal,
            Err(OpenError::InUse { .. }) => tokio::task::yield_now().await,
            Err(error) => panic!("{error}"),
        }
    };
    assert_eq!(journal.head().await, Ok(1));
}

#[tokio::test]
async fn a_missing_event_is_a_gap_and_never_skipped() {
    let storage = Sqlite::new(tight());
    let journal = storage.open().await;
    for n in 0..6 {
        journal.append(append("a", n)).await.expect("the append is right");
    }
    tamper(&storage.path(), "delete from events where position = 3");
    let mut tail = journal.tail(0);
    assert_eq!(tail.next(10).await, Err(TailError::Gap { expected: 3, found: 4 }));
    assert_eq!(tail.position(), 0, "a failed read has moved the tail");
    assert!(matches!(journal.read(0, 10).await, Err(ReadError::Damaged(_))));
    assert!(matches!(journal.load("thing", "a", 0, 10).await, Err(ReadError::Damaged(_))));
    storage.close().await;
    let opened = SqliteJournal::open(&storage.path(), SqliteOptions::default()).await;
    assert!(matches!(opened, Err(OpenError::Damaged { .. })));
}

/// Pages from storage end at a number of bytes, and the tail goes on from there.
#[tokio::test]
async fn a_tail_reads_large_events_in_small_pages() {
    const EVENTS: u64 = 12;
    let storage = Sqlite::new(tight());
    let journal = storage.open().await;
    for n in 0..EVENTS {
        let mut large = append("a", n);
        large.events[0].payload = Bytes::from(vec![b'x'; 1024 * 1024]);
        journal.append(large).await.expect("the append is right");
    }
    let mut tail = journal.tail(0);
    let mut seen = Vec::new();
    while seen.len() < EVENTS as usize {
        let page = tail.next(1_000).await.expect("the tail goes on");
        assert!(page.len() <= 4, "{} MiB in one page", page.len());
        seen.extend(page.iter().map(|event| event.position));
    }
    assert_eq!(seen, (1..=EVENTS).collect::<Vec<_>>());
}

#[tokio::test]
async fn a_damaged_row_is_told() {
    let storage = Sqlite::new(SqliteOptions::default());
    let journal = storage.open().await;
    journal.append(append("a", 0)).await.expect("the append is right");
    tamper(&storage.path(), "update events set event_id = x'00'");
    let read = journal.read(0, 10).await;
    assert!(
        matches!(&read, Err(ReadError::Damaged(what)) if what.contains("event_id")),
        "{read:?}"
    );
    tamper(&storage.path(), "update events set event_id = randomblob(16), event_version = -1");
    assert!(matches!(journal.read(0, 10).await, Err(ReadError::Damaged(_))));
}

#[tokio::test]
async fn a_store_of_a_newer_version_is_left_alone() {
    let storage = Sqlite::new(SqliteOptions::default());
    storage.open().await;
    storage.close().await;
    tamper(&storage.path(), "update store set schema = 2");
    let opened = SqliteJournal::open(&storage.path(), SqliteOptions::default()).await;
    assert!(matches!(opened, Err(OpenError::Newer { found: 2, .. })));
}

#[tokio::test]
async fn a_file_of_something_else_is_refused() {
    let storage = Sqlite::new(SqliteOptions::default());
    std::fs::create_dir_all(storage.path().parent().expect("the file has a folder"))
        .expect("the folder can be made");
    std::fs::write(storage.path(), "not a database, but long enough to look at").expect("writable");
    let opened = SqliteJournal::open(&storage.path(), SqliteOptions::default()).await;
    assert!(opened.is_err());
}

/// A commit that fails writes nothing and is told to all; the next one works.
#[tokio::test]
async fn a_failed_commit_is_told_to_all_and_recovered_from() {
    let storage = Sqlite::new(SqliteOptions::default());
    let journal = storage.open().await;
    journal.append(append("a", 0)).await.expect("the append is right");
    tamper(
        &storage.path(),
        "create trigger full before insert on events when new.aggregate_id = 'poison'
         begin select raise(abort, 'no'); end;",
    );
    let (poison, innocent) =
        tokio::join!(journal.append(append("poison", 0)), journal.append(append("a", 1)));
    assert!(matches!(poison, Err(AppendError::Unavailable(_))));
    // It shares the failed batch or comes after it; either way the history stays whole.
    let next = if innocent.is_ok() { 2 } else { 1 };
    assert_eq!(journal.head().await, Ok(next));
    tamper(&storage.path(), "drop trigger full");
    let appended = journal.append(append("poison", 0)).await.expect("it works again");
    assert_eq!(appended.first_position, next + 1);
    let events = journal.read(0, 10).await.expect("the history is whole");
    assert_eq!(events.len() as u64, next + 1);
}

#[tokio::test]
async fn a_full_storage_is_told_and_goes_on_being_read() {
    let options = SqliteOptions { max_bytes: 1024 * 1024, ..SqliteOptions::default() };
    let storage = Sqlite::new(options);
    let journal = storage.open().await;
    journal.append(append("small", 0)).await.expect("there is room");
    let mut large = append("large", 0);
    large.events[0].payload = Bytes::from(vec![b'x'; 2 * 1024 * 1024]);
    assert_eq!(journal.append(large).await, Err(AppendError::Full));
    assert_eq!(journal.read(0, 10).await.map(|events| events.len()), Ok(1));
    let next = journal.append(append("small", 1)).await.expect("there is room for a small one");
    assert_eq!((next.first_position, next.last_sequence), (2, 2));
}

#[tokio::test]
async fn a_fault_stands_until_writing_works_again() {
    let options = SqliteOptions { max_bytes: 1024 * 1024, ..SqliteOptions::default() };
    let storage = Sqlite::new(options);
    let journal = storage.open().await;
    assert_eq!(journal.fault(), None);
    let sized = |bytes: usize| {
        let mut sized = append("large", 0);
        sized.events[0].payload = Bytes::from(vec![b'x'; bytes]);
        sized
    };
    assert_eq!(journal.append(sized(2 * 1024 * 1024)).await, Err(AppendError::Full));
    assert_eq!(journal.fault().as_deref(), Some("the journal's storage is full"));
    // The question set off a try, for which there was room. A conflict only passes through the
    // queue behind it: it writes nothing.
    assert!(journal.append(append("small", 7)).await.is_err());
    assert_eq!(journal.fault(), None);
    for (number, bytes) in [(1, 800_000), (2, 100_000), (3, 60_000), (4, 60_000)] {
        let filler = Append { aggregate_id: format!("filler {number}").into(), ..sized(bytes) };
        journal.append(filler).await.ok();
    }
    assert_eq!(journal.append(sized(200_000)).await, Err(AppendError::Full));
    assert!(journal.fault().is_some());
    assert!(journal.append(append("small", 7)).await.is_err());
    assert!(journal.fault().is_some(), "a try that fails leaves the fault");
    journal.append(append("small", 0)).await.expect("there is room for a small one");
    assert_eq!(journal.fault(), None);
}

#[tokio::test]
async fn answers_are_kept_for_a_day_and_then_forgotten() {
    let start = DateTime::from_timestamp(1_800_000_000, 0).expect("a valid time");
    let clock = Arc::new(ManualClock::new(start));
    let storage = Sqlite::new(SqliteOptions {
        clock: Arc::clone(&clock) as Arc<dyn Clock>,
        ..SqliteOptions::default()
    });
    let journal = storage.open().await;
    let with_key = |id: &str, key: &str| Append {
        inbox: vec![InboxEntry {
            key: key.into(),
            fingerprint: "f".into(),
            answer: Bytes::from_static(b"done"),
        }],
        ..append(id, 0)
    };
    journal.append(with_key("a", "first")).await.expect("the append is right");
    clock.advance(TimeDelta::hours(24));
    journal.append(with_key("b", "second")).await.expect("the append is right");
    assert!(journal.recall("first").await.expect("readable").is_some());
    let again = journal.append(with_key("c", "first")).await;
    assert!(matches!(again, Err(AppendError::Duplicate(_))), "{again:?}");
    clock.advance(TimeDelta::hours(2));
    journal.append(append("d", 0)).await.expect("the append is right");
    assert_eq!(journal.recall("first").await, Ok(None));
    assert!(journal.recall("second").await.expect("readable").is_some());
}

#[tokio::test]
async fn a_typical_event_takes_at_most_400_bytes() {
    let storage = Sqlite::new(SqliteOptions::default());
    let journal = storage.open().await;
    for run in 0..200 {
        let mut typical = append(&format!("run_{run:026}"), 0);
        typical.aggregate_type = "run".into();
        typical.workspace_id = format!("ws_{:026}", 1).into();
        typical.metadata = Bytes::from(vec![b'm'; 64]);
        let event = NewEvent {
            event_type: "run.node_completed".into(),
            payload: Bytes::from(vec![b'p'; 100]),
            ..typical.events[0].clone()
        };
        typical.events = vec![event; 20];
        journal.append(typical).await.expect("the append is right");
    }
    storage.close().await;
    let connection = rusqlite::Connection::open(storage.path()).expect("the file can be opened");
    let bytes: u64 = connection
        .query_row(
            "select page_count * page_size from pragma_page_count, pragma_page_size",
            [],
            |row| row.get(0),
        )
        .expect("the size can be read");
    assert!(bytes / 4_000 <= 400, "{} bytes an event", bytes / 4_000);
}

#[tokio::test]
async fn what_was_open_before_leans_on_what_its_first_event_says() {
    const MIGRATION: &str = include_str!("../../migrations/sqlite/journal/0006_leaning.sql");
    let storage = Sqlite::new(SqliteOptions::default());
    let journal = storage.open().await;
    for append in before_leaning() {
        assert!(journal.append(append).await.is_ok());
    }
    storage.close().await;
    let (_, fill) = MIGRATION.split_once("update open_aggregates").expect("it fills the column");
    tamper(&storage.path(), &format!("update open_aggregates {fill}"));
    let journal = storage.open().await;
    let leaning = async |kind, on| journal.leaning(kind, on, "", 9).await.expect("it is read");
    assert_eq!(leaning("run", "run_a").await, ["run_fork".into()]);
    assert_eq!(leaning("hold", "run_a").await, ["run_fork".into()]);
    assert_eq!(leaning("run", "run_wrong").await, [""; 0].map(Arc::from));
    storage.close().await;
}

/// Runs that are open, and a hold on one, as they were written before anything leaned on others.
fn before_leaning() -> Vec<Append> {
    let theirs = r#""input":{"forked_from":{"run_id":"run_wrong"},"t":"\u0000"},"run_id":"run_a"}"#;
    let from = r#""forked_from":{"at":"2026-01-01T00:00:00Z","run_id":"run_a","sequence":2},"#;
    let open = |kind: &str, id: &str, payload: String| {
        let mut open = Append { open: Some(true), shard: 3, ..append(id, 0) };
        open.aggregate_type = kind.into();
        open.events[0].payload = payload.into();
        open
    };
    vec![
        open("run", "run_fork", format!(r#"{{"definition":{{"name":"t"}},{from}{theirs}"#)),
        open("run", "run_plain", format!(r#"{{"definition":{{"name":"t"}},{theirs}"#)),
        open("hold", "run_fork", r#"{"reason":"case 1"}"#.to_owned()),
        open("hold", "run_plain", r#"{"reason":"case 2"}"#.to_owned()),
    ]
}
