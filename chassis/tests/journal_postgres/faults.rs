//! What breaks, and how the journal comes back.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use chassis::database::{Database, DatabaseError, DatabaseOptions};
use chassis::journal::{
    AppendError, Journal, PostgresJournal, PostgresOptions, ReadError, TailError,
};
use chassis::scratch::ScratchDatabase;
use futures::future::join_all;

use crate::{Process, append, eventually, must, tight, with_key};

/// Ends all connections to the database but the one that asks.
const KILL: &str = "select pg_terminate_backend(pid) from pg_stat_activity \
     where datname = current_database() and pid <> pg_backend_pid()";
const IN_TRANSACTION: &str = "select count(*) from pg_stat_activity \
     where datname = current_database() and pid <> pg_backend_pid() \
     and state like 'idle in transaction%'";

/// Writes one event after the other, whatever happens meanwhile. Answers how often it failed.
async fn write_through_faults(journal: Arc<PostgresJournal>, id: String, events: u64) -> u64 {
    let (mut sequence, mut failures) = (0, 0);
    while sequence < events {
        match journal.append(append(&id, sequence)).await {
            Ok(appended) => sequence = appended.last_sequence,
            // It may have been written before the connection broke.
            Err(AppendError::Conflict { .. } | AppendError::Unavailable(_)) => {
                failures += 1;
                if let Ok(found) = journal.load("thing", &id, 0, usize::MAX).await {
                    sequence = found.last().map_or(0, |event| event.sequence);
                }
            }
            Err(error) => panic!("{error}"),
        }
    }
    failures
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn killed_connections_are_made_again() {
    const EVENTS: u64 = 200;
    let scratch = ScratchDatabase::create().await;
    let process = Process::start(&scratch, PostgresOptions::default()).await;
    // With one connection, so that it doesn't kill another one of its own.
    let killer = DatabaseOptions { connections: 1, ..scratch.options() };
    let killer = Database::connect(&killer).await.expect("the database can be reached");
    let journal = &process.journal;
    let writers: Vec<_> = (0..8)
        .map(|n| tokio::spawn(write_through_faults(Arc::clone(journal), format!("a{n}"), EVENTS)))
        .collect();
    let mut tail = journal.tail(0);
    let reader = tokio::spawn(async move {
        let mut seen = 0;
        while seen < 8 * EVENTS {
            match tail.next(50).await {
                Ok(events) => seen += events.len() as u64,
                Err(TailError::Read(ReadError::Unavailable(_))) => {}
                Err(error) => panic!("{error}"),
            }
        }
        seen
    });
    let mut kills = 0;
    while writers.iter().any(|writer| !writer.is_finished()) && kills < 10 {
        let committed = journal.committed();
        let before = *committed.borrow();
        sqlx::query(KILL).execute(killer.pool()).await.expect("connections can be ended");
        kills += 1;
        eventually("it goes on", async || {
            *committed.borrow() > before + 50 || writers.iter().all(|writer| writer.is_finished())
        })
        .await;
    }
    let mut failures = 0;
    for writer in join_all(writers).await {
        failures += writer.expect("the writer ran");
    }
    assert!(kills > 2 && failures > 0, "{kills} kills, {failures} failures");
    assert_eq!(reader.await.expect("the reader ran"), 8 * EVENTS, "an event came twice");
    // A pooled connection that was killed costs its next user an error; each is used in its turn.
    eventually("all connections are good", async || {
        for _ in 0..16 {
            if journal.head().await != Ok(8 * EVENTS) {
                return false;
            }
        }
        true
    })
    .await;
    eventually("the fault is over", async || journal.fault().is_none()).await;
    assert_eq!(process.count(IN_TRANSACTION).await, 0);
    process.stop().await;
    killer.pool().close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_dropped_append_leaves_no_transaction_open() {
    let scratch = ScratchDatabase::create().await;
    let process = Process::start(&scratch, PostgresOptions::default()).await;
    for round in 0..20 {
        let appends: Vec<_> = (0..20)
            .map(|n| {
                let journal = Arc::clone(&process.journal);
                let append = append(&format!("a{round}/{n}"), 0);
                tokio::spawn(async move { journal.append(append).await })
            })
            .collect();
        for (n, append) in appends.iter().enumerate() {
            if n % 3 == 0 {
                tokio::task::yield_now().await;
            }
            append.abort();
        }
    }
    must(&process.journal, append("last", 0)).await;
    // Of those that were queued before, some may still be on their way in another transaction.
    eventually("no transaction is open", async || process.count(IN_TRANSACTION).await == 0).await;
    let missing = process.count("select max(position) - count(*) from events").await;
    assert_eq!(missing, 0);
    process.stop().await;
}

#[tokio::test]
async fn connections_go_when_journals_are_closed() {
    const CONNECTED: &str = "select count(*) from pg_stat_activity \
         where datname = current_database() and pid <> pg_backend_pid()";
    let scratch = ScratchDatabase::create().await;
    let process = Process::start(&scratch, PostgresOptions::default()).await;
    let base = process.count(CONNECTED).await;
    for n in 0..50 {
        let opened = PostgresJournal::open(&process.database, PostgresOptions::default()).await;
        let journal = opened.expect("the journal can be opened");
        must(&journal, append("a", n)).await;
        let mut tail = journal.tail(n);
        assert_eq!(tail.next(10).await.map(|events| events.len()), Ok(1));
        if n % 2 == 0 {
            journal.close().await;
        } else {
            // What nobody holds ends by itself.
            drop(journal);
        }
        assert_eq!(tail.next(10).await, Err(TailError::Closed));
    }
    // The pool's own connections are few.
    eventually("connections go", async || process.count(CONNECTED).await <= base + 4).await;
    process.stop().await;
}

/// Each text is one that PostgreSQL refuses, each in a batch with good ones.
#[tokio::test]
async fn what_cant_be_stored_is_refused_alone() {
    let scratch = ScratchDatabase::create().await;
    let process = Process::start(&scratch, PostgresOptions::default()).await;
    let bad = |n: usize| {
        let mut bad = append(&format!("bad{n}"), 0);
        match n {
            3 => bad.workspace_id = "a\0b".into(),
            7 => bad.events[0].payload = Bytes::from_static(b"{\"a\":"),
            12 => bad.metadata = Bytes::from_static(b"\xff"),
            // Too long for a row of the index, and not to be compressed.
            _ => {
                let noise = (0..400).map(|_| uuid::Uuid::new_v4().simple().to_string());
                bad.aggregate_id = noise.collect::<String>().into();
            }
        }
        bad
    };
    let is_bad = |n: &usize| [3, 7, 12, 13].contains(n);
    let appends = (0..30).map(|n| {
        process.journal.append(if is_bad(&n) { bad(n) } else { append(&format!("good{n}"), 0) })
    });
    for (n, verdict) in join_all(appends).await.into_iter().enumerate() {
        if is_bad(&n) {
            assert!(matches!(verdict, Err(AppendError::Unavailable(_))), "{n}: {verdict:?}");
        } else {
            assert!(verdict.is_ok(), "{n}: {verdict:?}");
        }
    }
    assert_eq!(process.journal.fault(), None, "what one append holds is no fault");
    assert_eq!(process.journal.head().await, Ok(26));
    assert_eq!(process.journal.read(0, 100).await.map(|events| events.len()), Ok(26));
    process.stop().await;
}

#[tokio::test]
async fn a_database_that_refuses_is_a_fault_until_it_takes_writes_again() {
    let scratch = ScratchDatabase::create().await;
    let process = Process::start(&scratch, PostgresOptions::default()).await;
    let journal = &process.journal;
    must(journal, append("a", 0)).await;
    assert_eq!(journal.fault(), None);
    process
        .sql(
            "create function refuse() returns trigger language plpgsql as \
             'begin raise exception ''no''; end'; \
             create trigger refuse before insert on events for each row execute function refuse()",
        )
        .await;
    let refused = journal.append(append("a", 1)).await;
    assert!(matches!(refused, Err(AppendError::Unavailable(_))), "{refused:?}");
    assert!(journal.fault().is_some());
    process.sql("drop trigger refuse on events").await;
    // Asking sets off a try, without any append.
    eventually("it is seen that writing works", async || journal.fault().is_none()).await;
    must(journal, append("a", 1)).await;
    process.stop().await;
}

/// A row that came past the head: each further append would be given its position.
#[tokio::test]
async fn a_position_that_is_taken_is_a_fault() {
    let scratch = ScratchDatabase::create().await;
    let process = Process::start(&scratch, PostgresOptions::default()).await;
    must(&process.journal, append("a", 0)).await;
    process
        .sql(
            "insert into events (position, sequence, aggregate_type, aggregate_id, event_type, \
             event_version, metadata, payload) values (2, 1, 't', 'x', 't', '1', '{}', '{}')",
        )
        .await;
    let refused = process.journal.append(append("a", 1)).await;
    assert!(matches!(refused, Err(AppendError::Unavailable(_))), "{refused:?}");
    assert!(process.journal.fault().is_some());
    let opened = PostgresJournal::open(&process.database, PostgresOptions::default()).await;
    assert!(matches!(opened, Err(DatabaseError::Damaged { .. })), "{opened:?}");
    process.stop().await;
}

#[tokio::test]
async fn a_missing_event_is_a_gap_and_never_skipped() {
    let scratch = ScratchDatabase::create().await;
    let process = Process::start(&scratch, tight()).await;
    for n in 0..6 {
        must(&process.journal, append("a", n)).await;
    }
    process.sql("delete from events where position = 3").await;
    let mut tail = process.journal.tail(0);
    assert_eq!(tail.next(10).await, Err(TailError::Gap { expected: 3, found: 4 }));
    assert_eq!(tail.position(), 0, "a failed read has moved the tail");
    assert!(matches!(process.journal.read(0, 10).await, Err(ReadError::Damaged(_))));
    assert!(matches!(process.journal.load("thing", "a", 0, 10).await, Err(ReadError::Damaged(_))));
    let opened = PostgresJournal::open(&process.database, PostgresOptions::default()).await;
    assert!(matches!(opened, Err(DatabaseError::Damaged { .. })), "{opened:?}");
    process.stop().await;
}

/// The follower, too, must not carry others over a gap.
#[tokio::test]
async fn a_gap_in_what_others_wrote_is_found() {
    let scratch = ScratchDatabase::create().await;
    let never = PostgresOptions { poll: Duration::from_secs(3_600), ..Default::default() };
    let writer = Process::start(&scratch, never.clone()).await;
    let reader = Process::start(&scratch, never).await;
    for n in 0..6 {
        must(&writer.journal, append("a", n)).await;
    }
    writer.sql("delete from events where position = 3").await;
    let mut tail = reader.journal.tail(0);
    assert_eq!(tail.next(10).await, Err(TailError::Gap { expected: 3, found: 4 }));
    assert_eq!(tail.next(2).await.map(|events| events.len()), Ok(2));
    assert_eq!(tail.next(2).await, Err(TailError::Gap { expected: 3, found: 4 }));
    writer.stop().await;
    reader.stop().await;
}

/// Whoever waits for an event that nobody can read is told so.
#[tokio::test]
async fn a_damaged_row_is_told() {
    let scratch = ScratchDatabase::create().await;
    let writer = Process::start(&scratch, PostgresOptions::default()).await;
    let often = PostgresOptions { poll: Duration::from_millis(5), ..Default::default() };
    let reader = Process::start(&scratch, often).await;
    let mut tail = reader.journal.tail(0);
    must(&writer.journal, append("a", 0)).await;
    assert_eq!(tail.next(10).await.map(|events| events.len()), Ok(1));
    writer
        .sql(
            "create function spoil() returns trigger language plpgsql as \
             'begin new.event_version = ''one''; return new; end'; \
             create trigger spoil before insert on events for each row execute function spoil()",
        )
        .await;
    must(&writer.journal, append("a", 1)).await;
    let damaged = tail.next(10).await;
    assert!(matches!(damaged, Err(TailError::Read(ReadError::Damaged(_)))), "{damaged:?}");
    writer.stop().await;
    reader.stop().await;
}

/// Pages from storage end at a number of bytes, and the tail goes on from there.
#[tokio::test]
async fn a_tail_reads_large_events_in_small_pages() {
    const EVENTS: u64 = 12;
    let scratch = ScratchDatabase::create().await;
    let process = Process::start(&scratch, tight()).await;
    for n in 0..EVENTS {
        let mut large = append("a", n);
        // Not to be compressed.
        let noise = (0..30_000).map(|_| uuid::Uuid::new_v4().simple().to_string());
        let payload = format!("\"{}\"", noise.collect::<String>());
        large.events[0].payload = Bytes::from(payload);
        must(&process.journal, large).await;
    }
    let mut tail = process.journal.tail(0);
    let (mut seen, mut most) = (0, 0);
    while seen < EVENTS {
        let events = tail.next(100).await.expect("the tail goes on");
        assert_eq!(events[0].position, seen + 1);
        seen += events.len() as u64;
        most = most.max(events.len());
    }
    assert!((2..=5).contains(&most), "{most} large events at once");
    process.stop().await;
}

#[tokio::test]
async fn answers_are_kept_for_a_day_and_then_forgotten() {
    let scratch = ScratchDatabase::create().await;
    let process = Process::start(&scratch, PostgresOptions::default()).await;
    let answers = "insert into inbox (key, fingerprint, position, answer, kept_at) \
         select 'ws/' || n, 'f', n, 'done', now() - case when n <= 2400 \
         then interval '25 hours 1 second' else interval '24 hours 59 minutes' end \
         from generate_series(1, 2500) n";
    process.sql(answers).await;
    process.journal.close().await;
    let again = Process::start(&scratch, PostgresOptions::default()).await;
    let kept = "select count(*) from inbox";
    eventually("old answers are forgotten", async || again.count(kept).await == 100).await;
    assert_eq!(again.journal.recall("ws/2400").await, Ok(None));
    let repeated = again.journal.append(with_key("ws/2401", append("a", 0))).await;
    assert!(matches!(repeated, Err(AppendError::Duplicate(_))), "{repeated:?}");
    again.stop().await;
}

#[tokio::test]
async fn what_is_queued_before_close_is_committed() {
    let scratch = ScratchDatabase::create().await;
    let process = Process::start(&scratch, PostgresOptions::default()).await;
    let appends = (0..200).map(|n| {
        let journal = Arc::clone(&process.journal);
        tokio::spawn(async move { journal.append(append(&format!("a{n}"), 0)).await })
    });
    let appends: Vec<_> = appends.collect();
    process.journal.close().await;
    let mut written = 0;
    for append in appends {
        match append.await.expect("the writer ran") {
            Ok(_) => written += 1,
            Err(error) => assert!(matches!(error, AppendError::Unavailable(_)), "{error}"),
        }
    }
    assert_eq!(process.journal.head().await, Ok(written));
    process.stop().await;
}
