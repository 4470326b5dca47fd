//! Several processes, and writers that know nothing of ours, on one journal.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use bytes::Bytes;
use chassis::journal::{AppendError, Journal, PostgresJournal, PostgresOptions, Recalled, Written};
use chassis::scratch::ScratchDatabase;
use chrono::DateTime;
use serde_json::{Value, json};
use sqlx::{PgConnection, PgPool};

use crate::{Process, append, eventually, must, with_key};

/// As postgres-es 0.5.0 inserts an event.
const FOREIGN: &str = "INSERT INTO events (aggregate_type, aggregate_id, sequence, event_type, \
     event_version, payload, metadata) VALUES ($1, $2, $3, $4, $5, $6, $7)";

async fn insert(
    connection: &mut PgConnection,
    id: &str,
    sequence: i32,
    metadata: Value,
) -> Result<(), sqlx::Error> {
    sqlx::query(FOREIGN)
        .bind("resource")
        .bind(id)
        .bind(sequence)
        .bind("resource.changed")
        .bind("1")
        .bind(json!({"b": [1, null], "a": "é"}))
        .bind(metadata)
        .execute(connection)
        .await?;
    Ok(())
}

fn below(state: &mut u64, end: u64) -> u64 {
    *state ^= *state << 13;
    *state ^= *state >> 7;
    *state ^= *state << 17;
    *state % end
}

/// Appends to aggregates that all share, learns the sequence from conflicts, and now and then walks
/// away from an append. Answers the ids of events that were acknowledged.
async fn write(journal: Arc<PostgresJournal>, seed: u64) -> HashSet<uuid::Uuid> {
    let mut choices = seed;
    let mut written = HashSet::new();
    for _ in 0..40 {
        let id = format!("shared{}", below(&mut choices, 6));
        let newest = journal.load("thing", &id, 0, usize::MAX).await.expect("it can be loaded");
        let mut next = append(&id, newest.last().map_or(0, |event| event.sequence));
        let more = next.events[0].clone();
        next.events.extend((0..below(&mut choices, 3)).map(|_| {
            let id = uuid::Uuid::now_v7();
            chassis::journal::NewEvent { id, ..more.clone() }
        }));
        let ids: Vec<_> = next.events.iter().map(|event| event.id).collect();
        if below(&mut choices, 8) == 0 {
            let journal = Arc::clone(&journal);
            let dropped = tokio::spawn(async move { journal.append(next).await });
            tokio::task::yield_now().await;
            dropped.abort();
            continue;
        }
        match journal.append(next).await {
            Ok(_) => written.extend(ids),
            Err(AppendError::Conflict { .. }) => {}
            Err(error) => panic!("{error}"),
        }
    }
    written
}

/// Transactions of one to three statements, half of which are given up. Answers how many rows stay.
async fn write_foreign(pool: PgPool, name: String, until: Arc<AtomicBool>) -> i32 {
    let mut choices = 7;
    let mut sequence = 0;
    while !until.load(Ordering::Relaxed) {
        let mut transaction = pool.begin().await.expect("a transaction begins");
        let rows = 1 + i32::try_from(below(&mut choices, 3)).expect("it is small");
        for row in 1..=rows {
            let inserted = insert(&mut transaction, &name, sequence + row, json!({})).await;
            inserted.expect("the row is right");
        }
        if below(&mut choices, 2) == 0 {
            transaction.rollback().await.expect("it can be given up");
        } else {
            transaction.commit().await.expect("it can be committed");
            sequence += rows;
        }
    }
    sequence
}

async fn follow(journal: Arc<PostgresJournal>) -> Vec<(u64, uuid::Uuid)> {
    let mut tail = journal.tail(0);
    let mut seen = Vec::new();
    loop {
        let events = tail.next(100).await.expect("the tail goes on");
        seen.extend(events.iter().map(|event| (event.position, event.id)));
        if events.iter().any(|event| &*event.aggregate_id == "last") {
            return seen;
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn all_writers_share_one_order_and_every_tail_sees_it() {
    let scratch = ScratchDatabase::create().await;
    let options = PostgresOptions { poll: Duration::from_millis(5), ..Default::default() };
    let one = Process::start(&scratch, options.clone()).await;
    let two = Process::start(&scratch, options).await;
    let tails = [&one, &one, &two].map(|process| tokio::spawn(follow(process.journal.clone())));
    let until = Arc::new(AtomicBool::new(false));
    let foreign = [&one, &two].map(|process| {
        let name = format!("foreign {}", Arc::as_ptr(&process.journal).addr());
        tokio::spawn(write_foreign(process.database.pool().clone(), name, Arc::clone(&until)))
    });
    let writers: Vec<_> = (1..=16)
        .map(|seed| {
            let process = if seed % 2 == 0 { &one } else { &two };
            tokio::spawn(write(process.journal.clone(), seed))
        })
        .collect();
    let mut written = HashSet::new();
    for writer in writers {
        written.extend(writer.await.expect("the writer ran"));
    }
    until.store(true, Ordering::Relaxed);
    let mut rows = 0;
    for writer in foreign {
        rows += writer.await.expect("the foreign writer ran");
    }
    assert!(rows > 0 && written.len() > 100, "{rows} rows, {} events", written.len());
    let last = must(&one.journal, append("last", 0)).await.last_position;
    for tail in tails {
        let seen = tail.await.expect("the reader ran");
        let positions: Vec<u64> = seen.iter().map(|(position, _)| *position).collect();
        assert_eq!(positions, (1..=last).collect::<Vec<_>>());
        let ids: HashSet<_> = seen.iter().map(|(_, id)| *id).collect();
        assert_eq!(ids.len() as u64, last, "an event came twice");
        assert!(ids.is_superset(&written), "an acknowledged event is missing");
    }
    let mut sequences: HashMap<Arc<str>, u64> = HashMap::new();
    for event in two.journal.read(0, usize::MAX).await.expect("the journal can be read") {
        let sequence = sequences.entry(event.aggregate_id).or_default();
        assert_eq!(event.sequence, *sequence + 1);
        *sequence = event.sequence;
    }
    assert_eq!((one.journal.head().await, two.journal.head().await), (Ok(last), Ok(last)));
    one.stop().await;
    two.stop().await;
}

#[tokio::test]
async fn a_foreign_event_brings_its_columns_and_its_answer_in_its_metadata() {
    let scratch = ScratchDatabase::create().await;
    let process = Process::start(&scratch, PostgresOptions::default()).await;
    let mut tail = process.journal.tail(0);
    must(&process.journal, append("a", 0)).await;
    let id = uuid::Uuid::now_v7();
    let metadata = json!({
        "event_id": id, "recorded_at": "2026-03-01T10:00:00.123456+02:00", "workspace_id": "ws_9",
        "inbox_key": "ws_9/k", "inbox_fingerprint": "f", "inbox_answer": "{\"done\":1}",
        "trace": "t", "actor": "somebody\n", "é": {"b": 1},
    });
    let mut transaction = process.database.pool().begin().await.expect("a transaction begins");
    for sequence in [1, 2] {
        let inserted = insert(&mut transaction, "r", sequence, metadata.clone()).await;
        inserted.expect("the row is right");
    }
    transaction.commit().await.expect("it can be committed");

    let mut seen = Vec::new();
    while seen.len() < 3 {
        seen.extend(tail.next(10).await.expect("the tail goes on"));
    }
    let event = &seen[1];
    assert_eq!((event.position, event.sequence, event.id), (2, 1, id));
    assert_eq!((&*event.aggregate_type, &*event.workspace_id), ("resource", "ws_9"));
    let recorded_at = DateTime::parse_from_rfc3339("2026-03-01T08:00:00.123456Z");
    assert_eq!(event.recorded_at, recorded_at.expect("a valid time"));
    let rest: &[u8] = "{\"actor\":\"somebody\\n\",\"trace\":\"t\",\"é\":{\"b\": 1}}".as_bytes();
    assert_eq!(&event.metadata[..], rest);
    let payload: Value = serde_json::from_slice(&event.payload).expect("it is JSON");
    assert_eq!(payload, json!({"a": "é", "b": [1, null]}));
    let answer = Bytes::from_static(b"{\"done\":1}");
    let stored = Recalled { fingerprint: "f".into(), answer, position: 3 };
    assert_eq!(process.journal.recall("ws_9/k").await, Ok(Some(stored.clone())));
    let again = process.journal.append(with_key("ws_9/k", append("b", 0))).await;
    assert_eq!(again, Err(AppendError::Duplicate(stored)));
    process.stop().await;
}

#[tokio::test]
async fn a_foreign_event_without_metadata_gets_what_it_needs() {
    let scratch = ScratchDatabase::create().await;
    let process = Process::start(&scratch, PostgresOptions::default()).await;
    let mut connection = process.database.pool().acquire().await.expect("there is a connection");
    for sequence in [1, 2] {
        let inserted = insert(&mut connection, "r", sequence, json!({"actor": "a"})).await;
        inserted.expect("the row is right");
    }
    drop(connection);
    let events = process.journal.load("resource", "r", 0, 10).await.expect("it can be loaded");
    assert_eq!(events.len(), 2);
    assert_ne!(events[0].id, events[1].id);
    assert_eq!(
        (&*events[0].workspace_id, &events[0].metadata[..]),
        ("", &b"{\"actor\": \"a\"}"[..])
    );
    let age = chrono::Utc::now() - events[0].recorded_at;
    assert!(age.num_minutes().abs() < 5, "{age}");
    process.stop().await;
}

#[tokio::test]
async fn a_foreign_command_that_was_done_before_fails_whole() {
    let scratch = ScratchDatabase::create().await;
    let process = Process::start(&scratch, PostgresOptions::default()).await;
    must(&process.journal, with_key("ws/k", append("a", 0))).await;
    let mut transaction = process.database.pool().begin().await.expect("a transaction begins");
    let first = insert(&mut transaction, "r", 1, json!({})).await;
    first.expect("the row is right");
    let repeated = insert(&mut transaction, "r", 2, json!({"inbox_key": "ws/k"})).await;
    let repeated = repeated.expect_err("the key is in the inbox");
    let error = repeated.as_database_error().expect("the database says so");
    assert!(error.is_unique_violation());
    assert_eq!(error.constraint(), Some("inbox_pkey"));
    transaction.rollback().await.expect("it can be given up");
    let next = must(&process.journal, append("a", 1)).await;
    assert_eq!(next.first_position, 2, "a refused transaction has taken a position");
    process.stop().await;
}

#[tokio::test]
async fn an_append_under_an_old_epoch_is_refused() {
    let scratch = ScratchDatabase::create().await;
    let process = Process::start(&scratch, PostgresOptions::default()).await;
    let under = |id: &str, expected: u64, epoch: u64| {
        let mut append = with_key(&format!("ws/{id}/{expected}/{epoch}"), append(id, expected));
        (append.shard, append.epoch) = (5, Some(epoch));
        process.journal.append(append)
    };
    assert_eq!(under("a", 0, 1).await, Err(AppendError::Fenced { shard: 5 }), "nobody owns it");
    process.sql("insert into shards (shard, epoch) values (5, 1), (6, 9)").await;
    assert!(under("a", 0, 1).await.is_ok());
    // Somebody takes the shard over while the old owner's append waits for the head.
    let mut takeover = process.database.pool().begin().await.expect("a transaction begins");
    for sql in [
        "select from journal_head where id = 1 for update",
        "update shards set epoch = 2 where shard = 5",
    ] {
        sqlx::query(sql).execute(&mut *takeover).await.expect("the statement runs");
    }
    let waits = "select count(*) from pg_stat_activity \
         where wait_event_type = 'Lock' and query like '%append_events%'";
    let committed = async {
        eventually("the append waits", async || process.count(waits).await > 0).await;
        takeover.commit().await.expect("it can be committed");
    };
    let (old, ()) = tokio::join!(under("a", 1, 1), committed);
    assert_eq!(old, Err(AppendError::Fenced { shard: 5 }));
    let (old, new) = tokio::join!(under("b", 0, 1), under("a", 1, 2));
    assert_eq!(old, Err(AppendError::Fenced { shard: 5 }));
    assert_eq!(new.expect("the new owner writes").first_position, 2);
    assert_eq!(process.journal.recall("ws/b/0/1").await, Ok(None));
    process.stop().await;
}

#[tokio::test]
async fn what_others_write_is_found_without_the_events_of_runs() {
    let scratch = ScratchDatabase::create().await;
    let process = Process::start(&scratch, PostgresOptions::default()).await;
    let of = |kind: &str, id: &str| {
        let mut append = append(id, 0);
        append.aggregate_type = kind.into();
        append
    };
    for (kind, id) in [("run", "1"), ("definition", "d"), ("run", "2"), ("project", "p")] {
        must(&process.journal, of(kind, id)).await;
    }
    let written = |position: u64, kind: &str, id: &str| Written {
        position,
        aggregate_type: kind.into(),
        aggregate_id: id.into(),
    };
    let elsewhere =
        |after: u64, without: &'static str| process.journal.written_elsewhere(after, without);
    let both = vec![written(2, "definition", "d"), written(4, "project", "p")];
    assert_eq!(elsewhere(0, "run").await, Ok(both));
    assert_eq!(elsewhere(2, "run").await, Ok(vec![written(4, "project", "p")]));
    assert_eq!(elsewhere(4, "run").await, Ok(Vec::new()));
    let others = vec![written(3, "run", "2"), written(4, "project", "p")];
    assert_eq!(elsewhere(2, "definition").await, Ok(others));
    process.stop().await;
}

/// By the word of somebody who knows, or by looking regularly.
#[tokio::test]
async fn a_tail_learns_of_other_processes_events() {
    let scratch = ScratchDatabase::create().await;
    let never = PostgresOptions { poll: Duration::from_secs(3_600), ..Default::default() };
    let often = PostgresOptions { poll: Duration::from_millis(5), ..Default::default() };
    let writer = Process::start(&scratch, never.clone()).await;
    let told = Process::start(&scratch, never).await;
    let polling = Process::start(&scratch, often).await;
    let mut committed = writer.journal.committed();
    assert_eq!(*committed.borrow_and_update(), 0);
    let (mut first, mut second) = (told.journal.tail(0), polling.journal.tail(0));
    for position in 1..=3 {
        must(&writer.journal, append("a", position - 1)).await;
        committed.changed().await.expect("the journal is open");
        told.journal.hear(*committed.borrow_and_update());
        for tail in [&mut first, &mut second] {
            let events = tail.next(10).await.expect("the tail goes on");
            assert_eq!(events.iter().map(|event| event.position).collect::<Vec<_>>(), [position]);
        }
    }
    writer.stop().await;
    assert!(committed.changed().await.is_err(), "the end of the journal isn't told");
    told.stop().await;
    polling.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_open_before_leans_on_what_its_first_event_says() {
    const MIGRATION: &str = include_str!("../../../migrations/postgres/0029_leaning.sql");
    let scratch = ScratchDatabase::create().await;
    let process = Process::start(&scratch, PostgresOptions::default()).await;
    let theirs = r#""input":{"forked_from":{"run_id":"run_wrong"},"t":"\u0000"},"run_id":"run_a"}"#;
    let from = r#""forked_from":{"at":"2026-01-01T00:00:00Z","run_id":"run_a","sequence":2},"#;
    for (kind, id, payload) in [
        ("run", "run_fork", format!(r#"{{"definition":{{"name":"t"}},{from}{theirs}"#)),
        ("run", "run_plain", format!(r#"{{"definition":{{"name":"t"}},{theirs}"#)),
        ("hold", "run_fork", r#"{"reason":"case 1"}"#.to_owned()),
        ("hold", "run_plain", r#"{"reason":"case 2"}"#.to_owned()),
    ] {
        let mut open = append(id, 0);
        (open.open, open.shard, open.aggregate_type) = (Some(true), 3, kind.into());
        open.events[0].payload = payload.into();
        must(&process.journal, open).await;
    }
    let (_, fill) = MIGRATION.split_once("update open_aggregates").expect("it fills the column");
    process.sql(&format!("update open_aggregates {fill}")).await;
    let leaning =
        async |kind, on| process.journal.leaning(kind, on, "", 9).await.expect("it is read");
    assert_eq!(leaning("run", "run_a").await, ["run_fork".into()]);
    assert_eq!(leaning("hold", "run_a").await, ["run_fork".into()]);
    assert_eq!(leaning("run", "run_wrong").await, [""; 0].map(Arc::from));
    process.stop().await;
}
